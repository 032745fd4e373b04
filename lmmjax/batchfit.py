"""`BatchFit`: one model fitted to many responses."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pandas as pd
from scipy.special import ndtr

from lmmjax import varcomp
from lmmjax.estimate import Estimate
from lmmjax.optimize import Status
from lmmjax.results import Fit

if TYPE_CHECKING:
    from lmmjax.model import Model


class BatchFit:
    """Results of `Model.fit_batch`, indexed by response.

    Attributes
    ----------
    names : labels of the T responses.
    estimate : record of arrays that lead with T.
    """

    def __init__(self, model: Model, names: pd.Index, y: np.ndarray, estimate: Estimate, reml: bool):
        self.model, self.names, self.estimate, self.reml = model, names, estimate, reml
        self._y = y
        failed = int(np.sum(~self.converged.to_numpy()))
        if failed:
            warnings.warn(
                f"{failed} of {len(names)} responses could not be fitted; see `.status` of the result",
                stacklevel=3,
            )

    def _series(self, values: Any, name: str) -> pd.Series:
        return pd.Series(values, index=self.names, name=name)

    def _frame(self, values: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame(values, index=self.names, columns=list(self.model.frame.x_names))

    @property
    def params(self) -> pd.DataFrame:
        """Fixed effects, responses × coefficients."""
        return self._frame(self.estimate.beta)

    @property
    def bse(self) -> pd.DataFrame:
        """Their standard errors."""
        return self._frame(np.sqrt(np.diagonal(self.estimate.cov_beta, axis1=1, axis2=2)))

    @property
    def tvalues(self) -> pd.DataFrame:
        """Estimate over standard error."""
        return self.params / self.bse

    @property
    def pvalues(self) -> pd.DataFrame:
        """Two-sided normal p-values."""
        return self._frame(2.0 * ndtr(-np.abs(self.tvalues.to_numpy())))

    @property
    def varcorr(self) -> pd.DataFrame:
        """Variances and covariances, responses × components named (group, term1, term2); last Residual."""
        columns = pd.MultiIndex.from_tuples(
            [(c.group, c.term1 or "", c.term2 or "") for c in self.model.components],
            names=["group", "term1", "term2"],
        )
        return pd.DataFrame(self.estimate.psi, index=self.names, columns=columns)

    @property
    def varcorr_se(self) -> pd.DataFrame:
        """Standard errors of `varcorr`; missing on a boundary."""
        with np.errstate(invalid="ignore"):
            se = np.sqrt(np.diagonal(self.estimate.cov_psi, axis1=1, axis2=2))
        return pd.DataFrame(se, index=self.names, columns=self.varcorr.columns)

    @property
    def deviance(self) -> np.ndarray:
        """(T,) the minimised criterion."""
        return np.asarray(self.estimate.deviance)

    @property
    def llf(self) -> pd.Series:
        """(Restricted) log-likelihood of each response."""
        return self._series(-0.5 * self.deviance, "llf")

    @property
    def sigma(self) -> pd.Series:
        """Residual standard deviations."""
        return self._series(np.sqrt(self.estimate.sigma2), "sigma")

    @property
    def converged(self) -> pd.Series:
        """Whether each fit is certified."""
        return self._series(np.asarray(self.estimate.status) == Status.CONVERGED, "converged")

    @property
    def is_singular(self) -> pd.Series:
        """A variance is estimated as 0 or a correlation as ±1."""
        return self._series(np.asarray(self.estimate.singular), "is_singular")

    @property
    def status(self) -> pd.Series:
        """How each fit ended: the name of its `Status`."""
        return self._series([Status(int(s)).name.lower() for s in self.estimate.status], "status")

    def tidy(self) -> pd.DataFrame:
        """Long frame: response, effect, group, term, estimate, se, t, p; sds and correlations."""
        t, p = len(self.names), len(self.model.frame.x_names)
        fixed = pd.DataFrame(
            {
                "response": np.repeat(self.names.to_numpy(), p),
                "effect": "fixed",
                "term": np.tile(np.array(self.model.frame.x_names, dtype=object), t),
                "estimate": self.params.to_numpy().ravel(),
                "se": self.bse.to_numpy().ravel(),
                "t": self.tvalues.to_numpy().ravel(),
                "p": self.pvalues.to_numpy().ravel(),
            }
        )
        rows = self.model.components
        values, se = self._sd_scale()
        random = pd.DataFrame(
            {
                "response": np.repeat(self.names.to_numpy(), len(rows)),
                "effect": "random",
                "group": np.tile(np.array([row.group for row in rows], dtype=object), t),
                "term": np.tile(np.array([n.split("|")[0] for n in varcomp.names(rows)], dtype=object), t),
                "estimate": values.ravel(),
                "se": se.ravel(),
            }
        )
        columns = ["response", "effect", "group", "term", "estimate", "se", "t", "p"]
        return pd.concat([fixed, random], ignore_index=True).reindex(columns=columns)

    def _sd_scale(self) -> tuple[np.ndarray, np.ndarray]:
        """Standard deviations and correlations (T, m + 1) and their standard errors."""
        rows = self.model.components
        values = np.empty_like(self.estimate.psi)
        se = np.empty_like(self.estimate.psi)
        for k, (psi, cov) in enumerate(zip(self.estimate.psi, self.estimate.cov_psi, strict=True)):
            values[k], jacobian = varcomp.sd_scale(psi, rows)
            se[k] = varcomp.delta_se(jacobian, cov)
        return values, se

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, response: Any) -> Fit:
        """The full `Fit` of one response, by its label, without refitting."""
        if response not in self.names:
            raise KeyError(f"no response {response!r} in this batch")
        k = int(np.flatnonzero(self.names == response)[0])
        one = jax.tree.map(lambda a: a[k], self.estimate)
        return Fit(self.model, self._y[:, k], one, self.reml, str(response))

    def __repr__(self) -> str:
        good = int(self.converged.sum())
        return f"BatchFit({self.model.formula!r}, {len(self)} responses, {good} converged)"

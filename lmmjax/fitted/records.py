"""Fits as records of data, of one response and of many."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np
import pandas as pd

from lmmjax.arrays.device_columns import DeviceColumns
from lmmjax.arrays.sparse_columns import HostColumns
from lmmjax.core import Estimate
from lmmjax.fitted.data import ModelData
from lmmjax.optimize import Status


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """A model fitted to one response.

    Attributes
    ----------
    data : the model with its data.
    y : (n,) the response; response : its name.
    estimate : the record of arrays that `lmmjax.estimate` returned.
    reml : whether the criterion was REML.
    cache : values of functions that are `kept` with the fit.
    """

    data: ModelData
    y: np.ndarray
    estimate: Estimate
    reml: bool
    response: str | None = None
    cache: dict[Any, Any] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def deviance(self) -> float:
        """The minimised criterion: REML criterion, or −2 log-likelihood under ML."""
        return float(self.estimate.deviance)

    @property
    def llf(self) -> float:
        """(Restricted) log-likelihood."""
        return -0.5 * self.deviance

    @property
    def nobs(self) -> int:
        """Number of observations used."""
        return self.data.design.observations

    @property
    def n_params(self) -> int:
        """Fixed effects, covariance parameters and, unless it is known, σ²: as many as the data identify."""
        design = self.data.design
        known, short = design.known is not None, int(self.estimate.n_unidentified)
        return design.p + design.structure.n_params + 1 - known - short

    @property
    def aic(self) -> float:
        """Akaike's criterion, on the criterion that was fitted, as lme4 does."""
        return self.deviance + 2.0 * self.n_params

    @property
    def bic(self) -> float:
        """Bayesian information criterion with log(n), as lme4 does."""
        return self.deviance + np.log(self.nobs) * self.n_params

    @property
    def aicc(self) -> float:
        """AIC with the small-sample correction of Hurvich & Tsai (1989, doi:10.1093/biomet/76.2.297)."""
        k = self.n_params
        left = self.nobs - k - 1
        return self.aic + 2.0 * k * (k + 1) / left if left > 0 else np.inf

    @property
    def status(self) -> str:
        """How the optimisation ended, and what to do about it."""
        return Status(int(self.estimate.status)).advice

    @property
    def converged(self) -> bool:
        """Gradient and Newton decrement are below tolerance at the reported point."""
        return int(self.estimate.status) == Status.CONVERGED

    def __repr__(self) -> str:
        kind = "REML" if self.reml else "ML"
        return f"Fitted({self.data.formula!r}, {kind}, deviance={self.deviance:.6g})"

    def __call__(self, *args: Any, **options: Any) -> None:
        """Refused: R's `fitted(m)` are the attribute `fittedvalues` of a fit."""
        raise TypeError("fitted is the record of the fit, no function: fitted values are fit.fittedvalues")

    @property
    def population(self) -> np.ndarray:
        """Xβ̂ + offset (n,)."""
        frame = self.data.frame
        return frame.x @ self.estimate.beta + (0.0 if frame.offset is None else frame.offset)


class _OnHost:
    """A field whose values come to the host when somebody first asks for them."""

    def __get__(self, fits: Any, kind: Any = None) -> Any:
        if fits is None:
            return self
        if isinstance(value := fits.__dict__["y"], DeviceColumns):
            value = fits.__dict__["y"] = np.asarray(value)
        return value

    def __set__(self, fits: Any, value: Any) -> None:
        fits.__dict__["y"] = value


@dataclasses.dataclass(frozen=True, eq=False)
class FittedMany:
    """A model fitted to T responses.

    Attributes
    ----------
    data : the model with its data.
    names : labels of the responses.
    y : (n, T) the responses, NaN where missing, `SparseColumns` if they were sparse, on the host once they
        are asked for; weights : (n, T) of their own, or None.
    estimate : record of arrays that lead with T.
    reml : whether the criterion was REML.
    reasons : (T,) texts, why a response has no estimates or not all.
    n_optima : (T,) how many different optima its descents ended at; n_starts : (T,) how many they were.
    cache : values of functions that are `kept` with the fits.
    """

    data: ModelData
    names: pd.Index
    y: HostColumns
    estimate: Estimate
    reml: bool
    reasons: np.ndarray
    n_optima: np.ndarray
    weights: np.ndarray | None = None
    n_starts: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, int))
    cache: dict[Any, Any] = dataclasses.field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        return f"FittedMany({self.data.formula!r}, {len(self.names)} responses)"

    @property
    def columns(self) -> Any:
        """The responses (n, T) where they are, on a device if nobody has asked for `y`."""
        return self.__dict__["y"]

    def __call__(self, *args: Any, **options: Any) -> None:
        """Refused: fitted values of many responses are `BatchFit.predict()`."""
        raise TypeError("fitted is the record of the fits, no function: fitted values are fits.predict()")

    @property
    def kept(self) -> np.ndarray:
        """(T, p) which fixed effects each response determines; those of responses without a fit count."""
        beta = self.estimate.beta
        return ~np.isnan(beta) | np.isnan(beta).all(axis=1, keepdims=True)

    @property
    def converged(self) -> np.ndarray:
        """(T,) whether each fit is certified."""
        return np.asarray(self.estimate.status) == Status.CONVERGED

    @property
    def status(self) -> list[str]:
        """How each fit ended: the name of its `Status`."""
        return [Status(int(s)).name.lower() for s in self.estimate.status]

    @property
    def bse(self) -> np.ndarray:
        """(T, p) standard errors of the fixed effects."""
        return np.sqrt(np.diagonal(self.estimate.cov_beta, axis1=1, axis2=2))


FittedMany.y = _OnHost()  # type: ignore[assignment]


class ModelView(Protocol):
    """What a fit keeps as its model, for those who hold the fit.

    Attributes
    ----------
    data : the model with its data.
    """

    data: ModelData

    def update(self, formula: str | None = None, **changes: Any) -> Any:
        """The model with another formula, or on other data."""
        ...

    def _wrap(self, fitted: Fitted) -> Any:
        """A fit of this model, or of the same on other rows, as users hold it."""
        ...

"""A fit as a column of a table of the package maketables, which reads attributes of these names.

Nothing is imported for it. Source: the plug-in format, py-econometrics.github.io/maketables.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.fitted import Fitted, component_names, identified_sds
from lmmjax.inference.delta import t_quantile
from lmmjax.postestimation.hypotheses.fixed_tests import coef_table
from lmmjax.reports.group_counts import group_counts

LEVELS = {"95": 0.95, "90": 0.90}

LABELS = {
    "N": "Observations",
    "ll": "Log-likelihood",
    "aic": "AIC",
    "bic": "BIC",
    "groups": "Groups",
    "random": "Random effects",
    "method": "Method",
    "ddf": "Degrees of freedom",
    "se_type": "S.E. type",
}


@dataclasses.dataclass(frozen=True, eq=False)
class TableColumn:
    """A fit with the tests that are shown of it; made by `Fit.to_maketables`."""

    fitted: Fitted
    ddf: str
    robust: str | None
    cluster: Any

    @property
    def __maketables_coef_table__(self) -> pd.DataFrame:
        """Columns b, se, t, df, p, ci95l, ci95u, ci90l, ci90u, a row a coefficient."""
        table = coef_table(self.fitted, self.ddf, self.robust, self.cluster)
        out = table.rename(columns={"estimate": "b"}).rename_axis("Coefficient")
        for name, level in LEVELS.items():
            half = t_quantile(table["df"].to_numpy(), level) * table["se"]
            out[f"ci{name}l"], out[f"ci{name}u"] = out["b"] - half, out["b"] + half
        return out

    @property
    def __maketables_depvar__(self) -> str:
        return self.fitted.response or "y"

    @property
    def __maketables_fixef_string__(self) -> None:
        """Nothing is absorbed."""

    @property
    def __maketables_vcov_info__(self) -> dict[str, Any]:
        return {"vcov_type": self.robust or "model", "clustervar": self._cluster}

    @property
    def __maketables_stat_labels__(self) -> dict[str, str]:
        return LABELS | {name: name for name in self._components}

    @property
    def __maketables_default_stat_keys__(self) -> list[str]:
        """Standard deviations and correlations, then the size of the data and the criterion."""
        return [*self._components, "N", "groups", "ll", "aic"]

    def __maketables_stat__(self, key: str) -> Any:
        """A number or a text by its key, None for one that a mixed model does not have."""
        fitted, table = self.fitted, self._components
        if key in table:
            return table[key]
        frame = fitted.data.frame
        return {
            "N": fitted.nobs,
            "ll": fitted.llf,
            "aic": fitted.aic,
            "bic": fitted.bic,
            "deviance": fitted.deviance,
            "groups": ", ".join(f"{count:,} {name}" for name, count in group_counts(frame).items()) or None,
            "random": " + ".join(f"({t.text})" for t in frame.random) or None,
            "method": "REML" if fitted.reml else "ML",
            "ddf": coef_table(fitted, self.ddf, self.robust, self.cluster).attrs["ddf"],
            "se_type": f"{self.robust}, by: {self._cluster}" if self.robust else "model",
        }.get(key)

    @property
    def _cluster(self) -> str | None:
        if self.robust is None:
            return None
        return coef_table(self.fitted, self.ddf, self.robust, self.cluster).attrs["cluster"]

    @property
    def _components(self) -> dict[str, float]:
        """Standard deviations, correlations and residual parameters by the names of `conf_int`."""
        fitted, rows = self.fitted, self.fitted.data.components
        values = identified_sds(fitted.data.design.structure, rows, fitted.estimate)
        names = component_names(rows)
        return {name: float(v) for name, v in zip(names, np.asarray(values), strict=True)}

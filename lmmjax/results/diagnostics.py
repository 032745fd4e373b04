"""Methods of `Fit` that look at its rows and groups: leverage, residuals, influence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from lmmjax.fitted import Fitted
from lmmjax.reports.table import prints_whole

# what few fits are asked for is imported when it is
if TYPE_CHECKING:
    from lmmjax.postestimation.influence import Influence


@prints_whole
class Diagnostics:
    """Leverage, residuals and influence of rows and groups."""

    fitted: Fitted

    def hat(self, part: str = "conditional", group: str | None = None) -> pd.Series | pd.DataFrame:
        """Leverages (n,): ∂ŷᵢ/∂yᵢ with the variance parameters held.

        Parameters
        ----------
        part : "conditional", of the fitted values Xβ̂ + Zb̂, is the default as in lme4's `hatvalues`: it is
            what belongs to `resid`, at most 1, and sums to the effective number of parameters of Hodges &
            Sargent. "fixed", of Xβ̂, the diagonal of XΦXᵀV⁻¹, sums to p and says which rows settle the fixed
            effects. "random", of Zb̂, is the rest.
        group : a grouping factor: a frame by level, columns n, total and mean over its rows.

        Source: Demidenko & Stukel (2005), doi:10.1002/sim.1974; Hodges & Sargent (2001),
        doi:10.1093/biomet/88.2.367.
        """
        from lmmjax.postestimation.leverage import hat

        return hat(self.fitted, part, group)

    def residuals(self, kind: str = "conditional") -> pd.Series:
        """Residuals (n,) of a kind.

        Parameters
        ----------
        kind : "conditional", y − Xβ̂ − Zb̂ (`resid`); "marginal", y − Xβ̂, both in the units of y.
            "pearson" (`scaled_resid`), conditional over the standard deviation of the error; "normalized"
            (`normalized_resid`), also without the correlation of the errors. "studentized", conditional over
            its own standard deviation, the diagonal of RPR; "studentized-marginal", marginal likewise, that
            of V − XΦXᵀ. "deleted", what the row is off the prediction from all others, over its standard
            deviation with σ estimated without the row: t distributed but for the uncertainty of the variance
            ratios, and so made to look for outliers.

        Source: Nobre & Singer (2007), doi:10.1002/bimj.200610341; Haslett & Haslett (2007),
        doi:10.1111/j.1751-5823.2006.00001.x.
        """
        from lmmjax.postestimation.leverage import residuals_of

        return pd.Series(residuals_of(self.fitted, kind), index=self.fitted.data.frame.index, name=kind)

    def influence(self, group: str | None = None, *, refit: bool = True) -> Influence:
        """What every level of a grouping factor, or every row, does to the estimates.

        Parameters
        ----------
        group : None the only factor, a factor of the random effects or of the residual structure,
            "observation" the rows.
        refit : True fits the model without each level, False holds its variance parameters: one step.
        """
        from lmmjax.postestimation.influence import influence

        return influence(self.fitted, group, refit)

    def cooks_distance(self, group: str | None = None, *, refit: bool = True) -> pd.Series:
        """Cook's distance of every level: (β̂ − β̂₍ᵢ₎)ᵀΦ⁻¹(β̂ − β̂₍ᵢ₎)/p; arguments as of `influence`.

        lme4's `cooks.distance` of rows is another, of the conditional fit with its leverages.
        """
        return self._influence(group, refit).cooks_distance

    def dfbetas(self, group: str | None = None, *, refit: bool = True) -> pd.DataFrame:
        """DFBETAS of every level: (β̂ − β̂₍ᵢ₎)/se(β̂₍ᵢ₎); arguments as of `influence`."""
        return self._influence(group, refit).dfbetas

    def mdffits(self, group: str | None = None, *, refit: bool = True) -> pd.Series:
        """Cook's distance in the metric of the fit without the level; arguments as of `influence`."""
        return self._influence(group, refit).mdffits

    def covratio(self, group: str | None = None, *, refit: bool = True) -> pd.Series:
        """|Φ₍ᵢ₎|/|Φ|, above 1 where the level adds precision; arguments as of `influence`."""
        return self._influence(group, refit).covratio

    def covtrace(self, group: str | None = None, *, refit: bool = True) -> pd.Series:
        """|tr(Φ⁻¹Φ₍ᵢ₎) − p|, 0 where the level leaves precision as it is; arguments as of `influence`."""
        return self._influence(group, refit).covtrace

    def _influence(self, group: str | None, refit: bool) -> Influence:
        from lmmjax.postestimation.influence import influence_kept

        return influence_kept(self.fitted, group, refit)

"""Methods of `Fit` that look at its rows and groups: leverage, residuals, influence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from lmmjax.fitted import Fitted
from lmmjax.results.native_rows import native_rows

# what few fits are asked for is imported when it is
if TYPE_CHECKING:
    from lmmjax.postestimation.diagnostics.checks import Check
    from lmmjax.postestimation.diagnostics.influence import Influence


class Diagnostics:
    """Leverage, residuals and influence of rows and groups."""

    fitted: Fitted

    @native_rows
    def hat(self, part: str = "conditional", group: str | None = None) -> pd.Series | pd.DataFrame:
        """Leverages (n,): ∂ŷᵢ/∂yᵢ with the variance parameters held.

        Parameters
        ----------
        part : "conditional", of the fitted values Xβ̂ + Zb̂, is the default as in lme4's `hatvalues`: it is
            what belongs to `resid`, at most 1, and sums to the effective number of parameters of Hodges &
            Sargent. "fixed", of Xβ̂, the diagonal of XΦXᵀV⁻¹, sums to p and says which rows settle the fixed
            effects. "random", of Zb̂, is the rest.
        group : a grouping factor: a frame by level, columns n, total and mean over its rows.

        Raises
        ------
        ValueError : an unknown part or grouping factor.

        Source: Demidenko & Stukel (2005), doi:10.1002/sim.1974; Hodges & Sargent (2001),
        doi:10.1093/biomet/88.2.367.
        """
        from lmmjax.postestimation.diagnostics.leverage import hat

        return hat(self.fitted, part, group)

    @native_rows
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

        Raises
        ------
        ValueError : an unknown kind.

        Source: Nobre & Singer (2007), doi:10.1002/bimj.200610341; Haslett & Haslett (2007),
        doi:10.1111/j.1751-5823.2006.00001.x.
        """
        from lmmjax.postestimation.diagnostics.leverage import residuals_of

        return pd.Series(residuals_of(self.fitted, kind), index=self.fitted.data.frame.index, name=kind)

    def influence(self, group: str | None = None, *, refit: bool = True) -> Influence:
        """What every level of a grouping factor, or every row, does to the estimates.

        Parameters
        ----------
        group : None the only factor, a factor of the random effects or of the residual structure,
            "observation" the rows.
        refit : True fits the model without each level, False holds its variance parameters: one step.

        Raises
        ------
        ValueError : an unknown factor; none is named where there are several.
        """
        from lmmjax.postestimation.diagnostics.influence import influence

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

    def vif(self) -> pd.DataFrame:
        """Variance inflation of every fixed term but the intercept: columns vif, df, vif_root.

        |R₁₁||R₂₂|/|R| with R the correlations of the estimates: how much larger the squared volume of the
        term's confidence region is than with columns that are uncorrelated with the others. `vif_root` is
        vif^(1/2df), which compares terms of different df; its square is the usual factor of one coefficient.
        `attrs["condition_number"]` is the largest of `condition_indices`.

        Source: Fox & Monette (1992), doi:10.1080/01621459.1992.10475190, as car's `vif`.
        """
        from lmmjax.postestimation.diagnostics.collinearity import vif

        return vif(self.fitted)

    def condition_indices(self) -> pd.DataFrame:
        """Condition indices of X, columns scaled to unit length, with shares of the coefficients' variances.

        An index above 30 in whose row two coefficients or more have shares above a half is a dependence that
        costs them precision. The last index is the condition number.

        Source: Belsley, Kuh & Welsch (1980), doi:10.1002/0471725153, section 3.2.
        """
        from lmmjax.postestimation.diagnostics.collinearity import condition_indices

        return condition_indices(self.fitted)

    def repca(self) -> dict[str, pd.DataFrame]:
        """Principal components of the random effects, by grouping factor, as lme4's `rePCA`.

        Rows are components; columns sdev (relative to σ), proportion and cumulative share of the variance,
        then the loadings of every coefficient. Components without variance are what makes a fit singular.

        Source: Bates, Kliegl, Vasishth & Baayen (2015), arXiv:1506.04967.
        """
        from lmmjax.postestimation.diagnostics.collinearity import repca

        return repca(self.fitted)

    def semivariogram(
        self,
        kind: str = "pearson",
        *,
        robust: bool = False,
        time: Any = None,
        group: str | None = None,
        bins: int = 20,
        max_distance: float | None = None,
    ) -> pd.DataFrame:
        """Half the mean squared difference of residuals in a group by their distance: dist, semivariance, n.

        Flat where residuals are uncorrelated; of "pearson" residuals 1 − ρ(distance), below 1 where they
        correlate. A structure fits if that of its "normalized" residuals is flat.

        Parameters
        ----------
        kind : "pearson", "normalized" or "conditional" residuals, see `residuals`.
        robust : by the estimator of Cressie & Hawkins (1980, doi:10.1007/BF01035243).
        time : name of a column of numbers, or values (n,); by default where the residual structure places the
            rows (its times or coordinates; visits and rows in order are 1 apart), else the order of the rows.
        group : a grouping factor; by default that of the structure, else the only one.
        bins : how many. Distances are bins of their own where they are fewer; else bins hold about equally
            many pairs, and dist is the median of theirs.
        max_distance : of pairs to look at.

        Source: nlme's `Variogram`, whose first of many bins leaves out pairs at the least distance.
        """
        from lmmjax.postestimation.diagnostics.semivariogram import variogram

        return variogram(self.fitted, kind, robust, time, group, bins, max_distance)

    def check(self) -> Check:
        """What is worth worrying about, in plain words, each with its number and a remedy.

        Convergence, what is unidentified or singular, scales, few levels, influential groups, outliers,
        residuals whose spread or order shows a pattern, collinear columns, normality. Prints as text; `table`
        has the same, `skipped` what could not be looked at. Nothing is refitted. The limits are those of
        `lmmjax.postestimation.diagnostics.checks`, rules of thumb: a check that is silent proves nothing.
        """
        from lmmjax.postestimation.diagnostics.checks import check

        return check(self.fitted)

    def _influence(self, group: str | None, refit: bool) -> Influence:
        from lmmjax.postestimation.diagnostics.influence import influence_kept

        return influence_kept(self.fitted, group, refit)

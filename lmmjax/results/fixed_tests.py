"""Methods of `Fit` that test fixed effects."""

from __future__ import annotations

from typing import Any

import pandas as pd

from lmmjax.fitted import Fitted
from lmmjax.postestimation.hypotheses import fixed_tests
from lmmjax.postestimation.hypotheses.fit_contrasts import contrast_frame


class FixedTests:
    """Degrees of freedom, t and F tests of a fit."""

    fitted: Fitted

    @property
    def pvalues(self) -> pd.Series:
        """Two-sided p-values of t with Satterthwaite's degrees of freedom; others by `coef_table(ddf=)`."""
        table = self.coef_table()
        return pd.Series(table["p"], name="p")

    def cov_params(
        self, robust: str | None = None, cluster: Any = None, *, ddf: str = "satterthwaite"
    ) -> pd.DataFrame:
        """Covariance matrix of the fixed effects: the model's Φ = (XᵀV⁻¹X)⁻¹, or a robust one.

        A robust covariance needs no more than that clusters are independent; the model serves as a guess of
        what happens within them, and for estimates. Contrasts whose covariance the data leave open are NaN.

        Parameters
        ----------
        robust : "CR0", the sandwich of Liang & Zeger, MMRM's and PROC MIXED's "empirical"; "CR1", the same
            times G/(G − 1) for G clusters; "CR2", bias-reduced: unbiased where the model holds; "CR3", the
            jackknife over clusters at fixed variance components; None, the model's.
        cluster : name of a factor of the model or of a column of its data, or a label for each row of the
            data (matched by the labels of rows). By default the coarsest grouping factor, in which all
            others must be nested.
        ddf : "kenward-roger" for their adjusted covariance, in place of Φ.

        Raises
        ------
        ValueError : clusters that cut a random factor or a group of correlated residuals, whose rows are
            then not independent, or a single cluster; it names the factor and the remedy.

        Sources: Liang & Zeger (1986, doi:10.1093/biomet/73.1.13); Bell & McCaffrey (2002, Survey Methodology
        28(2), 169–181); Pustejovsky & Tipton (2018, doi:10.1080/07350015.2016.1247004). See
        `lmmjax.inference.robust.sandwich`.
        """
        return fixed_tests.cov_params(self.fitted, robust, cluster, ddf)

    def coef_table(
        self, ddf: str = "satterthwaite", robust: str | None = None, cluster: Any = None
    ) -> pd.DataFrame:
        """Columns estimate, se, df, t, p, a row a coefficient.

        Parameters
        ----------
        ddf : degrees of freedom. "satterthwaite" ("satt"), for a fit by maximum likelihood from that
            criterion; "kenward-roger" ("kr"), with the adjusted standard errors, for a fit by maximum
            likelihood those of the same model refitted by REML, with its estimates; "kenward-roger-sas", the
            same with the observed information and the second derivatives of PROC MIXED, which depend on how
            a covariance is written; "normal", infinite.
        robust, cluster : standard errors of `cov_params`, "satterthwaite" then being Bell & McCaffrey's
            degrees of freedom for them.

        Raises
        ------
        ValueError : an unknown ddf or `robust`; a ddf that adjusts the model's covariance beside a robust
            one.
        """
        return fixed_tests.coef_table(self.fitted, ddf, robust, cluster)

    def anova(
        self,
        type: int | str = 3,
        ddf: str = "satterthwaite",
        robust: str | None = None,
        cluster: Any = None,
    ) -> pd.DataFrame:
        """F tests of the fixed terms: columns sum_sq, mean_sq, num_df, den_df, F, p, a row a term.

        Parameters
        ----------
        type : 1 or "I", each term given those before it; 2 or "II", given those that do not contain it;
            3 or "III", averaged over the levels of the terms that contain it, however factors are coded.
            The hypotheses are those of lmerTest (and SAS); see `lmmjax.inference.hypotheses`.
        ddf : as in `coef_table`. With Kenward & Roger's, F is scaled; sums of squares are not.
        robust, cluster : as in `test`; without sums of squares.

        A term whose columns were all dropped for linear dependence has no row; `attrs["dropped"]` names it.

        Raises
        ------
        ValueError : an unknown type; all of `coef_table`.
        """
        return fixed_tests.anova(self.fitted, type, ddf, robust, cluster)

    def contrast(
        self,
        contrasts: Any,
        *,
        adjust: str = "none",
        ddf: str = "satterthwaite",
        level: float = 0.95,
        robust: str | None = None,
        cluster: Any = None,
    ) -> pd.DataFrame:
        """Contrasts Lβ, each by itself: columns estimate, se, df, lower, upper, t, p, a row a contrast.

        Parameters
        ----------
        contrasts : text such as "a - 0.5 * b", a dict {coefficient: weight}, an array (p,) or (k, p); a list
            of texts and dicts; or {name: any of these}.
        adjust : of p-values and limits, for all contrasts together: "mvt" (exact), "sidak", "bonferroni",
            "holm", "fdr", "scheffe", "none"; see `MarginalMeans.contrast`.
        ddf : as in `coef_table`. level : of the limits. robust, cluster : the covariance, as in `cov_params`.

        What is not estimable is NaN; an `EstimabilityWarning` names it. Marginal means have contrasts by the
        names of levels: `emmeans`.

        Raises
        ------
        ValueError : an unknown coefficient, weights of another shape, an unknown adjustment; all of
            `coef_table`.
        """
        return contrast_frame(self.fitted, contrasts, adjust, ddf, level, robust, cluster)

    def test(
        self,
        l: Any,
        ddf: str = "satterthwaite",
        rhs: Any = None,
        *,
        level: float = 0.95,
        robust: str | None = None,
        cluster: Any = None,
    ) -> pd.DataFrame:
        """Test of Lβ = rhs: a row with F, num_df, den_df, p; for one contrast estimate, se, lower, upper, t.

        Parameters
        ----------
        l : text such as "Days = 10", "a - 0.5 * b", "a = b = 0"; a list of texts, or several with commas
            between them, tested together; a dict {coefficient: weight} or list of them; an array (p,) or
            (k, p).
        ddf : as in `coef_table`. For several rows F is scaled as Kenward & Roger propose, or has the
            degrees of freedom of Fai & Cornelius.
        rhs : number or (k,), 0 by default; part of the text where l is an equation.
        level : of the limits.
        robust, cluster : the covariance, as in `cov_params`. With "satterthwaite" F and den_df are those of
            Hotelling's T² approximation (Pustejovsky & Tipton 2018, AHT; clubSandwich's "HTZ"), NaN where
            there are too few clusters for so many contrasts.

        Rows that depend on others are left out, num_df counts the rest. What is not estimable, because it
        depends on columns that were dropped for linear dependence, is NaN; an `EstimabilityWarning` names it.

        Raises
        ------
        ValueError : an unknown coefficient, a wrong shape, or equations that contradict each other.
        """
        return fixed_tests.hypothesis_test(self.fitted, l, ddf, rhs, level, robust, cluster)

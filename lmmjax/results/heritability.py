"""Methods of `Fit` and `BatchFit` about shares of variance of kernels, and what follows for their levels."""

from __future__ import annotations

import pandas as pd

from lmmjax.fitted import Fitted, FittedMany


class Heritability:
    """Heritability, reliability of breeding values."""

    fitted: Fitted

    def heritability(
        self,
        level: float = 0.95,
        *,
        method: str | None = None,
        scale: str = "diagonal",
        by: str | None = None,
    ) -> pd.DataFrame:
        """Proportions of variance of a model with kernels: heritability, repeatability, all other terms.

        A row a grouping factor as in `varcorr`, Residual, and, where a factor has other terms beside its
        kernel, repeatability: all of them together. Columns estimate, se (delta method), lower, upper,
        variance (of which it is the share: its mean over the rows), bound ("lower" or "upper" for a share
        that is estimated as 0 or 1: it has no se).

        Parameters
        ----------
        method : of the limits. "profile": where −2ℓ of the criterion that was fitted, minimised over the
            other shares, is χ²₁'s quantile above its minimum; they reach 0 and 1, and are there for estimates
            at an end. "logit": estimate and se on the logit scale, missing at an end. None: profiles of
            models with one kernel and no other term, where they are at hand, else logit. `attrs["method"]`
            says which.
        scale : what a variance σ²ᵤ of levels with covariances σ²ᵤK counts for. "diagonal": σ²ᵤ times the mean
            of K_gg over the rows, their mean variance, the mean of K_gg zᵀΣz with slopes. "sample": σ²ᵤ
            tr(CZKZᵀ)/(n − 1), C = I − 11ᵀ/n, the variance among the rows that are there, which does not
            change with a constant in K; other terms likewise. "ratio": σ²ᵤ, as GCTA has it.
        by : a column of the data: the shares among its rows, level by level; of several traits or
            environments.

        Raises
        ------
        ValueError : no term has a kernel; profiles of models with terms of several columns or with residual
            structures.

        Source: limits, Visscher & Goddard (2015), doi:10.1534/genetics.114.171017; the scale of K, Legarra
        (2016), doi:10.1016/j.tpb.2015.08.005.
        """
        from lmmjax.postestimation.parameters.heritability import heritability

        return heritability(self.fitted, level, method, scale, by)

    def reliability(self, group: str | None = None) -> pd.DataFrame:
        """Reliability of breeding values: 1 − PEV/(σ²ᵤK_gg), the squared correlation of û_g and u_g.

        A row a level of each term with a kernel, those without data too; columns group, level, term, value,
        pred_se (√PEV, with the uncertainty of β̂), reliability, accuracy (its root), observed (whether the
        level has rows). Of Σ K_gg where a term has several columns, column by column.

        Parameters
        ----------
        group : a grouping factor as in `varcorr`; None for all that have a kernel, or all if none has.

        Source: Henderson (1975), doi:10.2307/2529430.
        """
        from lmmjax.postestimation.predictions.reliability import reliability

        return reliability(self.fitted, group)

    def genetic_correlation(self, *, test: bool = False, level: float = 0.95) -> pd.DataFrame:
        """Correlations of the columns of random terms, such as traits, and of the residuals of traits.

        Of a model with (0 + trait | id) and a kernel, by `lmmjax.multitrait` or written out. A row a pair:
        group, term1, term2, estimate, se (delta method), lower, upper (on Fisher's z scale), bound ("lower"
        or "upper" for −1 and 1, where there is no se).

        Parameters
        ----------
        test : whether to add likelihood ratio tests, by the criterion that was fitted, of pairs of random
            terms: chisq_0, p_0 of a correlation of zero (χ²₁), chisq_1, p_1 of one of 1, or −1 where the
            estimate is negative (a mixture of χ²₀ and χ²₁ in equal parts).

        Raises
        ------
        ValueError : no term with a kernel has two correlated columns.

        Source: Self & Liang (1987), doi:10.1080/01621459.1987.10478472, of the mixture.
        """
        from lmmjax.postestimation.parameters.trait_correlations import genetic_correlation

        return genetic_correlation(self.fitted, level, test)


class BatchHeritability:
    """Heritability of every response."""

    fitted: FittedMany

    def heritability(
        self,
        term: str | None = None,
        level: float = 0.95,
        *,
        method: str | None = None,
        scale: str = "diagonal",
        by: str | None = None,
    ) -> pd.DataFrame:
        """Share of one term in the variance of each response: estimate, se, lower, upper, variance, bound.

        Parameters
        ----------
        term : a grouping factor as in `varcorr`, "Residual" or "repeatability"; may be left out where one
            term has a kernel.
        level, method, scale, by : as in `Fit.heritability`. With `by` columns are (level of `by`, column).
        """
        from lmmjax.postestimation.parameters.heritability import batch_heritability

        return batch_heritability(self.fitted, term, level, method, scale, by)

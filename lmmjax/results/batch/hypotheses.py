"""Methods of `BatchFit` that test fixed effects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lmmjax.fitted import FittedMany, require_switch
from lmmjax.postestimation.hypotheses import batch_f_tests
from lmmjax.postestimation.hypotheses.batch_moderated import moderate_many
from lmmjax.postestimation.hypotheses.batch_tests import fixed_t_tests
from lmmjax.reports import batch_tables, top_tables
from lmmjax.results.batch.moderated import Moderated


class BatchTests:
    """t and F tests of the fixed effects of many responses, with q-values over the responses."""

    fitted: FittedMany

    def _frame(self, values: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame(values, index=self.fitted.names, columns=self.fitted.data.x_names)

    @property
    def pvalues(self) -> pd.DataFrame:
        """Two-sided p-values of t with Satterthwaite's degrees of freedom, computed when first asked for.

        They cost about a fifth of the fit. Others by `tidy(ddf=)`, `contrast(…, ddf=)` and `top(…, ddf=)`.
        """
        return self._frame(self.t_tests()["p"])

    def df(self, ddf: str = "satterthwaite", robust: str | None = None, cluster: Any = None) -> pd.DataFrame:
        """Degrees of freedom of the fixed effects, responses × coefficients.

        Parameters
        ----------
        ddf, robust, cluster : as of `t_tests`.
        """
        return self._frame(self.t_tests(ddf, robust, cluster)["df"])

    def t_tests(
        self, ddf: str = "satterthwaite", robust: str | None = None, cluster: Any = None
    ) -> dict[str, np.ndarray]:
        """Arrays (T, p) of the fixed effects: estimate, se, df, t, p and Benjamini-Hochberg's q.

        Parameters
        ----------
        ddf : as in `Fit.coef_table`. For a batch fitted by maximum likelihood "kenward-roger" and
            "kenward-roger-sas" refit it by REML.
        robust, cluster : standard errors of `Fit.cov_params` with Bell & McCaffrey's degrees of freedom.
            What a single cluster of the rows of a response determines is missing.

        Raises
        ------
        ValueError : an unknown ddf or `robust`; clusters as of `Fit.cov_params`.
        """
        return fixed_t_tests(self.fitted, ddf, robust, cluster)

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
        """Test of Lβ = rhs for every response: columns F, num_df, den_df, p, q, a row a response.

        For one contrast also estimate, se, lower, upper and t. All contrasts are tested together; `contrast`
        tests each by itself.

        Parameters
        ----------
        l, rhs, level : as in `Fit.test`. ddf : as in `t_tests`.
        robust, cluster : the covariance, as in `Fit.cov_params`; of several contrasts F is Hotelling's T²
            approximation (Pustejovsky & Tipton 2018, doi:10.1080/07350015.2016.1247004), missing where
            clusters are too few.

        q are Benjamini-Hochberg values over the responses. A response is NaN where its rows do not determine
        all of Lβ, or where its covariance depends on what the data leave open. What no response determines
        is NaN, and an `EstimabilityWarning` names it.

        Raises
        ------
        ValueError : an unknown coefficient, a wrong shape, or equations that contradict each other.
        """
        return batch_f_tests.test_frame(self.fitted, l, ddf, rhs, level, robust, cluster)

    def anova(
        self,
        type: int | str = 3,
        ddf: str = "satterthwaite",
        *,
        robust: str | None = None,
        cluster: Any = None,
    ) -> pd.DataFrame:
        """F tests of the fixed terms: rows (term, response), columns F, num_df, den_df, p, q.

        Parameters
        ----------
        type : 1, 2 or 3, as in `Fit.anova`. Responses with missing values have the hypotheses of their rows.
        ddf : as in `t_tests`. robust, cluster : as in `test`.

        q are Benjamini-Hochberg values over the responses, term by term. A term of which a response has no
        column left is NaN.

        Raises
        ------
        ValueError : an unknown type; all of `t_tests`.
        """
        return batch_f_tests.anova(self.fitted, type, ddf, robust, cluster)

    def contrast(
        self,
        contrasts: Any,
        names: list[str] | None = None,
        ddf: str = "satterthwaite",
        robust: str | None = None,
        cluster: Any = None,
        *,
        level: float = 0.95,
    ) -> pd.DataFrame:
        """Linear contrasts Lβ of every response: estimate, se, df, lower, upper, t, p, q, a row a response.

        Parameters
        ----------
        contrasts : text such as "Sex[T.Female] - 0.5 * Days", a dict {coefficient: weight}, an array (p,),
            or several: a list of texts or dicts, {name: contrast}, or an array (k, p). With several, rows are
            (contrast, response).
        names : labels of the contrasts; by default their text.
        ddf, robust, cluster : degrees of freedom and covariance, as in `t_tests`. level : of the limits.

        q are Benjamini-Hochberg values over the responses, contrast by contrast. Contrasts that are not
        estimable are NaN, and an `EstimabilityWarning` names them.

        Raises
        ------
        ValueError : an unknown coefficient, weights of another shape; all of `t_tests`.
        """
        return batch_tables.contrast(self.fitted, contrasts, names, ddf, robust, cluster, level)

    def top(
        self,
        term: Any = None,
        n: int | None = 20,
        by: str = "p",
        ddf: str = "satterthwaite",
        robust: str | None = None,
        cluster: Any = None,
        *,
        contrast: Any = None,
        level: float = 0.95,
        moderated: bool = False,
    ) -> pd.DataFrame:
        """The n foremost responses for one coefficient or contrast, or for several tested together.

        Of one: estimate, se, df, lower, upper, average (the mean of the response), t, p, q. Of several an
        estimate for each of them, average, F, num_df, den_df, p, q; by="F" gives these of one as well.

        Parameters
        ----------
        term : a coefficient, several, or a fixed term, of which all coefficients are tested; contrast : in
            its place one contrast or several, as in `contrast`.
        n : how many; None for all.
        by : of one "p", "q", "se" or "df" (smallest first), "t" or "estimate" (largest absolute value first);
            of several "p", "q" or "F".
        ddf, robust, cluster : degrees of freedom and covariance, as in `t_tests`. level : of the limits.
        moderated : residual variances share a prior, as in `moderate`, which has options.

        q are Benjamini-Hochberg values over all responses.

        Raises
        ------
        ValueError : an unknown coefficient, term or `by`; `moderated` beside `robust`; all of `t_tests`.
        """
        if self._moderates(moderated, robust):
            return self.moderate(ddf=ddf).top(term, n, by, contrast=contrast, level=level)
        tests = top_tables.tests_of(self.fitted, ddf, robust, cluster)
        return top_tables.top_frame(tests, self.fitted, term, n, by, contrast, level)

    def statistics(
        self,
        contrasts: Any = None,
        what: str = "t",
        *,
        ddf: str = "satterthwaite",
        robust: str | None = None,
        cluster: Any = None,
        moderated: bool = False,
        drop_missing: bool = True,
    ) -> pd.DataFrame:
        """One statistic of several contrasts, a row a contrast and a column a response (contrasts × T).

        What decoupler's methods take as data (`dc.mt.ulm(fits.statistics("drug[T.yes]"), net)`), and GSEA of
        ranked genes.

        Parameters
        ----------
        contrasts : as in `contrast`; all coefficients if None.
        what : "t", "estimate", "se", "df", "p" or "q".
        ddf, robust, cluster : as in `t_tests`. moderated : as in `top`.
        drop_missing : leave out responses that lack one of them, which those methods do not take.

        Raises
        ------
        ValueError : an unknown coefficient or `what`; robust with moderated; all of `t_tests`.
        """
        require_switch("drop_missing", drop_missing)
        if self._moderates(moderated, robust):
            return self.moderate(ddf=ddf).statistics(contrasts, what, drop_missing=drop_missing)
        tested = batch_tables.tester(self.fitted, ddf, robust, cluster)
        return batch_tables.statistics(tested, self.fitted, contrasts, what, drop_missing)

    @staticmethod
    def _moderates(moderated: bool, robust: str | None) -> bool:
        if require_switch("moderated", moderated) and robust is not None:
            raise ValueError("robust covariances are not moderated: leave out robust= or moderated=True")
        return moderated

    def moderate(self, trend: Any = False, robust: bool = False, *, ddf: str = "satterthwaite") -> Moderated:
        """Empirical Bayes for the residual variances: every response borrows from the others (limma's
        eBayes).

        σ̂² of every response has degrees of freedom of its own, 2σ̂⁴/Var(σ̂²); their prior is estimated by
        the moments of log σ̂². Without random terms all is as in limma. With random terms an effect gains as
        much as its variance depends on σ̂², and its degrees of freedom say so: see `Moderated.table`.

        Parameters
        ----------
        trend : whether the prior variance depends on the mean of the response; or on numbers (T,), by the
            labels of the responses if they have some.
        robust : responses with outlying variances do not move the prior, and borrow less.
        ddf : "satterthwaite" or "kenward-roger", to whose standard errors and degrees of freedom the prior is
            added.

        Sources: Smyth (2004), doi:10.2202/1544-6115.1027; Phipson et al. (2016), doi:10.1214/16-AOAS920.

        Raises
        ------
        ValueError : fewer than two responses have a residual variance; residual variances are known; `trend`
            does not match the responses.
        """
        return Moderated(moderate_many(self.fitted, trend, robust, ddf))

    def treat(
        self,
        term: str | None = None,
        lfc: float = float(np.log2(1.2)),
        *,
        contrast: Any = None,
        trend: Any = False,
        robust: bool = False,
        ddf: str = "satterthwaite",
    ) -> pd.DataFrame:
        """Moderated tests that |Lβ| is larger than `lfc`, not that it differs from zero (limma's treat).

        Parameters
        ----------
        term : the coefficient; contrast : in its place one contrast, as in `contrast`.
        lfc : the smallest change that matters, in units of the coefficient; of log₂ values by default 20 %.
        trend, robust, ddf : as in `moderate`.

        Returns
        -------
        DataFrame, a row a response: estimate, se, df, t (of the distance to the nearer end, 0 within), p, q.

        Raises
        ------
        ValueError : as of `moderate`; several contrasts, or lfc below zero.

        Source: McCarthy & Smyth (2009), doi:10.1093/bioinformatics/btp053.
        """
        return self.moderate(trend, robust, ddf=ddf).treat(term, lfc, contrast=contrast)

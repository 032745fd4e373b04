"""Methods of `Fit` that lead to other models: deletion tests, backward selection, updates, other starts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pandas as pd

from lmmjax.fitted import Fitted, ModelView

# what few fits are asked for is imported when it is
if TYPE_CHECKING:
    from lmmjax.results.step import Step


class Building:
    """Deletion of terms, updates of the formula, other optimisers."""

    model: ModelView
    fitted: Fitted

    def drop1(
        self, scope: Iterable[str] | None = None, *, test: str = "F", ddf: str = "satterthwaite"
    ) -> pd.DataFrame:
        """Tests of every fixed term that can be dropped: that no other term contains.

        Parameters
        ----------
        scope : the terms to look at, all of these if None.
        test : "F", that the coefficients of the term are 0: columns sum_sq, mean_sq, num_df, den_df, F, p, as
            lmerTest's `drop1`. "lrt", likelihood ratio tests against the formula without the term, by refits
            with ML: npar, llf, aic, chisq, df, p, the first row the model itself. Without an intercept the
            two can differ: other factors are then coded anew.
        ddf : of F, as in `coef_table`.

        Raises
        ------
        ValueError : a term that is not in the model, or that another contains.
        """
        from lmmjax.postestimation.comparison.deletion_tests import drop1

        return drop1(self.fitted, scope, ddf, test)

    def step(
        self,
        *,
        ddf: str = "satterthwaite",
        alpha_random: float = 0.1,
        alpha_fixed: float = 0.05,
        keep: Iterable[str] = (),
        reduce_random: bool = True,
        reduce_fixed: bool = True,
    ) -> Step:
        """Backward selection as lmerTest's `step`: random terms first, then fixed ones.

        Of the random terms, as `ranova` deletes them, that with the largest p of the likelihood ratio test
        goes while it is above `alpha_random`; then of the fixed terms, as `drop1` deletes them, that with
        the largest p of F while it is above `alpha_fixed`. All models are fitted to the rows of this one, on
        its criterion. Intervals and tests of what is left take no account of the selection.

        Parameters
        ----------
        keep : fixed terms that stay.
        ddf : of the F tests, as in `coef_table`. alpha_random, alpha_fixed : levels above which terms go.
        reduce_random, reduce_fixed : whether such terms go at all.

        Returns
        -------
        Step : `random` and `fixed`, tables in the order of elimination (`eliminated`, 0 for what stays), and
            `fit`, the model found.

        Raises
        ------
        ValueError : an unknown term in `keep`, an unknown ddf, a level outside of (0, 1).

        Source: Kuznetsova, Brockhoff & Christensen (2017), doi:10.18637/jss.v082.i13.
        """
        from lmmjax.results.step import step

        options = (alpha_random, alpha_fixed, keep, reduce_random, reduce_fixed)
        return step(self.model, self.fitted, ddf, *options)

    def update(self, formula: str | None = None, *, reml: bool | None = None, **changes: Any) -> Any:
        """The fit with another formula, on other data: what is not named stays.

        Parameters
        ----------
        formula : as of `Model.update`: "~ . - x", ". ~ . + z + (1 | h)", "~ . - (x | g) + (1 | g)".
        reml : the criterion, that of this fit if None.
        changes : data, weights, offset or residual as `lmm` takes them.

        A fit to a response that is not the formula's (`refit`, `fit_response`) keeps it, if the rows stay.

        Raises
        ------
        ValueError : as of `Model.update`.
        """
        from lmmjax.postestimation.comparison.updates import updated

        return updated(self.model, self.fitted, formula, reml, changes)

    def allfit(self, *, methods: Iterable[str] | None = None) -> pd.DataFrame:
        """The fit by several optimisers from several starts, one row each: do they agree?

        Columns method, start, status, criterion, above (the lowest criterion of all), singular, n_iter, then
        the fixed effects, standard deviations and correlations as in `conf_int`.

        Parameters
        ----------
        methods : "newton" (exact Hessians) and "lbfgs" from every start; "nelder-mead" and "powell" of scipy,
            which see no derivative, from the moment start. All if None.

        Starts are moment estimates, near zero, zero and large variances. Rows that end higher have found
        another optimum, or have not converged: see status.

        Raises
        ------
        ValueError : an unknown method.
        """
        from lmmjax.postestimation.comparison.all_fits import all_fits

        return all_fits(self.fitted, methods)

"""Comparison of fitted models."""

from __future__ import annotations

import pandas as pd

from lmmjax.postestimation.comparison import compare as comparison
from lmmjax.reports.table import prints_whole
from lmmjax.results.chunked import ChunkedFit
from lmmjax.results.fit import Fit


@prints_whole
def compare(
    *fits: Fit, names: list[str] | None = None, refit: bool = True, force: bool = False
) -> pd.DataFrame:
    """Likelihood ratio tests of models, each against the one before, in the order of their parameters.

    Columns npar, aic, bic, llf, deviance, chisq, df, p; then p_boundary, aicc, weight (Akaike weight) and
    criterion. p refers chisq to χ², which is conservative where a variance is tested; p_boundary to a mixture
    of χ² (see `lmmjax.inference.chisq.boundary_weights`), the same as p where nothing is on a boundary.

    Parameters
    ----------
    fits : of one response, at least two.
    names : labels of the rows, one a fit; by default the formula, and the residual structure if there is one.
    refit : refit models fitted by REML by maximum likelihood, as lme4's `anova` does; the column criterion
        says which ("ML (refitted)"). With refit=False they stay as they are, which needs the same fixed
        effects and the same criterion in all.
    force : compare information criteria of models that are not nested as well; chisq, df and p are missing
        for these.

    Raises
    ------
    ValueError : models of different data, not nested, or of criteria that cannot be compared.

    Examples
    --------
    >>> import lmmjax as lj
    >>> from lmmjax.datasets import load
    >>> fit = lj.lmm("Reaction ~ Days + (Days | Subject)", load("sleepstudy")).fit()
    >>> lj.compare(fit.update("~ . - Days"), fit)["chisq"].round(2).tolist()
    [nan, 23.54]
    """
    if len(fits) < 2:
        raise ValueError("compare takes at least two fits")
    for fit in fits:
        if isinstance(fit, ChunkedFit):
            raise ValueError(
                "compare sees by rows which models are nested, and those of a fit are read by the chunk: "
                "drop1(test='lrt') and ranova() test its terms; aic, bic and llf of fits by ML compare others"
            )
        if not isinstance(fit, Fit):
            raise ValueError(f"compare takes fits, not {type(fit).__name__}: call .fit() first")
    return comparison.compare([fit.fitted for fit in fits], names, refit, force)

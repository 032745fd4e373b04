"""`modeltable`: fits side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmmjax.arrays.other_arguments import answered
from lmmjax.fitted import require_choice, require_count, require_known, require_level
from lmmjax.formula import nearest
from lmmjax.postestimation.hypotheses.fixed_tests import ddf_method
from lmmjax.reports.modeltable import BELOW, DEFAULT, STARS, STATISTICS, ModelTable, model_table
from lmmjax.results.batch import BatchFit
from lmmjax.results.chunked import ChunkedFit
from lmmjax.results.fit import Fit

MOST = 20
"""Responses of a batch that are put side by side."""


@answered
def modeltable(
    models: Sequence[Fit | ChunkedFit] | Mapping[str, Fit | ChunkedFit] | BatchFit,
    names: Sequence[str] | None = None,
    *,
    stars: bool | Mapping[str, float] = True,
    below: str = "se",
    coefs: Sequence[str] | Mapping[str, str] | None = None,
    statistics: Sequence[str] = DEFAULT,
    digits: int = 3,
    level: float = 0.95,
    ddf: str = "satterthwaite",
    robust: str | None = None,
    cluster: Any = None,
) -> ModelTable:
    """Fits side by side, as in papers: coefficients, random effects, and what the fits are of.

    Standard deviations and correlations are those of `conf_int`, R² those of `Fit.r2`; log-likelihood, AIC
    and BIC are of the criterion that was fitted. Notes say what stars and brackets are, which fit is singular
    or has not converged, and whether log-likelihoods compare.

    Parameters
    ----------
    models : fits, {name: fit}, or a batch of a few responses.
    names : of the columns; (1), (2), … by default.
    stars : whether estimates have stars, *** at 0.001, ** at 0.01, * at 0.05; or {mark: level}.
    below : what stands below an estimate: "se", its standard error; "ci", its limits; "t", "p" or "none".
    coefs : which coefficients are shown, in their order; {name: label} renames them. By default all.
    statistics : keys of the rows at the end: nobs, groups, llf, deviance, aic, bic, aicc, r2_marginal,
        r2_conditional, icc, n_params, criterion.
    digits : decimals; there are more where the standard error needs them for two digits of its own.
    level : of limits.
    ddf, robust, cluster : of the tests, as of `Fit.coef_table`.

    Returns
    -------
    ModelTable, which prints at the width of the terminal and has `to_latex(caption, label)`, `to_html()`,
    `to_markdown()` and `table`, a frame of its cells.

    Raises
    ------
    ValueError : no fit; names that are not one a fit; an unknown coefficient, statistic or option.

    Examples
    --------
    >>> import lmmjax as lj
    >>> from lmmjax.datasets import load
    >>> fit = lj.lmm("Reaction ~ Days + (Days | Subject)", load("sleepstudy")).fit()
    >>> lj.modeltable([fit, fit.refit(reml=False)], ["REML", "ML"]).table.loc["Days"].tolist()
    ['10.467***', '10.467***']
    """
    if isinstance(models, BatchFit):
        models = _named(models)
    fits = list(models.values()) if isinstance(models, Mapping) else _listed(models)
    if names is None:
        keys = list(models) if isinstance(models, Mapping) else [f"({k})" for k in range(1, len(fits) + 1)]
    else:
        keys = [names] if isinstance(names, str) else list(names)
    if not fits:
        raise ValueError("modeltable takes at least one fit")
    for fit in fits:
        if not isinstance(fit, Fit | ChunkedFit):
            raise ValueError(
                f"modeltable takes fits, not {type(fit).__name__}: call .fit() first, or pick one"
            )
    if len(keys) != len(fits):
        raise ValueError(f"{len(keys)} names for {len(fits)} models: give one name each")
    require_choice("below", below, BELOW)
    chosen = [statistics] if isinstance(statistics, str) else list(statistics)
    require_known("statistic", chosen, STATISTICS)
    return model_table(
        [fit.fitted for fit in fits],
        [str(key) for key in keys],
        stars=_marks(stars),
        below=below,
        coefs=_chosen(coefs, fits),
        statistics=chosen,
        digits=require_count("digits", digits, 0),
        level=require_level(level),
        ddf=ddf_method(ddf),
        robust=robust,
        cluster=cluster,
    )


def _named(batch: BatchFit) -> dict[str, Fit]:
    """The fits of a few responses by name."""
    if len(batch) > MOST:
        raise ValueError(
            f"a table of {len(batch)} responses is no table: choose up to {MOST}, as fits[['a', 'b']], or "
            "take fits.tidy()"
        )
    return {str(name): batch[name] for name in batch}


def _listed(models: Any) -> list[Any]:
    if isinstance(models, Fit | ChunkedFit):
        return [models]
    try:
        return list(models)
    except TypeError:
        raise ValueError(f"modeltable takes a list of fits, not {type(models).__name__}") from None


def _marks(stars: Any) -> dict[str, float]:
    """{mark: level}; ValueError unless it is True, False or such a mapping."""
    if isinstance(stars, Mapping):
        return {str(mark): require_level(p, f"the level of {mark}") for mark, p in stars.items()}
    if not isinstance(stars, bool):
        raise ValueError(f"stars must be True, False or {{mark: level}}, not {stars!r:.40}")
    return STARS if stars else {}


def _chosen(coefs: Any, fits: Sequence[Any]) -> dict[str, str] | None:
    """{name: label} of the coefficients that are shown; None for all."""
    if coefs is None:
        return None
    known = list(dict.fromkeys(name for fit in fits for name in fit.fitted.data.x_names))
    wanted = [coefs] if isinstance(coefs, str) else coefs
    labels = {str(k): str(v) for k, v in wanted.items()} if isinstance(wanted, Mapping) else {}
    labels = labels or {str(name): str(name) for name in wanted}
    for name in labels:
        if name not in known:
            raise ValueError(f"unknown coefficient {name!r}: {nearest(name, known)}")
    return labels

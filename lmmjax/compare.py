"""Comparison of fitted models: likelihood ratio tests of nested models, information criteria."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from lmmjax.covariance import family
from lmmjax.fit_random_tests import n_entries
from lmmjax.formula import ModelFrame, RandomColumns
from lmmjax.inference.chisq import akaike_weights, boundary_weights, chi_square_p, mixture_p
from lmmjax.influence import require_estimates
from lmmjax.residual import Correlation, Residual
from lmmjax.results import Fit

TOLERANCE = 1e-8
"""Distance of a column from the span of others, relative to its length, below which it counts as in it."""


def compare(*fits: Fit, refit: bool = True, force: bool = False) -> pd.DataFrame:
    """Likelihood ratio tests of models, each against the one before, in the order of their parameters.

    Columns npar, aic, bic, llf, deviance, chisq, df, p; then p_boundary, aicc, weight (Akaike weight) and
    criterion. p refers chisq to χ², which is conservative where a variance is tested; p_boundary to a mixture
    of χ² (see `lmmjax.inference.chisq.boundary_weights`), the same as p where nothing is on a boundary.

    Parameters
    ----------
    fits : of one response, at least two. Rows are labelled by formula.
    refit : refit models fitted by REML by maximum likelihood, as lme4's `anova` does; the column criterion
        says which ("ML (refitted)"). With refit=False they stay as they are, which needs the same fixed
        effects and the same criterion in all.
    force : compare information criteria of models that are not nested as well; chisq, df and p are missing
        for these.

    Raises
    ------
    ValueError : models of different data, not nested, or of criteria that cannot be compared.
    """
    if len(fits) < 2:
        raise ValueError("compare takes at least two fits")
    for fit in fits:
        if not isinstance(fit, Fit):
            raise ValueError(f"compare takes fits, not {type(fit).__name__}: call .fit() first")
        require_estimates(fit)
        same_data(fits[0], fit)
    again = [refit and fit.reml for fit in fits]
    ordered = sorted(
        (
            (fit.refit(reml=False) if new else fit, "ML (refitted)" if new else "REML" if fit.reml else "ML")
            for fit, new in zip(fits, again, strict=True)
        ),
        key=lambda pair: pair[0].n_params,
    )
    models = [fit for fit, _ in ordered]
    _same_criterion(models)
    tests = [[np.nan] * 4]
    for small, large in pairwise(models):
        try:
            weights = null_weights(small.model.frame, large.model.frame)
        except ValueError as error:
            if not force:
                raise ValueError(f"{error}; force=True compares their information criteria") from None
            tests.append([np.nan] * 4)
            continue
        chisq, df = max(small.deviance - large.deviance, 0.0), large.n_params - small.n_params
        tests.append([chisq, df, chi_square_p(chisq, df), mixture_p(chisq, weights)])
    table = pd.DataFrame(
        {name: [getattr(fit, of) for fit in models] for name, of in COLUMNS.items()},
        index=pd.Index([fit.model.formula for fit in models], name="model"),
    )
    table[["chisq", "df", "p", "p_boundary"]] = tests
    table["aicc"] = [fit.aicc for fit in models]
    table["weight"] = akaike_weights(table["aic"].to_numpy())
    table["criterion"] = [criterion for _, criterion in ordered]
    return table


COLUMNS = {"npar": "n_params", "aic": "aic", "bic": "bic", "llf": "llf", "deviance": "deviance"}


def same_data(a: Fit, b: Fit) -> None:
    """ValueError unless two fits are of the same response, rows, weights and offset."""
    if a.nobs != b.nobs:
        raise ValueError(
            f"the models have {a.nobs} and {b.nobs} observations: fit both to the rows that are complete in "
            "all their variables"
        )
    for what, left, right in (
        ("response", a.y, b.y),
        ("weights", a.model.frame.weights, b.model.frame.weights),
        ("offset", a.model.frame.offset, b.model.frame.offset),
    ):
        alike = left is right if left is None or right is None else np.array_equal(left, right)
        if not alike:
            raise ValueError(f"the models differ in their {what}: compare fits of the same data")


def _same_criterion(fits: list[Fit]) -> None:
    if not any(fit.reml for fit in fits):
        return
    if not all(fit.reml for fit in fits):
        raise ValueError("some models were fitted by REML and some by ML: leave refit=True")
    first = fits[0].model.frame.x
    for fit in fits[1:]:
        x = fit.model.frame.x
        if x.shape != first.shape or not spans(x, first):
            raise ValueError("REML criteria of different fixed effects cannot be compared: leave refit=True")


def spans(x: np.ndarray, columns: np.ndarray) -> bool:
    """Whether the columns (n, k) lie in the span of x (n, p)."""
    if not columns.shape[1]:
        return True
    length = np.linalg.norm(columns, axis=0)
    unit = columns / np.where(length > 0, length, 1.0)
    scale = np.linalg.norm(x, axis=0)
    q = np.linalg.qr(x / np.where(scale > 0, scale, 1.0))[0] if x.shape[1] else x
    return bool(np.all(np.linalg.norm(unit - q @ (q.T @ unit), axis=0) <= TOLERANCE))


def null_weights(small: ModelFrame, large: ModelFrame) -> dict[int, float]:
    """Weights of the null distribution as in `boundary_weights`; ValueError unless `small` is nested."""
    names = f"{small.formula!r} is not nested in {large.formula!r}"
    if not spans(large.x, small.x):
        raise ValueError(f"{names}: its fixed effects are not among those of the other")
    homes: dict[int, list[RandomColumns]] = {k: [] for k in range(len(large.random))}
    for term in small.random:
        home = next((k for k, other in enumerate(large.random) if contains(other, term)), None)
        if home is None:
            raise ValueError(f"{names}: the random term ({term.text}) is not within one of the other")
        homes[home].append(term)
    interior, edge = residual_difference(small, large, names)
    blocks = [(1, 0)] * edge
    for k, inside in homes.items():
        term, q = large.random[k], len(large.random[k].names)
        if "us" not in (term.structure, *(t.structure for t in inside)) and inside:
            known = {"diag", "us"}
            if term.structure not in known or any(t.structure not in known for t in inside):
                interior += n_entries(term, q) - sum(n_entries(t, len(t.names)) for t in inside)
                continue
        variances = q - sum(len(t.names) for t in inside)
        covariances = n_entries(term, q) - sum(n_entries(t, len(t.names)) for t in inside) - variances
        if variances < 0 or covariances < 0:
            raise ValueError(f"{names}: several of its random terms fall into ({term.text})")
        blocks += [(variances, covariances)] if term.structure == "us" else [(1, 0)] * variances
    return boundary_weights(large.x.shape[1] - small.x.shape[1] + interior, blocks)


def residual_difference(small: ModelFrame, large: ModelFrame, names: str) -> tuple[int, int]:
    """Residual parameters that only `large` has: inside their range in `small`, and at its end.

    ValueError unless its structure contains that of `small`.
    """
    one, two = ((f.residual and f.residual.residual) or Residual() for f in (small, large))
    if one.known != two.known:
        raise ValueError(f"{names}: variances are known in one of them only")
    a, b = one.correlation, two.correlation
    if a is not None and (b is None or not case_of(a, b)):
        other = "independent ones" if b is None else b.name
        raise ValueError(f"{names}: residuals {a.name} are not a case of {other}")
    free = b is not None and b.name == "Unstructured"
    for variance in one.variances:
        if variance not in two.variances and not free:
            raise ValueError(f"{names}: the other has no {variance.name} of {variance.source!r}")
    placed = [f.residual and f.residual.design for f in (small, large)]
    few, many = (0 if own is None else own.structure.n_params for own in placed)
    edge = int(getattr(b, "nugget", False) and not getattr(a, "nugget", False))
    return many - few - edge, edge


def case_of(small: Correlation, large: Correlation) -> bool:
    """Whether one correlation is the other for some values of its parameters."""
    if small.group != large.group or getattr(small, "nugget", False) > getattr(large, "nugget", False):
        return False
    if small.name == large.name:
        orders = [(getattr(c, "p", 0), getattr(c, "q", 0)) for c in (small, large)]
        return small.columns == large.columns and all(i <= j for i, j in zip(*orders, strict=True))
    orders = getattr(large, "p", 1) >= 1
    return large.name in small.within and orders and small.columns == large.columns


def contains(large: RandomColumns, small: RandomColumns) -> bool:
    """Whether every covariance of one random term is one of the other, on the same groups."""
    if not _same_groups(large.codes, small.codes):
        return False
    if large.structure == "us" and small.structure in ("us", "diag"):
        return spans(large.z, small.z)
    if large.structure == small.structure and np.array_equal(large.z, small.z) and large.args == small.args:
        return True
    own = family(small.structure, *small.args)
    if large.structure in own.within and np.array_equal(large.z, small.z):
        return True
    # uncorrelated columns: each one of the smaller term is one of the larger
    single = small.structure == "diag" or len(small.names) == 1
    return (
        large.structure == "diag"
        and single
        and all(
            any(spans(large.z[:, [j]], small.z[:, [i]]) for j in range(large.z.shape[1]))
            for i in range(small.z.shape[1])
        )
    )


def _same_groups(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two codings (n,) divide the rows alike."""
    if np.array_equal(a, b):
        return True
    pairs = len(np.unique(np.stack([a, b]), axis=1).T)
    return pairs == len(np.unique(a)) == len(np.unique(b))

"""Comparison of fitted models: likelihood ratio tests of nested models, information criteria."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from lmmjax.design import ResidualDesign
from lmmjax.fitted import Fitted, by_criterion, require_estimates
from lmmjax.formula import ModelFrame, RandomColumns
from lmmjax.inference.chisq import akaike_weights, boundary_weights, chi_square_p, mixture_p
from lmmjax.postestimation.random_tests import n_entries
from lmmjax.postestimation.varcorr import structure_name
from lmmjax.residual import CORRELATIONS, Correlation, Residual, VarIdent

TOLERANCE = 1e-8
"""Distance of a column from the span of others, relative to its length, below which it counts as in it."""


def compare(fits: list[Fitted], names: list[str] | None, refit: bool, force: bool) -> pd.DataFrame:
    """See `lmmjax.compare`."""
    if names is not None and len(names) != len(fits):
        raise ValueError(f"{len(names)} names for {len(fits)} models: give one name each")
    labels = [_label(fitted) for fitted in fits] if names is None else [str(name) for name in names]
    for fitted in fits:
        require_estimates(fitted)
        same_data(fits[0], fitted)
    again = [refit and fitted.reml for fitted in fits]
    ordered = sorted(
        (
            (
                by_criterion(fitted, False) if new else fitted,
                "ML (refitted)" if new else "REML" if fitted.reml else "ML",
                label,
            )
            for fitted, new, label in zip(fits, again, labels, strict=True)
        ),
        key=lambda triple: triple[0].n_params,
    )
    models = [fitted for fitted, *_ in ordered]
    _same_criterion(models)
    tests = [[np.nan] * 4]
    for small, large in pairwise(models):
        try:
            weights = null_weights(small.data.frame, large.data.frame)
        except ValueError as error:
            if not force:
                raise ValueError(f"{error}; force=True compares their information criteria") from None
            tests.append([np.nan] * 4)
            continue
        chisq, df = max(small.deviance - large.deviance, 0.0), large.n_params - small.n_params
        tests.append([chisq, df, chi_square_p(chisq, df), mixture_p(chisq, weights)])
    table = pd.DataFrame(
        {name: [getattr(fitted, name) for fitted in models] for name in ("aic", "bic", "llf", "deviance")},
        index=pd.Index([label for *_, label in ordered], name="model"),
    )
    table.insert(0, "npar", [fitted.n_params for fitted in models])
    table[["chisq", "df", "p", "p_boundary"]] = tests
    table["aicc"] = [fitted.aicc for fitted in models]
    table["weight"] = akaike_weights(table["aic"].to_numpy())
    table["criterion"] = [criterion for _, criterion, _ in ordered]
    return table


def _label(fitted: Fitted) -> str:
    """The formula, with the residual structure if there is one."""
    if fitted.data.design.residual is None:
        return fitted.data.formula
    return f"{fitted.data.formula}; {structure_name(fitted)}"


def same_data(a: Fitted, b: Fitted) -> None:
    """ValueError unless two fits are of the same response, rows, weights and offset."""
    if a.nobs != b.nobs:
        raise ValueError(
            f"the models have {a.nobs} and {b.nobs} observations: fit both to the rows that are complete in "
            "all their variables"
        )
    for what, left, right in (
        ("response", a.y, b.y),
        ("weights", a.data.frame.weights, b.data.frame.weights),
        ("offset", a.data.frame.offset, b.data.frame.offset),
    ):
        alike = left is right if left is None or right is None else np.array_equal(left, right)
        if not alike:
            raise ValueError(f"the models differ in their {what}: compare fits of the same data")


def _same_criterion(fits: list[Fitted]) -> None:
    if not any(fit.reml for fit in fits):
        return
    if not all(fit.reml for fit in fits):
        raise ValueError("some models were fitted by REML and some by ML: leave refit=True")
    first = fits[0].data.frame.x
    for fit in fits[1:]:
        x = fit.data.frame.x
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
    placed = [f.residual and f.residual.design for f in (small, large)]
    if a is not None and (b is None or not case_of(a, b, *placed)):
        other = "independent ones" if b is None else b.name
        raise ValueError(f"{names}: residuals {a.name} are not a case of {other}")
    few, many = placed
    # variances that the levels of the other tell are among those that it has
    levels = []
    if many is not None:
        pairs = zip(two.variances, many.covariates, strict=True)
        levels = [c for v, c in pairs if isinstance(v, VarIdent)]
        levels += [many.place] if b is not None and b.name == "Unstructured" else []
    for k, variance in enumerate(one.variances):
        told = few is not None and any(told_by(few.covariates[k], level) for level in levels)
        if variance not in two.variances and (variance.source is None or not told):
            raise ValueError(f"{names}: the other has no {variance.name} of {variance.source!r}")
    counts = [0 if own is None else own.structure.n_params for own in placed]
    edge = int(getattr(b, "nugget", False) and not getattr(a, "nugget", False))
    return counts[1] - counts[0] - edge, edge


def case_of(
    small: Correlation, large: Correlation, few: ResidualDesign | None, many: ResidualDesign | None
) -> bool:
    """Whether one correlation is the other for some values of its parameters, at the places of the rows."""
    if few is None or many is None or getattr(small, "nugget", False) > getattr(large, "nugget", False):
        return False
    if small.group != large.group and not _same_groups(few.codes, many.codes):
        return False
    if small.name == large.name:
        orders = [(getattr(c, "p", 0), getattr(c, "q", 0)) for c in (small, large)]
        same = small.columns == large.columns or small.exchangeable
        return same and all(i <= j for i, j in zip(*orders, strict=True))
    if large.name not in _containing(small.name) or getattr(large, "p", 1) < 1:
        return False
    if small.exchangeable or small.columns == large.columns:
        return True
    # visits may have any names, as long as they tell the times
    free = large.name in ("Symmetric", "Unstructured")
    return free and told_by(few.place, many.place)


def _containing(name: str) -> set[str]:
    """Names of the families that contain one, directly or through others."""
    found, left = set(), [name]
    while left:
        new = CORRELATIONS[left.pop()].within - found
        found |= new
        left += new
    return found


def told_by(values: np.ndarray, levels: np.ndarray) -> bool:
    """Whether values (n, ...) are a function of levels (n, ...)."""
    own, by = (np.unique(a, axis=0, return_inverse=True)[1].ravel() for a in (values, levels))
    return len(np.unique(np.stack([own, by]), axis=1).T) == by.max() + 1


def contains(large: RandomColumns, small: RandomColumns) -> bool:
    """Whether every covariance of one random term is one of the other, on the same groups."""
    if not _same_groups(large.codes, small.codes):
        return False
    if large.structure == "us" and small.structure in ("us", "diag"):
        return spans(large.z, small.z)
    if large.structure == small.structure and np.array_equal(large.z, small.z) and large.args == small.args:
        return True
    placed = "ordered" in (small.family.columns, large.family.columns)
    alike = small.places == large.places or not (placed and small.family.columns == large.family.columns)
    if large.structure in small.family.within and np.array_equal(large.z, small.z) and alike:
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

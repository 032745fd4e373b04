"""Whether one covariance structure is a case of another, and what is on a boundary where it is."""

from __future__ import annotations

import dataclasses

import numpy as np

from lmmjax.design import ResidualDesign
from lmmjax.formula import ModelFrame, RandomColumns, same_kernel
from lmmjax.inference.chisq import boundary_weights
from lmmjax.postestimation.comparison.random_tests import n_entries
from lmmjax.residual import CORRELATIONS, Correlation, Residual, Variance, VarIdent

TOLERANCE = 1e-8
"""Distance of a column from the span of others, relative to its length, below which it counts as in it."""

RANKS = ("rr", "fa")
"""Random-effects structures of which another rank is a case."""


def spans(x: np.ndarray, columns: np.ndarray) -> bool:
    """Whether the columns (n, k) lie in the span of x (n, p)."""
    if not columns.shape[1]:
        return True
    length = np.linalg.norm(columns, axis=0)
    unit = columns / np.where(length > 0, length, 1.0)
    scale = np.linalg.norm(x, axis=0)
    q = np.linalg.qr(x / np.where(scale > 0, scale, 1.0))[0] if x.shape[1] else x
    return bool(np.all(np.linalg.norm(unit - q @ (q.T @ unit), axis=0) <= TOLERANCE))


def null_weights(small: ModelFrame, large: ModelFrame) -> dict[int, float] | None:
    """Weights of the null distribution as in `boundary_weights`; ValueError unless `small` is nested.

    None where loadings vanish under the null, which no mixture of χ² describes.
    """
    names = f"{small.formula!r} is not nested in {large.formula!r}"
    if not spans(large.x, small.x):
        raise ValueError(f"{names}: its fixed effects are not among those of the other")
    homes: dict[int, list[RandomColumns]] = {k: [] for k in range(len(large.random))}
    absorbed = []
    for term in small.random:
        home = next((k for k, other in enumerate(large.random) if contains(other, term)), None)
        if home is not None:
            homes[home].append(term)
        elif within_residuals(term, small, large):
            absorbed.append(term)
        else:
            raise ValueError(f"{names}: the random term ({term.text}) is not within one of the other")
    interior, edge = residual_difference(small, large, names)
    interior -= sum(n_entries(term, len(term.names)) for term in absorbed)
    blocks, known = [(1, 0)] * edge, True
    for k, inside in homes.items():
        term, q = large.random[k], len(large.random[k].names)
        entries = n_entries(term, q) - sum(n_entries(t, len(t.names)) for t in inside)
        if any(t.structure in RANKS for t in (term, *inside)):
            # rr in us: what is left of rank q − r is a positive semi-definite block
            rank = _rank(inside[0], q) if len(inside) == 1 else None
            if rank is not None and (inside[0].structure, term.structure) == ("rr", "us"):
                left = q - rank
                blocks += [(left, left * (left - 1) // 2)] if left else []
            elif rank is not None and term.structure == "us":
                interior += entries
            else:
                known = known and entries == 0
            continue
        if "us" not in (term.structure, *(t.structure for t in inside)) and inside:
            plain = {"diag", "us"}
            if term.structure not in plain or any(t.structure not in plain for t in inside):
                interior += entries
                continue
        variances = q - sum(len(t.names) for t in inside)
        covariances = entries - variances
        if variances < 0 or covariances < 0:
            raise ValueError(f"{names}: several of its random terms fall into ({term.text})")
        blocks += [(variances, covariances)] if term.structure == "us" else [(1, 0)] * variances
    regular = large.x.shape[1] - small.x.shape[1] + interior
    return boundary_weights(regular, blocks) if known and regular >= 0 else None


def _rank(term: RandomColumns, q: int) -> int | None:
    return min(int(term.args[0]) if term.args else 2, q) if term.structure in RANKS else None


def within_residuals(term: RandomColumns, small: ModelFrame, large: ModelFrame) -> bool:
    """Whether the covariances of a random term, with the residuals of `small`, are residuals of `large`.

    Those of an intercept add a constant to all covariances in its groups; those of columns that the visits
    tell are of any free matrix.
    """
    own = large.residual and large.residual.design
    family = own and own.structure.residual.correlation
    if (
        not own
        or not family
        or term.kernel is not None
        or large.weights is not None
        or not _same_groups(term.codes, own.codes)
    ):
        return False
    before = small.residual and small.residual.residual.correlation
    equal = not (small.residual and small.residual.residual.variances)
    constant = term.z.shape[1] == 1 and bool(np.ptp(term.z) == 0)
    if family.name == "Unstructured":
        return all(told_by(column, own.place) for column in term.z.T)
    levels = before is None or before.name != "CompoundSymmetry" or family.name in _containing(before.name)
    wide = family.name in ("Toeplitz", "Symmetric") or (family.name == "CompoundSymmetry" and not before)
    return constant and equal and levels and wide


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
    levels = [] if many is None else _free_levels(many)
    for k, variance in enumerate(one.variances):
        told = few is not None and any(told_by(few.covariates[k], level) for level in levels)
        told = told and variance.source is not None and variance.by is None
        if not told and not any(_variance_within(variance, other, few, many) for other in two.variances):
            raise ValueError(f"{names}: the other has no {variance.name} of {variance.source!r}")
    counts = [0 if own is None else own.structure.n_params for own in placed]
    edge = int(getattr(b, "nugget", False) and not getattr(a, "nugget", False))
    return counts[1] - counts[0] - edge, edge


def _free_levels(design: ResidualDesign) -> list[np.ndarray]:
    """Levels of rows (n, ...), each of which has a variance of its own."""
    residual = design.structure.residual
    by = list(design.covariates[len(residual.variances) :])
    pairs = zip(residual.variances, design.covariates, strict=False)
    out = [c for v, c in pairs if isinstance(v, VarIdent)] + by
    if residual.correlation is not None and residual.correlation.variances:
        level = design.structure.group_level(design.covariates)
        out.append(design.place if level is None else np.stack([design.place, level], axis=1))
    return out


def _variance_within(
    small: Variance, large: Variance, few: ResidualDesign | None, many: ResidualDesign | None
) -> bool:
    """Whether a variance function is another with as many levels of `by`, or more."""
    if small == large:
        return True
    if dataclasses.replace(small, by=None) != dataclasses.replace(large, by=None) or large.by is None:
        return False
    return small.by is None or _finer(small.by, few, large.by, many)


def _finer(one: str, few: ResidualDesign | None, two: str, many: ResidualDesign | None) -> bool:
    """Whether the levels of a `by` of the first are told by those of one of the second."""
    if few is None or many is None:
        return False
    small, large = few.named.residual, many.named.residual
    left = few.covariates[len(small.variances) + small.by.index(one)]
    return told_by(left, many.covariates[len(large.variances) + large.by.index(two)])


def case_of(
    small: Correlation, large: Correlation, few: ResidualDesign | None, many: ResidualDesign | None
) -> bool:
    """Whether one correlation is the other for some values of its parameters, at the places of the rows."""
    if few is None or many is None or getattr(small, "nugget", False) > getattr(large, "nugget", False):
        return False
    if small.group != large.group and not _same_groups(few.codes, many.codes):
        return False
    if small.by is not None and (large.by is None or not _finer(small.by, few, large.by, many)):
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
    if not same_kernel(large.kernel, small.kernel) or not _same_groups(large.codes, small.codes):
        return False
    if large.structure == "us" and small.structure in ("us", "diag"):
        return spans(large.z, small.z)
    if small.structure in RANKS and np.array_equal(large.z, small.z):
        q = len(small.names)
        one, two = _rank(small, q), _rank(large, q)
        more = two is not None and one is not None and one <= two
        return large.structure == "us" or (more and (small.structure == "rr" or large.structure == "fa"))
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

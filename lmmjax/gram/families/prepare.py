"""From rows to stacks of families."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmmjax.arrays import Array, namespace
from lmmjax.arrays.memory import require_memory
from lmmjax.design import Design, Rows
from lmmjax.gram.base import Prepared
from lmmjax.gram.families.large import Large
from lmmjax.gram.families.layout import (
    Stack,
    alike_first,
    between_rows,
    families,
    placed,
    stacked,
    with_levels,
)
from lmmjax.gram.families.patterns import Summed, patterns, pay
from lmmjax.gram.families.products import FamilyProducts, FamilyResponse, Part
from lmmjax.gram.families.small import MOST as SMALL
from lmmjax.gram.families.small import Small, SmallResponse


class FamiliesPrepared(Prepared):
    """The rows of a design, family by family.

    Parameters
    ----------
    design, rows : a design with kernels that are sparse, or small, and independent residuals.
    compress : False for products that know the levels, for conditional modes.
    by_pattern : False for products that keep families apart though they are equal.
    """

    shared: FamilyProducts

    def __init__(self, design: Design, rows: Rows, compress: bool | None = None, by_pattern: bool = True):
        self.compressed = compress is not False
        label = families(design)
        count = int(label.max()) + 1
        sizes = np.bincount(label).astype(float)
        require_memory(
            "the covariances within families",
            8 * (len(design.terms) + 2),
            int(sizes @ sizes),
            remedy="set small relationships to zero, so that families are smaller",
        )
        between = [between_rows(term) for term in design.terms]
        stacks = stacked(label, count, alike_first(between))
        local = stacks[0][1]
        self.rows, self.summed = [stack.rows for stack, _ in stacks], []
        x = _extended(np.asarray(rows.x))
        z = [_extended(np.asarray(own)) for own in rows.z]
        known = [None if self.compressed else with_levels(term) for term in design.terms]
        parts: list[Part] = []
        for stack, _ in stacks:
            s = stack.rows.shape[1]
            relation = tuple(placed(own, stack, label, local, local, (s, s)) for own in between)
            mine = tuple(values[:, stack.rows] for values in z)
            summed = None
            if self.compressed and s <= SMALL:
                small = _small(design, x[:, stack.rows], mine, relation)
                summed = _by_pattern(small) if by_pattern else None
                parts.append(small if summed is None else summed.part)
            else:
                seen = [
                    _levels(entries, stack, label, local, term.n_groups)
                    for entries, term in zip(known, design.terms, strict=True)
                    if entries is not None
                ]
                levels, reach = zip(*seen, strict=True) if seen else ((), ())
                parts.append(Large(x[:, stack.rows], mine, relation, design.structure, levels, reach))
            self.summed.append(summed)
        own = tuple(None if t.kernel is None else t.kernel.diagonal for t in design.terms)
        groups = tuple(term.n_groups for term in design.terms)
        self.shared = FamilyProducts(tuple(parts), rows.logdet_r, own, design.structure, groups)

    def stacks_of(self, y: Array) -> list[Array]:
        """The values y (n, ...) in the axes of every part, zeros where there is no row."""
        xp = namespace(y)
        whole = xp.concatenate([y, xp.zeros((1, *y.shape[1:]), y.dtype)], axis=0)
        return [
            whole[rows] if isinstance(part, Large) else whole[rows.T]
            for rows, part in zip(self.rows, self.shared.parts, strict=True)
        ]

    def respond(self, residual: Array, factor: Array) -> FamilyResponse:
        own = zip(self.stacks_of(residual * factor), self.summed, strict=True)
        return FamilyResponse(tuple(SmallResponse(y) if summed is None else summed(y) for y, summed in own))


def _small(
    design: Design, x: np.ndarray, z: tuple[np.ndarray, ...], relation: tuple[np.ndarray, ...]
) -> Small:
    """Families x (p, B, s) with ∂H/∂d: K_gh ∘ ZEZᵀ for the unit matrices E of every term."""
    v = []
    for term, own, k in zip(design.structure.terms, z, relation, strict=True):
        v += [np.einsum("abs,ac,cbt->stb", own, unit, own) * k.transpose(1, 2, 0) for unit in term.units]
    return Small(np.ascontiguousarray(np.swapaxes(x, 1, 2)), np.stack(v))


def _by_pattern(small: Small) -> Summed | None:
    """Sums over equal families, if there are few that differ."""
    code, first = patterns(small.v)
    p, s, b = small.x.shape
    return Summed(small.x, small.v, code, first) if pay(len(first), s, p, b) else None


def _extended(a: np.ndarray) -> np.ndarray:
    """Rows on the last axis, and one of zeros."""
    return np.concatenate([a, np.zeros((*a.shape[:-1], 1))], axis=-1)


def _levels(
    entries: Any, stack: Stack, label: np.ndarray, local: np.ndarray, groups: int
) -> tuple[np.ndarray, np.ndarray]:
    """Levels (B, l) that families see, G where there are fewer, and their covariances (B, l, s) with rows."""
    i, j = entries.coords
    block = stack.home[label[j]]
    here = block >= 0
    pairs = np.unique(block[here] * np.int64(groups) + i[here])
    of, level = pairs // groups, pairs % groups
    place = np.arange(len(of)) - np.searchsorted(of, of)
    width = int(place.max(initial=0)) + 1
    levels = np.full((len(stack.rows), width), groups)
    levels[of, place] = level
    at = np.zeros(groups, np.int64)
    at[level] = place
    return levels, placed(entries, stack, label, at, local, (width, stack.rows.shape[1]))

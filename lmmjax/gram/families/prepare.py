"""From rows to stacks of families."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from lmmjax.arrays import Array, namespace
from lmmjax.arrays.memory import require_memory
from lmmjax.design import Design, Rows
from lmmjax.gram.base import Prepared
from lmmjax.gram.families.layout import Stack, between_rows, families, placed, stacked, with_levels
from lmmjax.gram.families.products import Families, FamilyProducts, FamilyResponse


class FamiliesPrepared(Prepared):
    """The rows of a design, family by family.

    Parameters
    ----------
    design, rows : a design with kernels that are sparse, or small, and independent residuals.
    compress : False for products that know the levels, for conditional modes.
    """

    shared: FamilyProducts

    def __init__(self, design: Design, rows: Rows, compress: bool | None = None):
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
        stacks = stacked(label, count)
        local = stacks[0][1]
        self.rows = [stack.rows for stack, _ in stacks]
        between = [between_rows(term) for term in design.terms]
        x = _extended(np.asarray(rows.x))
        z = [_extended(np.asarray(own)) for own in rows.z]
        parts = []
        for stack, _ in stacks:
            shape = (stack.rows.shape[1],) * 2
            relation = tuple(placed(own, stack, label, local, local, shape) for own in between)
            mine = tuple(values[:, stack.rows] for values in z)
            parts.append(Families(x[:, stack.rows], mine, relation))
        if not self.compressed:
            for term in design.terms:
                entries = with_levels(term)
                for k, (stack, _) in enumerate(stacks):
                    levels, reach = _levels(entries, stack, label, local, term.n_groups)
                    known = parts[k]
                    parts[k] = dataclasses.replace(
                        known, levels=(*known.levels, levels), reach=(*known.reach, reach)
                    )
        own = tuple(None if t.kernel is None else t.kernel.diagonal for t in design.terms)
        groups = tuple(term.n_groups for term in design.terms)
        self.shared = FamilyProducts(tuple(parts), rows.logdet_r, own, design.structure, groups)

    def respond(self, residual: Array, factor: Array) -> FamilyResponse:
        xp = namespace(residual)
        y = residual * factor
        last = xp.zeros((1, *y.shape[1:]), y.dtype)
        whole = xp.concatenate([y, last], axis=0)
        return FamilyResponse(tuple(whole[own] for own in self.rows))


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

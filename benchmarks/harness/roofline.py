"""What a batch has to read and to compute, on paper, beside what a card can do in a second.

Products are formed by `PASSES` passes over Y. An evaluation reads the products of every response twice and
keeps a state; its arithmetic is that of the jet of S = WᵀH⁻¹W, W = [X y], for each of the G groups, or K
patterns, that are kept: J and T = JC, then first and second derivatives in m parameters,

    2(p + 1)² q (1 + m + m(m + 1)/2)   operations.

Constants of the small algebra, launches and the host are left out: a bound, not a forecast.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np

import lmmjax as lj
from lmmjax.gram.spectral.products import SpectralProducts

PASSES = 6
"""Passes over Y: the level, the projection on X, residuals written and read, sums over groups, squares."""

STATE = 40
"""Numbers that a response takes along from one evaluation to the next."""

RATIOS = 40
"""Ratios of variances in the grid of a kernel whose eigenvalues are of one size."""

SWEPT = 6
"""Passes over all pairs of a scan: two products written and read, ρ² compared, places of hits counted."""

LINK = 55e9
"""Bytes a second from the host's memory by PCIe 5, of pinned memory."""

CARDS = {"H100": (3.35e12, 34e12, 67e12), "H200": (4.8e12, 34e12, 67e12)}
"""Bytes a second; operations a second in float64 by vectors and by tensor cores: the vendor's, SXM."""


@dataclass(frozen=True)
class Work:
    """Bytes of Y, and bytes and operations of the products and of all evaluations."""

    y_bytes: float
    bytes: float
    operations: float


def work(model: lj.Model, responses: int, evaluations: float) -> Work:
    """That of a batch whose responses take so many evaluations on the average, the certificate counted."""
    maker = model.data.maker
    problem = maker.lanes(np.zeros((maker.design.n, 1)))
    n, p, m = maker.design.n, maker.design.p, maker.design.structure.n_params
    if isinstance(problem.shared, SpectralProducts):
        return one_kernel(maker.design.n, len(problem.shared.mu), responses, evaluations)
    q = sum(term.q for term in maker.design.terms)
    kept = sum(int(a.size) for a in jax.tree.leaves(problem.response))
    groups = max(1.0, kept / (q * (p + 1)))
    y_bytes = 8.0 * n * responses
    once = 2.0 * (p + 1) ** 2 * q * (1 + m + m * (m + 1) / 2) * groups
    return Work(
        y_bytes,
        PASSES * y_bytes + 8.0 * responses * evaluations * (2 * kept + STATE),
        responses * (2.0 * n * (2 * p + 3 * q + 2) + evaluations * once),
    )


def one_kernel(n: int, k: int, responses: int, evaluations: float) -> Work:
    """That of a batch with k eigenvalues of a kernel: a rotation, a grid of ratios, evaluations of k numbers.

    The grid is written and looked at four times; an evaluation reads its numbers for three sums.
    """
    rotation, grid, once = 2.0 * n * k, 2.0 * RATIOS * k, 16.0 * k
    moved = 3.0 * n + 2.0 * k + 4.0 * RATIOS + evaluations * 3.0 * k
    return Work(
        8.0 * n * responses, 8.0 * moved * responses, responses * (rotation + grid + evaluations * once)
    )


def scan(n: int, markers: int, responses: int) -> Work:
    """That of a scan under a kernel of n individuals: two products of matrices, and passes over all pairs."""
    pairs = float(markers) * responses
    moved = SWEPT * pairs + 2.0 * n * responses + 2.0 * n * markers
    return Work(8.0 * n * (markers + responses), 8.0 * moved, 4.0 * n * pairs)


def seconds(done: Work, card: str) -> dict[str, float]:
    """Least seconds on a card: by memory, by arithmetic, the larger of both, and of moving Y there."""
    memory, vectors, _ = next(figures for name, figures in CARDS.items() if name in card)
    found = {"memory": done.bytes / memory, "arithmetic": done.operations / vectors}
    return found | {"bound": max(found.values()), "transfer": done.y_bytes / LINK}


def known(card: str) -> bool:
    """Whether the figures of a card are known."""
    return any(name in card for name in CARDS)

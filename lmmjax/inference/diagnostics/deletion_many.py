"""Deletion of independent clusters of rows for many responses that share a design, ψ held.

Where the rows of a cluster i are independent of the others V has a block V_i, and with F_i = X_iᵀV_i⁻¹X_i,

    Φ₍i₎ = (Φ⁻¹ − F_i)⁻¹,        β̂ − β̂₍i₎ = Φ₍i₎ X_iᵀV_i⁻¹(y_i − X_iβ̂).

In coordinates of X in which Φ = I these are (I − F_i)⁻¹, one for all clusters with equal rows, and
(I − F_i)⁻¹ times the scores.

Source: Christensen, Pearson & Johnson (1992), doi:10.2307/1269550.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lmmjax.inference.diagnostics.deletion import LOST
from lmmjax.inference.robust.clusters_many import ManyClusters


def without_clusters(
    clusters: ManyClusters, codes: np.ndarray
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yields some of the responses, β̂ (t, G, p) and Φ (t, G, p, p) without each cluster, codes (n,).

    NaN where the other rows do not determine β.
    """
    groups, p = int(codes.max()) + 1, clusters.design.p
    inverse = np.linalg.inv(clusters.factor)
    for part, c, pieces in clusters.pieces("CR0", groups * p * p):
        outward = inverse @ c
        beta = np.repeat(clusters.beta[part][:, None], groups, axis=1)
        phi = np.full((len(beta), groups, p, p), np.nan)
        for piece in pieces:
            left = np.eye(p) - np.swapaxes(piece.x, -1, -2) @ piece.x
            values, vectors = np.linalg.eigh(left)
            lost = values[..., :1] < LOST
            with np.errstate(divide="ignore"):
                root = vectors / np.sqrt(np.where(lost, np.nan, values))[..., None, :]
            root = outward[:, None] @ root
            own = piece.block.pattern
            cluster = codes[piece.block.rows[:, 0]]
            phi[:, cluster] = (root @ np.swapaxes(root, -1, -2))[:, own]
            # Δ = R⁻¹C(I − F)⁻¹s = Φ₍i₎(R⁻¹C)⁻ᵀs
            back = np.swapaxes(np.linalg.inv(outward), -1, -2)
            scores = (back[:, None] @ piece.scores[..., None])[..., 0]
            beta[:, cluster] -= (phi[:, cluster] @ scores[..., None])[..., 0]
        yield part, beta, phi

"""Rows that stand for many: as few as have the same products of [Z X y], cell by cell.

A cell has one level of every grouping factor. With Z = QR within a cell, its rows are, as far as the
likelihood sees them, the rows [R, Q'X, Q'y]; what is left of [X y] beside Q, of all cells together, is the
triangle of one QR decomposition, of rows where Z is zero (Demmel, Grigori, Hoemmen & Langou 2012,
doi:10.1137/080731992). So rows can be condensed chunk by chunk, and what was condensed be condensed again.
Orthogonal transformations throughout: no products of rows, whose digits would be lost.
"""

from __future__ import annotations

import numpy as np

from lmmjax.gram.grouped.prepare import Segments, orthogonalise

LEAST = 200_000
"""Rows that are held before those of cells which came back are condensed once more."""


class Condenser:
    """Takes rows by the chunk; holds at most about twice the rows that they are condensed to."""

    def __init__(self, q: int, width: int):
        self.left = np.zeros((0, width))
        self.held: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.q, self.width, self.after = q, width, LEAST

    def add(self, codes: np.ndarray, z: np.ndarray, w: np.ndarray) -> None:
        """Rows with levels `codes` (n, f) of the factors, z (n, q) of all terms, w = [X y] (n, p + 1)."""
        if len(z):
            self.held.append(self._condense(codes, z, w))
        if sum(len(z) for _, z, _ in self.held) > self.after:
            self._again()

    def rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(codes, z, w) of the rows that stand for all; the last have no Z, and codes that mean nothing."""
        self._again()
        codes, z, w = self.held[0]
        last = np.zeros((len(self.left), self.q))
        own = np.broadcast_to(codes[:1], (len(last), codes.shape[1]))
        return np.concatenate([codes, own]), np.concatenate([z, last]), np.concatenate([w, self.left])

    def _again(self) -> None:
        if len(self.held) > 1:
            codes, z, w = (np.concatenate(parts) for parts in zip(*self.held, strict=True))
            self.held = [self._condense(codes, z, w)]
        self.after = max(LEAST, 2 * sum(len(z) for _, z, _ in self.held))

    def _condense(
        self, codes: np.ndarray, z: np.ndarray, w: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        order = np.lexsort(codes.T[::-1])
        codes, z, w = codes[order], z[order], w[order]
        new = np.any(codes[1:] != codes[:-1], axis=1)
        cell = np.concatenate([[0], np.cumsum(new)])
        segments = Segments(cell, int(cell[-1]) + 1)
        basis, r = orthogonalise(np, z.T, segments)
        c = np.stack([segments.sum(column[:, None] * w) for column in basis])
        for column, own in zip(basis, c, strict=True):
            w = w - column[:, None] * segments.spread(own)
        self.left = np.asarray(np.linalg.qr(np.concatenate([self.left, w]), mode="r"))
        # R (q, q, G): row j of a cell is there unless the column depends on those before it
        there = np.diagonal(r, axis1=0, axis2=1) > 0
        g, j = np.nonzero(there)
        return codes[segments.starts[g]], np.moveaxis(r, 2, 0)[g, j], np.moveaxis(c, 1, 0)[g, j]

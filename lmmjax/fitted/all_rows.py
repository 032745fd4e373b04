"""What is kept of rows that are read by the chunk, beside products: moments, counts, rows that span X."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.formula import ModelFrame
from lmmjax.formula.columns import Table

MOST = 1_000_000
"""Combinations of levels that are counted."""

DEPENDENT = 1e-10
"""Rows of X whose part outside the row space of others is below this, relative, lie in it."""


class RowSpace:
    """Rows of X (·, P) that span all, found by pivoted Gram–Schmidt within each chunk."""

    def __init__(self, p: int):
        self.basis, self.scale = np.zeros((0, p)), np.zeros(p)

    def add(self, x: np.ndarray) -> list[int]:
        """Positions of the rows of a chunk that are not in the space of those before."""
        found: list[int] = []
        if len(self.basis) == x.shape[1]:
            return found
        if not len(self.basis):
            largest = np.abs(x).max(axis=0)
            self.scale = np.where(largest > 0, largest, 1.0)
        rest = x / self.scale
        size = np.maximum(np.linalg.norm(rest, axis=1), 1e-300)
        for q in self.basis:
            rest -= np.outer(rest @ q, q)
        while len(self.basis) < x.shape[1]:
            share = np.linalg.norm(rest, axis=1) / size
            best = int(np.argmax(share))
            if share[best] <= DEPENDENT:
                break
            own = rest[best] - (self.basis @ rest[best]) @ self.basis
            own = own / np.linalg.norm(own)
            self.basis = np.vstack([self.basis, own])
            rest -= np.outer(rest @ own, own)
            found.append(best)
        return found


class Cells:
    """Rows counted by the levels of predictors, with sums of covariates; made of what expressions see."""

    def __init__(self, columns: pd.DataFrame, levels: dict[str, list[Any]]):
        """`levels` has the values of columns of numbers that are levels, or two."""
        self.types: dict[str, Any] = {str(name): columns[name].dtype for name in columns}
        self.levels: dict[str, np.ndarray | None] = {}
        for name, dtype in self.types.items():
            if isinstance(dtype, pd.CategoricalDtype):
                self.levels[name] = None
            elif dtype.kind == "b" or name in levels:
                self.levels[name] = np.unique(np.asarray(levels.get(name, [False, True]), dtype))
        self.others = [name for name in self.types if name not in self.levels]
        self.shape = tuple(self._size(name) for name in self.levels)
        size, width = math.prod(self.shape), len(self.others)
        self.counts = np.zeros(size if size <= MOST else 0)
        self.sums = np.zeros((width, len(self.counts)))
        self.low, self.high = np.full(width, np.inf), np.full(width, -np.inf)
        self.n, self.mean, self.scatter = 0, np.zeros(width), np.zeros(width)

    def _size(self, name: str) -> int:
        values = self.levels[name]
        return len(self.types[name].categories if values is None else values)

    def add(self, table: Table, rows: np.ndarray) -> None:
        """Rows of a chunk."""
        if not len(self.counts) or not len(rows):
            return
        at = np.zeros(len(rows), np.int64)
        for name, size in zip(self.levels, self.shape, strict=True):
            at = at * size + self._codes(name, table.evaluated(name, rows))
        self.counts += np.bincount(at, minlength=len(self.counts))
        for k, name in enumerate(self.others):
            values = np.asarray(table.evaluated(name, rows).astype(self.types[name]))
            x = values.astype(np.int64).astype(float) if values.dtype.kind in "mM" else values.astype(float)
            self.sums[k] += np.bincount(at, x, minlength=len(self.counts))
            self.low[k], self.high[k] = min(self.low[k], x.min()), max(self.high[k], x.max())
            both, mean = self.n + len(x), x.mean()
            gap = mean - self.mean[k]
            self.scatter[k] += np.sum((x - mean) ** 2) + gap * gap * self.n * len(x) / both
            self.mean[k] += gap * len(x) / both
        self.n += len(rows)

    def _codes(self, name: str, column: pd.Series) -> np.ndarray:
        values = self.levels[name]
        if values is None:
            return pd.Categorical(column.astype(object), categories=self.types[name].categories).codes
        return np.searchsorted(values, np.asarray(column))

    def columns(self) -> tuple[pd.DataFrame | None, np.ndarray, dict[str, float]]:
        """The combinations that occur, then the ends of covariates; rows of each; standard deviations."""
        there = np.flatnonzero(self.counts)
        if not len(there):
            return None, np.zeros(0), {}
        counts = self.counts[there]
        ends = 2 if self.others else 0
        # the ends stand in a combination that occurs
        own = np.concatenate([there, np.repeat(there[:1], ends)])
        out: dict[str, Any] = {}
        for name, codes in zip(self.levels, np.unravel_index(own, self.shape or (1,)), strict=False):
            values, dtype = self.levels[name], self.types[name]
            out[name] = pd.Categorical.from_codes(codes, dtype=dtype) if values is None else values[codes]
        means = self.sums[:, there] / counts
        for name, mean, low, high in zip(self.others, means, self.low, self.high, strict=True):
            # within the ends, whatever rounding does
            values = np.append(np.clip(mean, low, high), [low, high])
            times = self.types[name].kind in "mM"
            out[name] = pd.Series(np.round(values).astype(np.int64) if times else values).astype(
                self.types[name]
            )
        columns = pd.DataFrame({name: out[name] for name in self.types}, index=pd.RangeIndex(len(own)))
        sds = np.sqrt(self.scatter / max(self.n - 1, 1))
        return (
            columns,
            np.append(counts, np.zeros(ends)),
            dict(zip(self.others, map(float, sds), strict=True)),
        )


class AllRows:
    """Moments of X and Z, and the other things; `levels` as of `Cells`."""

    def __init__(self, frame: ModelFrame, levels: dict[str, list[Any]], weighted: bool):
        assert frame.columns is not None
        p = len(frame._recipe.parts["fixed"].names)
        self.cells, self.space = Cells(frame.columns, levels), RowSpace(p)
        self.n, self.mean, self.scatter = 0, np.zeros(p), np.zeros((p, p))
        self.triangle = np.zeros((0, p)) if weighted else None
        self.squares = [np.zeros((len(term.names),) * 2) for term in frame.random]
        self.reciprocals = 0.0
        self.witnesses: list[pd.DataFrame] = []

    def add(self, piece: pd.DataFrame, x: np.ndarray, z: list[np.ndarray], root: np.ndarray) -> None:
        """Complete rows of a chunk: their columns, X (n, P), Z by term and √w (n,)."""
        table = Table(piece)
        self.cells.add(table, np.arange(len(piece)))
        if found := self.space.add(x):
            self.witnesses.append(piece.iloc[found])
        mean, both = x.mean(axis=0), self.n + len(x)
        gap, centred = mean - self.mean, x - mean
        self.scatter += centred.T @ centred + np.outer(gap, gap) * (self.n * len(x) / both)
        self.mean += gap * len(x) / both
        self.n = both
        if self.triangle is not None:
            self.triangle = np.asarray(np.linalg.qr(np.concatenate([self.triangle, x]), mode="r"))
        for square, own in zip(self.squares, z, strict=True):
            square += own.T @ own
        self.reciprocals += float(np.sum(1.0 / root**2))

    def moments(self, w: np.ndarray) -> dict[str, Any]:
        """Fields of `ManyRows`; w (k, P) are rows with the products of X, weighted."""
        triangle = np.asarray(np.linalg.qr(w, mode="r")) if self.triangle is None else self.triangle
        cells, counts, spread = self.cells.columns()
        return {
            "n": self.n,
            "triangle": triangle,
            "covariance": self.scatter / max(self.n - 1, 1),
            "squares": tuple(square / self.n for square in self.squares),
            "noise": self.reciprocals / self.n,
            "cells": cells,
            "counts": counts,
            "spread": spread,
        }

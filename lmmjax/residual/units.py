"""Units of residuals: rows of one visit, level or arm divided by a typical size of theirs.

Where visits are measured in different units, or variances differ by orders of magnitude, least squares on the
rows as they are loses the digits of the small ones. In internal coordinates every class of rows, whose
variance is free, has residuals of about the same size. With unit 1 for the first class σ² is the user's,
the other parameters change by factors.
"""

from __future__ import annotations

import numpy as np

from lmmjax.residual.structure import ResidualStructure
from lmmjax.residual.variances import VarIdent

FAR, ALIKE = 16.0, 2.0
"""Largest ratio of sizes for which rows stay as they are; that of least squares, whose coefficients carry
large residuals of one class over to the others, beyond which it is looked for."""

PASSES = 4


def classes(
    structure: ResidualStructure, place: np.ndarray, covariates: tuple[np.ndarray, ...]
) -> np.ndarray | None:
    """Class (n,) of every row; None where no part has a free variance for each of them."""
    residual = structure.residual
    part = _carrier(structure)
    if part is None:
        return None
    if residual.correlation is not None and residual.correlation.variances:
        level = structure.group_level(covariates)
        return place if level is None else level * structure.space.size + place
    if residual.parts[part].by is not None:
        return covariates[len(residual.variances) + residual.by.index(residual.parts[part].by)]
    return covariates[part - len(residual.parts) + len(residual.variances)]


def factors(structure: ResidualStructure, units: np.ndarray) -> np.ndarray:
    """(k,) by which parameters of rows in `units` (classes,) are multiplied for those of rows as they are."""
    out, part = np.ones(structure.n_params), _carrier(structure)
    if part is None:
        return out
    for block in structure.blocks:
        if block.part != part:
            continue
        if block.scale:
            out[block.at.start] = units[block.level]
        elif isinstance(structure.residual.parts[part], VarIdent):
            out[block.at] = _filled(units, block.at.stop - block.at.start + 1)[1:]
        else:
            pairs = np.array([p.pair or (p.place, p.place) for p in block.own], dtype=int)
            every = _filled(units, pairs.max() + 1)
            out[block.at] = every[pairs[:, 0]] * every[pairs[:, 1]]
    return out


def _filled(units: np.ndarray, count: int) -> np.ndarray:
    """Units of at least `count` classes: of the last ones there may be no rows."""
    return np.append(units, np.ones(max(count - len(units), 0)))


def _carrier(structure: ResidualStructure) -> int | None:
    """The part that has a free variance for every class."""
    residual = structure.residual
    if residual.correlation is not None and residual.correlation.variances:
        return 0
    for block in structure.blocks:
        if block.scale:
            return block.part
    for index, part in enumerate(residual.parts):
        if isinstance(part, VarIdent) and part.by is None:
            return index
    return None


def units_of(codes: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    """Powers of two, the first 1, near the sizes of the residuals of classes; None where these are alike.

    Parameters
    ----------
    codes : (n,) classes; x : (n, p); y : (n, T) responses, of which classes have the median size.
    """
    count = int(codes.max()) + 1
    size = np.ones(count)
    rows = np.maximum(np.bincount(codes, minlength=count), 1)
    for k in range(PASSES):
        root = 1.0 / size[codes]
        q = np.linalg.qr(x * root[:, None])[0]
        scaled = y * root[:, None]
        square = (scaled - q @ (q.T @ scaled)) ** 2
        mean = np.stack([np.bincount(codes, v, minlength=count) for v in square.T]) / rows
        own = np.median(np.sqrt(mean), axis=0)
        if not np.all(np.isfinite(own)) or own.max() == 0:
            return None
        size = size * np.where(own > 0, own, 1.0)
        if k == 0 and size.max() <= ALIKE * size.min():
            return None
    if size.max() <= FAR * size.min():
        return None
    return np.exp2(np.round(np.log2(size / size[0])))

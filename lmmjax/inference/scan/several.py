"""Candidates of several columns under one kernel, from b = G'Py and C = G'PG.

With s columns, r₁ = a − b'C⁻¹b and df = n − p − s, column j has

    effect (C⁻¹b)_j,   r₊ = effect_j²/(C⁻¹)_jj what it adds to the others,
    likelihood ratio n log((r₁ + r₊)/r₁);   all together: n log(a/r₁), F = (a − r₁)/s / (r₁/df) on (s, df).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from lmmjax.inference.scan.engine import ALL, Engine
from lmmjax.inference.scan.statistics import Statistics, f_test, term_statistics
from lmmjax.inference.scan.wald import inverses


@dataclasses.dataclass(frozen=True, eq=False)
class Several:
    """Of k candidates of s columns and t responses.

    Attributes
    ----------
    terms : statistics of every column beside the others, each (k, t).
    share : (s, k, t) r₊/(r₁ + r₊) of every column.
    lrt : (k, t) likelihood ratio of all columns; p_joint : that of their F.
    """

    terms: list[Statistics]
    share: np.ndarray
    lrt: np.ndarray
    p_joint: np.ndarray


def several(engine: Engine, blocks: list[Any], part: slice = ALL) -> Several:
    """Least squares on the columns of candidates, a block for each."""
    null, s, df = engine.null.some(part), len(blocks), engine.df(len(blocks), part)
    b, c = zip(*(engine.products(block, part) for block in blocks), strict=True)
    shape = b[0].shape
    whole = np.empty((*shape, s, s))
    for i in range(s):
        whole[..., i, i] = c[i]
        for j in range(i):
            whole[..., i, j] = whole[..., j, i] = engine.cross(blocks[i], blocks[j], part)
    void = ~np.isfinite(whole).all(axis=(-2, -1))
    whole[void] = np.eye(s)
    inverse, sign, logdet = inverses(whole)
    inverse[void | (sign <= 0)] = np.nan
    effect = (inverse @ np.stack(b, axis=-1)[..., None])[..., 0]
    left = null.a - np.sum(effect * np.stack(b, axis=-1), axis=-1)
    own = np.einsum("...ss->...s", inverse)
    with np.errstate(divide="ignore", invalid="ignore"):
        adds = effect**2 / own
        terms = [
            term_statistics(null, effect[..., j], own[..., j], left, left + adds[..., j], logdet, df, s)
            for j in range(s)
        ]
        share = np.stack([adds[..., j] / (left + adds[..., j]) for j in range(s)])
        lrt = null.n * np.log(null.a / left)
        p_joint = f_test((null.a - left) / s / (left / df), float(s), df)
    return Several(terms, share, lrt, p_joint)

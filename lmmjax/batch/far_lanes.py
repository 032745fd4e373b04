"""Responses of a batch whose random effects are large: fitted again, in coordinates that suit them."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from lmmjax.arrays.sparse_columns import Columns, pieces
from lmmjax.batch.device import fit_blocks
from lmmjax.batch.outcome import Outcome, outcome
from lmmjax.batch.sources import few
from lmmjax.batch.starts import How
from lmmjax.core import Problem, ProblemMaker
from lmmjax.core.far.fit import far_estimate, preferred, suspects
from lmmjax.core.far.own import own_coefficients
from lmmjax.core.far.turn import shared_turns


def put_far(maker: ProblemMaker, y: Columns, found: Outcome, how: How) -> None:
    """Replace the fits of responses y (n, T) that are far by those in coordinates of their own."""
    if how.max_iter == 0:
        return
    left = np.flatnonzero(suspects(maker.design, found.estimate))
    if len(left) <= few(maker) or not maker.prepared.shared.together:
        for k in left:
            new = far_estimate(maker, _column(y, k), how.reml, max_iter=how.max_iter)
            if new is not None and preferred(new, jax.tree.map(lambda a, k=k: a[k], found.estimate)):
                one = jax.tree.map(lambda a: np.asarray(a)[None], new)
                found.put(np.array([k]), outcome(one, found.optima[[k]], found.starts[k]))
        return
    each = {int(k): own_coefficients(maker, _column(y, k)) for k in left}
    owns = {k: own for k, own in each.items() if own is not None}
    for turn, those in shared_turns(maker, owns):
        shifts = np.stack([owns[k].shift for k in those], axis=-1)
        start = turn.inner_start

        def block(part: slice, those=those, shifts=shifts, turn=turn) -> Problem:
            values = np.stack([_column(y, k) for k in those[part]], axis=-1)
            return turn.lanes(values, shifts[:, part], how.reml)

        vector = turn.maker.prepared.shared.vector
        result, _ = fit_blocks(len(those), vector, block, how.max_iter, [start], how.dtype)
        result = turn.restored(jax.tree.map(np.asarray, result), how.reml)
        good = preferred(result, jax.tree.map(lambda a, those=those: a[those], found.estimate))
        new = outcome(result, found.optima[those], found.starts[those])
        found.put(those[good], new.some(good))


def _column(y: Columns, k: Any) -> np.ndarray:
    """Response k (n,) of y (n, T)."""
    return np.concatenate([np.asarray(values, float) for _, values in pieces(y[:, [int(k)]])], axis=1)[:, 0]

"""Fits of one response without a group or a row at a time on devices: the products are formed there.

What a part adds to the products moves, 1 + (q + p)(q + p + 1) numbers or so; the K patterns of all rows, of
which every fit has a copy without it, are there already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array
from lmmjax.batch.device.descent import fit_on_devices
from lmmjax.batch.device.rows import Handed
from lmmjax.batch.device.transfer import over, to_all
from lmmjax.batch.device.where import Place
from lmmjax.batch.lanes import in_x64, pad
from lmmjax.core import Estimate, Problem, ProblemMaker
from lmmjax.design import Origin

if TYPE_CHECKING:
    from lmmjax.gram.grouped.leave_out import LeaveOut


def left_out_on_devices(
    place: Place,
    maker: ProblemMaker,
    products: LeaveOut,
    origin: Origin,
    reml: bool,
    chosen: np.ndarray,
    starts: Sequence[np.ndarray | None],
) -> Estimate:
    """Fits without each of the parts `chosen` (T,), the best of descents from `starts`; arrays lead with T.

    `origin` is that of the response of `products`.
    """
    from lmmjax.gram.grouped.leave_out import Pieces

    devices, vector = place.devices, products.elements()
    parts = (products.out,) if products.back is None else (products.out, products.back)
    each = len(products.out.arrays())

    def formed(*arrays: Array) -> tuple:
        out = Pieces(*arrays[:each])
        back = Pieces(*arrays[each:]) if len(parts) > 1 else None
        shared, response, n = products.formed(out, back)

        def every(tree):
            return jax.tree.map(lambda a: jnp.repeat(jnp.asarray(a)[..., None], len(n), axis=-1), tree)

        return shared, response, every(origin), every(maker.basis), n

    run = Handed(formed, devices)
    kappa = in_x64(to_all)(np.asarray(float(reml)), devices)
    known = None if maker.design.known is None else in_x64(to_all)(np.asarray(maker.design.known), devices)

    def block(part: slice, lanes: int) -> Callable[[], Problem]:
        total, own = lanes * len(devices), [p.take(chosen[part]) for p in parts]
        arrays = [pad(a, total - a.shape[-1]) for p in own for a in p.arrays()]
        shared, response, start, basis, n = run(lanes, *(over(a, devices) for a in arrays))
        problem = Problem(shared, response, start, basis, n, kappa, maker.design.structure, known)
        return lambda: problem

    lanes = place.block(len(chosen), 0, vector)
    return fit_on_devices(place, len(chosen), lanes, block, 100, starts)[0]

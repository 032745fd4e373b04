"""Arrays without statistics: pytree records, small-block algebra, compilation, elementwise rewriting.

What is listed here is for everyone; `unroll` and `memory` are for the few that need them.
"""

from lmmjax.arrays.compile import eager_jit, enable_compilation_cache, quick_jit
from lmmjax.arrays.derivatives import derivatives, value_and_slopes
from lmmjax.arrays.linalg import (
    BRIEF,
    UNROLL,
    block_diagonal,
    diagonal,
    eliminate,
    hold,
    inverse_by_products,
    ldl,
    matmul,
    pivot_order,
    psd_cholesky,
    side_by_side,
    sweep,
    transpose,
)
from lmmjax.arrays.once import traced_once
from lmmjax.arrays.types import Array, namespace, record, static

__all__ = [
    "BRIEF",
    "UNROLL",
    "Array",
    "block_diagonal",
    "derivatives",
    "diagonal",
    "eager_jit",
    "eliminate",
    "enable_compilation_cache",
    "hold",
    "inverse_by_products",
    "ldl",
    "matmul",
    "namespace",
    "pivot_order",
    "psd_cholesky",
    "quick_jit",
    "record",
    "side_by_side",
    "static",
    "sweep",
    "traced_once",
    "transpose",
    "value_and_slopes",
]

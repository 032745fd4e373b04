"""Products of sparse responses with a grouped design: work and memory are those of the entries."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmmjax.arrays.sparse_columns import SparseColumns


def read_sparse(
    y: SparseColumns, fixed: np.ndarray, groups: Any, offset: np.ndarray | None, root: np.ndarray | None
) -> tuple[np.ndarray, ...]:
    """X̃ᵀv (p, T), Qᵀv (qG, T) and ‖v‖² (T,) of v = W^½(y − o), o the offset; X̃ and Q have W^½ already.

    With W^½ moved over to the maps only y is touched, and of y only what is stored:

        X̃ᵀv = (W^½X̃)ᵀy − X̃ᵀW^½o,   ‖v‖² = yᵀWy − 2oᵀWy + oᵀWo.

    Parameters
    ----------
    fixed : (p, n) X̃ᵀ; groups : (qG, n) Qᵀ, sparse, CSR.
    offset, root : (n,) o and the diagonal of W^½, or None.
    """
    import scipy.sparse as sp

    n, lanes = y.shape
    own = np.ones(n) if root is None else root
    x = np.ascontiguousarray((fixed * own).T)
    q = sp.csr_array(groups.multiply(own[None, :]).T) if root is not None else sp.csr_array(groups.T)
    weight, shift = own * own, None if offset is None else own * offset
    projection, c, total = np.empty((len(fixed), lanes)), np.empty((groups.shape[0], lanes)), np.empty(lanes)
    for part, tile in y.tiles():
        projection[:, part] = (tile @ x).T
        c[:, part] = (tile @ q).toarray().T
        if shift is not None:
            total[part] = -2.0 * (tile @ (own * shift))
        squares = sp.csr_array((tile.data**2, tile.indices, tile.indptr), shape=tile.shape)
        total[part] = squares @ weight + (0.0 if shift is None else total[part])
    if shift is not None:
        projection -= (fixed @ shift)[:, None]
        c -= (groups @ shift)[:, None]
        total += shift @ shift
    return projection, c, total

"""c = QᵀZ₂: which columns of other factors meet which groups of the leading one, and products with it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lmmjax._linalg import matmul
from lmmjax._types import Array, record, static


@record
class Incidence:
    """c_g (q, N) for G groups, kept where it is not zero.

    Attributes
    ----------
    entry_group, entry_column : (E,) where c is not zero; entry_value : (q, E). Sorted by group.
    pair_group, pair_target : (P,) for every two entries of a group its number and a position in the flat
        lower triangle of an (N, N) matrix; pair_value : (q(q+1)/2, P) their products. Sorted by group.
    heavy_group : (L,) groups with many entries, which have no pairs; heavy : (q, L, N) their c.
    width : N; n_groups : G.
    """

    entry_group: Array
    entry_column: Array
    entry_value: Array
    pair_group: Array
    pair_target: Array
    pair_value: Array
    heavy_group: Array
    heavy: Array
    width: int = static()
    n_groups: int = static()

    def sandwiches(self, weights: list[Array]) -> list[Array]:
        """Σ c_gᵀw_gc_g (N, N) for every one of some symmetric w (q, q, G)."""
        n, q = self.width, self.entry_value.shape[0]
        out = []
        for w in weights:
            per_pair = sum(
                w[a, b][self.pair_group] * self.pair_value[k] for k, (a, b) in enumerate(_upper(q))
            )
            flat = jnp.zeros(n * n, self.pair_value.dtype).at[self.pair_target].add(per_pair)
            lower = flat.reshape(n, n)
            out.append(lower + jnp.tril(lower, -1).T)
        if not self.heavy.shape[1]:
            return out
        # one product: with small matrices a call costs more than its arithmetic
        moved = [matmul(w[:, :, self.heavy_group, None], self.heavy[:, None]).reshape(-1, n) for w in weights]
        dense = self.heavy.reshape(-1, n).T @ jnp.concatenate(moved, axis=1)
        return [a + dense[:, k * n : (k + 1) * n] for k, a in enumerate(out)]

    def quadratic(self, c: Array) -> Array:
        """c_g C c_gᵀ (q, q, G) for a symmetric C (N, N)."""
        q, groups = self.entry_value.shape[0], self.n_groups
        # pairs of different entries count twice
        twice = jnp.where(self.pair_target % (c.shape[0] + 1) == 0, 1.0, 2.0).astype(c.dtype)
        doubled = twice * c.reshape(-1)[self.pair_target]
        moved = (self.heavy.reshape(-1, self.width) @ c).reshape(self.heavy.shape)
        out = jnp.zeros((q, q, groups), c.dtype)
        for k, (a, b) in enumerate(_upper(q)):
            share = 1.0 if a == b else 0.5
            block = jax.ops.segment_sum(
                share * doubled * self.pair_value[k], self.pair_group, groups, indices_are_sorted=True
            )
            if self.heavy.shape[1]:
                block = block.at[self.heavy_group].add(jnp.sum(moved[a] * self.heavy[b], axis=1))
            out = out.at[a, b].set(block)
            if a != b:
                out = out.at[b, a].set(block)
        return out

    def to_columns(self, w: Array) -> Array:
        """Σ c_gᵀw_g (N, k) for w (q, k, G)."""
        per_entry = sum(self.entry_value[a][:, None] * w[a].T[self.entry_group] for a in range(w.shape[0]))
        return jax.ops.segment_sum(per_entry, self.entry_column, self.width)

    def to_groups(self, v: Array) -> Array:
        """c_gv (q, k, G) for v (N, k)."""
        rows = v[self.entry_column]
        return jnp.stack(
            [
                jax.ops.segment_sum(
                    value[:, None] * rows, self.entry_group, self.n_groups, indices_are_sorted=True
                ).T
                for value in self.entry_value
            ]
        )


def _upper(q: int) -> list[tuple[int, int]]:
    return [(a, b) for a in range(q) for b in range(a, q)]

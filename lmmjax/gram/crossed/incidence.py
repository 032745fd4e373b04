"""c = QᵀZ₂: which columns of other factors meet which groups of the leading one, and products with it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import UNROLL, Array, matmul, record, side_by_side, static


@record
class Incidence:
    """c_g (q, N) for G groups, kept where it is not zero.

    Attributes
    ----------
    entry_group, entry_column : (E,) where c is not zero; entry_value : (q, E). Sorted by group.
    pair_group, pair_target : (P,) for every two entries of a group its number and a position in the flat
        lower triangle of an (N, N) matrix; pair_value : (q(q+1)/2, P) their products. Sorted by group.
    heavy_group : (L,) groups with many entries, which are not among those; heavy : (q, L, N) their c.
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
        if len(weights) > UNROLL:
            return [*jax.lax.map(lambda w: self.sandwiches([w])[0], jnp.stack(weights))]
        if not self.heavy.shape[1]:
            return [self._light_sandwich(w) for w in weights]
        n = self.width
        moved = [matmul(self._of_heavy(w)[..., None], self.heavy[:, None]).reshape(-1, n) for w in weights]
        out = side_by_side(self._rows.T, moved)
        if not self._light:
            return out
        return [a + self._light_sandwich(w) for a, w in zip(out, weights, strict=True)]

    def _light_sandwich(self, w: Array) -> Array:
        n, pairs = self.width, enumerate(_upper(w.shape[0]))
        per_pair = sum(w[a, b][self.pair_group] * self.pair_value[k] for k, (a, b) in pairs)
        lower = jnp.zeros(n * n, self.pair_value.dtype).at[self.pair_target].add(per_pair).reshape(n, n)
        return lower + jnp.tril(lower, -1).T

    def quadratic(self, c: Array) -> Array:
        """c_gCc_gᵀ (q, q, G) for a symmetric C (N, N)."""
        q, pairs = len(self.heavy), _upper(len(self.heavy))
        moved = (self._rows @ c).reshape(self.heavy.shape)
        blocks = jnp.stack([jnp.sum(moved[a] * self.heavy[b], axis=1) for a, b in pairs])
        if self._light:
            # pairs of different entries count twice
            twice = jnp.where(self.pair_target % (self.width + 1) == 0, 1.0, 2.0).astype(c.dtype)
            doubled = twice * c.reshape(-1)[self.pair_target]
            light = [
                jax.ops.segment_sum(
                    (1.0 if a == b else 0.5) * doubled * self.pair_value[k],
                    self.pair_group,
                    self.n_groups,
                    indices_are_sorted=True,
                )
                for k, (a, b) in enumerate(pairs)
            ]
            blocks = self._with_heavy(jnp.stack(light), blocks)
        place = {pair: k for k, pair in enumerate(pairs)}
        return blocks[np.array([[place[min(a, b), max(a, b)] for b in range(q)] for a in range(q)])]

    def to_columns(self, w: Array) -> Array:
        """Σ c_gᵀw_g (N, k) for w (q, k, G)."""
        out = self._rows.T @ jnp.swapaxes(self._of_heavy(w), 1, 2).reshape(-1, w.shape[1])
        if not self._light:
            return out
        per_entry = sum(self.entry_value[a][:, None] * w[a].T[self.entry_group] for a in range(w.shape[0]))
        return out + jax.ops.segment_sum(per_entry, self.entry_column, self.width)

    def to_groups(self, v: Array) -> Array:
        """c_gv (q, k, G) for v (N, k)."""
        q, many, _ = self.heavy.shape
        out = jnp.swapaxes((self._rows @ v).reshape(q, many, v.shape[1]), 1, 2)
        if not self._light:
            return out
        rows = v[self.entry_column]
        light = [
            jax.ops.segment_sum(
                value[:, None] * rows, self.entry_group, self.n_groups, indices_are_sorted=True
            ).T
            for value in self.entry_value
        ]
        return self._with_heavy(jnp.stack(light), out)

    @property
    def _rows(self) -> Array:
        """The heavy c as rows (qL, N)."""
        return self.heavy.reshape(-1, self.width)

    @property
    def _light(self) -> bool:
        return self.heavy.shape[1] < self.n_groups

    def _of_heavy(self, a: Array) -> Array:
        """a (..., G) of the heavy groups."""
        return a[..., self.heavy_group] if self._light else a

    def _with_heavy(self, light: Array, heavy: Array) -> Array:
        """light (..., G) with what the heavy groups have (..., L)."""
        return light.at[..., self.heavy_group].add(heavy)


def _upper(q: int) -> list[tuple[int, int]]:
    return [(a, b) for a in range(q) for b in range(a, q)]

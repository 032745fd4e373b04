"""Unrolled functions are the functions they came from, under vmap too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmmjax.arrays import ldl, matmul, pivot_order, psd_cholesky, sweep
from lmmjax.arrays.unroll import unroll


def newton_root(a):
    def body(carry):
        x, i = carry
        return 0.5 * (x + a[0, 0] / x), i + 1

    return jax.lax.while_loop(lambda c: jnp.abs(c[0] ** 2 - a[0, 0]) > 1e-12, body, (a[0, 0], 0))


FUNCTIONS = {
    "sweep": sweep,
    "ldl": ldl,
    "pivot_order": pivot_order,
    "psd_cholesky": lambda a: psd_cholesky(a, 1e-12),
    "matmul": lambda a: matmul(a, a),
    "dot": lambda a: a @ a @ a[0],
    "einsum": lambda a: jnp.einsum("ij,jk,ki->i", a, a, a),
    "reductions": lambda a: (jnp.max(a), jnp.min(a, axis=0), jnp.any(a > 1, axis=1), jnp.prod(a)),
    "moves": lambda a: jnp.concatenate([a.T[::-1], jnp.stack([a[0], a[2]]).reshape(2, 3)])[
        np.array([0, 3, 1])
    ],
    "scatter": lambda a: jnp.zeros((4, 4), a.dtype).at[1:, :3].set(a),
    "pad": lambda a: jnp.pad(a, ((1, 0), (0, 2))),
    "pad between": lambda a: jax.lax.pad(a, jnp.zeros((), a.dtype), ((1, 2, 1), (-1, 0, 2))),
    "pad cuts": lambda a: jax.lax.pad(a, jnp.ones((), a.dtype), ((-1, 1, 0), (2, -2, 0))),
    "gather blocks": lambda a: (a[np.arange(3), np.arange(3)], a[np.arange(2)[:, None], np.array([2, 0])]),
    "gather windows": lambda a: jax.vmap(lambda i: jax.lax.dynamic_slice(a, (i, 0), (2, 3)))(
        np.array([1, 5])
    ),
    "gather beyond": lambda a: (
        a.at[np.array([0, 7])].get(mode="fill"),
        a.at[np.array([0, 7])].get(mode="fill", fill_value=2.0),
        a.at[:, np.array([-1, 9])].get(mode="clip"),
    ),
    "gather by row": lambda a: jnp.take_along_axis(a, np.array([[2, 0], [1, 1], [0, 2]]), axis=1),
    "gather by batch": lambda a: jax.vmap(lambda row, i: row[i])(a, np.array([[2, 0], [1, 1], [0, 2]])),
    "scatter beyond": lambda a: a.at[np.array([0, 7])].set(a[:2]),
    "scatter by batch": lambda a: jax.vmap(lambda row, i: row.at[i].set(0.0))(
        a, np.array([[2, 0], [1, 2], [0, 2]])
    ),
    "split": lambda a: jnp.split(a, [1, 2], axis=1),
    "steps": lambda a: (a[::2, ::-1], a[1, 2], jnp.squeeze(a[:1]), jnp.expand_dims(a, (0, 2))),
    "derivatives": lambda a: jax.jacfwd(jax.jacfwd(lambda t: jnp.log(t @ a @ t)))(a[1]),
    "while": newton_root,
    "select": lambda a: jnp.where(a > 1, a, jnp.sqrt(jnp.abs(a)) - 1),
    "argmax": lambda a: (jnp.argmax(a[0]), jnp.argmin(a[0])),
    "powers": lambda a: a**3 + 1.0 / a**2 + jnp.tanh(a) * jnp.exp(-a),
}


def blocks(lanes):
    roots = np.random.default_rng(3).normal(size=(lanes, 3, 3))
    return roots @ roots.transpose(0, 2, 1) + np.eye(3)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_unrolled_equals_plain(name):
    function = FUNCTIONS[name]
    with jax.enable_x64(True):
        a = jnp.asarray(blocks(5))
        plain = [function(block) for block in a]
        lanes = jax.vmap(unroll(function), in_axes=(None, -1), out_axes=-1)(
            jnp.ones(()), jnp.moveaxis(a, 0, -1)
        )
        wanted = jax.tree.map(lambda *xs: np.stack(xs, axis=-1), *plain)
        for got, want in zip(jax.tree.leaves(lanes), jax.tree.leaves(wanted), strict=True):
            assert got.dtype == want.dtype
            # the same operations in another order of summation
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


def test_barriers_change_no_value():
    with jax.enable_x64(True):
        a = jnp.asarray(blocks(1)[0])
        out = unroll(lambda a: jax.lax.optimization_barrier(a) @ a)(jnp.ones(()), a)
        np.testing.assert_allclose(out, a @ a, rtol=1e-14)


def test_an_unknown_primitive_is_named():
    with pytest.raises(ValueError, match="'sort' cannot be unrolled"):
        unroll(jnp.sort)(jnp.ones(()), jnp.ones(3))

"""Programs played by NumPy give what JAX's compiled ones give, primitive by primitive and as a whole."""

import pickle
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lmmjax.arrays import compile as compiling
from lmmjax.arrays import program
from lmmjax.arrays.interpret import TooLong, Unsupported, player, record_tape
from lmmjax.arrays.interpret.indexing import UPDATES
from lmmjax.arrays.interpret.rules import ELEMENTS, REDUCTIONS, RUNNING

RNG = np.random.default_rng(3)
A = RNG.normal(size=(4, 5))
B = RNG.uniform(0.1, 0.9, size=(4, 5))
K = RNG.integers(-3, 4, size=(4, 5))
SPD = A @ A.T + np.eye(4)


def played(function, *arrays):
    tape = pickle.loads(pickle.dumps(record_tape(jax.make_jaxpr(function)(*arrays))))
    return player(tape)(jax.tree.leaves(arrays), 10**6)[0]


def agrees(function, *arrays, rtol=1e-12):
    expected = jax.tree.leaves(jax.jit(function)(*arrays))
    found = played(function, *arrays)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, np.asarray(theirs), rtol=rtol, atol=1e-13)


OPERANDS = {
    **dict.fromkeys(("and", "or", "xor"), (K, K[::-1])),
    "not": (K,),
    "clamp": (np.float64(-0.5), A, np.float64(0.5)),
    "acosh": (1 + B,),
    "is_finite": (np.where(A > 0, np.inf, A),),
    "nextafter": (A, B),
}
BINARY = ("add", "sub", "mul", "div", "rem", "max", "min", "pow", "atan2", "eq", "ne", "gt", "ge", "lt", "le")


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", sorted({*ELEMENTS} - {"add_any"}))
def test_an_operation_on_elements(name):
    primitive = {"and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor", "not": "bitwise_not"}
    function = getattr(lax, primitive.get(name, name))
    operands = OPERANDS.get(name, (B, B[::-1]) if name in BINARY else (B,))
    agrees(function, *operands)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("function", ["div", "rem", "max", "neg", "abs", "sign", "integer_pow"])
def test_whole_numbers_stay_whole(function):
    arguments = {"div": (K, np.full_like(K, 2)), "rem": (K, np.full_like(K, 2)), "max": (K, -K)}
    if function == "integer_pow":
        agrees(lambda k: lax.integer_pow(k, 3), K.astype(np.int32))
    else:
        agrees(getattr(lax, function), *arguments.get(function, (K.astype(np.int32),)))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int32])
@pytest.mark.parametrize("name", sorted({*REDUCTIONS, *RUNNING}))
def test_a_reduction(name, dtype):
    # sums of few digits, which are exact in any order
    array = np.round(3 * A).astype(dtype)
    if name in RUNNING:
        for back in (False, True):
            agrees(partial(getattr(lax, name), axis=1, reverse=back), array, rtol=1e-5)
    elif name in ("reduce_and", "reduce_or"):
        agrees(lambda a: getattr(jnp, {"reduce_and": "all", "reduce_or": "any"}[name])(a > 0, axis=0), array)
    else:
        function = getattr(jnp, {"reduce_prod": "prod"}.get(name, name.removeprefix("reduce_")))
        agrees(lambda a: function(a, axis=(0, 1)), array, rtol=1e-5)


SHAPES = {
    "broadcast": lambda a: jnp.broadcast_to(a[:, None, :], (4, 3, 5)) + a[:, None, :],
    "a scalar over a matrix": lambda a: a * jnp.sum(a) - a[0, 0],
    "rows and columns": lambda a: a[:, :1] + a[:1, :],
    "a column beside a matrix": lambda a: a - a[:, :1],
    "an outer product": lambda a: a[:, 0][:, None] * a[0][None, :],
    "reshape": lambda a: a.reshape(2, 10).T,
    "turned round": lambda a: a[::-1, ::2],
    "stacked": lambda a: jnp.stack([a, 2.0 * a], axis=1),
    "side by side": lambda a: jnp.concatenate([a, a[:, :2]], axis=1),
    "unstacked": lambda a: jnp.unstack(a, axis=1),
    "iterated": lambda a: [row * 2.0 for row in a[:1]],
    "split": lambda a: jnp.split(a, [1, 3], axis=1),
    "padded": lambda a: lax.pad(a, 7.0, ((1, -1, 2), (-1, 2, 0))),
    "chosen": lambda a: jnp.where(a > 0, a, -1.0),
    "chosen whole": lambda a: jnp.where(jnp.sum(a) > 0, a, -a),
    "one of three": lambda a: lax.select_n(
        (a > 0).astype(jnp.int32) + (a > 1).astype(jnp.int32), a, 2.0 * a, 3.0 * a
    ),
    "sorted": lambda a: jnp.sort(a, axis=0),
    "in what order": lambda a: jnp.argsort(a, axis=1),
    "where the largest is": lambda a: (jnp.argmax(a, axis=1), jnp.argmin(a, axis=0)),
    "types": lambda a: (a.astype(jnp.float32), a.astype(jnp.int32), a > 0),
    "counted": lambda a: jnp.arange(5.0)[None, :] + a,
    "nothing": lambda a: (a[:0], jnp.sum(a[:0]), a[:, :0] @ a[:0, :]),
    "extremes of nothing": lambda a: (lax.reduce_max(a[:0], (0,)), lax.reduce_min(jnp.int32(a[:0]), (0,))),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("what", SHAPES)
def test_a_move(what):
    agrees(SHAPES[what], A)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "spec",
    [
        "i,i->",
        "ij,j->i",
        "ij,i->j",
        "ij,kj->ik",
        "ij,ik->jk",
        "bij,bjk->bik",
        "bij,kj->bik",
        "ijk,ijl->kl",
        "i,j->ij",
    ],
)
def test_a_product(spec):
    sizes = {"i": 3, "j": 4, "k": 2, "l": 5, "b": 6}
    left, right = spec.split("->")[0].split(",")
    operands = [RNG.normal(size=[sizes[c] for c in side]) for side in (left, right)]
    agrees(lambda a, b: jnp.einsum(spec, a, b), *operands)


INDEXED = {
    "rows": lambda a, k: a[k],
    "elements": lambda a, k: a[k, k],
    "columns": lambda a, k: a[:, k],
    "a window": lambda a, k: lax.dynamic_slice(a, (k[0], k[1]), (2, 3)),
    "beyond": lambda a, k: a.at[k + 2].get(mode="fill", fill_value=-9.0),
    "beyond, NaN": lambda a, k: jnp.take(a, 3 * k, axis=0),
    "beyond, the last": lambda a, k: a.at[3 * k].get(mode="clip"),
    "along an axis": lambda a, k: jnp.take_along_axis(a, jnp.argsort(a, axis=1)[:, :2], axis=1),
    "known": lambda a, k: a[np.array([2, 0]), np.array([1, 1])],
    "a diagonal": lambda a, k: jnp.diagonal(a) + jnp.diag(a[:, :4]),
    "mapped": lambda a, k: jax.vmap(lambda row, j: row[j])(a, jnp.concatenate([k, k])[:4]),
    "set": lambda a, k: a.at[k].set(0.0),
    "set, a row": lambda a, k: a.at[k[0], 1:].set(a[0, 1:]),
    "added to, twice": lambda a, k: a.at[jnp.array([1, 1, 3])].add(2.0),
    "taken off": lambda a, k: a.at[k].subtract(2.0),
    "multiplied": lambda a, k: a.at[k, 0].multiply(2.0),
    "at least": lambda a, k: a.at[k].max(0.0),
    "at most": lambda a, k: a.at[k].min(0.0),
    "dropped": lambda a, k: a.at[2 * k].add(1.0, mode="drop"),
    "a window written": lambda a, k: lax.dynamic_update_slice(a, a[:2, :2], (k[1], k[1])),
    "mapped, added to": lambda a, k: jax.vmap(lambda row, j: row.at[j].add(1.0))(
        a, jnp.concatenate([k, k])[:4]
    ),
    "by segment": lambda a, k: jax.ops.segment_sum(a, jnp.array([0, 1, 1, 0]), 3),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("what", INDEXED)
def test_what_is_indexed(what):
    agrees(INDEXED[what], A, np.array([2, 0, 3]))


def test_every_way_to_update_is_tried():
    kinds = {name.replace("_", "-") for name in UPDATES}
    assert kinds == {"scatter", *(f"scatter-{how}" for how in ("add", "sub", "mul", "min", "max"))}


def doubled(a):
    return lax.while_loop(lambda c: c[1] < 100.0, lambda c: (c[0] + a, jnp.sum(c[0] ** 2)), (a, 0.0))[0]


LOOPS = {
    "while": doubled,
    "while, mapped": jax.vmap(doubled),
    "scan": lambda a: lax.scan(lambda c, row: (c + row, c * row), jnp.zeros(5), a),
    "scan backwards": lambda a: lax.scan(lambda c, row: (c + row, c), jnp.zeros(5), a, reverse=True),
    "no steps": lambda a: lax.scan(lambda c, row: (c + row, c), jnp.zeros(5), a[:0]),
    "fori": lambda a: lax.fori_loop(0, 4, lambda k, c: c.at[k].set(a[k] * 2.0), jnp.zeros_like(a)),
    "map": lambda a: lax.map(lambda row: jnp.cumsum(row), a),
    "cond": lambda a: lax.cond(a[0, 0] > 0, lambda b: b, lambda b: -b, a),
    "switch": lambda a: lax.switch(
        jnp.argmax(a[:, 0]), [lambda b, s=s: s * b for s in (1.0, 2.0, 3.0, 4.0)], a
    ),
    "gradient": jax.grad(lambda a: jnp.sum(jnp.where(a > 0, jnp.log1p(a**2), jnp.exp(a)))),
    "second derivatives": jax.hessian(lambda a: jnp.sum(jnp.tanh(a[0]) * a[1]) ** 2),
    "custom": lambda a: jax.nn.relu(a) + jax.nn.softplus(a),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("what", LOOPS)
def test_a_loop_or_call(what):
    agrees(LOOPS[what], A)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (0,)])
def test_lapack(lead):
    matrices = np.broadcast_to(SPD, (*lead, 4, 4)) + np.arange(np.prod(lead, dtype=int)).reshape(*lead, 1, 1)
    right = np.broadcast_to(A, (*lead, 4, 5)).copy()
    agrees(jnp.linalg.cholesky, matrices)
    for lower in (True, False):
        for transpose in (0, 1):
            solve = partial(jax.scipy.linalg.solve_triangular, lower=lower, trans=transpose)
            agrees(solve, matrices, right)
    agrees(lambda m, b: lax.linalg.triangular_solve(m, b.mT, left_side=False, lower=True), matrices, right)
    agrees(lambda m: jnp.linalg.eigvalsh(m), matrices, rtol=1e-10)
    agrees(lambda m, b: jnp.linalg.solve(m, b), np.flip(matrices, -2), right, rtol=1e-10)
    # tall, wide and square
    for array in (right, np.swapaxes(right, -1, -2).copy(), matrices):
        for mode in ("reduced", "complete", "r"):
            agrees(partial(jnp.linalg.qr, mode=mode), array, rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_no_factor_is_nan():
    agrees(jnp.linalg.cholesky, np.array([[1.0, 2.0], [2.0, 1.0]]))
    assert np.isnan(played(jnp.linalg.eigvalsh, np.full((2, 2), np.nan))[0]).all()


def test_what_has_no_rule_is_refused():
    key = jax.random.key(0)
    with pytest.raises(Unsupported):
        record_tape(jax.make_jaxpr(lambda k: jax.random.normal(k, (3,)))(key))
    with pytest.raises(Unsupported):
        record_tape(jax.make_jaxpr(lambda a: jax.pure_callback(np.sin, a, a))(np.float32(1)))


@pytest.mark.parametrize("function", [lambda k: k, lambda k: jax.random.key_data(k)])
def test_keys_are_refused(function):
    with pytest.raises(Unsupported):
        record_tape(jax.make_jaxpr(function)(jax.random.key(0)))


def test_types_that_numpy_lacks_are_refused():
    with pytest.raises(Unsupported, match="bfloat16"):
        record_tape(jax.make_jaxpr(lambda a: a.astype(jnp.bfloat16) + a.astype(jnp.bfloat16))(np.float32(1)))


def test_a_rule_that_fails_leaves_the_program_to_the_compiler(monkeypatch):
    monkeypatch.setenv("LMMJAX_CACHE", "0")
    monkeypatch.setitem(ELEMENTS, "sin", lambda x: x.no_such_attribute)
    compiling.counts.clear()
    assert float(compiling.quick_jit(lambda a: jnp.sin(a))(np.float32(0.5))) == pytest.approx(np.sin(0.5))
    assert compiling.counts == {"traced": 1, "failed": 1, "compiled": 1}
    compiling.counts.clear()


def test_a_long_program_stops():
    tape = record_tape(
        jax.make_jaxpr(lambda a: lax.fori_loop(0, 10**9, lambda k, c: c * 1.5, a))(np.float32(1))
    )
    with pytest.raises(TooLong):
        player(tape)([np.float32(1)], 1000)


def test_what_is_sure_to_be_long_is_not_begun(monkeypatch):
    monkeypatch.setenv("LMMJAX_CACHE", "0")
    compiling.counts.clear()
    function = compiling.quick_jit(
        lambda a: lax.scan(lambda c, _: (c * 1.5, None), a, None, length=10_000)[0]
    )
    assert float(function(np.float32(0))) == 0.0
    assert compiling.counts == {"traced": 1, "compiled": 1}


def test_what_is_known_is_worked_out_once():
    tape = record_tape(
        jax.make_jaxpr(lambda a: a + jnp.arange(3.0) * 2.0 + jnp.eye(3)[1])(np.ones(3, np.float32))
    )
    assert len(tape.steps) <= 2


def test_what_is_written_twice_is_played_once():
    def function(a, b):
        total = [jnp.sum(jnp.exp(a) * 2.0 - b[None]) for _ in range(3)]
        return total[0] + 2.0 * total[1], total[2], jnp.exp(b) - 2.0

    arrays = np.ones((3, 4), np.float32), np.ones(4, np.float32)
    tape = record_tape(jax.make_jaxpr(function)(*arrays))
    assert sum(step.name == "exp" for step in tape.steps) == 2
    assert sum(step.name == "reduce_sum" for step in tape.steps) == 1
    agrees(function, *arrays, rtol=1e-6)


def test_where_results_must_not_depend_on_what_was_called_nothing_is_played(monkeypatch):
    monkeypatch.setenv("LMMJAX_CACHE", "0")
    compiling.counts.clear()
    function = compiling.quick_jit(lambda a: a + 1.0)
    before = function(np.float32(1))
    with compiling.compiled_at_once():
        assert not compiling.plays_now()
        assert function(np.float32(1)) == before
    assert compiling.plays_now()
    assert compiling.counts == {"traced": 1, "compiled": 1}


def test_a_program_is_compiled_when_it_has_been_played_long_enough(monkeypatch):
    monkeypatch.setenv("LMMJAX_CACHE", "0")
    monkeypatch.setattr(program, "ENOUGH", 20)
    compiling.counts.clear()
    function = compiling.quick_jit(lambda a: lax.fori_loop(0, 20, lambda k, c: c * 1.5, a))
    values = [float(function(np.float32(1))) for _ in range(5)]
    np.testing.assert_allclose(values, 1.5**20, rtol=1e-6)
    assert compiling.counts == {"traced": 1, "compiled": 1}
    assert len(set(values[2:])) == 1

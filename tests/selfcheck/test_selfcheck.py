"""The self-check passes where the arithmetic is right, and notices where it is not."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lmmjax as lj
from lmmjax.selfcheck import KNOWN_FAULTS, known_fault, patterns, table, warn_of_known_fault, whole
from lmmjax.selfcheck.cases import PATTERNS, WHOLE, difference

DTYPES = ("float64", "float32")


@pytest.fixture(scope="module")
def checked():
    return lj.self_check()


def rng():
    return np.random.default_rng(0)


def of_pattern(name, dtype="float64"):
    """The row of one pattern, as `self_check` makes it."""
    with jax.enable_x64(True):
        return table._worst(name, dtype, lambda: table._compiled(PATTERNS[name], 0, np.dtype(dtype)))


def of_whole(name):
    with jax.enable_x64(True):
        return table._worst(name, "float64", lambda: WHOLE[name](rng()))


def test_this_installation_computes_right(checked):
    assert checked["passed"].all(), checked[~checked["passed"]].to_dict("records")
    assert (checked["error"] <= checked["tolerance"]).all()
    assert not checked["detail"].any()


def test_every_pattern_is_in_the_table_in_both_precisions(checked):
    found = list(zip(checked["check"], checked["dtype"], strict=True))
    expected = [(name, d) for name in PATTERNS for d in DTYPES] + [(name, "float64") for name in WHOLE]
    assert found == expected
    # limits of double precision would let single precision pass for it nowhere
    double = checked[checked["check"].isin(PATTERNS) & (checked["dtype"] == "float64")]
    assert (double["tolerance"] < 1e-11).all()


def test_sizes_lie_past_the_thresholds_of_known_faults():
    for dtype, least in (("float64", 16_384), ("float32", 32_768)):
        cases = list(PATTERNS["mapped matrix-vector product, then a sum"](rng(), np.dtype(dtype)))
        assert min(case.size for case in cases) > least
        # 0.10.2 is right with an even number of columns, and with five of them only up to some 32,000 rows
        assert {case.arguments[0].shape[1] for case in cases} == {3, 5}


WRONG = {
    "one value off by a thousandth": lambda a: a.at[(-1,) * a.ndim].multiply(1.001),
    "the last quarter missing": lambda a: a.at[-(len(a) // 4) - 1 :].set(0.0),
    "one value not a number": lambda a: a.at[(0,) * a.ndim].set(jnp.nan),
    "in the wrong order": lambda a: jnp.roll(a, 1, axis=0),
    "cut": lambda a: a[:-1],
}


@pytest.mark.parametrize("fault", WRONG)
@pytest.mark.parametrize("name", PATTERNS)
def test_a_wrong_program_is_noticed(name, fault, monkeypatch):
    """One case a pattern, by a compiler that runs what it is given and spoils it."""

    def one(generator, dtype, cases=PATTERNS[name]):
        case = next(cases(generator, dtype))
        yield dataclasses.replace(case, function=lambda *args: jnp.asarray(case.expected))

    monkeypatch.setitem(PATTERNS, name, one)
    monkeypatch.setattr(table, "quick_jit", lambda function: lambda *args: WRONG[fault](function(*args)))
    found = of_pattern(name)
    assert not found["passed"]
    assert found["error"] > 1e4 * found["tolerance"]


def late(function, rows):
    """`function` that computes right up to so many rows, and half of each value in later ones."""

    def wrong(a, *args, **kwargs):
        out = function(a, *args, **kwargs)
        return jnp.where(jnp.arange(len(out)) < rows, out, 0.5 * out) if np.ndim(out) == 1 else out

    return wrong


def test_a_reduction_that_is_wrong_from_a_size_on_is_noticed(monkeypatch):
    """As jax 0.10.2 is: every function compiles to what is wrong beyond 16,384 rows."""
    name = "mapped matrix-vector product, then a sum"
    monkeypatch.setattr(table, "quick_jit", lambda function: late(jax.jit(function), 16_384))
    assert not of_pattern(name)["passed"]
    monkeypatch.setattr(table, "quick_jit", lambda function: late(jax.jit(function), 1 << 20))
    assert of_pattern(name)["passed"]


@pytest.mark.parametrize(
    ("owner", "function", "name"),
    [
        (patterns.jnp, "matmul", "cross-products of rows"),
        (patterns.jax.ops, "segment_sum", "sums over the rows of a group"),
        (patterns, "sweep", "small Cholesky factors, inverses over lanes"),
        (patterns.jax.scipy.linalg, "solve_triangular", "Cholesky factor and triangular solves"),
    ],
)
def test_a_wrong_operation_is_noticed(owner, function, name, monkeypatch):
    right = getattr(owner, function)

    def wrong(*args, **kwargs):
        return jax.tree.map(lambda a: a * jnp.asarray(1 + 1e-6, a.dtype), right(*args, **kwargs))

    monkeypatch.setattr(owner, function, wrong)
    found = of_pattern(name)
    assert not found["passed"]
    assert 1e-7 < found["error"] < 1e-4


def test_stale_constants_outside_programs_are_noticed(monkeypatch):
    """As jax#40633 has it: `ones(4) + 1` gives 513 after `sqrt(512)`."""
    name = "operations one by one, outside programs"
    assert of_whole(name)["passed"]
    ones = jnp.ones
    monkeypatch.setattr(whole.jnp, "ones", lambda n: ones(n) + 511)
    assert not of_whole(name)["passed"]


@pytest.mark.parametrize("wrong", [lambda u: 0.5 * u, lambda u: u.at[0].set(jnp.nan), jnp.ones_like])
def test_wrong_random_numbers_are_noticed(wrong, monkeypatch):
    uniform = jax.random.uniform
    monkeypatch.setattr(jax.random, "uniform", lambda *args: wrong(uniform(*args)))
    assert not of_whole("random numbers and their distribution")["passed"]


@pytest.mark.parametrize(
    ("what", "factor"), [("criterion", 1 + 1e-6), ("between", 1.2), ("within", 0.8), ("criterion", np.nan)]
)
def test_a_wrong_fit_is_noticed(what, factor):
    """Criteria that are not those of the estimates, and estimates beside the minimum."""
    y, x, groups = whole._small(rng(), 1)
    fit = lj.Model.from_arrays(y[:, 0], x, groups).fit()
    values = {"criterion": fit.deviance, "between": fit.estimate.psi[0], "within": fit.estimate.psi[1]}
    right = whole._criterion_error(y, x, groups, *(np.array([v]) for v in values.values()))
    assert right < 1e-12
    values[what] *= factor
    wrong = whole._criterion_error(y, x, groups, *(np.array([v]) for v in values.values()))
    assert wrong > 1e-7


def test_an_exception_is_a_row(monkeypatch):
    def refuse(function):
        raise RuntimeError("no float64 on this device\nmore of it")

    monkeypatch.setattr(table, "quick_jit", refuse)
    found = of_pattern("cross-products of rows")
    assert found["detail"] == "RuntimeError: no float64 on this device"
    assert found["error"] == np.inf
    assert not found["passed"]


def test_differences():
    assert difference([1.0, 2.0], [1.0, 2.0]) == 0
    assert difference([1.0, 2.2], [1.0, 2.0]) == pytest.approx(0.1)
    # beside the mean size where a value is small
    assert difference([1e-9, 2.0], [0.0, 2.0]) == pytest.approx(1e-9)
    assert difference([1.0], [1.0, 1.0]) == np.inf
    assert difference([np.nan], [1.0]) == np.inf


def test_known_faults_are_told_where_they_hold():
    assert "39103" in known_fault("0.10.2", "cpu")
    assert "40633" in known_fault("0.11.1", "gpu")
    assert not known_fault("0.11.1", "cpu")
    assert not known_fault("0.10.1", "cpu")
    assert {where for where, _ in KNOWN_FAULTS.values()} <= {"cpu", "gpu"}
    with pytest.warns(RuntimeWarning, match=r"jaxlib 0\.10\.2: wrong sums .*self_check"):
        warn_of_known_fault("0.10.2")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_known_fault("0.11.1")
        warn_of_known_fault(jax.__version__)

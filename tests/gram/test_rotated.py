"""Kernels whose levels have equal designs beside the dense backend."""

import jax
import numpy as np
import pandas as pd
import pytest
from core_data import jet_and_projection

import lmmjax as lj
from lmmjax.arrays import quick_jit

G, N = 14, 12
RNG = np.random.default_rng(3)
IDS = [f"i{k}" for k in range(G)]
HALF = RNG.normal(size=(G, 20))
K = lj.Kernel(HALF @ HALF.T / 20, IDS, name="A")
# of lower rank than there are individuals; two of these have no rows
THIN = lj.Kernel.low_rank(HALF[:, :5], IDS, name="thin")
DATA = pd.DataFrame(
    {
        "id": np.repeat(IDS[:N], 3),
        "t": np.tile([0.0, 1.0, 3.0], N),
        "trait": np.tile(["a", "b", "c"], N),
        "x": RNG.normal(size=3 * N),
        "w": np.tile([1.0, 2.0, 0.5], N),
    }
).sample(frac=1, random_state=2, ignore_index=True)
DATA["y"] = RNG.normal(size=3 * N) + (HALF @ RNG.normal(size=20))[DATA["id"].str[1:].astype(int)] / 4

CASES = {
    "slopes": ("(t | id)", {"id": K}, {"weights": "w"}),
    "permanent environment": ("(1 | id)", {"id": [K, None]}, {}),
    "structured effects": ("cs(0 + trait | id)", {"id": THIN}, {}),
    "autoregression": ("(1 | id)", {"id": [THIN, None]}, {"residual": lj.CAR1("t", group="id")}),
    "traits": ("(0 + trait | id)", {"id": K}, {"residual": lj.Unstructured("trait", group="id")}),
    "variances": ("(0 + trait || id)", {"id": K}, {"residual": lj.VarIdent("trait")}),
}


@pytest.mark.parametrize("name", CASES)
def test_products_are_the_dense_ones(name):
    """The Gram with its derivatives, and what all levels see, those without rows too."""
    text, kernels, options = CASES[name]
    formula = f"y ~ x + trait + {text}"
    one, two = (lj.lmm(formula, DATA, kernels=kernels, backend=b, **options) for b in (None, "dense"))
    assert one.structure().backend == "rotated"
    y = np.asarray(DATA["y"])
    with jax.enable_x64(True):
        a, b = one.expanded(y), two.expanded(y)
        structure = a.structure
        d = np.asarray(structure.decode_in(np.full(structure.n_params, 0.4), a.basis.inward))
        found, known = jet_and_projection(a, d), jet_and_projection(b, d)
        for u, v in zip(jax.tree.leaves(found), jax.tree.leaves(known), strict=True):
            # both are backward stable
            assert np.allclose(u, v, rtol=1e-9, atol=1e-10)
        # without the levels
        jet = one.problem(y)
        own = everything_but_levels(jet, d)
        for u, v in zip(jax.tree.leaves(own), jax.tree.leaves(known[0]), strict=True):
            assert np.allclose(u, v, rtol=1e-9, atol=1e-10)


@quick_jit
def everything_but_levels(p, d):
    return p.shared.jet(d, p.response)


def test_gradients_in_the_response_are_differences():
    """Those of the criterion by the dense backend: it is a quadratic form's logarithm, smooth in y."""
    text, kernels, options = CASES["slopes"]
    one, two = (
        lj.lmm(f"y ~ x + {text}", DATA, kernels=kernels, backend=b, **options) for b in (None, "dense")
    )
    theta, y, step = np.array([0.8, 0.1, 0.6]), np.asarray(DATA["y"]), np.cos(np.arange(len(DATA)))

    def value(model):
        return quick_jit(lambda y: lj.profiled_deviance(theta, model.problem(y)))

    with jax.enable_x64(True):
        along = float(quick_jit(jax.grad(value(one)))(y) @ step)
        # of second order, with rounding of 1e-16/1e-4
        plus, minus = (float(value(two)(y + s * 1e-4 * step)) for s in (1, -1))
    assert one.structure().backend == "rotated"
    assert along == pytest.approx((plus - minus) / 2e-4, rel=1e-6)


@pytest.mark.parametrize(
    ("text", "kernels", "options", "data"),
    [
        ("(1 | id) + (1 | trait)", {"id": K}, {}, DATA),
        ("(1 | id)", {"id": [K, THIN]}, {}, DATA),
        ("(x | id)", {"id": K}, {}, DATA),
        ("(t | id)", {"id": K}, {"weights": "v"}, DATA.assign(v=1 + np.arange(3 * N) % 5)),
        ("(t | id)", {"id": K}, {}, DATA[1:]),
        ("(t | id)", {"id": K}, {"residual": lj.AR1("order", group="x5")}, DATA),
    ],
    ids=["another factor", "two kernels", "a slope in what differs", "weights", "a missing row", "residuals"],
)
def test_unequal_designs_are_dense(text, kernels, options, data):
    data = data.assign(x5=np.arange(len(data)) // 5, order=np.arange(len(data)) % 5)
    model = lj.lmm(f"y ~ x + {text}", data, kernels=kernels, **options)
    assert model.structure().backend == "dense"
    with pytest.raises(ValueError, match="the rotated backend is for terms of one factor with one kernel"):
        lj.lmm(f"y ~ x + {text}", data, kernels=kernels, backend="rotated", **options)


def test_batches_and_effects_of_all_levels():
    y = np.column_stack([DATA["y"], DATA["y"] + np.sin(np.arange(3 * N)), DATA["x"] + DATA["y"]])
    one, two = (
        lj.lmm("~ x + (t | id)", DATA, kernels={"id": K}, backend=b).fit_batch(y, starts=1)
        for b in (None, "dense")
    )
    assert np.allclose(one.deviance, two.deviance, rtol=0, atol=1e-8)
    assert np.allclose(one.random_effects("id"), two.random_effects("id"), atol=1e-5)
    assert one.random_effects("id").shape == (3, 2 * G)

"""A fit as a model of marginaleffects: its functions give what `emmeans` and `emtrends` do."""

import warnings

import jax
import numpy as np
import pandas as pd
import pytest

import lmmjax as lj

pytestmark = pytest.mark.filterwarnings("ignore:.*get_categories:DeprecationWarning")

pl = pytest.importorskip("polars")
if int(pl.__version__.split(".")[0]) > 1:
    pytest.skip("marginaleffects 0.6 calls what polars 2 removed", allow_module_level=True)
pytest.importorskip("marginaleffects")
from marginaleffects.comparisons import comparisons  # noqa: E402
from marginaleffects.datagrid import datagrid  # noqa: E402
from marginaleffects.predictions import avg_predictions, predictions  # noqa: E402
from marginaleffects.slopes import slopes  # noqa: E402
from marginaleffects.test import hypotheses  # noqa: E402

# with an offset the package takes differences by steps of 1e-8 of a coefficient
CLOSE = {"rtol": 1e-5}


@pytest.fixture(scope="module", autouse=True)
def _configuration():
    """marginaleffects switches JAX to double precision for good."""
    before = jax.config.jax_enable_x64
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(5)
    d = pd.DataFrame({"g": np.repeat(np.arange(12), 10), "x": rng.normal(size=120)})
    d["an arm"], d["b"], d["dose"] = (
        np.tile(list("qpr"), 40),
        rng.integers(0, 2, 120) > 0,
        np.tile([1, 2, 4, 8], 30),
    )
    d["y"] = d.x + rng.normal(size=12)[d.g] + rng.normal(size=120)
    return d


@pytest.fixture(scope="module")
def fit(rows):
    return lj.lmm("y ~ `an arm` * x + b + C(dose) + (1 | g)", rows).fit()


def test_predictions_are_marginal_means(fit):
    model = fit.to_marginaleffects("kenward-roger")
    means = fit.emmeans("an arm", at={"x": 0.3}, ddf="kenward-roger").table
    grid = pd.MultiIndex.from_product(
        [list("pqr"), [False, True], [1, 2, 4, 8]], names=["an arm", "b", "dose"]
    ).to_frame(index=False)
    new = pl.from_pandas(grid.assign(x=0.3)).with_columns(pl.col("an arm").cast(pl.Enum(list("pqr"))))
    found = avg_predictions(model, newdata=new, by="an arm").sort("an arm")
    np.testing.assert_allclose(found["estimate"], means["estimate"])
    np.testing.assert_allclose(found["std_error"], means["se"])


def test_predictions_of_the_rows(fit):
    found = predictions(fit.to_marginaleffects())
    own = fit.predict(re="none", se=True)
    np.testing.assert_allclose(found["estimate"], own["fit"])
    np.testing.assert_allclose(found["std_error"], own["se"])
    assert {"g", "y", "an arm"} <= set(found.columns)


def test_slopes_and_comparisons(fit):
    model = fit.to_marginaleffects()
    trends = fit.emtrends("x", "an arm").table
    # predictions are linear in the coefficients: a step of 1 has no error
    found = slopes(model, variables="x", by="an arm", eps_vcov=1.0).sort("an arm")
    np.testing.assert_allclose(found["estimate"], trends["estimate"])
    np.testing.assert_allclose(found["std_error"], trends["se"])
    pairs = fit.emmeans("an arm", at={"x": 0.5}).contrast("revpairwise", adjust="none").table
    found = comparisons(model, variables={"an arm": "pairwise"}, newdata=datagrid(model=model, x=0.5))
    np.testing.assert_allclose(np.sort(found["estimate"]), np.sort(pairs["estimate"]))
    np.testing.assert_allclose(np.sort(found["std_error"]), np.sort(pairs["se"]))
    # a number that the formula takes as a factor has levels, no slope
    found = comparisons(model, variables="dose", newdata=datagrid(model=model))
    np.testing.assert_allclose(found["estimate"], fit.params[[f"C(dose)[T.{k}]" for k in (2, 4, 8)]])


def test_hypotheses_and_covariances(fit):
    model = fit.to_marginaleffects(robust="CR2", df=11)
    own = fit.contrast("x - b[T.True]", robust="CR2")
    at = {name: k for k, name in enumerate(fit.params.index)}
    found = hypotheses(model, f"b{at['x']} - b{at['b[T.True]']} = 0")
    np.testing.assert_allclose(found["estimate"], own["estimate"])
    np.testing.assert_allclose(found["std_error"], own["se"], **CLOSE)
    np.testing.assert_allclose(model.get_vcov("kenward-roger"), fit.cov_params(ddf="kenward-roger"))
    assert model.get_vcov(False) is None
    assert model.df_resid == 11


def test_what_is_not_estimable_is_refused(rows):
    there = rows[~((rows["an arm"] == "q") & rows["b"])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = lj.lmm("y ~ `an arm` * b + (1 | g)", there).fit()
    model = fit.to_marginaleffects()
    assert len(predictions(model)) == len(there)
    with pytest.raises(ValueError, match="not estimable"):
        comparisons(model, variables="b")


def test_offset_beside_the_data(rows):
    fit = lj.lmm("y ~ x + offset(0.5 * x) + (1 | g)", rows, offset=np.linspace(0.0, 3.0, 120)).fit()
    model, own = fit.to_marginaleffects(), fit.predict(re="none", se=True)
    found = predictions(model)
    np.testing.assert_allclose(found["estimate"], own["fit"])
    np.testing.assert_allclose(found["std_error"], own["se"], **CLOSE)
    with pytest.raises(ValueError, match="offset"):
        predictions(model, newdata=pl.DataFrame({"x": [0.0]}))

"""The matrix of transformations and models covers both, and its comparison notices what differs."""

from collections import Counter

import meta_pairs
import numpy as np
import pandas as pd
import pytest
from meta_models import MODELS
from meta_moves import MOVES
from meta_reports import Report, assert_same

import lmmjax as lj
from lmmjax.gram.choose import BACKENDS


def test_every_model_and_transformation_is_tried():
    moves, models = (Counter(column) for column in zip(*meta_pairs.CHOSEN, strict=True))
    assert min(models[name] for name in MODELS) >= meta_pairs.MOVES_A_MODEL
    for name in set(MOVES) - meta_pairs.SPECIAL:
        possible = sum(move == name for move, _ in meta_pairs.ALL)
        assert moves[name] >= min(meta_pairs.MODELS_A_MOVE, possible) > 0, name
    assert len(meta_pairs.CHOSEN) == len(set(meta_pairs.CHOSEN))


def test_every_backend_and_kind_of_residual_is_among_the_models():
    used = {case.model().maker.prepared.__class__.__module__.split(".")[2] for case in MODELS.values()}
    # kernels of families, and of levels that have equal designs, need more levels or no missing responses;
    # least squares have tests/batch/test_least_squares.py
    assert set(BACKENDS) - {"curved", "block", "rotated", "families", "fixed"} <= used
    structures = {
        type(part).__name__ for case in MODELS.values() for part in parts(case.options.get("residual"))
    }
    rest = {"Gaussian", "Matern32", "Matern52"}
    assert structures == {*lj.residual.CORRELATIONS, *lj.residual.VARIANCES, "KnownVariance"} - rest


def parts(residual):
    if residual is None:
        return []
    return [residual.correlation, *residual.variances] if hasattr(residual, "correlation") else [residual]


def table(values):
    out = Report()
    out.put("beta", ["a", "b"], values, 1.0)
    return out.table()


@pytest.mark.parametrize("values", [[1.0, 2.1], [1.0, np.nan], [np.inf, 2.0]])
def test_a_difference_is_noticed(values):
    assert_same(table([1.0, 2.0 + 1e-9]), table([1.0, 2.0]))
    with pytest.raises(AssertionError, match="became"):
        assert_same(table(values), table([1.0, 2.0]))
    with pytest.raises(AssertionError, match="in one of both only"):
        assert_same(table([1.0, 2.0]).iloc[:1], pd.concat([table(values)]))


def test_correlations_of_numbers_of_any_size():
    """Products of two variances of 1e280 are no doubles."""
    case = MODELS["slopes"]
    data = case.data.dropna()
    fits = lj.lmm("~ x + arm + (x | g)", data).fit_batch(np.outer(data["y"], [1.0, 1e140, 1e-140]))
    rho = fits.sdcor.filter(like="cor_").to_numpy()[:, 0]
    np.testing.assert_allclose(rho, rho[0], rtol=1e-6)
    single, plain = (lj.lmm(case.formula, data.assign(y=c * data["y"])).fit() for c in (1e140, 1.0))
    np.testing.assert_allclose(single.varcorr()["sdcor"].iloc[2], rho[0], rtol=1e-6)
    # and their errors, limits and predictions, of which some have the units of a variance of a variance
    one, other = single.varcorr()["se"] / 1e280, plain.varcorr()["se"]
    np.testing.assert_allclose(one, other, rtol=1e-6)
    own = fits.varcorr_se.to_numpy() / np.array([1.0, 1e280, 1e-280])[:, None]
    np.testing.assert_allclose(own, np.tile(other, (3, 1)), rtol=1e-6)
    units = np.array([1e140, 1e140, 1.0] + [1e140] * 4)[:, None]
    np.testing.assert_allclose(single.conf_int(which="all") / units, plain.conf_int(which="all"), rtol=1e-6)
    units = np.array([1e140] * 5 + [1.0, 1e140])
    np.testing.assert_allclose(single.tidy()["se"] / units, plain.tidy()["se"], rtol=1e-6)
    new = data.iloc[[1, 20]]
    limits = [fit.predict(new, interval="prediction", ddf="kenward-roger") for fit in (single, plain)]
    np.testing.assert_allclose(limits[0] / 1e140, limits[1], rtol=1e-6)
    ratio = [fit.delta(lambda p: p["sigma"] / p["x"]) for fit in (single, plain)]
    np.testing.assert_allclose(*ratio, rtol=1e-6)

"""A response whose own rows lose a column, a level or a group gets what `lmm` gives it on those rows."""

import warnings

import numpy as np
import pandas as pd
import pytest

import lmmjax as lj

GROUPS, SIZE = 12, 6
N = GROUPS * SIZE


def data(seed=0):
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(GROUPS), SIZE)
    frame = pd.DataFrame(
        {
            "g": g,
            "a": np.array(list("pqr"))[(g + np.tile(np.arange(SIZE), GROUPS)) % 3],
            "x": rng.normal(size=N),
            "h": (2 * g + np.tile(np.arange(SIZE), GROUPS)) % 5,
            "t": np.tile(np.arange(SIZE), GROUPS),
        }
    )
    return frame, rng.normal(size=GROUPS)[g] + rng.normal(size=N) + (frame["a"] == "r")


def gaps(frame, y):
    """Responses of which each misses something else."""
    a, g = frame["a"], frame["g"]
    level = {f"no {one}": y.where(a != one) for one in "pqr"}
    few = {"a group": y.where(g != 3), "half the groups": y.where(g % 2 == 0)}
    return pd.DataFrame({"whole": y, **level, **few})


MODELS = {
    "grouped": ("a + x + (1 | g)", None),
    "dummies": ("0 + a + x + (1 | g)", None),
    "interaction": ("a * x + (1 | g)", None),
    "crossed": ("a + x + (1 | g) + (1 | h)", None),
    "whitened": ("a + x", lj.AR1("t", group="g")),
}


@pytest.mark.parametrize("name", MODELS)
def test_lost_levels_are_those_of_the_model_on_the_rows(name):
    formula, residual = MODELS[name]
    frame, y = data()
    responses = gaps(frame, y)
    if name in ("crossed", "whitened"):
        # every pattern of rows is a program of its own there
        responses = responses[["whole", "no p"]]
    fits = lj.lmm(f"~ {formula}", frame, residual=residual).fit_batch(responses)
    for k in responses:
        rows = responses[k].notna()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", lj.FitWarning)
            one = lj.lmm(f"y ~ {formula}", frame.assign(y=responses[k])[rows], residual=residual).fit()
        kept = fits.params.loc[k].dropna()
        assert set(kept.index) == set(one.params.index), k
        np.testing.assert_allclose(kept[one.params.index], one.params, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(fits.bse.loc[k][one.params.index], one.bse, rtol=1e-4)
        np.testing.assert_allclose(fits.deviance[fits.names.get_loc(k)], one.deviance, rtol=1e-9)
        df = fits.df().loc[k]
        np.testing.assert_allclose(df[one.params.index], one.coef_table()["df"], rtol=1e-3)
        lost = [n for n in fits.params if n not in one.params.index]
        assert df[lost].isna().all()
        assert all(n in fits.reasons[k] for n in lost)
        assert bool(fits.reasons[k]) == bool(lost)
        alone = fits[k]
        assert list(alone.params.index) == [n for n in fits.params if n in one.params.index]
        assert alone.deviance == fits.deviance[fits.names.get_loc(k)]
        np.testing.assert_array_equal(alone.theta, fits.estimate.theta[fits.names.get_loc(k)])
        np.testing.assert_allclose(alone.coef_table()["df"], df[alone.params.index], rtol=1e-7)


def test_in_a_batch_of_many_as_alone():
    """The path of designs of their own: 700 patterns of which some lose a level."""
    frame, y = data(1)
    rng = np.random.default_rng(2)
    many = y.to_numpy()[:, None] + rng.normal(size=(N, 700))
    many[rng.random(many.shape) < 0.1] = np.nan
    a = frame["a"].to_numpy()
    many[a == "p", 5:80] = np.nan
    many[a == "r", 80:90] = np.nan
    many[2:, 90] = np.nan
    many[frame["g"] != 4, 91] = np.nan
    # one value a group: as many random coefficients as observations
    many[frame["t"] != 0, 92] = np.nan
    model = lj.lmm("~ a + x + (1 | g)", frame)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        fits = model.fit_batch(many)
        for k in (3, 79, 80):
            few = model.fit_batch(many[:, [k]])
            np.testing.assert_allclose(fits.params.loc[k], few.params.loc[0], rtol=1e-6)
            np.testing.assert_allclose(fits.deviance[k], few.deviance[0], rtol=1e-9)
            np.testing.assert_allclose(fits.df().loc[k], few.df().loc[0], rtol=1e-4)
    assert fits.params["a[T.q]"][5:80].isna().all()
    assert fits.params["a[T.r]"][5:80].notna().all()
    assert fits.params["a[T.r]"][80:90].isna().all()
    assert fits.status[90:93].tolist() == ["not_estimable"] * 3
    for k, words in ((90, "observations"), (91, "one level"), (92, "random coefficients for")):
        assert words in fits.reasons[k]
    assert fits.converged.drop([90, 91, 92]).all()
    # q − r is estimable without p, p − r is not without r
    table = fits.contrast("a[T.r] - a[T.q]")
    np.testing.assert_allclose(table["estimate"][5], fits.params["a[T.r]"][5], rtol=1e-12)
    assert np.isnan(table["estimate"][80])
    assert np.isfinite(table["estimate"][3])


def test_a_covariate_constant_on_the_rows_of_a_response():
    frame, y = data(3)
    frame["x"] = np.where(frame["g"] < 6, 1.5, frame["x"])
    short = y.where(frame["g"] < 6)
    fits = lj.lmm("~ x + (1 | g)", frame).fit_batch(pd.DataFrame({"short": short, "whole": y}))
    one = lj.lmm("y ~ x + (1 | g)", frame.assign(y=short).dropna()).fit()
    assert list(one.params.index) == ["Intercept"]
    np.testing.assert_allclose(fits.params.loc["short", "Intercept"], one.params["Intercept"], rtol=1e-7)
    np.testing.assert_allclose(fits.bse.loc["short", "Intercept"], one.bse["Intercept"], rtol=1e-6)
    assert np.isnan(fits.params.loc["short", "x"])
    assert fits.reasons["short"].startswith("its rows do not determine x")
    assert fits.random_effects().loc["short"].notna().any()
    assert np.isfinite(fits.r2().loc["short"]).all()
    np.testing.assert_allclose(fits.r2().loc["short"], one.r2(), atol=1e-6)


def test_reasons_of_every_kind():
    frame, y = data(4)
    bad = {
        "constant": pd.Series(2.5, range(N)),
        "infinite": y.where(y.index != 7, np.inf),
        "empty": y * np.nan,
        "one group": y.where(frame["g"] == 2),
        "three values": y.where(y.index < 3),
        "fine": y,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        fits = lj.lmm("~ a + x + (1 | g)", frame).fit_batch(pd.DataFrame(bad))
    words = {
        "constant": "constant: all its 72 values are 2.5",
        "infinite": "not finite",
        "empty": "no rows left",
        "one group": "one level",
        "three values": "but only 3 observations",
        "fine": "",
    }
    for k, text in words.items():
        assert text in fits.reasons[k]
        assert bool(text) == bool(fits.reasons[k])
        # whatever has no fit shows no number
        if text:
            assert fits[k].status
            for table in (fits.params, fits.bse, fits.varcorr, fits.varcorr_se, fits.df(), fits.sdcor):
                assert table.loc[k].isna().all()
    assert not fits.is_singular[list(words)[:-1]].any()
    assert not fits.unidentified[:-1].any()


@pytest.mark.parametrize(
    ("starts", "message"), [(0, "at least 1"), (np.ones(3), r"\(k, 1\)"), ("two", "could not")]
)
def test_bad_starts(starts, message):
    frame, y = data(5)
    with pytest.raises(ValueError, match=message):
        lj.lmm("~ x + (1 | g)", frame).fit_batch(y.to_frame(), starts=starts)

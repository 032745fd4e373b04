"""Predictions and influence of many responses: each equals that of its own fit, however it was computed."""

import functools
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import lmmjax as lj
from lmmjax.batch import ddf as batch_ddf
from lmmjax.postestimation.diagnostics import batch_influence
from lmmjax.postestimation.predictions import batch_modes, batch_predict

GROUPS, SIZE = 10, 5
NAMES = ["one", "singular", "small", "holes", "no r"]


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    n = GROUPS * SIZE
    return pd.DataFrame(
        {
            "g": np.repeat([f"g{k}" for k in range(GROUPS)], SIZE),
            "h": rng.integers(0, 4, n),
            "a": rng.permutation(np.resize(["p", "q", "r"], n)),
            "x": rng.normal(size=n),
        }
    )


@pytest.fixture(scope="module")
def responses(data):
    """Whole ones of two scales and a singular one; holes and a group without rows; no level r; no fit."""
    rng, code = np.random.default_rng(4), data["g"].str[1:].astype(int)
    y = rng.normal(size=(len(data), 6)) + 2 * rng.normal(size=(GROUPS, 6))[code]
    y = pd.DataFrame(y, columns=[*NAMES, "bad"])
    y["singular"] -= y["singular"].groupby(data["g"]).transform("mean")
    y["small"] *= 1e-6
    y.loc[[2, 17, 40], "holes"] = np.nan
    y.loc[data["g"] == "g3", "holes"] = np.nan
    y.loc[data["a"] == "r", "no r"] = np.nan
    y["bad"] = 3.0
    return y


def fitted(formula, data, y, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return lj.lmm(formula, data).fit_batch(y, **options)


@pytest.fixture(scope="module")
def fits(data, responses):
    return fitted("~ a + x + (x | g)", data, responses)


@pytest.fixture(scope="module")
def new(data):
    out = data.iloc[[0, 3, 17, 18, 30, 30]].assign(x=[0.0, 1.0, -500.0, 0.5, 3.0, 3.0])
    out.iloc[[1, 4], 0] = ["g99", "g98"]
    return pd.concat([out, out.iloc[[0]].assign(x=np.nan)])


ASKED = {
    "confidence": {"se": True},
    "response": {"interval": "prediction", "level": 0.8},
    "population": {"interval": "prediction", "re": "none"},
    "intercepts": {"interval": "prediction", "re": "1 | g", "ddf": "kr"},
    "adjusted": {"interval": "confidence", "ddf": "kr"},
    "normal": {"interval": "confidence", "ddf": "normal", "re": "1 | g"},
}


@functools.cache
def single_fit(fits, name):
    """Kept, with what it has worked out, for all that is asked of it."""
    return fits[name]


def as_one_by_one(fits, new, names, rtol, **asked):
    asked = {"new_levels": "population"} | asked
    table, plain = fits.predict(new, **asked), fits.predict(new, re=asked.get("re", "all"), **LEVELS)
    assert list(table) == ["fit", "se", "lower", "upper"]
    for name in names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", lj.EstimabilityWarning)
            one = single_fit(fits, name)
            single = one.predict(new, **asked)
            alone = one.predict(new, re=asked.get("re", "all"), **LEVELS)
        scale = float(fits.sigma[name])
        assert_allclose(table.loc[name], single, rtol=rtol, atol=rtol * scale)
        assert_allclose(plain.loc[name], alone, rtol=1e-9, atol=1e-9 * scale)
        assert table.loc[name].index.equals(new.index)
    assert table.attrs["interval"] == asked.get("interval", "confidence")


LEVELS = {"new_levels": "population"}


@pytest.fixture
def mapped(monkeypatch):
    """Responses without gaps in one program; others one by one, which costs no compilation."""
    whole = GROUPS * SIZE
    monkeypatch.setattr(batch_predict, "few", lambda maker: 0 if maker.design.n == whole else np.inf)
    monkeypatch.setattr(batch_modes, "ALONE", 2)
    monkeypatch.setattr(batch_ddf.SharedDesign, "few", 0)


@pytest.mark.parametrize("asked", ASKED)
def test_as_one_by_one(fits, new, asked, mapped):
    as_one_by_one(fits, new, NAMES, 1e-8, **ASKED[asked])
    assert fits.predict(new, **LEVELS).loc["bad"].isna().all()


def test_one_by_one_and_rows_of_the_model(fits, data, new):
    as_one_by_one(fits, new, ["singular", "holes", "no r"], 1e-10, interval="prediction")
    table = fits.predict(se=True)
    for name in ("one", "holes"):
        assert_allclose(table.loc[name], fits[name].predict(data, se=True), rtol=1e-9)
    # the level that no row of the response has
    assert table.loc["no r", "fit"].isna().to_numpy().tolist() == (data["a"] == "r").tolist()
    assert fits.predict().shape == (6, len(data))


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("~ x + (1 | g) + (1 | h)", {"interval": "prediction", "re": ["h"]}),
        ("~ x + cs(0 + a | g)", {"interval": "confidence", "ddf": "kr"}),
    ],
)
def test_other_models(data, responses, new, formula, options, mapped):
    fits = fitted(formula, data.assign(w=1.0), responses[["one", "holes"]])
    seen = new.assign(g=new["g"].where(new["g"].isin(data["g"]), "g0"))
    as_one_by_one(fits, seen, ["one", "holes"], 1e-6, **options)


def test_weights_and_offsets(data, responses, new, mapped):
    """Prior weights of the model and of the responses, and an offset of the new rows."""
    data = data.assign(w=np.resize([0.5, 1.0, 2.0], len(data)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        weighted = lj.lmm("~ x + (1 | g)", data, weights="w", offset="x").fit_batch(
            responses[["one", "small"]]
        )
        own = lj.lmm("~ x + (1 | g)", data).fit_batch(
            responses[["one"]], weights=pd.DataFrame({"one": data["w"]})
        )
    new = new[:6].assign(w=[1.0, 2.0, 4.0, 0.5, 0.25, 1.0])
    as_one_by_one(weighted, new, ["one", "small"], 1e-8, interval="prediction")
    as_one_by_one(own, new, ["one"], 1e-8, se=True)
    with pytest.raises(ValueError, match=r"newdata and weights= for the new rows"):
        own.predict(new, interval="prediction", **LEVELS)
    table = own.predict(new, interval="prediction", weights="w", **LEVELS)
    single = own["one"].predict(new, interval="prediction", weights="w", **LEVELS)
    assert_allclose(table.loc["one"], single, rtol=1e-9)


def test_structures_of_residuals(data, responses):
    """Kriging in groups of which a response has no row, and variances of new residuals."""
    data = data.assign(t=np.tile(np.arange(float(SIZE)), GROUPS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        fits = lj.lmm("~ x", data, residual=lj.CAR1("t", group="g")).fit_batch(responses[["one", "holes"]])
    new = data.iloc[[0, 16, 24, 49]].assign(t=[2.5, 7.0, 1.0, 4.0])
    for asked in ({"kriging": True, "se": True}, {"interval": "prediction"}):
        table = fits.predict(new, **asked)
        for name in ("one", "holes"):
            assert_allclose(table.loc[name], fits[name].predict(new, **asked), rtol=1e-9, atol=1e-9)


def test_one_program_for_all_rows(fits, data, new, mapped):
    """More rows and other questions take the program that is there."""
    fits = fits[["one", "small"]]
    fits.predict(data[:20], se=True)
    programs = batch_ddf._mapped_lanes.cache_size()
    fits.predict(data[3:30], interval="prediction", level=0.5)
    fits.predict(data[20:], se=True, ddf="normal")
    assert batch_ddf._mapped_lanes.cache_size() == programs


@pytest.fixture(scope="module")
def intercepts(data, responses):
    return fitted("~ a + x + (1 | g)", data, responses)


@functools.cache
def without_groups(fits, name, refit):
    return single_fit(fits, name).influence("g", refit=refit)


MEASURES = ("cooks_distance", "mdffits", "covtrace", "covratio")


@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("together", [True, False])
def test_influence(intercepts, refit, together, monkeypatch):
    """Without each group; nothing changes without one that a response does not have."""
    names = ["holes", "no r"] if refit else NAMES
    fits = intercepts[[*names, "bad"]]
    monkeypatch.setattr(batch_influence, "TOGETHER", 1 if together else 99)
    found = fits.influence("g", refit=refit)
    assert found.status.loc["bad"].eq("no fit to all rows").all()
    assert found.params.loc["bad"].isna().all(axis=None)
    for name in names:
        single = without_groups(intercepts, name, refit)
        kept = list(single.params)
        assert_allclose(found.params.loc[name, kept], single.params, rtol=1e-6, atol=1e-6 * fits.sigma[name])
        assert_allclose(found.bse.loc[name, kept], single.bse, rtol=1e-5)
        assert_allclose(found.sdcor.loc[name], single.sdcor, rtol=1e-4, atol=1e-5)
        for measure in MEASURES:
            own = getattr(found, measure).loc[name]
            assert_allclose(own, getattr(single, measure), rtol=1e-3, atol=1e-5, err_msg=measure)
        assert_allclose(found.dfbetas.loc[name, kept], single.dfbetas, rtol=1e-3, atol=1e-5)
        assert list(found.status.loc[name]) == list(single.status)
    assert found.cooks_distance.loc["holes", "g3"] < 1e-9
    assert found.params.index.names == [None, "g"]


def test_influence_of_rows_and_of_levels_that_others_need(data, responses):
    rng = np.random.default_rng(0)
    data = data.assign(b=np.where(data["g"] == "g2", 1.0, 0.0) * rng.normal(size=len(data)))
    fits = fitted("~ b + (1 | g)", data, responses[["one", "holes"]])
    for refit in (True, False):
        lost = fits.influence(refit=refit).status.loc["one", "g2"]
        assert lost.startswith("not estimable")
        assert fits.influence(refit=refit).params.loc[("one", "g2")].isna().all()
    rows, single = (
        fits.influence("observation", refit=False),
        fits["holes"].influence("observation", refit=False),
    )
    assert_allclose(rows.cooks_distance.loc["holes", single.params.index], single.cooks_distance, rtol=1e-7)
    assert rows.cooks_distance.loc["holes", 17] < 1e-12

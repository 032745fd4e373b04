"""Times as they come: what counts is their distance, whatever type or unit it is written in."""

import datetime as dt
import decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from lmmjax import AR1, ARMA, CAR1, CompoundSymmetry, Exponential, Toeplitz, Unstructured, VarIdent, lmm
from lmmjax.formula import model_frame, new_frame
from lmmjax.formula.columns import Table
from lmmjax.formula.times import read_times

T = np.tile([1, 2, 4, 5, 8, 9], 3)
G = np.repeat([0, 1, 2], 6)
DAYS = pd.Timestamp("2024-02-27") + pd.to_timedelta(T, unit="D")

WRITTEN = {
    "int": T,
    "float": T * 1.0,
    "uint64": 2**63 + T.astype(np.uint64),
    "int8": T.astype(np.int8),
    "nullable": pd.array(T, dtype="Int64"),
    "pyarrow": pd.Series(T).astype("int64[pyarrow]"),
    "Decimal": [decimal.Decimal(int(t)) / 10 for t in T],
    "tenths": T * 0.1,
    "thirds": 7 + T / 3,
    "float32": (100 + T * 0.1).astype(np.float32),
    "seconds": 3600 * T,
    "milliseconds": 1_700_000_000_000 + 86_400_000 * T,
    "negative": -T,
    "ordered": pd.Categorical(T, categories=range(1, 10), ordered=True),
    "ordered text": pd.Categorical(
        [f"week {t}" for t in T], categories=[f"week {t}" for t in range(12)], ordered=True
    ),
    "names": pd.Categorical([list("zyxwvutsrq")[t] for t in T], categories=list("zyxwvutsrq"), ordered=True),
    "unordered": pd.Categorical(T),
    "text": [f"V{t + 5}" for t in T],
    "text of numbers": [str(t) for t in T],
    "string": pd.array([f"V{t + 5}" for t in T], dtype="string"),
    "dates": DAYS,
    "date objects": list(DAYS.date),
    "seconds of dates": DAYS.as_unit("s"),
    "time zone": DAYS.tz_localize("UTC").tz_convert("Asia/Kolkata"),
    "pyarrow dates": pd.Series(DAYS).astype("timestamp[us][pyarrow]"),
    "pyarrow days": pd.Series(list(DAYS.date)).astype("date32[day][pyarrow]"),
    "polars dates": pl.Series(list(DAYS.date)),
    "polars times": pl.Series(list(DAYS.to_pydatetime())),
    "polars spans": pl.Series([dt.timedelta(hours=int(t)) for t in T]),
    "spans": pd.to_timedelta(T, unit="h"),
    "months": pd.period_range("2024-01", periods=12, freq="M")[T],
    "category of dates": pd.Categorical(DAYS),
}
UNIT = {
    "Decimal": 0.1,
    "tenths": 0.1,
    "thirds": 1 / 3,
    "float32": 0.1,
    "seconds": 3600,
    "milliseconds": 864e5,
}
UNIT |= dict.fromkeys(("polars spans", "spans"), 1 / 24)


def frame(times, residual=None, group="g"):
    data = {"g": G, "t": times, "y": np.arange(18.0)}
    return model_frame("y ~ 1", data, residual=AR1("t", group=group) if residual is None else residual)


@pytest.mark.parametrize("name", WRITTEN)
def test_occasions_are_on_the_lattice_of_true_steps(name):
    own = frame(WRITTEN[name]).residual
    wanted = 9 - T if name == "negative" else T - 1
    assert_array_equal(own.design.place, wanted)
    assert own.design.structure.space.size == 9
    # float32 has seven digits
    assert_allclose(own.unit, UNIT.get(name, 1.0), rtol=1e-4 if name == "float32" else 1e-12)


@pytest.mark.parametrize(
    "name", ["int", "milliseconds", "float32", "ordered", "text", "dates", "polars dates"]
)
def test_continuous_times_are_in_units_of_their_neighbours(name):
    place = frame(WRITTEN[name], CAR1("t", group="g")).residual.design.place
    assert_allclose(np.diff(place[:6]), np.diff(T[:6]), rtol=2e-4 if name == "float32" else 1e-12)


@pytest.mark.parametrize("name", WRITTEN)
def test_new_rows_are_placed_from_the_origin_of_the_fit(name):
    column = pd.Series(WRITTEN[name]) if not isinstance(WRITTEN[name], pl.Series) else WRITTEN[name]
    fitted = frame(column)
    some = column[[2, 10]] if isinstance(column, pl.Series) else column.iloc[[2, 10]]
    new = new_frame(fitted, {"t": some, "g": [0, 1]}, residual="kriging").places
    assert_array_equal(new.design.place, fitted.residual.design.place[[2, 10]])
    assert_array_equal(new.design.codes, [0, 1])


def test_steps_are_the_common_divisor_of_differences_within_groups():
    times = np.array([0, 6, 15, 1, 7, 16, 2, 2 + 9, 2 + 12])
    data = {"g": np.repeat([0, 1, 2], 3), "t": times, "y": np.arange(9.0)}
    own = model_frame("y ~ 1", data, residual=AR1("t", group="g")).residual
    assert_array_equal(own.design.place, [0, 2, 5, 0, 2, 5, 0, 3, 4])
    assert own.unit == 3
    whole = model_frame("y ~ 1", data, residual=AR1("t")).residual
    assert_array_equal(whole.design.place, times)


def test_rows_left_out_keep_their_position():
    data = pd.DataFrame({"g": G, "y": np.arange(18.0)})
    data.loc[[1, 8], "y"] = np.nan
    own = model_frame("y ~ 1", data, residual=AR1(group="g")).residual
    assert_array_equal(own.design.place[:8], [0, 2, 3, 4, 5, 0, 1, 3])
    same = model_frame("y ~ 1", data, residual=CompoundSymmetry(group="g")).residual
    assert same.design.structure.space.size == 6


def test_visits_are_in_their_natural_order():
    own = frame([f"V{t + 5}" for t in T], Unstructured("t", group="g")).residual
    assert own.design.named.space.labels == ("V6", "V7", "V9", "V10", "V13", "V14")
    assert_array_equal(own.design.place[:6], range(6))
    backwards = pd.Categorical(T, categories=range(9, 0, -1), ordered=True)
    own = frame(backwards, Unstructured("t", group="g")).residual
    assert own.design.named.space.labels == ("9", "8", "5", "4", "2", "1")


WEEKDAYS = np.array(["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun", "Hol", "Off", "End"])
REFUSED = {
    "text without order": (WEEKDAYS[T], "of which no order is known"),
    "unordered categories": (pd.Categorical(WEEKDAYS[T]), "of which no order is known"),
    "dates as text": ([f"2024-01-{t:02d}" for t in T], "of which no order is known"),
    "unequal ordered numbers": (pd.Categorical(T, ordered=True), "not equally spaced"),
    "unequal ordered text": (pd.Categorical([f"V{t}" for t in T], ordered=True), "not equally spaced"),
    "unequal ordered days": (
        pd.Categorical([f"2024-01-{t:02d}" for t in T], ordered=True),
        "not equally spaced",
    ),
    "lexical order": (pd.Categorical([f"V{t + 5}" for t in T], ordered=True), "not equally spaced"),
    "no lattice": (np.sqrt(T), "not equally spaced, nor whole numbers"),
    "clock": ([dt.time(int(t)) for t in T], "which are no times"),
}


NEW_YORK = pd.date_range("2024-03-08", periods=5, tz="America/New_York")
"""Midnights, of which the third is followed by a day of 23 hours."""


@pytest.mark.parametrize("column", [NEW_YORK.to_series(), NEW_YORK.astype(object).to_series(), None])
def test_days_of_a_time_zone_have_any_length(column):
    """Midnights of a zone count as its days; other times, and several zones, by what has passed."""
    if column is None:
        column = NEW_YORK.to_series() + pd.to_timedelta("1h")
    ticks, clock = read_times(column.reset_index(drop=True), "t", pd.RangeIndex(5))
    days = np.arange(5) if clock.zone is not None else [0, 1, 2, 2 + 23 / 24, 3 + 23 / 24]
    assert_allclose(ticks / clock.per_unit, days)
    assert (clock.zone is None) == (column.iloc[0].hour == 1)
    elsewhere = NEW_YORK[3:].tz_convert("UTC").to_series() + (column.iloc[0] - NEW_YORK[0])
    assert_array_equal(clock.ticks(elsewhere), ticks[3:])
    with pytest.raises(ValueError, match="was a date with a time zone in the fit and is a date here"):
        clock.ticks(NEW_YORK.tz_localize(None).to_series())


def test_zones_of_polars():
    """Its own conversion to NumPy drops them, and with them the days of the zone."""
    times = pl.Series("t", NEW_YORK.tz_convert("UTC").tz_localize(None).to_numpy())
    times = times.dt.replace_time_zone("UTC").dt.convert_time_zone("America/New_York")
    assert_array_equal(Table({"t": times}).raw("t").to_numpy(), NEW_YORK.to_series().to_numpy())


def test_dates_with_and_without_a_time_zone():
    both = pd.Series([NEW_YORK[0], NEW_YORK[1].tz_localize(None)], dtype=object)
    with pytest.raises(ValueError, match="'t' has dates with and without a time zone"):
        read_times(both, "t", pd.RangeIndex(2))
    zones = pd.Series([NEW_YORK[0], NEW_YORK[0].tz_convert("Asia/Tokyo")], dtype=object)
    assert read_times(zones, "t", pd.RangeIndex(2))[0].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("int8", [-100, 20, 120]),
        ("int16", [-32000, 0, 32000]),
        ("int32", [-(2**31), 0, 2**31 - 1]),
        ("uint8", [255, 100, 0]),
        ("uint64", [2**63, 2**63 + 7, 2**63 - 9]),
        ("int64", [-(2**62), 0, 2**62 - 1]),
        ("Int8", [-100, 20, 120]),
    ],
)
def test_differences_of_integers_do_not_overflow(dtype, values):
    column = pd.Series(values, dtype=dtype)
    ticks, clock = read_times(column, "t", pd.RangeIndex(3))
    expected = [int(v) - min(values) for v in values]
    assert ticks.tolist() == expected
    assert clock.ticks(pd.Series([values[1]], dtype=dtype)).tolist() == expected[1:2]


@pytest.mark.parametrize("name", REFUSED)
def test_times_without_known_distances_are_refused(name):
    times, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        frame(times)


def test_two_occasions_need_no_order():
    data = {"g": np.repeat([0, 1, 2], 2), "t": ["pre", "post"] * 3, "y": np.arange(6.0)}
    assert model_frame("y ~ 1", data, residual=AR1("t", group="g")).residual.design.structure.space.size == 2


@pytest.mark.parametrize(
    ("residual", "times", "new", "message"),
    [
        (Toeplitz("t", group="g"), T, {"t": [15]}, "up to 8"),
        (ARMA("t", p=1, q=1, group="g"), T, {"t": [1.5]}, "between the steps of the fit"),
        (
            AR1("t", group="g"),
            T,
            {"t": pd.to_datetime(["2024-01-01"])},
            "was a number in the fit and is a date",
        ),
        (AR1("t", group="g"), WRITTEN["text"], {"t": ["V3"]}, "times that the model was not fitted with: V3"),
        (AR1(group="g"), T, {"t": [1]}, "in which new rows have no place"),
        (Unstructured("t", group="g"), T, {"t": [3]}, "'t' has levels that the model was not fitted with: 3"),
        (AR1("t", group="g") * VarIdent("t"), T, {"t": [3]}, "'t' has levels"),
    ],
)
def test_new_rows_that_the_structure_knows_nothing_of(residual, times, new, message):
    with pytest.raises(ValueError, match=message):
        new_frame(frame(times, residual), {"g": [0], **new}, residual="kriging")


# --- fits --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def walk():
    """An AR(1) of 60 groups at visits 1, 2, 4, 5, 8 and 9, which nlme::gls and the lattice agree on."""
    rng = np.random.default_rng(1)
    g, t = np.repeat(np.arange(60), 6), np.tile([1, 2, 4, 5, 8, 9], 60)
    e = np.zeros((60, 10))
    e[:, 0] = rng.normal(size=60)
    for k in range(1, 10):
        e[:, k] = 0.7 * e[:, k - 1] + 0.51**0.5 * rng.normal(size=60)
    data = pd.DataFrame({"g": g, "t": t, "y": e[g, t]})
    data["v"] = pd.Categorical(t, categories=range(1, 10), ordered=True)
    data["s"], data["hours"] = "V" + pd.Series(t + 5).astype(str), 3600 * t
    data["date"] = pd.Timestamp("2024-02-27") + pd.to_timedelta(7 * t, unit="D")
    return data


WALKED = ("t", "v", "s", "hours", "date")


@pytest.mark.parametrize(
    ("residual", "deviance"),
    [
        (AR1, 841.474556),
        (CAR1, 841.474556),
        (Toeplitz, 832.726304),
        (lambda t, group: ARMA(t, 1, 1, group=group), 841.28545),
    ],
)
def test_the_criterion_does_not_depend_on_how_times_are_written(walk, residual, deviance):
    designs = [model_frame("y ~ 1", walk, residual=residual(c, group="g")).residual.design for c in WALKED]
    for own in designs[1:]:
        if residual is not CAR1:
            assert_array_equal(own.place, designs[0].place)
            assert own.structure.space.size == designs[0].structure.space.size
    # as they are, and in another unit
    for name in ("v", "hours"):
        fit = lmm("y ~ 1", walk, residual=residual(name, group="g")).fit()
        assert fit.converged
        assert_allclose(fit.deviance, deviance, atol=1e-5)


def test_parameters_are_in_the_units_of_the_column(walk):
    fits = {c: lmm("y ~ 1", walk, residual=AR1(c, group="g")).fit() for c in ("t", "hours", "date")}
    own, limits = fits["t"].varcorr().iloc[0], fits["t"].conf_int(which="all").iloc[0]
    assert_allclose(own["sdcor"], 0.7061289, atol=1e-6)
    for name, unit in (("hours", 3600), ("date", 7)):
        phi = fits[name].varcorr().iloc[0]
        assert_allclose(phi["sdcor"], own["sdcor"] ** (1 / unit), rtol=1e-9)
        # delta method: d ρ^(1/u) = ρ^(1/u − 1) dρ/u
        assert_allclose(phi["se"], own["se"] * own["sdcor"] ** (1 / unit - 1) / unit, rtol=1e-6)
        assert_allclose(fits[name].conf_int(which="all").iloc[0], limits ** (1 / unit), rtol=1e-8)
        assert_allclose(fits[name].model.fit_batch(walk[["y"]]).sdcor["Phi"].iloc[0], phi["sdcor"], rtol=1e-7)
    said = " ".join(str(fits["date"].summary()).split())
    assert "Phi is the correlation at distance 1 day" in said
    assert "whole steps of 3600" in fits["hours"].varcorr().attrs["note"]
    range_ = lmm("y ~ 1", walk, residual=Exponential("hours", group="g")).fit().varcorr().iloc[0]
    assert_allclose(np.exp(-3600 / range_["sdcor"]), own["sdcor"], rtol=1e-6)


def test_a_negative_correlation_is_that_of_a_step(walk):
    signed = walk.assign(y=walk["y"] * (-1.0) ** walk["t"])
    one = lmm("y ~ 0 + I((-1.0)**t)", signed, residual=AR1("t", group="g")).fit()
    other = lmm("y ~ 0 + I((-1.0)**t)", signed, residual=AR1("hours", group="g")).fit()
    assert_allclose(other.deviance, one.deviance, rtol=1e-12)
    assert_allclose(one.varcorr().iloc[0]["sdcor"], -0.7061289, atol=1e-6)
    assert_allclose(other.varcorr().iloc[0]["sdcor"], -0.7061289, atol=1e-6)
    assert "one step" in other.varcorr().attrs["note"]
    assert np.all(other.conf_int(which="all").iloc[0] < 0)


def test_many_steps_between_neighbours(walk):
    """Visits are about a day apart, to the minute: the criterion is flat at any fixed ρ of a minute."""
    rng = np.random.default_rng(4)
    minutes = walk.assign(m=1440 * walk["t"] + rng.integers(-9, 10, len(walk)))
    fits = [lmm("y ~ 1", minutes, residual=r("m", group="g")).fit() for r in (AR1, CAR1)]
    assert_allclose(fits[0].deviance, fits[1].deviance, rtol=1e-9)
    phi = [fit.varcorr().iloc[0]["sdcor"] ** 1440 for fit in fits]
    assert_allclose(phi[0], phi[1], rtol=1e-6)
    assert abs(phi[0] - 0.706) < 0.02


def test_predictions_between_the_rows_of_the_fit(walk):
    """An AR(1) at distance h from its only neighbour: ρ^h of that residual."""
    fit = lmm("y ~ 1", walk, residual=AR1("date", group="g")).fit()
    new = pd.DataFrame({"g": [3, 4], "date": walk["date"].iloc[[23, 29]] + pd.to_timedelta([7, 3], unit="D")})
    phi = fit.varcorr().iloc[0]["sdcor"]
    expected = fit.params.iloc[0] + phi ** np.array([7.0, 3.0]) * fit.resid.iloc[[23, 29]].to_numpy()
    assert_allclose(fit.predict(new, kriging=True), expected, rtol=1e-9)
    assert_allclose(fit.predict(new.iloc[[1]], kriging=True), expected[1:], rtol=1e-9)

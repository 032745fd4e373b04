"""Every table that a fit, a batch or a comparison returns shows all its columns in 80 characters."""

import inspect
import os
import pickle
import warnings

import jax
import numpy as np
import pandas as pd
import pytest

import lmmjax as lj
from lmmjax.reports.table import MOST_COLUMNS, Table, as_table

ARGUMENTS = {
    "scan": (np.sin(np.arange(1.0, 541.0) ** 2).reshape(180, 3),),
    "contrast": (["Days", "Days - 2 * Intercept"],),
    "delta": (lambda p: {"per cent of the intercept": 100 * p["Days"] / p["Intercept"]},),
    "emmeans": ("Days",),
    "emtrends": ("Days", "1"),
    "f_test": ("Days = 10",),
    "simulate": (jax.random.key(1), 3),
    "t_test": (["Days = 10", "Intercept = 250"],),
    "test": ("Days = 10",),
    "top": ("Days",),
    "treat": ("Days",),
}
OPTIONS = {"icc": {"se": True}, "r2": {"se": True}}
# for plots and other packages, or of many refits; a residual structure is below
NONE = {"bootstrap", "contour", "influence", "lrt", "permutation", "posterior", "profile", "refit"}
NONE |= {"residual_cov", "rlrt", "save", "sensitivity", "to_maketables", "to_marginaleffects"}
NONE |= {"genetic_correlation", "heritability", "reliability", "scan_threshold"}
NONE |= {"to_anndata", "to_img", "to_parquet"}


@pytest.fixture(autouse=True)
def _terminal(monkeypatch):
    """80 characters, as pandas sees a terminal: columns that do not fit give way to dots."""
    monkeypatch.setattr("shutil.get_terminal_size", lambda fallback=None: os.terminal_size((80, 24)))
    with pd.option_context("display.max_columns", 0, "display.width", 80):
        yield


@pytest.fixture(scope="module")
def batch(fit):
    return fit.model.fit_batch(fit.simulate(jax.random.key(0), 5).add_prefix("a long name of a gene "))


def called(owner, name):
    value = getattr(owner, name)
    return value(*ARGUMENTS.get(name, ()), **OPTIONS.get(name, {})) if inspect.ismethod(value) else value


def frames(value):
    if isinstance(value, dict):
        return [frame for one in value.values() for frame in frames(one)]
    if type(value).__module__.startswith("lmmjax.postestimation"):
        return frames(vars(value))
    return [value] if isinstance(value, pd.DataFrame) else []


def assert_whole(frame):
    assert type(frame) is Table
    text = repr(frame)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    for column in frame.columns:
        assert str(column[-1] if isinstance(column, tuple) else column) in text
    if len(frame) <= 20:
        assert "..." not in text
        assert len(lines) > len(frame)


@pytest.mark.parametrize("name", [n for n in dir(lj.Fit) if not n.startswith("_") and n not in NONE])
def test_tables_of_a_fit(fit, name):
    for frame in frames(called(fit, name)):
        assert_whole(frame)


@pytest.mark.parametrize("name", [n for n in dir(lj.BatchFit) if not n.startswith("_") and n not in NONE])
def test_tables_of_a_batch(batch, name):
    for frame in frames(called(batch, name)):
        if frame.shape[1] <= MOST_COLUMNS:
            assert_whole(frame)


def test_whatever_is_long_in_a_name(sleepstudy):
    """Summaries, reports and tables of means break lines between words, and columns stay columns."""
    names = {"Days": "days_of_little_sleep_in_a_laboratory", "Subject": "lorry_driver_who_was_kept_awake"}
    days, driver = names.values()
    fit = lj.lmm(f"Reaction ~ {days} + ({days} | {driver})", sleepstudy.rename(columns=names)).fit()
    means = fit.emmeans(days, at={days: [0, 1]})
    printed = [fit.summary(correlation=True), fit.check(), fit.model.structure(), means, means.pairs()]
    for one in [*printed, lj.modeltable([fit] * 7)]:
        text = repr(one)
        assert max(map(len, text.splitlines())) <= 80
        if one is printed[0]:
            assert days in text
            assert " ".join(text.split()).count(f"Formula: {fit.model.formula}") == 1
            # the row of a name that has no room stands below it
            row = next(line for line in text.splitlines() if f"{fit.tvalues[days]:.3f}" in line)
            assert f"{fit.params[days]:.3f}" in row


def test_most_methods_return_tables(fit, batch):
    """So that the two tests above look at something."""
    names = ("coef_table", "anova", "varcorr", "conf_int", "tidy", "glance", "test", "ranova", "delta")
    assert all(frames(called(fit, name)) for name in names)
    names = ("params", "tidy", "top", "conf_int", "contrast", "varcorr", "varcorr_se", "sdcor")
    assert all(frames(called(batch, name)) for name in names)


def test_other_tables(fit, sleepstudy):
    residual = lj.AR1("Days", group="Subject")
    other = lj.lmm("Reaction ~ Days", sleepstudy, residual=residual).fit()
    none = lj.lmm("Reaction ~ Days + (1 | Subject)", sleepstudy).fit()
    tables = [lj.compare(other, none, force=True), lj.compare(none, fit), other.varcorr()]
    tables += [other.residual_cov(), other.conf_int(which="all")]
    subjects = sleepstudy["Subject"].unique()
    related = {"Subject": lj.Kernel(0.5 * np.eye(18) + 0.5, subjects)}
    kin = lj.lmm("Reaction ~ Days + (1 | Subject)", sleepstudy, kernels=related).fit()
    tables += [kin.heritability(), kin.reliability()]
    for table in [*tables, fit.model.moments().varcorr()]:
        assert_whole(table)


def test_numbers_are_shortened_before_columns_are_put_below():
    wide = pd.DataFrame({f"column {k}": np.full(3, 1e4 + k / 3e6) for k in range(6)})
    assert len(repr(as_table(wide)).splitlines()) == 4
    blocks = repr(as_table(wide.assign(**{f"further {k}": 1.0 for k in range(6)}))).split("\n\n")
    assert [len(block.splitlines()) for block in blocks] == [4, 4]
    many = as_table(pd.DataFrame(np.ones((3, MOST_COLUMNS + 1))))
    assert repr(many) == repr(pd.DataFrame(many))
    # a wider terminal takes more
    with pd.option_context("display.width", 200):
        assert "\n\n" not in repr(as_table(wide.assign(**{f"further {k}": 1.0 for k in range(6)})))
    assert "[100 rows x 1 columns]" in repr(as_table(pd.DataFrame({"a": np.arange(100.0)})))


def test_a_table_is_a_frame():
    plain = pd.DataFrame({"a": [1.0, 2.0]})
    plain.attrs["note"] = "kept"
    table = as_table(plain)
    assert table.attrs == {"note": "kept"}
    pd.testing.assert_frame_equal(plain, table)
    pd.testing.assert_frame_equal(table, plain)
    for made in (pickle.loads(pickle.dumps(table)), table.round(1), pd.concat([table, table]), table.T):
        assert type(made) is Table
    assert not isinstance([], Table)
    assert as_table([plain])[0] is plain


def test_warnings_point_to_the_line_that_asked():
    cells = [(a, b, r) for a in "pq" for b in "uv" for r in range(4) if a + b != "qv"]
    data = pd.DataFrame(cells, columns=["a", "b", "r"])
    data["y"] = np.random.default_rng(1).normal(size=len(data)) + data["r"]
    fit = lj.lmm("y ~ a * b + (1 | r)", data).fit()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        fit.predict({"a": ["q"], "b": ["v"], "r": [1]})
    assert {one.category for one in found} == {lj.EstimabilityWarning}
    assert {one.filename for one in found} == {__file__}


def test_a_fit_that_warns_points_to_the_line_that_asked(sleepstudy):
    rng = np.random.default_rng(0)
    flat = sleepstudy.assign(y=rng.normal(size=180) + sleepstudy.Days)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        fit = lj.lmm("y ~ Days + (Days | Subject)", flat).fit()
        fit.update("~ . - Days")
    assert [one.category for one in found] == [lj.FitWarning] * 2
    assert {one.filename for one in found} == {__file__}

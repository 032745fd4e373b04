"""F tests of many responses: each equals that of its own fit, however it was computed."""

import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import lmmjax as lj
from lmmjax.batch import ddf as batch_ddf
from lmmjax.postestimation.hypotheses import batch_robust

COLUMNS = ["F", "num_df", "den_df", "p"]
GROUPS, SIZE = 12, 6


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    n = GROUPS * SIZE
    return pd.DataFrame(
        {
            "g": np.repeat(np.arange(GROUPS), SIZE),
            "a": rng.permutation(np.repeat(["p", "q", "r"], n // 3)),
            "arm": np.repeat(["c", "t"], n // 2),
            "x": rng.normal(size=n),
        }
    )


@pytest.fixture(scope="module")
def fits(data):
    """Whole responses of two scales and a singular one; holes; no level r; no fit; weights nowhere."""
    rng, n = np.random.default_rng(4), len(data)
    y = (
        rng.normal(size=(n, 6))
        + rng.normal(size=(GROUPS, 6))[data["g"]]
        + np.where(data["a"] == "q", 1, 0)[:, None]
    )
    y = pd.DataFrame(y, columns=["one", "singular", "small", "holes", "no r", "bad"])
    y["singular"] -= y["singular"].groupby(data["g"]).transform("mean")
    y["small"] *= 1e-6
    y.loc[[2, 17, 40], "holes"] = np.nan
    y.loc[data["a"] == "r", "no r"] = np.nan
    y["bad"] = 3.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return lj.lmm("~ a * arm + x + (1 | g)", data).fit_batch(y)


NAMES = ["one", "singular", "small", "holes", "no r"]


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger", "normal"])
@pytest.mark.parametrize("kind", [1, 2, 3])
def test_anova(fits, kind, ddf):
    table = fits.anova(kind, ddf)
    assert list(table) == [*COLUMNS, "q"]
    assert table.xs("bad", level=1).isna().all(axis=None)
    for name in NAMES:
        ours, single = table.xs(name, level=1), fits[name].anova(kind, ddf)
        assert list(ours.index) == list(single.index)
        assert_allclose(ours[COLUMNS], single[COLUMNS], rtol=1e-6)


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger", "normal"])
def test_joint_tests(fits, ddf):
    texts = ["a[T.q] = 0.5", "x = 2 * arm[T.t]", "2 * x - 4 * arm[T.t] = 0"]
    table = fits.test(texts, ddf)
    assert (table["num_df"].dropna() == 2).all()
    assert table.loc["bad"].isna().all()
    for name in NAMES:
        assert_allclose(table.loc[name, COLUMNS], fits[name].test(texts, ddf).iloc[0][COLUMNS], rtol=1e-6)
    ours, expected = fits.test("a[T.r] - a[T.q] = 1", ddf, level=0.8), fits["holes"]
    expected = expected.test("a[T.r] - a[T.q] = 1", ddf, level=0.8).iloc[0]
    assert list(ours) == [*expected.index, "q"]
    assert_allclose(ours.loc["holes"].drop("q"), expected, rtol=1e-6)
    # its rows do not have the level
    assert ours.loc[["no r", "bad"]].isna().all(axis=None)
    assert fits.test(["a[T.r]", "x"], ddf).loc["no r"].isna().all()


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger"])
def test_lanes_give_what_single_fits_give(fits, ddf, monkeypatch):
    one_by_one = fits.anova(3, ddf)
    monkeypatch.setattr(batch_ddf.SharedDesign, "few", 0)
    monkeypatch.setattr(batch_ddf.OwnDesigns, "few", 0)
    assert_allclose(fits.anova(3, ddf), one_by_one, rtol=1e-6)
    # a program for all terms and types: hypotheses are arguments
    programs = batch_ddf._mapped_lanes.cache_size()
    fits.anova(2, ddf)
    assert batch_ddf._mapped_lanes.cache_size() == programs


def test_contradictions_and_unknown_types_are_refused(fits):
    with pytest.raises(ValueError, match="contradict each other"):
        fits.test(["x = 1", "2 * x = 3"])
    with pytest.raises(ValueError, match="unknown type 4"):
        fits.anova(4)


@pytest.mark.parametrize(
    ("ddf", "adjust", "options"),
    [
        ("satterthwaite", None, {}),
        ("kenward-roger", "mvt", {}),
        ("normal", "none", {}),
        ("satterthwaite", "holm", {"robust": "CR2"}),
    ],
)
def test_marginal_means(fits, ddf, adjust, options):
    means = fits.emmeans("a", by="arm", at={"x": 0.3}, ddf=ddf, **options)
    table, pairs = means.table, means.contrast("pairwise", adjust).table
    for name in ("one", "singular", "small", "holes"):
        single = fits[name].emmeans("a", by="arm", at={"x": 0.3}, ddf=ddf, **options)
        for ours, theirs in ((table, single.table), (pairs, single.contrast("pairwise", adjust).table)):
            own = ours[ours["response"] == name].reset_index(drop=True)[list(theirs)]
            pd.testing.assert_frame_equal(own, theirs, rtol=1e-5, atol=1e-9, check_dtype=False)
    lost = table[(table["response"] == "no r") & (table["a"] == "r")]
    assert lost["se"].isna().all()
    assert table.loc[(table["response"] == "no r") & (table["a"] != "r"), "se"].notna().all()
    assert table.loc[table["response"] == "bad", "estimate"].isna().all()
    assert pairs.loc[pairs["response"] == "no r", "p"].notna().sum() == 2


def test_joint_tests_of_means_and_trends(fits):
    """As the fits one by one: with a level that a response lacks, a family a level, robust."""
    for options in ({"ddf": "kenward-roger"}, {"robust": "CR2"}):
        means = fits.emmeans(["a", "arm"], **options)
        table, families = means.joint_tests(), fits.emmeans("a", by="arm", **options).pairs()
        assert list(table) == ["response", "term", "num_df", "den_df", "F", "p", "q"]
        both = families.joint_tests()
        for name in NAMES:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", lj.EstimabilityWarning)
                single = fits[name].emmeans(["a", "arm"], **options)
                pairs = fits[name].emmeans("a", by="arm", **options).pairs()
            for ours, theirs in ((table, single.joint_tests()), (both, pairs.joint_tests())):
                own = ours[ours["response"] == name].reset_index(drop=True)[list(theirs)]
                if name == "no r":
                    # the grid of all rows: a mean over all levels of a is not determined
                    own, theirs = (f[~f.iloc[:, 0].isin(["arm", "(confounded)"])] for f in (own, theirs))
                    own, theirs = own.dropna(), theirs.dropna()
                    own, theirs = (f.reset_index(drop=True) for f in (own, theirs))
                elif "term" in own:
                    # of "no r" alone
                    assert own.loc[own["term"] == "(confounded)", "p"].isna().all()
                    own = own[own["term"] != "(confounded)"]
                pd.testing.assert_frame_equal(own, theirs, rtol=1e-6, check_dtype=False)
        assert table.loc[table["response"] == "bad", "p"].isna().all()
    slopes = fits.emtrends("x", ddf="kenward-roger").table
    for name in NAMES:
        theirs = fits[name].emtrends("x", ddf="kenward-roger").table
        own = slopes[slopes["response"] == name].reset_index(drop=True)[list(theirs)]
        pd.testing.assert_frame_equal(own, theirs, rtol=1e-6, check_dtype=False)


@pytest.mark.parametrize("few", [4, 0])
@pytest.mark.parametrize("kind", ["CR0", "CR2"])
def test_robust_f(fits, kind, few, monkeypatch):
    """Hotelling's T² approximation: terms, several contrasts and one, whichever way they are computed."""
    monkeypatch.setattr(batch_robust, "FEW", few)
    texts = ["a[T.q] = 0.5", "x = 2 * arm[T.t]", "2 * x - 4 * arm[T.t] = 0"]
    table, terms = fits.test(texts, robust=kind), fits.anova(robust=kind)
    for name in NAMES:
        single = fits[name].test(texts, robust=kind).iloc[0][COLUMNS]
        assert_allclose(table.loc[name, COLUMNS], single.astype(float), rtol=1e-7)
        assert_allclose(terms.xs(name, level=1)[COLUMNS], fits[name].anova(robust=kind)[COLUMNS], rtol=1e-7)
    one, alone = fits.test("x = 1", robust=kind), fits["holes"].test("x = 1", robust=kind).iloc[0]
    assert_allclose(one.loc["holes"].drop("q"), alone, rtol=1e-9)
    normal, alone = (own.test(texts, "normal", robust=kind) for own in (fits, fits["holes"]))
    assert_allclose(normal.loc["holes", "F"], alone["F"], rtol=1e-9)
    assert table.loc["bad"].isna().all()


def test_confounded_in_one_response_or_all(fits, data):
    """As the fits one by one; of a response that lacks a cell by itself, what its rows determine."""
    missing = ~((data["a"] == "r") & (data["arm"] == "t"))
    y = pd.DataFrame(fits.fitted.y[:, :2], columns=["one", "two"])
    all_lack = lj.lmm("~ a * arm + x + (1 | g)", data[missing]).fit_batch(y[missing])
    one_lacks = lj.lmm("~ a * arm + x + (1 | g)", data).fit_batch(y.assign(two=y["two"].where(missing)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lj.EstimabilityWarning)
        table, own = (f.emmeans(["a", "arm"]).joint_tests() for f in (all_lack, one_lacks))
        theirs = all_lack["two"].emmeans(["a", "arm"]).joint_tests()
    assert list(theirs["term"])[-1] == "(confounded)"
    ours = table[table["response"] == "two"].reset_index(drop=True)[list(theirs)]
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-6, check_dtype=False)
    two = own[own["response"] == "two"].dropna().reset_index(drop=True)[list(theirs)]
    pd.testing.assert_frame_equal(two, theirs, rtol=1e-6, check_dtype=False)
    last = own[own["term"] == "(confounded)"]
    assert list(last["p"].isna()) == [True, False]


def test_too_few_clusters_for_a_joint_test(fits, data):
    sites = data["g"] // 4
    with pytest.warns(lj.EstimabilityWarning, match=r"too few to test 4 contrasts together"):
        table = fits.test(["a[T.q]", "a[T.r]", "x", "a[T.q]:arm[T.t]"], robust="CR2", cluster=sites)
    assert table["F"].isna().all()

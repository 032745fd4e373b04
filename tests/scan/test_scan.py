"""Scans beside dense algebra, and beside models that have the marker in their formula."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import lmmjax as lj
from lmmjax.scan import Above, Best, Top

STATISTICS = ("effect", "se", "t", "p_wald", "p_lrt", "p_score", "lod", "ratio", "loglik")
N = 40
RNG = np.random.default_rng(21)
IDS = [f"i{k:02d}" for k in range(N)]
HALF = RNG.normal(size=(N, 60))
K = HALF @ HALF.T / 60
X = RNG.normal(size=N)
G = RNG.integers(0, 3, (N, 7)).astype(float)
DATA = pd.DataFrame({"id": IDS, "x": X, "w": RNG.uniform(0.5, 2.0, N)})
Y = pd.DataFrame(
    np.linalg.cholesky(K) @ RNG.normal(size=(N, 3)) + [0.5, 1.0, 2.0] * RNG.normal(size=(N, 3)) + G[:, :1],
    columns=["a", "b", "c"],
)
MARKERS = pd.DataFrame(G, index=IDS, columns=[f"m{k}" for k in range(7)])
KERNEL = lj.Kernel(K, IDS)
BATCH = lj.lmm("~ x + (1 | id)", DATA, kernels={"id": KERNEL}).fit_batch(Y)


def with_marker(name, marker, reml=True, **options):
    """The model with a marker in its formula."""
    data = DATA.assign(y=Y[name], g=MARKERS[marker].to_numpy())
    return lj.lmm("y ~ x + g + (1 | id)", data, kernels={"id": KERNEL}, **options).fit(reml=reml)


@pytest.mark.parametrize("reml", [True, False])
def test_a_refit_is_the_model_with_the_marker(reml):
    data = DATA.assign(y=Y["b"])
    fit = lj.lmm("y ~ x + (1 | id)", data, kernels={"id": KERNEL}).fit(reml=reml)
    table = fit.scan(MARKERS.iloc[:, :2], ratio="refit")
    for row in table.itertuples():
        there = with_marker("b", row.marker, reml)
        psi = there.estimate.psi
        assert row.effect == pytest.approx(there.params["g"], rel=1e-7)
        # by maximum likelihood the variance has n in the denominator
        share = 1.0 if reml else np.sqrt(N / (N - 3))
        assert row.se == pytest.approx(there.bse["g"] * share, rel=1e-7)
        assert row.ratio == pytest.approx(psi[0] / psi[1], rel=1e-5)
        assert row.loglik == pytest.approx(there.llf, abs=1e-9)
        one, two = (
            with_marker("b", row.marker, False),
            lj.lmm("y ~ x + (1 | id)", data, kernels={"id": KERNEL}).fit(reml=False),
        )
        assert row.p_lrt == pytest.approx(stats.chi2.sf(2 * (one.llf - two.llf), 1), abs=1e-9)


def test_at_the_ratios_of_the_null_it_is_generalised_least_squares():
    table = BATCH.scan(MARKERS)
    assert list(table)[:2] == ["marker", "response"]
    assert list(table)[2:] == [*STATISTICS]
    by_ml = lj.lmm("~ x + (1 | id)", DATA, kernels={"id": KERNEL}).fit_batch(Y, reml=False)
    for row in table.itertuples():
        k = BATCH.names.get_loc(row.response)
        y, g = Y[row.response].to_numpy(), MARKERS[row.marker].to_numpy()
        w = np.column_stack([np.ones(N), X, g])
        psi = BATCH.estimate.psi[k]
        assert row.ratio == pytest.approx(psi[0] / psi[1])
        effect, se, share = dense(psi, w, y)
        assert (row.effect, row.se) == pytest.approx((effect, se), rel=1e-9)
        assert row.p_wald == pytest.approx(2 * stats.t.sf(abs(effect / se), N - 3), rel=1e-8)
        assert row.lod == pytest.approx(-N * np.log1p(-share) / (2 * np.log(10)), rel=1e-8)
        _, _, share = dense(by_ml.estimate.psi[k], w, y)
        assert row.p_score == pytest.approx(stats.f.sf(N * share, 1, N - 3), rel=1e-6)


def dense(psi, w, y):
    """Effect and standard error of the last column of w, and the share of the squares that it takes."""
    v = np.linalg.inv(psi[0] * K + psi[1] * np.eye(N))
    beta = np.linalg.solve(w.T @ v @ w, w.T @ v @ y)
    left = [(y - u @ np.linalg.solve(u.T @ v @ u, u.T @ v @ y)) for u in (w, w[:, :-1])]
    after, before = (e @ v @ e for e in left)
    se = np.sqrt(np.linalg.inv(w.T @ v @ w)[-1, -1] * after / (N - w.shape[1]))
    return beta[-1], se, 1 - after / before


@pytest.mark.parametrize("keep", [Top(2), Above(lod=0.3), Above(p=0.2), Best(), [Top(1), Best()]])
@pytest.mark.parametrize("ratio", ["null", "refit"])
def test_what_is_kept_is_what_the_whole_table_has(keep, ratio):
    """Also where a response lacks values, and so has rows of its own."""
    gaps = Y.mask(np.arange(N)[:, None] < [0, 3, 0])
    fits = lj.lmm("~ x + (1 | id)", DATA, kernels={"id": KERNEL}).fit_batch(gaps)
    whole, some = fits.scan(MARKERS, ratio=ratio), fits.scan(MARKERS, ratio=ratio, keep=keep)
    mine = pd.Series(False, index=whole.index)
    for one in keep if isinstance(keep, list) else [keep]:
        if isinstance(one, Top):
            mine |= whole.groupby("response")["lod"].rank(ascending=False) <= one.n
        elif isinstance(one, Best):
            mine |= whole.groupby("marker")["lod"].rank(ascending=False) == 1
        else:
            mine |= whole["lod"] >= one.lod if one.lod else whole["p_wald"] <= one.p
    pd.testing.assert_frame_equal(whole[mine].reset_index(drop=True), some, rtol=1e-7)


def test_missing_values_are_rows_that_are_left_out():
    gaps = Y["a"].mask(np.arange(N) < 4)
    fits = lj.lmm("~ x + (1 | id)", DATA, kernels={"id": KERNEL}).fit_batch(
        pd.DataFrame({"a": gaps, "b": Y["b"]})
    )
    own = lj.lmm("y ~ x + (1 | id)", DATA.assign(y=gaps), kernels={"id": KERNEL}).fit()
    table = fits.scan(MARKERS).query("response == 'a'").drop(columns="response").reset_index(drop=True)
    pd.testing.assert_frame_equal(table, own.scan(MARKERS).drop(columns="response"), rtol=1e-6)


def test_interactions_are_models_with_both_columns():
    data = DATA.assign(y=Y["a"])
    table = (
        lj.lmm("y ~ x + (1 | id)", data, kernels={"id": KERNEL})
        .fit()
        .scan(MARKERS.iloc[:, :2], interaction="x", ratio="refit")
    )
    for marker, rows in table.groupby("marker"):
        full = data.assign(g=MARKERS[marker].to_numpy())
        there = lj.lmm("y ~ x * g + (1 | id)", full, kernels={"id": KERNEL}).fit()
        assert list(rows["term"]) == ["marker", "marker:x"]
        assert np.allclose(rows["effect"], there.params[["g", "x:g"]], rtol=1e-6)
        assert np.allclose(rows["se"], there.bse[["g", "x:g"]], rtol=1e-6)


def test_what_the_model_determines_has_no_effect():
    """A marker that does not vary, one that is a covariate, and one that nobody has."""
    odd = MARKERS.assign(flat=1.0, x=X, none=np.nan)
    said = r"3 of 10 markers have no results: flat \(constant\), x \(determined by the fixed effects\), none"
    with pytest.warns(lj.EstimabilityWarning, match=said):
        table = BATCH.scan(odd)
    lost = table["marker"].isin(["flat", "x", "none"])
    assert table.loc[lost, "effect"].isna().all()
    assert table.loc[~lost, "effect"].notna().all()
    assert not BATCH.scan(odd, keep=Top(20))["marker"].isin(["flat", "x", "none"]).any()


@pytest.mark.parametrize("ratio", ["null", "refit"])
def test_several_interactions_are_models_with_all_columns(ratio):
    """By name and by value, of a kernel; at the null's ratio by generalised least squares."""
    data = DATA.assign(y=Y["a"])
    fit = lj.lmm("y ~ x + w + (1 | id)", data, kernels={"id": KERNEL}).fit()
    asked = {"ratio": ratio, "test": "wald"}
    table = fit.scan(MARKERS.iloc[:, :2], interaction=["x", "w"], **asked)
    given = fit.scan(MARKERS.iloc[:, :2], interaction=DATA[["x", "w"]], **asked)
    pd.testing.assert_frame_equal(table, given)
    for marker, rows in table.groupby("marker"):
        assert list(rows["term"]) == ["marker", "marker:x", "marker:w"]
        if ratio == "refit":
            full = data.assign(g=MARKERS[marker].to_numpy())
            there = lj.lmm("y ~ (x + w) * g + (1 | id)", full, kernels={"id": KERNEL}).fit()
            wanted = ["g", "x:g", "w:g"]
            assert np.allclose(rows["effect"], there.params[wanted], rtol=1e-6)
            assert np.allclose(rows["se"], there.bse[wanted], rtol=1e-6)
            continue
        x = np.column_stack([np.ones(N), DATA[["x", "w"]]])
        own = MARKERS[[marker]].to_numpy() * x
        v = np.linalg.inv(fit.estimate.psi[0] * K + fit.estimate.psi[1] * np.eye(N))
        whole, y = np.column_stack([x, own]), data["y"].to_numpy()
        left = [y - a @ np.linalg.solve(a.T @ v @ a, a.T @ v @ y) for a in (x, whole)]
        before, after = (e @ v @ e for e in left)
        beta = np.linalg.solve(whole.T @ v @ whole, whole.T @ v @ y)
        assert np.allclose(rows["effect"], beta[3:], rtol=1e-8)
        f = (before - after) / 3 / (after / (N - 6))
        assert np.allclose(rows["p_joint"], stats.f.sf(f, 3, N - 6), rtol=1e-8)


@pytest.mark.parametrize("ratio", ["null", "refit"])
@pytest.mark.parametrize("model", ["kernel", "groups"])
def test_pairs_with_interactions_are_kept_by_all_of_their_columns(model, ratio):
    if model == "kernel":
        fits = lj.lmm("~ x + (1 | id)", DATA, kernels={"id": KERNEL}).fit_batch(Y[["a", "b"]])
    else:
        twice = np.repeat(np.arange(N), 2)
        y = Y[["a", "b"]].iloc[twice].reset_index(drop=True) + RNG.normal(size=(2 * N, 2))
        fits = lj.lmm("~ x + (1 | id)", DATA.iloc[twice].reset_index(drop=True)).fit_batch(y)
    asked = {"interaction": "x", "ratio": ratio, "test": "wald"}
    whole = fits.scan(MARKERS, **asked)
    for keep, mine in (
        (Top(2), whole.groupby("response")["p_joint"].rank(method="dense") <= 2),
        (Best(), whole.groupby("marker")["p_joint"].rank(method="dense") == 1),
        (Above(p=0.3), whole["p_joint"] <= 0.3),
    ):
        some = fits.scan(MARKERS, keep=keep, **asked)
        pd.testing.assert_frame_equal(whole[mine].reset_index(drop=True), some, rtol=1e-7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratio": "best"}, "unknown ratio 'best'"),
        ({"test": "t"}, "unknown test 't'"),
        ({"keep": 3}, "keep is lmmjax.scan.Top"),
        ({"names": ["a"]}, "1 names for 7 markers"),
        ({"maf": 0.7}, "maf is between 0 and 0.5"),
        ({"interaction": "z"}, "interaction='z' is no fixed effect"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        BATCH.scan(MARKERS, **arguments)


def test_individuals_without_markers_are_named():
    with pytest.raises(ValueError, match=r"no individual 'i00' \(1 of the levels of 'id'\)"):
        BATCH.scan(MARKERS.iloc[1:])


@pytest.mark.parametrize(
    ("counts", "code", "dtype"),
    [(2, -9, np.int8), (1, -9, float), (2, -1, int), (2, 255, np.uint8), (2, 9, int)],
)
def test_codes_of_missing_genotypes_are_no_counts(counts, code, dtype):
    g = np.minimum(G, counts)
    g[3, 2] = code
    with pytest.raises(ValueError, match=f"marker 2 has counts of an allele and {code}, a code of missing"):
        BATCH.scan(g.astype(dtype))


@pytest.mark.parametrize("shift", [-1.0, 0.5, 7.0])
def test_other_codings_are_scanned(shift):
    """-1, 0, 1, dosages, and numbers that are no genotypes: an effect does not depend on where zero is."""
    one, other = BATCH.scan(G + shift, test="wald"), BATCH.scan(G, test="wald")
    np.testing.assert_allclose(one["effect"], other["effect"], rtol=1e-7)

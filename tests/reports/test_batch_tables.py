"""Tables over many responses against single fits, loops and definitions written out."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.stats import norm, t

import lmmjax as lj
from lmmjax.fitted import component_names, sd_scale
from lmmjax.fitted.components import delta_se
from lmmjax.postestimation.hypotheses.batch_tests import adjust
from lmmjax.postestimation.hypotheses.contrasts import contrast_matrix, parse_contrast

T = 9


def simulated(sleepstudy, rng, count):
    """Responses (n, count): every third without random effects (singular fits), effects of Days differ."""
    subject, days = pd.factorize(sleepstudy["Subject"])[0], sleepstudy["Days"].to_numpy()
    y = rng.normal(size=(len(days), count))
    for k in range(count):
        b = rng.normal(size=(subject.max() + 1, 2)) * [1.5, 0.3] * (k % 3 > 0)
        y[:, k] += b[subject, 0] + b[subject, 1] * days + 0.02 * k * days
    return y


@pytest.fixture(scope="module")
def data(sleepstudy):
    sex = np.where(pd.factorize(sleepstudy["Subject"])[0] % 2, "F", "M")
    return sleepstudy.assign(Sex=pd.Categorical(sex, ["M", "F"]))


@pytest.fixture(scope="module")
def fits(data):
    """Three coefficients; the response "bad" cannot be fitted."""
    y = pd.DataFrame(simulated(data, np.random.default_rng(2), T), columns=[f"g{k}" for k in range(T)])
    y.insert(4, "bad", 1.0)
    with pytest.warns(UserWarning, match="1 of 10 responses"):
        return lj.lmm("~ Days + Sex + (Days | Subject)", data).fit_batch(y)


@pytest.fixture(scope="module")
def good(fits):
    return [name for name in fits.names if name != "bad"]


def definition(p):
    """Smallest level at which the step-up procedure of Benjamini & Hochberg rejects each hypothesis."""
    p = list(p)
    valid = [v for v in p if not np.isnan(v)]
    out = []
    for v in p:
        if np.isnan(v):
            out.append(np.nan)
            continue
        # v is rejected at level α iff some k ≥ 1 p-values are ≤ kα/m with v among them
        levels = [len(valid) * w / sum(u <= w for u in valid) for w in valid if w >= v]
        out.append(min(1.0, *levels))
    return np.array(out)


@pytest.mark.parametrize("seed", range(5))
def test_q_values_are_those_of_the_definition(seed):
    rng = np.random.default_rng(seed)
    p = rng.random((40, 3)) ** 3
    p[rng.random(p.shape) < 0.2] = np.nan
    p[3] = p[5]
    p[:, 2] = np.nan
    expected = np.stack([definition(column) for column in p.T], axis=1)
    assert_allclose(adjust(p), expected, rtol=1e-13)


def test_q_values_of_none_and_one():
    assert adjust(np.zeros((0, 2))).shape == (0, 2)
    assert_allclose(adjust(np.array([0.3])), [0.3])


def test_tidy(fits, good):
    table = fits.tidy()
    assert list(table) == ["response", "effect", "group", "term", "estimate", "se", "df", "t", "p", "q"]
    for name in good:
        mine = table[table["response"] == name].reset_index(drop=True)
        single = fits[name].tidy()
        assert list(mine["term"]) == list(single["term"])
        for column in ("estimate", "se", "t", "p"):
            assert_allclose(mine[column], single[column], rtol=1e-12, err_msg=column)
    fixed = table[table["effect"] == "fixed"]
    for term in fits.params:
        part = fixed[fixed["term"] == term].set_index("response")
        assert_allclose(part["q"], definition(part["p"]), rtol=1e-13)
        assert part["q"].notna().sum() == T
    assert table.loc[table["effect"] == "random", ["t", "p", "q"]].isna().all(axis=None)


def test_standard_deviations_and_their_errors_equal_those_of_one_response(fits):
    """The vectorised functions, lane for lane; among the lanes are singular ones."""
    rows, estimate = fits.model.components, fits.estimate
    assert fits.is_singular.any()
    values, jacobian = sd_scale(estimate.psi, rows)
    se = delta_se(jacobian, estimate.cov_psi)
    assert np.isnan(se).any()
    assert np.isfinite(se).any()
    for k in range(len(fits)):
        one, own = sd_scale(estimate.psi[k], rows)
        assert_allclose(values[k], one, rtol=1e-14)
        assert_allclose(se[k], delta_se(own, estimate.cov_psi[k]), rtol=1e-12)


def test_delta_se_is_a_quadratic_form_that_skips_unused_missing_entries():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(4, 3, 3))
    cov = root @ root.swapaxes(1, 2)
    cov[1, 2], cov[1, :, 2] = np.nan, np.nan
    jacobian = rng.normal(size=(4, 2, 3))
    jacobian[:, 0, 2] = 0.0
    se = delta_se(jacobian, cov)
    for k in range(4):
        row = jacobian[k, 0, :2]
        assert_allclose(se[k, 0], np.sqrt(row @ cov[k, :2, :2] @ row), rtol=1e-13)
    assert np.array_equal(np.isnan(se[:, 1]), [False, True, False, False])


def test_sdcor_and_icc(fits, good):
    assert list(fits.sdcor) == component_names(fits.model.components)
    for name in good:
        single = fits[name]
        assert_allclose(fits.sdcor.loc[name], single.varcorr()["sdcor"], rtol=1e-14)
        assert_allclose(fits.icc()[name], single.icc(), rtol=1e-12)
        assert_allclose(fits.icc(by_group=True).loc[name], single.icc(by_group=True), rtol=1e-12)
    assert np.isnan(fits.icc()["bad"])


def test_intervals(fits, good):
    table = fits.conf_int(0.9)
    for name in good:
        assert_allclose(table.loc[name].to_numpy().reshape(-1, 2), fits[name].conf_int(level=0.9), rtol=1e-7)
    assert list(table["Days"].columns) == ["lower", "upper"]
    with pytest.raises(ValueError, match="level must lie between 0 and 1, not 95"):
        fits.conf_int(95)


def test_top(fits, good):
    table = fits.top("Days", n=4)
    p = fits.pvalues["Days"].dropna().sort_values()
    assert list(table.index) == list(p.index[:4])
    assert_allclose(table["p"], p[:4], rtol=0)
    assert table["q"].is_monotonic_increasing
    assert list(fits.top("Days", 99, by="t").index[:T]) == list(
        fits.tvalues["Days"].loc[good].abs().sort_values(ascending=False).index
    )
    assert fits.top("Days", 99).index[-1] == "bad"
    with pytest.raises(ValueError, match="unknown coefficient 'days': did you mean 'Days'"):
        fits.top("days")
    with pytest.raises(ValueError, match="unknown by 'x'; choose one of: estimate"):
        fits.top("Days", by="x")


def test_contrasts(fits, good):
    weights = {"Sex[T.F]": 1.0, "Days": -0.5}
    table = fits.contrast("Sex[T.F] - 0.5 * Days")
    assert list(table) == ["estimate", "se", "df", "lower", "upper", "t", "p", "q"]
    normal = fits.contrast("Sex[T.F] - 0.5 * Days", ddf="normal")
    row = np.array([0.0, -0.5, 1.0])
    for name in good:
        single = fits[name]
        estimate = row @ single.params.to_numpy()
        se = np.sqrt(row @ single.cov_params().to_numpy() @ row)
        p = 2 * norm.sf(abs(estimate / se))
        assert_allclose(
            normal.loc[name, ["estimate", "se", "t", "p"]], [estimate, se, estimate / se, p], 1e-11
        )
    assert_allclose(table["q"], definition(table["p"]), rtol=1e-13)
    for same in (weights, row, list(row), "-Days/2+Sex[T.F]"):
        pd.testing.assert_frame_equal(fits.contrast(same), table)
    # one coefficient is its row of the tidy table
    alone = fits.top("Days", None).loc[fits.names].drop(columns="average")
    assert_allclose(fits.contrast("Days").to_numpy(), alone.to_numpy(), 1e-12)


def test_top_of_a_contrast(fits):
    text = "Sex[T.F] - 0.5 * Days"
    top, table = fits.top(contrast=text, n=4, level=0.9), fits.contrast(text, level=0.9)
    pd.testing.assert_frame_equal(top.drop(columns="average"), table.sort_values("p").iloc[:4])
    half = t.ppf(0.95, top["df"]) * top["se"]
    assert_allclose(top[["lower", "upper"]].T, [top["estimate"] - half, top["estimate"] + half], rtol=1e-12)
    with pytest.raises(ValueError, match="give one of them"):
        fits.top("Days", contrast=text)
    with pytest.raises(ValueError, match="one contrast, not of 2: take one of Days, 2"):
        fits.treat(contrast=["Days", "2 * Days"])


@pytest.mark.parametrize("moderated", [False, True])
def test_top_of_several(fits, good, moderated):
    table = fits.top(["Days", "Sex[T.F]"], None, moderated=moderated)
    assert list(table) == ["Days", "Sex[T.F]", "average", "F", "num_df", "den_df", "p", "q"]
    tested = (fits.moderate() if moderated else fits).test(["Days", "Sex[T.F]"]).loc[table.index]
    pd.testing.assert_frame_equal(table[list(tested)], tested)
    assert_allclose(table.loc[good, ["Days", "Sex[T.F]"]], fits.params.loc[good, ["Days", "Sex[T.F]"]])
    assert table["p"].dropna().is_monotonic_increasing
    by_f = fits.top(contrast=["Days", "Sex[T.F] + Days"], n=3, by="F", moderated=moderated)
    # moderation takes uncorrelated contrasts one by one, as Satterthwaite's df do
    assert_allclose(by_f["F"], table["F"].nlargest(3), rtol=1e-3 if moderated else 1e-8)
    # one contrast by F is its t test
    one, t = (fits.top("Days", None, by=by, moderated=moderated) for by in ("F", "t"))
    same = t.assign(t=t["t"] ** 2).loc[good, ["t", "df", "p", "q"]]
    assert_allclose(one.loc[good, ["F", "den_df", "p", "q"]], same, rtol=1e-8)
    # the columns of a factor by its name
    assert list(fits.top("Sex", 2)) == list(fits.top("Sex[T.F]", 2))
    with pytest.raises(ValueError, match="2 contrasts are tested together, by F: by is one of average, F"):
        fits.top(["Days", "Sex[T.F]"], by="t")
    with pytest.raises(ValueError, match="term= is empty"):
        fits.top([])


def test_averages(fits, good):
    average = fits.top("Days", None)["average"]
    expected = pd.DataFrame(fits.fitted.y, columns=fits.names).mean()
    assert_allclose(average.loc[good], expected.loc[good])


def test_several_contrasts(fits):
    both = fits.contrast(["Days", weights := {"Days": 2.0, "Intercept": -1.0}])
    assert list(both.index.unique(0)) == ["Days", "- Intercept + 2 * Days"]
    pd.testing.assert_frame_equal(both.loc["Days"], fits.contrast("Days"))
    named = fits.contrast(np.array([[0.0, 1, 0], [-1, 2, 0]]), names=["a", "b"])
    pd.testing.assert_frame_equal(named.loc["b"], fits.contrast(weights))


NAMES = ["Intercept", "x", "x:z", "I(x - 1)", "f[T.a b]", "f[T.a]"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x", [0, 1, 0, 0, 0, 0]),
        (" - x:z", [0, 0, -1, 0, 0, 0]),
        ("I(x - 1) - x", [0, -1, 0, 1, 0, 0]),
        ("f[T.a b]-f[T.a]", [0, 0, 0, 0, 1, -1]),
        ("2 * x + 1e-1*x:z - Intercept / 4", [-0.25, 2, 0.1, 0, 0, 0]),
        ("x + x", [0, 2, 0, 0, 0, 0]),
    ],
)
def test_texts_of_contrasts(text, expected):
    assert_allclose(parse_contrast(text, NAMES), expected, rtol=1e-15)


@pytest.mark.parametrize(
    ("contrasts", "message"),
    [
        ("x - F[T.a]", r"unknown coefficient 'F\[T.a\]' at position 4: did you mean 'f\[T.a\]'"),
        ("x x:z", r"\+ or - expected at position 1"),
        ("", "a contrast or one side of an equation is empty: there are: Intercept"),
        ("x +", "unknown coefficient ''"),
        ("x - x", "is zero or not finite"),
        ("x / 0", "is zero or not finite"),
        ({"intercept": 1}, "unknown coefficient 'intercept': did you mean 'Intercept'"),
        ([1.0, 2.0], r"contrasts have shape \(2,\); the model has 6 coefficients"),
        ([["x"]], "a contrast is a text, a dict"),
        (None, "contrasts have shape"),
    ],
)
def test_bad_contrasts(contrasts, message):
    with pytest.raises(ValueError, match=message):
        contrast_matrix(contrasts, NAMES)


def test_names_of_contrasts_are_counted(fits):
    with pytest.raises(ValueError, match="2 names for 1 contrasts"):
        fits.contrast("Days", names=["a", "b"])


MODELS = {
    "slopes": ("~ Days + (Days | Subject)", {}),
    "two terms": ("~ Days + (1 | Subject) + (0 + Days | Subject)", {}),
    "weights and offset": ("~ Days + (Days | Subject)", {"weights": "1 + Days", "offset": "Days"}),
    "crossed": ("~ 1 + (1 | Subject) + (1 | Days)", {}),
}


@pytest.mark.parametrize("name", MODELS)
def test_random_effects_equal_those_of_each_fit(name, data, monkeypatch):
    """Computed in chunks, the last one padded."""
    monkeypatch.setattr("lmmjax.postestimation.predictions.batch_modes.CHUNK", 1800)
    monkeypatch.setattr("lmmjax.postestimation.predictions.batch_modes.ALONE", 0)
    formula, options = MODELS[name]
    y = simulated(data, np.random.default_rng(5), 5)
    fits = lj.lmm(formula, data, **options).fit_batch(y)
    for group in fits[0].random_effects:
        effects = fits.random_effects(group)
        assert effects.columns.names == [group, "term"]
        for k in fits.names:
            single = fits[k].random_effects[group]
            mine = effects.loc[k].to_numpy().reshape(single.shape)
            assert_allclose(mine, single, rtol=0, atol=1e-12)
            assert list(effects.columns) == [(a, b) for a in single.index for b in single.columns]


def test_random_effects_of_bad_and_incomplete_responses(data):
    """Missing values: the modes of the fit to the rows that are there; zero for a subject without any."""
    y = simulated(data, np.random.default_rng(5), 3)
    y[::7, 1] = np.nan
    y[:10, 1] = np.nan
    y[0, 2] = np.inf
    with pytest.warns(UserWarning, match="responses could not be fitted"):
        fits = lj.lmm("~ Days + (Days | Subject)", data).fit_batch(y)
    effects = fits.random_effects()
    assert effects.loc[2].isna().all()
    assert effects.loc[0].notna().all()
    keep = np.isfinite(y[:, 1])
    expected = lj.lmm("y ~ Days + (Days | Subject)", data.assign(y=y[:, 1])[keep]).fit().random_effects
    mine = effects.loc[1].to_numpy().reshape(18, 2)
    assert_allclose(mine[1:], expected["Subject"], rtol=0, atol=1e-6)
    assert_allclose(mine[0], 0.0, rtol=0, atol=0)
    assert_allclose(mine, fits[1].random_effects["Subject"], rtol=0, atol=1e-12)
    # no response is whole
    assert_allclose(fits[[1]].random_effects(), effects.loc[[1]], rtol=0, atol=1e-12)


def test_random_effects_with_weights_of_each_response(data):
    y, rng = simulated(data, np.random.default_rng(5), 2), np.random.default_rng(1)
    fits = lj.lmm("~ Days + (Days | Subject)", data).fit_batch(y, weights=rng.uniform(0.5, 2.0, y.shape))
    effects = fits.random_effects()
    for k in fits.names:
        mine = effects.loc[k].to_numpy().reshape(18, 2)
        assert_allclose(mine, fits[k].random_effects["Subject"], rtol=0, atol=1e-12)


def test_grouping_factors_are_named(data, fits):
    with pytest.raises(ValueError, match="unknown grouping factor 'subject': did you mean 'Subject'"):
        fits.random_effects("subject")
    y = simulated(data, np.random.default_rng(5), 2)
    with pytest.raises(ValueError, match="several grouping factors: pass group=, one of: Subject, Days"):
        lj.lmm("~ 1 + (1 | Subject) + (1 | Days)", data).fit_batch(y).random_effects()
    with pytest.raises(ValueError, match="the model has no random effects"):
        lj.lmm("~ Days", data).fit_batch(y).random_effects()

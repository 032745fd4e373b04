"""Marginal means by what they are: averages of predictions, whatever way the model and the question are
written."""

import numpy as np
import pandas as pd
import pytest
from fit_data import covariances
from numpy.testing import assert_allclose

import lmmjax as lj


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    n = 96
    d = pd.DataFrame({"g": np.repeat(range(8), 12), "a": np.tile(list("pqr"), 32), "x": rng.normal(5, 1, n)})
    d["b"], d["dose"] = rng.choice(["u", "v"], n), rng.choice([1, 2, 5], n)
    d["y"] = 9 + rng.normal(size=n) + rng.normal(size=8)[d["g"]] + (d["a"] == "q") * d["x"] / 4
    return d


def fitted(formula, d, **options):
    return lj.lmm(f"{formula} + (1 | g)", d, **options).fit()


@pytest.fixture(scope="module")
def fit(data):
    return fitted("y ~ a * b + x + factor(dose)", data)


NUMBERS = ["estimate", "se", "df", "lower", "upper"]


def same(one, other):
    assert_allclose(one.table[NUMBERS], other.table[NUMBERS], rtol=1e-7, atol=1e-9)


def test_averages_of_predictions(fit, data):
    new = [
        {"a": a, "b": b, "x": data["x"].mean(), "dose": k}
        for a in "pqr"
        for b in ("u", "v")
        for k in (1, 2, 5)
    ]
    new = pd.DataFrame(new)
    new["fit"] = fit.predict(new, re="none").to_numpy()
    means = fit.emmeans("a")
    assert list(means.table["a"]) == ["p", "q", "r"]
    assert_allclose(means.table["estimate"], new.groupby("a")["fit"].mean(), rtol=1e-12)
    assert means.table.attrs["averaged_over"] == ["b", "dose"]
    assert means.table.attrs["interacting"] == ["b"]
    assert "a, p" not in repr(means)
    assert "averaged over: b, dose" in repr(means)
    by_cells = fit.emmeans("a * b", at={"dose": [5, 1]}).table
    expected = new[new["dose"] != 2].groupby(["b", "a"])["fit"].mean()
    assert_allclose(by_cells["estimate"], expected, rtol=1e-12)
    weights = data.groupby(["b", "dose"]).size()
    own = new[new["a"] == "p"].set_index(["b", "dose"])["fit"]
    expected = (own * weights).sum() / weights.sum()
    assert_allclose(fit.emmeans("a", weights="proportional").table["estimate"][0], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"specs": "a | b"}, {"specs": "a", "by": "b"}),
        ({"specs": "~ a * b"}, {"specs": ["a", "b"]}),
        ({"specs": "a + b", "at": {"x": 4}}, {"specs": ("a", "b"), "at": {"x": [4.0]}}),
        ({"specs": "1"}, {"specs": []}),
        ({"specs": "dose", "ddf": "kr"}, {"specs": "dose", "ddf": "kenward-roger"}),
    ],
)
def test_ways_to_ask(fit, one, other):
    same(fit.emmeans(**one), fit.emmeans(**other))


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ C(a, contr.sum) * C(b, contr.helmert) + center(x) + C(dose)",
        "y ~ 0 + a:b + x + factor(dose)",
        "y ~ x + factor(dose) + b * a + I(2 * x)",
    ],
)
@pytest.mark.filterwarnings("ignore::lmmjax.EstimabilityWarning")
def test_ways_to_code(fit, data, formula):
    shuffled = data.sample(frac=1, random_state=1)
    other = fitted(formula, shuffled)
    same(fit.emmeans("a", by="b"), other.emmeans("a", by="b"))
    same(fit.emmeans("dose").pairs(), other.emmeans("dose").pairs())
    assert_allclose(
        fit.emmeans(["a", "b"]).joint_tests()["F"], other.emmeans(["a", "b"]).joint_tests()["F"], rtol=1e-8
    )


def test_joint_tests_are_type_three(fit):
    """Of factors that interact with no covariate, with equal weights."""
    anova, joint = fit.anova(), fit.emmeans(["a", "b"]).joint_tests().set_index("term")
    for term, columns in (("a", ["F", "num_df"]), ("b", ["F", "num_df", "den_df", "p"]), ("a:b", ["F"])):
        assert_allclose(joint.loc[term, columns], anova.loc[term, columns], rtol=1e-7)
    pairs = fit.emmeans("a", by="b").pairs().joint_tests()
    simple = fit.emmeans("a", by="b").joint_tests()
    assert_allclose(pairs[["F", "num_df"]], simple[["F", "num_df"]], rtol=1e-9)


@pytest.mark.filterwarnings("ignore::lmmjax.EstimabilityWarning")
def test_confounded_is_what_effects_leave_of_all_contrasts(data):
    """k F is the Wald statistic of all differences of cells less that of the two estimable effects."""
    fit = fitted("y ~ a * b", data[~((data["a"] == "r") & (data["b"] == "v"))])
    table = fit.emmeans(["a", "b"], ddf="normal").joint_tests().set_index("term")
    assert list(table["num_df"]) == [1, 1, 2]
    contrast = fit.emmeans(["a", "b"], ddf="normal").contrast
    # cells p u, q u, r u, p v, q v, r v
    main, interaction = [1, -1, 0, 1, -1, 0], [1, -1, 0, -1, 1, 0]
    steps = [[1, -1, 0, 0, 0, 0], [0, 1, -1, 0, 0, 0], [1, 0, 0, -1, 0, 0], [0, 1, 0, 0, -1, 0]]

    def wald(*weights):
        joint = contrast({str(k): w for k, w in enumerate(weights)}, adjust="none").joint_tests()
        return (joint["num_df"] * joint["F"]).iloc[0]

    left = 2 * table.loc["(confounded)", "F"]
    assert_allclose(left, wald(*steps) - wald(main, interaction), rtol=1e-9)
    assert "(confounded)" not in set(fit.emmeans("a", by="b").joint_tests()["term"])


def test_missing_cells_are_named_and_spoil_nothing_else(data):
    fit = fitted("y ~ a * b", data[~((data["a"] == "r") & (data["b"] == "v"))])
    with pytest.warns(lj.EstimabilityWarning, match=r"not estimable: r v\."):
        table = fit.emmeans(["a", "b"]).table
    assert table.attrs["not_estimable"] == ["r v"]
    assert list(table["estimate"].isna()) == [False] * 5 + [True]
    with pytest.warns(lj.EstimabilityWarning, match="not estimable: r"):
        means = fit.emmeans("a").table
    assert list(means["estimate"].isna()) == [False, False, True]
    with pytest.warns(lj.EstimabilityWarning, match="p - r; q - r"):
        pairs = fit.emmeans("a").pairs(adjust="none").table
    assert_allclose(pairs["estimate"][0], means["estimate"][0] - means["estimate"][1])
    # without the interaction the difference is estimable where the means of the covariates' cell are not
    aliased = fitted("y ~ a + x + z", data.assign(z=2 * data["x"]))
    moved = aliased.emmeans("a", at={"z": 0.0})
    with pytest.warns(lj.EstimabilityWarning, match="not estimable: p; q; r"):
        assert moved.table["estimate"].isna().all()
    same(moved.pairs(), fitted("y ~ a + x", data).emmeans("a").pairs())


def test_slopes_are_derivatives(data):
    fit = fitted("y ~ a * log(x) + poly(x, 3)", data)
    points = [data["x"].min(), 5.0, data["x"].max()]
    slopes = fit.emtrends("x", "x", by="a", at={"x": points}).table

    def at(values):
        new = pd.DataFrame({"a": np.repeat(list("pqr"), 3), "x": np.tile(values, 3)})
        return fit.predict(new, re="none").to_numpy()

    h = 1e-5
    difference = (at(np.add(points, h)) - at(np.subtract(points, h))) / (2 * h)
    assert_allclose(slopes["estimate"], difference, rtol=1e-6, atol=1e-7)
    assert fit.emtrends("x").table["overall"][0] == "overall"
    # of a term that is linear the slope is the coefficient, with its tests
    linear = fitted("y ~ b + x", data)
    one = linear.emtrends("x").table.iloc[0]
    assert_allclose(one[["estimate", "se", "df"]].to_numpy(float), linear.coef_table().loc["x"][:3])


def test_back_transformation_by_the_delta_method(data):
    logs = fitted("log(y) ~ a * b", data)
    link, response = logs.emmeans("a"), logs.emmeans("a", type="response")
    assert_allclose(
        response.table[["estimate", "lower", "upper"]], np.exp(link.table[["estimate", "lower", "upper"]])
    )
    assert_allclose(response.table["se"], response.table["estimate"] * link.table["se"])
    assert link.table.attrs["scale"] == "log(y)"
    ratios, differences = response.pairs().table, link.pairs().table
    assert list(ratios["contrast"]) == ["p / q", "p / r", "q / r"]
    assert_allclose(ratios[["estimate", "lower"]], np.exp(differences[["estimate", "lower"]]))
    assert_allclose(ratios["p"], differences["p"])
    # differences on the scale of the response: with the gradient of exp(l₁'β) − exp(l₂'β)
    on_response = link.regrid()
    assert_allclose(on_response.table[["estimate", "se", "df"]], response.table[["estimate", "se", "df"]])
    pairs, cov = on_response.pairs(adjust="none").table, link.cov().to_numpy()
    gradient = np.array([response.table["estimate"][0], -response.table["estimate"][1], 0])
    assert_allclose(pairs["estimate"][0], gradient.sum())
    assert_allclose(pairs["se"][0], np.sqrt(gradient @ cov @ gradient))
    # a weighted sum of logarithms that is no contrast has no ratio
    assert list(response.contrast("identity").table["contrast"]) == ["p", "q", "r"]
    assert_allclose(response.contrast("identity").table["estimate"], link.table["estimate"])


def test_bias_adjustment_counts_all_components(data):
    roots = fitted("np.sqrt(y) ~ a", data)
    total = roots.varcorr()["vcov"].sum()
    plain, adjusted = (roots.emmeans("a", type="response", bias_adjust=b).table for b in (False, True))
    # h(η) = η²
    assert_allclose(adjusted["estimate"], plain["estimate"] + total)
    assert_allclose(adjusted["lower"], plain["lower"] + total)
    given = roots.emmeans("a", type="response", bias_adjust=True, sigma=2.0).table
    assert_allclose(given["estimate"], plain["estimate"] + 4.0)
    slopes = lj.lmm("sqrt(y) ~ a + (x | g)", data).fit()
    z, d = slopes.model.frame.random[0].z, covariances(slopes)[0]
    each = np.sum((z @ d) * z, axis=1) + slopes.scale
    bias = slopes.emmeans("a", type="response", bias_adjust=True).table["estimate"]
    assert_allclose(bias - slopes.emmeans("a", type="response").table["estimate"], each.mean(), rtol=1e-8)


@pytest.mark.parametrize(("robust", "ddf"), [("CR2", "satterthwaite"), ("CR0", "normal"), (None, "kr")])
def test_contrasts_of_means_and_of_coefficients(fit, robust, ddf):
    means = fit.emmeans("dose", ddf=ddf, robust=robust)
    ours = means.contrast("trt.vs.ctrl", "mvt").table
    names = ["factor(dose)[T.2]", "factor(dose)[T.5]"]
    theirs = fit.contrast(names, adjust="mvt", ddf=ddf, robust=robust)
    assert list(theirs.index) == names
    columns = [*NUMBERS, "t", "p"]
    assert_allclose(ours[columns], theirs[columns], rtol=1e-7)
    for name in names:
        one = fit.test(name, ddf=ddf, robust=robust).iloc[0]
        alone = fit.contrast(name, ddf=ddf, robust=robust).iloc[0]
        shared = ["estimate", "se", "lower", "upper", "t", "p"]
        assert_allclose(alone[shared].to_numpy(float), one[shared].to_numpy(float), rtol=1e-9)
        limits = fit.conf_int(ddf=ddf, robust=robust).loc[name]
        assert_allclose(alone[["lower", "upper"]].to_numpy(float), limits, rtol=1e-9)
    named = fit.contrast(
        {"two": {names[0]: 1}, "five less two": f"{names[1]} - {names[0]}"}, ddf=ddf, robust=robust
    )
    assert list(named.index) == ["two", "five less two"]
    assert_allclose(named["estimate"], [theirs["estimate"].iloc[0], np.diff(theirs["estimate"])[0]])


def test_contrasts_of_contrasts(fit):
    twice = fit.emmeans("a", by="b").contrast("consec").contrast("pairwise", by="contrast").table
    assert list(twice.columns[:2]) == ["contrast1", "contrast"]
    by_hand = fit.emmeans(["a", "b"]).contrast({"q - p": [-1, 1, 0, 1, -1, 0], "r - q": [0, -1, 1, 0, 1, -1]})
    assert_allclose(twice[["estimate", "se", "df"]], by_hand.table[["estimate", "se", "df"]], rtol=1e-8)


def test_polynomials_in_whole_numbers(fit):
    from lmmjax.postestimation.means.contrast_methods import weights_of

    rows, names = weights_of("poly", [str(k) for k in range(6)])
    # Fisher and Yates' table
    assert rows.tolist()[:2] == [[-5, -3, -1, 1, 3, 5], [5, -1, -4, -4, -1, 5]]
    assert rows.tolist()[2:] == [[-5, 7, 4, -4, -7, 5], [1, -3, 2, 2, -3, 1], [-1, 5, -10, 10, -5, 1]]
    assert names == ["linear", "quadratic", "cubic", "quartic", "degree 5"]


LABELLED = [
    {"q": {"r": 1, "p": -1}},
    {"q": pd.Series([1, -1], ["r", "p"])},
    pd.DataFrame([[0, 1.0, -1]], ["q"], list("qrp")),
]


@pytest.mark.parametrize("weights", LABELLED)
def test_weights_with_labels_go_by_these(fit, weights):
    same(fit.emmeans("a", by="b").contrast(weights), fit.emmeans("a", by="b").contrast({"q": [-1, 0, 1]}))
    assert fit.emmeans("a").contrast(weights).table["contrast"].tolist() == ["q"]


def test_means_have_several_names(fit):
    by_position = fit.emmeans("dose").contrast({"q": [-1, 0, 1]})
    for low, high in ((1, 5), ("dose1", "dose5")):
        same(fit.emmeans("dose").contrast({"q": {high: 1, low: -1}}), by_position)
    cells = fit.emmeans(["a", "b"])
    one = cells.contrast({"q": {("q", "v"): 1, ("q", "u"): -1}})
    same(one, cells.contrast({"q": {"q v": 1, "q u": -1}}))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"q": {"z": 1}}, "a weight of 'z', which is no mean: there are p, q, r$"),
        ({"q": pd.Series([1, -1], ["r", "r"])}, "several weights of 'r'"),
        ({"q": ["1", "0", "-1"]}, "'q' is not numeric but text"),
        ({"q": [1j, 0, 0]}, "'q' is not numeric but complex"),
        ({"q": [1, -1]}, "contrasts of 3 means are"),
        ([[1, -1, 0], [1, 0]], "contrasts of 3 means are"),
        ({}, "contrasts of 3 means are"),
        ({"q": np.ma.array([1, -1, 0], mask=[0, 1, 0])}, "zero or not finite"),
    ],
)
def test_weights_that_are_none(fit, weights, message):
    with pytest.raises(ValueError, match=message):
        fit.emmeans("a").contrast(weights)


def test_letters_of_a_batch_are_those_of_its_fits(data):
    y = np.column_stack([data["y"], data["y"].where(data["x"] > 4.5), data["y"] + 3 * (data["b"] == "u")])
    fits = lj.lmm("~ a + b + (1 | g)", data).fit_batch(y)
    table = fits.emmeans(["a", "b"]).cld(adjust="none").set_index(["response", "a", "b"])["group"]
    assert table.nunique() > 2
    for j, name in enumerate(fits.names):
        alone = fits[j].emmeans(["a", "b"]).cld(adjust="none").set_index(["a", "b"])["group"]
        assert table[name].to_dict() == alone.to_dict()


def test_letters_of_a_fit(fit):
    table = fit.emmeans("a", by="b").cld()
    pairs = fit.emmeans("a", by="b").pairs().table
    for b, own in table.groupby("b"):
        assert own["estimate"].is_monotonic_increasing
        letters = own.set_index("a")["group"]
        for row in pairs[pairs["b"] == b].itertuples():
            first, second = row.contrast.split(" - ")
            assert bool(set(letters[first]) & set(letters[second])) == (row.p >= 0.05)


def test_offsets(data):
    inside = fitted("y ~ a + offset(x)", data)
    beside = fitted("y ~ a", data, offset=data["x"].to_numpy())
    named = fitted("y ~ a", data, offset="x")
    same(inside.emmeans("a"), beside.emmeans("a"))
    same(inside.emmeans("a"), named.emmeans("a"))
    none = inside.emmeans("a", offset=0).table
    assert_allclose(inside.emmeans("a").table["estimate"] - none["estimate"], data["x"].mean())
    assert_allclose(inside.emmeans("x", at={"x": [0, 3]}).contrast("consec").table["estimate"], 3.0)


def test_a_response_of_a_batch_has_the_means_of_its_rows(data):
    y = np.column_stack([data["y"], data["y"].where(data["x"] > 4.5)])
    fits = lj.lmm("~ a * x + (1 | g)", data).fit_batch(y)
    alone = fitted("y ~ a * x", data[data["x"] > 4.5])
    assert_allclose(fits[1].emmeans("a").table[NUMBERS], alone.emmeans("a").table[NUMBERS], rtol=1e-5)


def test_maximum_likelihood_is_refitted_for_kenward_roger(data, fit):
    ml = lj.lmm("y ~ a * b + x + factor(dose) + (1 | g)", data).fit(reml=False)
    same(ml.emmeans("a", ddf="kr"), fit.emmeans("a", ddf="kr"))
    assert "refitted by REML" in repr(ml.emmeans("a", ddf="kr"))

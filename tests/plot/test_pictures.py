"""Every picture: Axes in and out, the width of a column, nothing cut off, and what is drawn."""

import inspect
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import lmmjax as lj
from lmmjax import plot
from lmmjax.results.batch.plots import BatchPlots
from lmmjax.results.plots import FitPlots

matplotlib = pytest.importorskip("matplotlib")


@pytest.fixture(autouse=True)
def _closed():
    """No window, no settings changed, no figure left."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    yield
    plt.close("all")
    assert dict(matplotlib.rcParams) == before


@pytest.fixture(scope="module")
def visits():
    """Long names, a structure of the residuals, groups of few rows, no random effects."""
    rng = np.random.default_rng(1)
    d = pd.DataFrame({"subject": np.repeat([f"a patient with a long name, {k}" for k in range(20)], 4)})
    names = ["screening visit", "week 2", "week 4", "end of treatment"]
    d["visit"] = pd.Categorical(np.tile(names, 20), names, ordered=True)
    d["arm"] = np.repeat(["placebo", "the active treatment of the trial"], 40)
    d["y"] = 1e5 * (np.repeat(rng.normal(size=20), 4) + rng.normal(size=80))
    return lj.lmm("y ~ arm * visit", d[3:], residual=lj.AR1("visit", group="subject")).fit()


@pytest.fixture(scope="module")
def fits(sleepstudy):
    rng = np.random.default_rng(2)
    y = pd.DataFrame({f"response {k}": rng.normal(size=180) + 0.2 * k * sleepstudy["Days"] for k in range(9)})
    y["nothing"] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lj.lmm("~ Days + (Days | Subject)", sleepstudy).fit_batch(y)


NAMES = [f"a patient with a long name, {k}" for k in range(5)]
FIT = {
    "residuals": (lambda p, **ax: p.residuals(**ax), 4),
    "ranef": (lambda p, **ax: p.ranef(**ax), 2),
    "shrinkage": (lambda p, **ax: p.shrinkage(**ax), 1),
    "effects": (lambda p, **ax: p.effects("Days", residuals=True, **ax), 1),
    "spaghetti": (lambda p, **ax: p.spaghetti("Days", **ax), 1),
    "profile": (lambda p, **ax: p.profile("Days", points=3, **ax), 1),
    "contour": (lambda p, **ax: p.contour("Intercept", "Days", points=4, **ax), 1),
    "semivariogram": (lambda p, **ax: p.semivariogram(**ax), 1),
}
VISITS = {
    "residuals": (lambda p, **ax: p.residuals(panels="leverage", **ax), 1),
    "effects": (lambda p, **ax: p.effects("visit", "arm", **ax), 1),
    "effects of three": (lambda p, **ax: p.effects("arm", ["visit"], **ax), 1),
    "spaghetti": (lambda p, **ax: p.spaghetti("visit", by="arm", **ax), 1),
    "each": (lambda p, **ax: p.spaghetti("visit", each=True, levels=NAMES, **ax), 5),
    "residual_cov": (lambda p, **ax: p.residual_cov(**ax), 2),
    "semivariogram": (lambda p, **ax: p.semivariogram(kind="normalized", **ax), 1),
}
BATCH = {
    "volcano": (lambda p, **ax: p.volcano("Days", **ax), 1),
    "ma": (lambda p, **ax: p.ma("Days", labels=["response 1"], **ax), 1),
    "pvalues": (lambda p, **ax: p.pvalues(contrast="Days - Intercept", **ax), 1),
    "qq": (lambda p, **ax: p.qq("Days", **ax), 1),
    "shares": (lambda p, **ax: p.shares(**ax), 1),
}
CASES = [(where, name) for where, own in (("fit", FIT), ("visits", VISITS), ("fits", BATCH)) for name in own]
"""What draws a picture on Axes, and how many panels it has."""

SLOW = {("fit", "residuals"), ("fit", "contour"), ("fit", "profile")}
"""Whose Axes are given in tests of their own."""


def methods(owner):
    return {name for name, _ in inspect.getmembers(owner, inspect.isfunction) if name[0] != "_"}


def test_every_picture_is_looked_at():
    assert {*FIT, *VISITS} - {"effects of three", "each"} == methods(FitPlots)
    assert set(BATCH) == methods(BatchPlots)
    assert all(name in repr(FitPlots(None)) for name in FIT)


@pytest.mark.parametrize(("where", "name"), CASES)
def test_picture(where, name, request):
    """On Axes that are given, and on its own: as wide as a column, all words inside and legible."""
    import matplotlib.pyplot as plt

    draw, count = {"fit": FIT, "visits": VISITS, "fits": BATCH}[where][name]
    own = request.getfixturevalue(where).plot
    axes = np.ravel(np.array(draw(own), dtype=object))
    figure = axes[0].figure
    assert len(axes) == count == len({id(ax) for ax in axes})
    assert_allclose(figure.get_size_inches()[0], 85 / 25.4)
    figure.draw_without_rendering()
    whole = figure.bbox.padded(1.0)
    for text in figure.findobj(matplotlib.text.Text):
        if text.get_text() and text.get_visible() and text.axes is not None:
            box = text.get_window_extent()
            inside = whole.x0 <= box.x0 and whole.y0 <= box.y0 and box.x1 <= whole.x1 and box.y1 <= whole.y1
            assert inside, f"{text.get_text()!r} is cut off"
            assert text.get_fontsize() >= 3.5
    labels = [ax.xaxis.label.get_fontsize() for ax in axes]
    assert labels == [8.0] * count
    if (where, name) in SLOW:
        return
    # on the same Axes again: what is asked of a picture is the Axes, not the figure
    for ax in axes:
        ax.clear()
    number = len(plt.get_fignums())
    again = draw(own, ax=axes[0] if count == 1 else list(axes))
    assert [a is b for a, b in zip(np.ravel(np.array(again, dtype=object)), axes, strict=True)] == [
        True
    ] * count
    assert len(plt.get_fignums()) == number


def test_axes_have_to_be_as_many_as_panels(fit):
    import matplotlib.pyplot as plt

    three = plt.subplots(1, 3)[1]
    for draw, count in (FIT["ranef"], FIT["shrinkage"], FIT["residuals"]):
        with pytest.raises(ValueError, match=f"this picture has {count} panel.* ax has 3 Axes"):
            draw(fit.plot, ax=three)
    mosaic = plt.figure().subplot_mosaic("ab")
    assert list(fit.plot.ranef(ax=mosaic)) == list(mosaic.values())
    inner = plt.figure().subfigures(1, 2)[1].subplots(2, 2)
    assert fit.plot(inner).shape == (2, 2)
    with pytest.raises(ValueError, match=r"ax is matplotlib's Axes.* not Figure"):
        fit.plot.ranef(ax=three[0].figure)


def test_plot_is_the_residuals(fit):
    import matplotlib.pyplot as plt

    axes = fit.plot()
    assert axes.shape == (2, 2)
    points = axes[0, 0].lines[1]
    assert_allclose(points.get_xdata(), fit.fittedvalues)
    assert_allclose(points.get_ydata(), fit.resid)
    assert_allclose(axes[1, 1].lines[1].get_xdata(), fit.hat())
    assert_allclose(axes[1, 1].lines[-1].get_xdata(), fit.hat().mean())
    student = fit.residuals("studentized")
    assert_allclose(axes[0, 1].lines[1].get_ydata(), student)
    assert (np.diff(axes[0, 1].lines[1].get_xdata()[np.argsort(student)]) > 0).all()
    assert_allclose(axes[1, 0].lines[0].get_ydata(), np.sqrt(np.abs(student)))
    named = {str(label) for label in student.abs().nlargest(3).index}
    assert {text.get_text() for text in axes[1, 1].texts} <= named
    with pytest.raises(ValueError, match="unknown panel 'q'"):
        fit.plot.residuals(panels="q")
    given = plt.subplots(1, 4)[1]
    assert list(fit.plot(given)) == list(given)


def test_rows_without_residuals_are_counted():
    table = pd.DataFrame(
        {name: [1.0, 2.0, np.nan] for name in ("fitted", "resid", "studentized", "leverage")}
    )
    assert plot.plot_residuals(table)[0, 0].get_title(loc="left") == "not drawn: 1"
    nothing = plot.plot_residuals(table * np.nan, panels_shown="fitted")
    assert "no residuals" in [text.get_text() for text in nothing.texts]


def test_caterpillars_are_in_order(fit):
    modes = fit.ranef()
    first, second = fit.plot.ranef(level=0.9)
    own = modes[modes["term"] == "(Intercept)"].sort_values("value")
    assert_allclose(first.lines[1].get_xdata(), own["value"])
    assert [t.get_text() for t in first.get_yticklabels()] == own["level"].astype(str).tolist()
    slopes = modes[modes["term"] == "Days"].set_index("level").loc[own["level"]]
    ends = np.array(second.collections[0].get_segments())[:, :, 0]
    z = 1.6448536269514722
    half = z * slopes["cond_sd"]
    assert_allclose(ends.T, [slopes["value"] - half, slopes["value"] + half])
    by_slope = fit.plot.ranef(order="Days", spread="pred_se")
    assert (np.diff(by_slope[1].lines[1].get_xdata()) >= 0).all()
    as_they_come = fit.plot.ranef("Subject", order="level")[0]
    assert as_they_come.get_yticklabels()[-1].get_text() == "308"


def test_many_levels_and_several_factors():
    long = pd.concat(
        [
            pd.DataFrame({"group": g, "level": range(n), "term": t, "value": 1.0, "cond_sd": 1.0})
            for g, n, t in (("school", 200, "(Intercept)"), ("school", 200, "x"), ("item", 3, "(Intercept)"))
        ]
    )
    long.loc[long["group"] == "item", "value"] = np.nan
    axes = plot.plot_ranef(long)
    assert [ax.get_ylabel() for ax in axes] == ["200 levels of school, sorted", "", "item"]
    assert not axes[0].get_yticks().size
    assert [text.get_text() for text in axes[2].texts] == ["not identified"]
    with pytest.raises(ValueError, match="no random effects"):
        plot.plot_ranef(long[:0])


def test_shrinkage_joins_what_is_pooled_with_what_is_not(fit):
    plane = fit.plot.shrinkage()
    none, partial, half, most, fixed = (np.column_stack(line.get_data()) for line in plane.lines)
    assert_allclose(partial, fit.coef()["Subject"])
    assert_allclose(fixed, [fit.params])
    arrows = plane.collections[0]
    assert_allclose(np.column_stack([arrows.X, arrows.Y]) + np.column_stack([arrows.U, arrows.V]), partial)
    assert_allclose(np.column_stack([arrows.X, arrows.Y]), none)
    d = fit.varcorr()["vcov"].to_numpy()
    precision = np.linalg.inv([[d[0], d[2]], [d[2], d[1]]])
    for share, contour in ((0.5, half), (0.95, most)):
        away = contour - fit.params.to_numpy()
        assert_allclose(1 - np.exp(-np.sum(away @ precision * away, axis=1) / 2), share)
    line = fit.plot.shrinkage(columns="Days")
    assert_allclose(line.lines[2].get_xdata(), np.sort(fit.coef()["Subject"]["Days"]))
    with pytest.raises(ValueError, match="unknown coefficient 'day'"):
        fit.plot.shrinkage(columns=["day", "Days"])


def test_effects_have_bands_and_points(fit, visits):
    ax = fit.plot.effects("Days", at={"Days": [0, 9]}, rug=False)
    said = fit.predict({"Days": [0.0, 9.0]}, re="none", interval="confidence")
    assert_allclose(ax.lines[0].get_ydata(), said["fit"])
    band = ax.collections[0].get_paths()[0].vertices
    assert {*said["lower"].round(6), *said["upper"].round(6)} <= {*band[:, 1].round(6)}
    table = visits.emmeans("visit", by="arm").table
    by_arm = visits.plot.effects("visit", "arm")
    assert_allclose(np.concatenate([line.get_ydata() for line in by_arm.lines]), table["estimate"])
    assert [t.get_text() for t in by_arm.get_legend().get_texts()] == ["placebo", "the active t…f the trial"]
    with pytest.raises(ValueError, match="scale of the model"):
        fit.plot.effects("Days", type="response", residuals=True)


def test_spaghetti_breaks_between_groups(fit, sleepstudy):
    ax = fit.plot.spaghetti("Days", levels=[308, 310])
    for line, values in zip(ax.lines, (sleepstudy["Reaction"], fit.fittedvalues), strict=True):
        y = line.get_ydata()
        assert np.flatnonzero(np.isnan(y)).tolist() == [10]
        assert_allclose(y[~np.isnan(y)], values[sleepstudy["Subject"].isin([308, 310])])
    some = fit.plot.spaghetti("Days", levels=[310, 308], each=True)
    assert [one.get_title() for one in some] == ["310", "308"]
    assert_allclose(some[1].lines[0].get_ydata(), sleepstudy["Reaction"][:10])
    assert_allclose(some[1].lines[2].get_ydata(), fit.fittedvalues[:10])
    with pytest.raises(ValueError, match="unknown level '7'"):
        fit.plot.spaghetti("Days", levels=[7])


def test_profiles_and_contours():
    import matplotlib.pyplot as plt

    value = np.linspace(1.0, 5.0, 9)
    table = pd.DataFrame({"parameter": "a", "value": value, "zeta": (value - 3) * 1.5})
    two = plt.subplots(2, 1)[1]
    ax, other = plot.plot_profile(pd.concat([table, table.assign(parameter="b")]), two, levels=[0.8])
    assert [ax, other] == list(two)
    ends = [upright.get_segments()[0][0][0] for upright in ax.collections]
    assert_allclose(ends, [3 - 1.28155 / 1.5, 3 + 1.28155 / 1.5], rtol=1e-5)
    x, y = np.meshgrid(np.linspace(-4, 4, 41), np.linspace(-4, 4, 41), indexing="ij")
    rise = pd.DataFrame(x**2 + y**2, pd.Index(x[:, 0], name="u"), pd.Index(y[0], name="v"))
    given = plt.subplots()[1]
    ax = plot.plot_contour(rise, given, levels=[0.5, 0.95], centre=(0.0, 0.0))
    assert ax is given
    radius = [np.hypot(*path.vertices.T).mean() for path in ax.collections[0].get_paths()]
    assert_allclose(radius, [1.17741, 2.44775], rtol=1e-3)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("u", "v")
    lost = plot.plot_contour(rise * np.nan)
    assert [text.get_text() for text in lost.texts] == ["no profile"]


def test_matrices_have_their_numbers(visits):
    both = visits.plot.residual_cov()
    table = visits.residual_cov()
    raised = both[0].get_title(loc="left").rpartition("/ 10")[2]
    power = int("".join(str("⁰¹²³⁴⁵⁶⁷⁸⁹".index(c)) for c in raised))
    shown = [float(text.get_text()) for text in both[0].texts]
    assert_allclose(shown, table.to_numpy().ravel() / 10.0**power, atol=0.005)
    cor = [float(text.get_text().replace("−", "-")) for text in both[1].texts]
    assert_allclose(cor, visits.residual_cov(cor=True).to_numpy().ravel(), atol=0.005)
    assert_allclose(both[1].images[0].get_array(), visits.residual_cov(cor=True))
    assert both[1].images[0].get_clim() == (-1, 1)
    big = pd.DataFrame(np.eye(40) - 0.01)
    ax = plot.plot_covariance({"": big}, cor=True)
    assert not ax.texts
    assert len(ax.figure.axes) == 2
    lost = plot.plot_covariance({"b = 1": pd.DataFrame([[1.0, np.nan], [np.nan, 2.0]])}, cor=False)
    assert [text.get_text() for text in lost.texts] == ["1.00", "–", "–", "2.00"]


def test_batches_by_colour(fits):
    table = fits.top("Days", len(fits))
    ax = fits.plot.volcano("Days", q=0.01)
    counts = [int(t.get_text().partition(": ")[2]) for t in ax.get_legend().get_texts()]
    good = table["p"].notna()
    found = good & (table["q"] <= 0.01)
    assert counts == [int((good & ~found).sum()), 0, int(found.sum())]
    assert_allclose(np.sort(ax.lines[2].get_xdata()), np.sort(table["estimate"][found]))
    assert {text.get_text() for text in ax.texts} <= set(table.index[found])
    mean = fits.plot.ma("Days", labels=0)
    y = fits.fitted.y.mean(axis=0)
    assert set(np.concatenate([line.get_xdata() for line in mean.lines[1:]]).round(9)) <= {*y.round(9)}
    bars = fits.plot.pvalues("Days", bins=4)
    assert sum(bar.get_height() for bar in bars.patches) == good.sum()
    moderated = fits.plot.qq("Days", moderated=True).lines[1].get_ydata()
    assert_allclose(moderated, fits.moderate().plot.qq("Days").lines[1].get_ydata())
    own = fits.top("Days", len(fits), moderated=True)["p"][good]
    assert_allclose(10.0**-moderated, np.sort(own), atol=1e-300)
    qq = fits.plot.qq("Days")
    assert_allclose(10.0 ** -qq.lines[1].get_ydata(), np.sort(table["p"][good]))
    with pytest.raises(ValueError, match="unknown response"):
        fits.plot.volcano("Days", labels=["nothing"])
    for none in (plot.plot_pvalues([np.nan]), plot.plot_qq([]), plot.plot_volcano(table[~good])):
        assert [text.get_text() for text in none.texts] == ["no response has a p-value"]
    with pytest.raises(ValueError, match="between 0 and 1"):
        plot.plot_qq([2.0])


def test_without_matplotlib(fit, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install 'lmmjax\[plot\]'"):
        fit.plot.ranef()


def test_posteriors_beside_their_priors():
    rng = np.random.default_rng(1)
    draws = pd.DataFrame({"a": rng.normal(size=800), "sd_a long name|of a factor": rng.gamma(2.0, size=800)})
    at = np.linspace(-3, 3, 50)
    axes = plot.plot_posterior(draws, prior={"a": (at, np.exp(-(at**2) / 2) / np.sqrt(2 * np.pi))}, level=0.8)
    assert_allclose(sum(bar.get_height() * bar.get_width() for bar in axes[0].patches), 1.0)
    line, interval, middle = axes[0].lines
    assert_allclose(line.get_xdata(), at)
    assert_allclose(interval.get_xdata(), draws["a"].quantile([0.1, 0.9]))
    assert_allclose(middle.get_xdata(), draws["a"].median())
    assert [t.get_text() for t in axes[0].get_legend().get_texts()] == ["posterior", "prior"]
    assert len(axes[1].lines) == 2
    assert plot.plot_posterior(draws, parameters="a").get_title(loc="left") == "a"
    with pytest.raises(ValueError, match="unknown parameter 'b'"):
        plot.plot_posterior(draws, parameters=["b"])

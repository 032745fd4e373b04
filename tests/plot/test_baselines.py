"""Every picture beside the one that was looked at. `python tests/plot/test_baselines.py` draws these anew.

Without words, whose shapes and sizes differ between versions of fonts; panels fill what room these leave.
"""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lmmjax import plot
from lmmjax.plot.shrinkage import Pooling

# earlier ones leave other room around panels
matplotlib = pytest.importorskip("matplotlib", "3.10")

FOLDER = Path(__file__).parent / "pictures"
DPI, FARTHEST = 60, 3.0
"""Root mean squared difference of grey values, of 255, at most: other edges of lines give less than 1."""


def residuals():
    x = np.linspace(-2, 2, 60)
    noise = stats.norm.ppf((np.arange(60) * 37 % 60 + 0.5) / 60)
    table = {"fitted": x, "resid": noise * (1 + x**2 / 4), "studentized": noise, "leverage": 0.1 + x**2 / 40}
    return plot.plot_residuals(pd.DataFrame(table))


def ranef():
    level = np.arange(14)
    pieces = [
        pd.DataFrame({"group": "g", "level": level, "term": term, "value": value, "cond_sd": 0.4})
        for term, value in (("(Intercept)", np.sin(level)), ("x", np.cos(2.0 * level)))
    ]
    return plot.plot_ranef(pd.concat(pieces))


def shrinkage():
    angle = np.linspace(0, 6, 16)
    none = pd.DataFrame({"a": 2 + np.cos(angle) * angle, "b": np.sin(angle) * angle})
    centre = pd.Series({"a": 2.0, "b": 0.0})
    return plot.plot_shrinkage(Pooling(none, centre + 0.5 * (none - centre), centre, none.cov()))


def effects():
    x = np.tile(np.linspace(0, 1, 20), 2)
    by = np.repeat(["one", "two"], 20)
    estimate = np.where(by == "one", x, 1 - x**2)
    limits = {"lower": estimate - 0.2, "upper": estimate + 0.2}
    table = pd.DataFrame({"x": x, "by": by, "estimate": estimate} | limits)
    levels = {"x": list(x[:20]), "by": ["one", "two"]}
    table.attrs = {"x": "x", "by": ["by"], "levels": levels, "continuous": True, "response": "y"}
    return plot.plot_effects(table)


def volcano():
    estimate = stats.norm.ppf((np.arange(300) + 0.5) / 300)
    t = 2 * estimate
    p = 2 * stats.norm.sf(np.abs(t))
    table = {"estimate": estimate, "df": np.inf, "t": t, "p": p, "q": np.minimum(5 * p, 1.0)}
    return plot.plot_volcano(pd.DataFrame(table), effect=1.2)


def shares():
    at = (np.arange(60) + 0.5) / 60
    donor = stats.beta.ppf(at, 4, 3)
    age = (1 - donor) * stats.beta.ppf(at[np.arange(60) * 17 % 60], 1, 6)
    return plot.plot_shares(pd.DataFrame({"age": age, "donor": donor, "Residual": 1 - age - donor}))


def profile():
    value = np.linspace(0.2, 4, 21)
    pieces = [
        pd.DataFrame({"parameter": "a", "value": value, "zeta": 2.4 * np.log(value)}),
        pd.DataFrame({"parameter": "b", "value": value, "zeta": 1.5 * (value - 2)}),
    ]
    return plot.plot_profile(pd.concat(pieces))


def markers():
    """Of three chromosomes, with a peak in the second."""
    at = np.arange(240)
    table = pd.DataFrame({"p_wald": (at * 89 % 240 + 0.5) / 240, "lod": 1 + np.sin(at / 9)})
    table.loc[100:110, "p_wald"] = 10.0 ** -(9.0 - np.abs(np.arange(-5, 6)))
    return table, {"chromosome": np.repeat(["1", "2", "X"], 80), "position": np.tile(np.arange(80) * 1e6, 3)}


def manhattan():
    table, where = markers()
    return plot.plot_manhattan(table, **where)


def lod():
    table, where = markers()
    return plot.plot_lod(table, **where, threshold=1.8)


def pvalues():
    return plot.plot_pvalues(((np.arange(400) + 0.5) / 400) ** 1.4)


def qq():
    return plot.plot_qq(((np.arange(400) + 0.5) / 400) ** 1.2)


def ma():
    estimate = stats.norm.ppf((np.arange(300) + 0.5) / 300)
    p = 2 * stats.norm.sf(np.abs(2 * estimate))
    table = {"estimate": estimate, "df": np.inf, "t": 2 * estimate, "p": p, "q": np.minimum(5 * p, 1.0)}
    return plot.plot_ma(pd.DataFrame(table), np.cos(np.arange(300)), labels=0)


def contour():
    """A region that bends, with the estimate off its middle."""
    u, v = np.linspace(-2, 4, 13), np.linspace(-3, 3, 11)
    rise = (u[:, None] - 1) ** 2 + (v[None] - 0.3 * u[:, None] + 0.1 * u[:, None] ** 2) ** 2 * 1.5
    table = pd.DataFrame(rise, pd.Index(u, name="u"), pd.Index(v, name="v"))
    return plot.plot_contour(table, centre=(1.0, 0.2))


def covariance():
    lag = np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
    sd = np.linspace(1.0, 2.0, 5)
    matrix = np.outer(sd, sd) * (-0.7) ** lag
    return plot.plot_covariance({"": pd.DataFrame(matrix)})


def means():
    estimate = np.array([2.0, 3.0, 3.4, 1.0, 1.5, 3.2])
    table = {
        "dose": list("abc") * 2,
        "arm": np.repeat(["x", "y"], 3),
        "estimate": estimate,
        "se": 0.3,
        "df": 9.0,
    }
    frame = pd.DataFrame(table | {"lower": estimate - 0.6, "upper": estimate + 0.6})
    arrows = np.column_stack([estimate - 0.25, estimate + 0.25])
    arrows[[0, 3], 0], arrows[[2, 5], 1] = np.nan, np.nan
    return plot.plot_means(frame, ["arm"], arrows)


def posterior():
    at = (np.arange(2000) + 0.5) / 2000
    draws = pd.DataFrame({"a": stats.norm.ppf(at), "sd": stats.gamma.ppf(at, 3.0)})
    x = np.linspace(0.01, 9, 60)
    return plot.plot_posterior(draws, prior={"sd": (x, stats.halfcauchy.pdf(x, scale=2.0))})


def power():
    n = np.tile([10, 20, 30, 40], 2)
    value = np.where(np.arange(8) < 4, 1 - np.exp(-n / 12), 1 - np.exp(-n / 40))
    table = {"n": n, "effect": np.repeat([0.5, 0.2], 4), "power": value}
    frame = pd.DataFrame(table | {"lower": value - 0.06, "upper": np.minimum(value + 0.06, 1.0)})
    return plot.plot_power(frame)


def semivariogram():
    dist = np.arange(1.0, 10.0)
    noise = 0.05 * np.sin(3.0 * dist)
    table = {"dist": dist, "semivariance": 1 - 0.8**dist + noise, "n": 20.0 * (10 - dist)}
    return plot.plot_semivariogram(pd.DataFrame(table), expected=1 - 0.8**dist)


def lines():
    """Twelve levels, some of them with gaps."""
    level, x = np.repeat(np.arange(12), 6), np.tile(np.arange(6.0), 12)
    population = 1 + 0.5 * x
    fit = population + np.sin(level) + 0.2 * np.cos(level) * x
    table = {"level": level, "x": x, "y": fit + 0.4 * np.cos(7 * level + 3 * x), "fit": fit}
    frame = pd.DataFrame(table | {"population": population})[(level * 5 + x) % 11 > 0]
    frame.attrs = {"x": "x", "group": "g", "by": None, "response": "y"}
    return frame


def spaghetti():
    return plot.plot_spaghetti(lines())


def each():
    return plot.plot_spaghetti(lines(), each=True, levels=range(6))


DRAWN = (
    residuals,
    ranef,
    shrinkage,
    effects,
    volcano,
    profile,
    shares,
    manhattan,
    lod,
    pvalues,
    qq,
    ma,
    contour,
    covariance,
    means,
    posterior,
    power,
    semivariogram,
    spaghetti,
    each,
)
PICTURES = {f.__name__: f for f in DRAWN}


def drawn(name):
    """The picture as grey values (h, w)."""
    import matplotlib.pyplot as plt

    matplotlib.use("Agg")
    figure = np.ravel(np.array(PICTURES[name](), dtype=object))[0].figure
    for ax in figure.axes:
        for legend in [*figure.legends, *([ax.get_legend()] if ax.get_legend() else [])]:
            legend.remove()
        ax.set(xticks=[], yticks=[])
    # arrows are annotations, whose words may be empty
    for text in figure.findobj(matplotlib.text.Text):
        text.set_text("")
    file = io.BytesIO()
    figure.savefig(file, dpi=DPI, format="png", metadata={"Software": None})
    plt.close(figure)
    file.seek(0)
    return file


def grey(file):
    return np.asarray(matplotlib.image.imread(file))[..., :3].mean(axis=-1) * 255


def test_all_pictures_have_one():
    assert {name.removeprefix("plot_") for name in plot.__all__} <= set(PICTURES)


@pytest.mark.parametrize("name", PICTURES)
def test_picture_is_the_one_that_was_looked_at(name):
    kept = FOLDER / f"{name}.png"
    assert kept.stat().st_size < 20_000
    new, old = grey(drawn(name)), grey(kept)
    assert new.shape == old.shape
    away = np.sqrt(np.mean((new - old) ** 2))
    assert away < FARTHEST, "look at it; python tests/plot/test_baselines.py draws them anew"


def test_a_curve_that_is_elsewhere_is_noticed(monkeypatch):
    known = plot.plot_effects

    def moved(table):
        return known(table.assign(estimate=table["estimate"] + 0.05))

    monkeypatch.setattr(plot, "plot_effects", moved)
    away = grey(drawn("effects")) - grey(FOLDER / "effects.png")
    assert np.sqrt(np.mean(away**2)) > 1.5 * FARTHEST


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in PICTURES:
        (FOLDER / f"{name}.png").write_bytes(drawn(name).getvalue())

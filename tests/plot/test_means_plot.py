"""Pictures of marginal means show what the tables say."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import lmmjax as lj

matplotlib = pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def means():
    matplotlib.use("Agg")
    rng = np.random.default_rng(1)
    d = pd.DataFrame(
        {"g": np.repeat(range(10), 6), "a": np.tile(list("pqr"), 20), "b": np.tile(list("uuvvvu"), 10)}
    )
    d["y"] = np.exp(rng.normal(size=10)[d["g"]] / 3 + (d["a"] == "r") + rng.normal(size=60) / 3)
    return lj.lmm("log(y) ~ a * b + (1 | g)", d).fit().emmeans("a", by="b", type="response")


def test_points_limits_and_labels(means):
    import matplotlib.pyplot as plt

    ax = means.plot(comparisons=False)
    points = next(line for line in ax.lines if line.get_marker() == "o")
    assert_allclose(points.get_xdata(), means.table["estimate"])
    segments = np.array(ax.collections[0].get_segments())
    assert_allclose(segments[:, :, 0], means.table[["lower", "upper"]])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["p", "q", "r"] * 2
    assert [text.get_text() for text in ax.texts] == ["b = u", "b = v"]
    plt.close(ax.figure)


def test_arrows_overlap_where_means_do_not_differ(means):
    import matplotlib.pyplot as plt

    figure, given = plt.subplots()
    ax = means.plot(given)
    assert ax is given
    arrows = [text for text in ax.texts if not text.get_text()]
    ends = {}
    for arrow in arrows:
        ends.setdefault(round(float(arrow.xyann[1]), 3), []).append(arrow.xy[0])
    spans = [sorted(ends[y]) for y in sorted(ends, reverse=True)]
    p = means.pairs().table["p"].to_numpy()
    for k, (i, j) in enumerate([(0, 1), (0, 2), (1, 2), (3, 4), (3, 5), (4, 5)]):
        overlap = spans[i][1] > spans[j][0] and spans[j][1] > spans[i][0]
        assert overlap == (p[k] > 0.05)
    assert (p < 0.05).any()
    assert (p > 0.05).any()
    plt.close(figure)

"""How a batch ended: starts and optima by response, and the summary that counts them."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

import lmmjax as lj
from lmmjax.reports.batch_summary import summarise


@pytest.fixture(scope="module")
def fits():
    """Four groups that differ, with gaps: all starts are made."""
    rng = np.random.default_rng(0)
    size = [2, 3, 9, 14]
    data = pd.DataFrame({"g": np.repeat(list("abcd"), size), "x": rng.normal(size=28)})
    y = rng.normal(size=(28, 9)) + np.linspace(0, 2, 9) * rng.normal(size=(4, 9)).repeat(size, axis=0)
    y[[0, 5], 1] = np.nan
    y[:, 2] = np.nan
    with pytest.warns(UserWarning, match="1 of 9"):
        return lj.lmm("~ x + (1 | g)", data).fit_batch(pd.DataFrame(y).add_prefix("r"))


def test_convergence(fits):
    table = fits.convergence
    assert list(table) == [
        *("status", "converged", "n_iter", "n_starts", "n_optima", "several", "is_singular", "unidentified"),
        "reason",
    ]
    assert (table["n_starts"] == fits.n_starts).all()
    # few groups that differ: all starts; none without values
    assert table.loc["r0", "n_starts"] == 4
    assert table.loc["r2", "n_starts"] == 0
    pd.testing.assert_series_equal(table["several"], fits.n_optima > 1, check_names=False)
    assert (table["n_optima"] <= table["n_starts"]).all()
    one = fits.model.fit_batch(fits.fitted.y[:, :2], starts=1)
    assert one.n_starts.tolist() == [1, 1]
    assert fits[["r3", "r2"]].n_starts.tolist() == [4, 0]


def test_summary(fits):
    text = str(fits.summary())
    assert "Linear mixed models of 9 responses fit by REML" in text
    assert "groups: g, 4" in text
    assert not (fits.n_optima > 1).any()
    assert "8 responses had several starts, which ended at one optimum each" in text
    assert "1 responses have no certified fit: r2; see `reasons`" in text
    assert f"{int(fits.is_singular.sum())} fits are singular" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "<table" in fits.summary()._repr_html_()


def test_responses_with_several_optima_are_named(fits):
    optima = np.where(np.arange(9) % 4 == 1, 2, fits.n_optima)
    text = str(summarise(dataclasses.replace(fits.fitted, n_optima=optima, cache={})))
    said = "2 of 8 responses with several starts had more than one optimum: r1, r5; the best is reported"
    assert said in " ".join(text.split())

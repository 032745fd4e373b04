"""A batch in which one response in twenty is hopeless in one of ten ways leaves the others as they are."""

import warnings

import numpy as np
import pandas as pd
import pytest

import lmmjax as lj

N, GROUPS, LANES = 80, 10, 600


def spoil(kind, y, rng):
    """One response (n,) made hopeless, or as hard as it gets."""
    index = np.arange(N)
    return {
        "all missing": np.full(N, np.nan),
        "one value": np.where(index == 3, y, np.nan),
        "one group": np.where(index < N // GROUPS, y, np.nan),
        "infinite": np.where(index == 5, np.inf, y),
        "minus infinite": np.where(index == 6, -np.inf, y),
        "constant": np.full(N, 2.5),
        "zero": np.zeros(N),
        "group means only": (index // (N // GROUPS)).astype(float),
        "huge": y * 1e200,
        "tiny": y * 1e-200,
    }[kind]


KINDS = (
    "all missing",
    "one value",
    "one group",
    "infinite",
    "minus infinite",
    "constant",
    "zero",
    "group means only",
    "huge",
    "tiny",
)


@pytest.mark.parametrize("formula", ["~ t + (1 | g)", "~ t + (1 + t | g)"])
def test_the_others_are_untouched(formula):
    rng = np.random.default_rng(11)
    g = np.repeat(np.arange(GROUPS), N // GROUPS)
    design = pd.DataFrame({"t": np.tile(np.arange(8.0), GROUPS), "g": g})
    y = 4.0 + rng.normal(size=(N, LANES)) + rng.normal(size=(GROUPS, LANES))[g]
    bad = y.copy()
    places = np.arange(0, LANES, 20)
    for place, kind in zip(places, np.resize(KINDS, len(places)), strict=True):
        bad[:, place] = spoil(kind, y[:, place], rng)
    model = lj.lmm(formula, design)
    clean = model.fit_batch(y)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fits = model.fit_batch(bad)
    assert len(caught) == 1
    assert "responses could not be fitted" in str(caught[0].message)
    others = np.setdiff1d(np.arange(LANES), places)
    assert fits.converged.to_numpy()[others].all()
    for name in ("beta", "psi", "deviance", "cov_beta"):
        got, want = (np.asarray(getattr(f.estimate, name))[others] for f in (fits, clean))
        np.testing.assert_allclose(got, want, rtol=1e-12)
    hopeless = [
        p for p, kind in zip(places, np.resize(KINDS, len(places)), strict=True) if KINDS.index(kind) < 8
    ]
    assert not fits.converged.to_numpy()[hopeless].any()
    assert fits.params.iloc[hopeless].isna().all(axis=None)

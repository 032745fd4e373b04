"""Pictures of the covariance structures for the site: matrices of eight visits as heat maps."""

from __future__ import annotations

from pathlib import Path

import jax
import matplotlib
import matplotlib.pyplot as plt
import numpy as np

import lmmjax as lj
from lmmjax.covariance import family
from lmmjax.residual import ResidualStructure, Space, as_residual

matplotlib.use("Agg")
VISITS = 8
WEEKS = np.array([0.0, 1.0, 2.0, 4.0, 6.0, 9.0, 12.0, 13.0])
ARM = np.arange(VISITS) // (VISITS // 2)
FREE = np.random.default_rng(4).normal(size=(VISITS, 3))
FREE = FREE @ FREE.T + np.diag(np.linspace(0.5, 3.0, VISITS))

RESIDUAL = {
    "ar1": (lj.AR1("visit"), (0.75,)),
    "ar1_negative": (lj.AR1("visit"), (-0.6,)),
    "ar1_nugget": (lj.AR1("visit", nugget=True), (0.85, 0.35)),
    "car1": (lj.CAR1("week"), (0.8,)),
    "exponential": (lj.Exponential("week"), (3.0,)),
    "gaussian": (lj.Gaussian("week"), (3.0,)),
    "matern32": (lj.Matern32("week"), (3.0,)),
    "matern52": (lj.Matern52("week"), (3.0,)),
    "compound_symmetry": (lj.CompoundSymmetry(), (0.5,)),
    "toeplitz": (lj.Toeplitz("visit"), (0.6, 0.5, 0.1, 0.0, -0.1, -0.2, -0.2)),
    "arma": (lj.ARMA("visit", p=1, q=1), (0.8, -0.4)),
    "ma": (lj.ARMA("visit", p=0, q=2), (0.7, 0.4)),
}
"""Correlations with their parameters; places are visits, or the unequal weeks of `WEEKS`."""

VARIANCE = {
    "varident": (lj.VarIdent("arm"), (1.8,), ("A", "B"), ARM),
    "varpower": (lj.VarPower("week"), (0.5,), (), WEEKS + 1.0),
    "varexp": (lj.VarExp("week"), (0.08,), (), WEEKS),
}
"""Variance functions times AR(1), with parameters, levels and covariate."""

RANDOM = {
    "us": ("us", (), None),
    "diag": ("diag", (), np.linspace(0.4, 1.6, VISITS)),
    "homdiag": ("homdiag", (), [1.0]),
    "cs": ("cs", (), [*np.linspace(0.4, 1.6, VISITS), 0.6]),
    "homcs": ("homcs", (), [1.0, 0.6]),
    "random_ar1": ("ar1", (), [1.0, 0.8]),
    "hetar1": ("hetar1", (), [*np.linspace(0.4, 1.6, VISITS), 0.8]),
    "toep": ("toep", (), [*np.linspace(0.4, 1.6, VISITS), 0.6, 0.5, 0.1, 0.0, -0.1, -0.2, -0.2]),
    "homtoep": ("homtoep", (), [1.0, 0.6, 0.5, 0.1, 0.0, -0.1, -0.2, -0.2]),
    "rr": ("rr", ("2",), "loadings"),
    "fa": ("fa", ("1",), "loadings"),
}
"""Families of random effects with their natural parameters."""


def residual_matrix(part, values, sd=None) -> np.ndarray:
    """The matrix (8, 8) of a correlation, times standard deviations."""
    structure = ResidualStructure(as_residual(part), Space(VISITS, 1.0))
    places = WEEKS if part.reads == "coordinates" else np.arange(VISITS)
    same = np.eye(VISITS, dtype=bool)
    left, right = places[:, None] + 0 * places, places + 0 * places[:, None]
    out = np.asarray(structure.correlation(np.array(values), left, right, same), float)
    return out if sd is None else sd[:, None] * sd * out


def random_matrix(name, args, values) -> np.ndarray:
    """D (8, 8) of a family of random effects; of `us` a matrix without a pattern."""
    if values is None:
        return FREE
    made = family(name, *args)
    if isinstance(values, str):
        parameters = made.parameters(VISITS)
        wave = np.cos(0.9 * np.arange(len(parameters))) + 0.4
        values = [w if p.kind == "real" else abs(w) for w, p in zip(wave, parameters, strict=True)]
    return np.asarray(made.matrix(np.array(values, float), VISITS), float)


def matrices() -> dict[str, np.ndarray]:
    """Every picture's matrix (8, 8), by name of the file."""
    out = {name: residual_matrix(part, values) for name, (part, values) in RESIDUAL.items()}
    half = (ARM[:, None] == ARM) * 1.0
    low, high = (residual_matrix(lj.AR1("visit"), (phi,)) for phi in (0.9, 0.3))
    out["by"] = half * np.where(ARM[:, None] == 0, low, 1.8 * high)
    out["symmetric"] = FREE / np.sqrt(np.outer(np.diag(FREE), np.diag(FREE)))
    out["unstructured"] = FREE
    for name, (part, values, _, covariate) in VARIANCE.items():
        sd = np.asarray(part.sd(np.array(values), covariate), float)
        out[name] = residual_matrix(lj.AR1("visit"), (0.75,), sd)
    out |= {name: random_matrix(*given) for name, given in RANDOM.items()}
    return out


def draw(matrix: np.ndarray, path: Path) -> None:
    """Covariances as colours from −max to max: blue is negative, red positive, white zero."""
    figure, axes = plt.subplots(figsize=(1.3, 1.3))
    most = np.abs(matrix).max()
    axes.imshow(matrix, cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color="0.6", linewidth=0.6)
    figure.savefig(path, bbox_inches="tight", pad_inches=0.03, dpi=160)
    plt.close(figure)


def draw_all(folder: Path) -> None:
    """All pictures, as PNG files in a folder."""
    with jax.enable_x64(True):
        drawn = matrices()
    for name, matrix in drawn.items():
        draw(matrix, folder / f"{name}.png")

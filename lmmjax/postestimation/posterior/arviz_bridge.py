"""ArviZ 0.22 or later and ArviZ 1 behind the same functions of arrays: all that differs is here."""

from __future__ import annotations

import importlib
import warnings
from types import ModuleType
from typing import Any

import numpy as np

Groups = dict[str, dict[str, np.ndarray]]
"""Arrays by variable by group."""

TAIL = (0.05, 0.95)
"""Quantiles whose effective sample sizes make ess_tail; ArviZ 1 would take those of its own intervals."""


def require(package: str) -> ModuleType:
    """The package, or ImportError that says how to install it."""
    try:
        with warnings.catch_warnings():
            # arviz 0.x announces its next version when it is imported
            warnings.simplefilter("ignore")
            return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"fit.posterior needs the package {package}, which is not installed: pip install 'lmmjax[bayes]'"
        ) from error


def diagnostics(values: np.ndarray) -> dict[str, np.ndarray]:
    """mcse, r_hat, ess_bulk and ess_tail of draws (chains, draws, k), each (k,)."""
    arviz = require("arviz")
    data = arviz.dict_to_dataset({"x": values})
    found = {
        "mcse": arviz.mcse(data),
        "r_hat": arviz.rhat(data),
        "ess_bulk": arviz.ess(data, method="bulk"),
        "ess_tail": arviz.ess(data, method="tail", prob=TAIL),
    }
    return {name: dataset["x"].to_numpy() for name, dataset in found.items()}


def smoothed(log_weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Pareto-smoothed log weights (N,) and k̂; as they are, with k̂ = ∞, where no tail can be fitted."""
    arviz = require("arviz")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not _one(arviz):
            log, k = arviz.psislw(log_weights)
            return np.asarray(log), float(k)
        try:
            # of a log likelihood: the weights' logarithm with the other sign
            log, k = require("arviz_stats.base").array_stats.psislw(-log_weights)
        except (ValueError, IndexError):
            # fewer than five draws in the tail, or all of them equal
            return log_weights, np.inf
    return np.asarray(log), np.inf if np.isnan(k) else float(k)


def data_of(groups: Groups, coords: dict[str, list[Any]], dims: dict[str, list[str]]) -> Any:
    """`arviz.InferenceData`, or `xarray.DataTree` from ArviZ 1 on; groups without variables are left out.

    The names in a DataTree have ÷ for /, which separates its paths.
    """
    arviz = require("arviz")
    groups = {group: variables for group, variables in groups.items() if variables}
    if not _one(arviz):
        return arviz.from_dict(**groups, coords=coords, dims=dims)
    return arviz.from_dict(
        {group: {_path(name): a for name, a in variables.items()} for group, variables in groups.items()},
        coords={_path(name): labels for name, labels in coords.items()},
        dims={_path(name): [_path(dim) for dim in own] for name, own in dims.items()},
    )


def _one(arviz: ModuleType) -> bool:
    """This is ArviZ 1 or later."""
    return int(arviz.__version__.split(".")[0]) >= 1


def _path(name: str) -> str:
    return name.replace("/", "÷")

"""Draws as frames, and as the groups that ArviZ takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lmmjax.fitted import require_level
from lmmjax.postestimation.posterior.arviz_bridge import data_of, diagnostics
from lmmjax.postestimation.posterior.draws import Draws
from lmmjax.postestimation.posterior.predict import log_likelihood, predictive


def draws_frame(draws: Draws) -> pd.DataFrame:
    """See `Posterior.frame`."""
    chains, kept, k = draws.values.shape
    index = pd.MultiIndex.from_product([range(chains), range(kept)], names=["chain", "draw"])
    return pd.DataFrame(draws.values.reshape(-1, k), index=index, columns=draws.names)


def draws_summary(draws: Draws, level: float = 0.95) -> pd.DataFrame:
    """See `Posterior.summary`."""
    tail = 0.5 * (1.0 - require_level(level))
    flat = draws.values.reshape(-1, len(draws.names))
    lower, median, upper = np.quantile(flat, [tail, 0.5, 1.0 - tail], axis=0)
    columns = {"mean": flat.mean(0), "sd": flat.std(0, ddof=1), "median": median}
    columns |= {"lower": lower, "upper": upper} | diagnostics(draws.values)
    return pd.DataFrame(columns, index=draws.names)


def inference_data(draws: Draws, key: Any = None, likelihood: bool = False) -> Any:
    """See `Posterior.to_arviz`; `key` is that of the responses to draw, or None."""
    fitted, p = draws.fitted, draws.beta.shape[-1]
    frame, response = fitted.data.frame, fitted.response or "y"
    variables = {"beta": draws.beta} if p else {}
    variables |= {name: draws.values[..., p + k] for k, name in enumerate(draws.names[p:])}
    coords: dict[str, list[Any]] = {"coefficient": list(frame.x_names), "row": list(frame.index)}
    dims = {"beta": ["coefficient"]}
    for term, b in zip(frame.random, draws.b or (), strict=False):
        variables[term.text] = b
        dims[term.text] = [term.group, f"{term.text} columns"]
        coords |= {term.group: list(term.levels), f"{term.text} columns": list(term.names)}
    groups = {"posterior": variables, "sample_stats": draws.stats, "observed_data": {response: fitted.y}}
    if key is not None:
        groups["posterior_predictive"] = {response: predictive(draws, key)}
    if likelihood:
        groups["log_likelihood"] = {response: log_likelihood(draws)}
    dims[response] = ["row"]
    return data_of(groups, coords, dims)

"""Conditional modes of a fit as frames, by grouping factor."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lmmjax.fitted import (
    Fitted,
    fitted_modes,
    require_switch,
)
from lmmjax.formula import nearest


def random_effects(fitted: Fitted) -> dict[str, pd.DataFrame]:
    """See `Fit.random_effects`."""
    frames: dict[str, pd.DataFrame] = {}
    for term, modes in zip(fitted.data.frame.random, fitted_modes(fitted), strict=True):
        frame = pd.DataFrame(modes.b, index=pd.Index(term.levels, name=term.group), columns=list(term.names))
        known = frames.get(term.group)
        frames[term.group] = frame if known is None else pd.concat([known, frame], axis=1)
    return frames


def ranef(fitted: Fitted, cond_var: bool) -> pd.DataFrame:
    """See `Fit.ranef`."""
    require_switch("cond_var", cond_var)
    pieces = []
    for term, modes in zip(fitted.data.frame.random, fitted_modes(fitted), strict=True):
        for j, name in enumerate(term.names):
            piece = {
                "group": term.group,
                "level": list(term.levels),
                "term": name,
                "value": modes.b[:, j],
            }
            if cond_var:
                piece["cond_sd"] = np.sqrt(np.maximum(modes.cond_var[:, j, j], 0.0))
                piece["pred_se"] = np.sqrt(np.maximum(modes.mspe[:, j, j], 0.0))
            pieces.append(pd.DataFrame(piece))
    return pd.concat(pieces, ignore_index=True) if pieces else pd.DataFrame()


def cond_var(fitted: Fitted, mspe: bool) -> dict[str, np.ndarray]:
    """See `Fit.cond_var`."""
    require_switch("mspe", mspe)
    terms = zip(fitted.data.frame.random, fitted_modes(fitted), strict=True)
    return {term.label: modes.mspe if mspe else modes.cond_var for term, modes in terms}


def coef(fitted: Fitted) -> dict[str, pd.DataFrame]:
    """See `Fit.coef`."""
    out, params = {}, pd.Series(fitted.estimate.beta, index=fitted.data.x_names)
    for group, effects in random_effects(fitted).items():
        effects = effects.rename(columns={"(Intercept)": "Intercept"})
        names = [*params.index, *(c for c in effects.columns if c not in params.index)]
        out[group] = effects.reindex(columns=names, fill_value=0.0) + params.reindex(names, fill_value=0.0)
    return out


def only_group(groups: list[str], group: str | None) -> str:
    """The grouping factor that is meant, or ValueError."""
    if not groups:
        raise ValueError("the model has no random effects")
    if group is None and len(groups) > 1:
        raise ValueError(f"the model has several grouping factors: pass group=, one of: {', '.join(groups)}")
    if group is not None and group not in groups:
        raise ValueError(f"unknown grouping factor {group!r}: {nearest(str(group), groups)}")
    return groups[0] if group is None else group

"""Reliability of predicted effects of levels: breeding values."""

from __future__ import annotations

import jax
import numpy as np
import pandas as pd

from lmmjax.fitted import Fitted, fitted_modes
from lmmjax.formula import nearest


def reliability(fitted: Fitted, group: str | None) -> pd.DataFrame:
    """See `Fit.reliability`."""
    random = fitted.data.frame.random
    groups = [term.group for term in random if term.kernel is not None] or [term.group for term in random]
    if group is not None and group not in {term.group for term in random}:
        raise ValueError(f"unknown grouping factor {group!r}: {nearest(group, [t.group for t in random])}")
    chosen = groups if group is None else [group]
    structure = fitted.data.design.structure
    with jax.enable_x64(True):
        matrices = [np.asarray(m) for m in structure.absolute(np.asarray(fitted.estimate.psi))]
    pieces = []
    for term, modes, matrix in zip(random, fitted_modes(fitted), matrices, strict=True):
        if term.group not in chosen:
            continue
        own = np.ones(len(term.levels)) if term.kernel is None else term.kernel.levels.diagonal
        observed = np.isin(np.arange(len(term.levels)), term.codes)
        for j, name in enumerate(term.names):
            pev = np.maximum(modes.mspe[:, j, j], 0.0)
            with np.errstate(divide="ignore", invalid="ignore"):
                share = np.clip(1.0 - pev / (matrix[j, j] * own), 0.0, 1.0)
            share = np.where(matrix[j, j] * own > 0, share, np.nan)
            columns = {
                "group": term.group,
                "level": list(term.levels),
                "term": name,
                "value": modes.b[:, j],
                "pred_se": np.sqrt(pev),
                "reliability": share,
                "accuracy": np.sqrt(share),
                "observed": observed,
            }
            pieces.append(pd.DataFrame(columns))
    return pd.concat(pieces, ignore_index=True)

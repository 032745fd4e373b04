"""What is fitted on a device and again on the CPU: batches, single fits, a gradient, of simulated data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import jax
import numpy as np
import pandas as pd

import lmmjax as lj
from benchmarks.harness import roofline
from benchmarks.harness.simulate import (
    BALANCED,
    SMALL_GROUPS,
    UNBALANCED,
    grouped_design,
    grouped_responses,
)
from benchmarks.workloads.w4 import NESTED, families, simulated
from lmmjax.arrays.device_columns import DeviceColumns
from lmmjax.batch import Outcome, estimate_many
from lmmjax.scan import Above, Top

Results = dict[str, np.ndarray]
"""Quantities by the names of `LIMITS`; those of a batch lead with responses."""


@dataclass(frozen=True)
class Fitting:
    """A call that fits, `read` what it reports; `alone(k)` is what a single fit of response k reports.

    With the `model` of a batch its bytes and operations are counted; `work` are those of something else.
    """

    call: Callable[[], Any]
    read: Callable[[Any], Results]
    alone: Callable[[int], Results] | None = None
    model: lj.Model | None = None
    work: roofline.Work | None = None


@dataclass(frozen=True)
class Piece:
    """What is fitted: `prepare(T)` makes the data. `responses` of a batch, 0 for a single fit.

    `limits` replace those of `LIMITS`.
    """

    name: str
    prepare: Callable[[int], Fitting]
    responses: int = 0
    limits: tuple[tuple[str, float], ...] = ()


def of_fit(fit: lj.Fit, tests: bool = True) -> Results:
    """What a single fit reports, with degrees of freedom if tests are asked for."""
    estimate = fit.estimate
    return {
        "criterion": np.atleast_1d(fit.deviance),
        "beta": fit.params.to_numpy(),
        "se": fit.bse.to_numpy(),
        "psi": np.asarray(estimate.psi),
        "converged": np.atleast_1d(fit.converged),
    } | ({"df": fit.coef_table()["df"].to_numpy(dtype=float)} if tests else {})


def of_batch(fits: lj.BatchFit) -> Results:
    """What a batch reports; responses lead."""
    return {
        "criterion": np.asarray(fits.estimate.deviance),
        "beta": np.asarray(fits.estimate.beta),
        "se": fits.bse.to_numpy(),
        "psi": np.asarray(fits.estimate.psi),
        "converged": np.asarray(fits.converged),
        "evaluations": np.asarray(fits.estimate.n_iter),
    }


def of_outcome(found: Outcome) -> Results:
    """What the engine reports, without labels."""
    estimate = found.estimate
    return {
        "criterion": np.asarray(estimate.deviance),
        "beta": np.asarray(estimate.beta),
        "se": np.sqrt(np.diagonal(estimate.cov_beta, axis1=1, axis2=2)),
        "psi": np.asarray(estimate.psi),
        "converged": np.asarray(estimate.status) == 0,
        "evaluations": np.asarray(estimate.n_iter),
    }


def batch(formula: str, seeds: tuple[int, int], sizes: list[int], *, dtype: str = "float64", **options: Any):
    """The `prepare` of a batch on one grouping factor; `weighted` gives every value a weight."""
    weighted = options.pop("weighted", False)

    def prepare(responses: int) -> Fitting:
        design = grouped_design(seeds[0], sizes, balanced_time=options["balanced_time"])
        y = grouped_responses(seeds[1], design, responses, slopes=options["slopes"]).T
        rng = np.random.default_rng(seeds[1] + 1)
        w = np.exp(0.3 + 0.5 * rng.standard_normal(y.shape)) if weighted else None
        model = lj.lmm(formula, design)

        def alone(k: int) -> Results:
            own = None if w is None else w[:, k]
            return of_fit(lj.lmm("y " + formula, design.assign(y=y[:, k]), weights=own).fit(), tests=False)

        return Fitting(lambda: model.fit_batch(y, weights=w, dtype=dtype), of_batch, alone, model)

    return prepare


def engine(formula: str, seeds: tuple[int, int], sizes: list[int], **options: Any):
    """The `prepare` of the engine alone, of responses that are on the device before: no labels, no frames."""

    def prepare(responses: int) -> Fitting:
        design = grouped_design(seeds[0], sizes, balanced_time=options["balanced_time"])
        y = np.ascontiguousarray(grouped_responses(seeds[1], design, responses, slopes=options["slopes"]).T)
        model = lj.lmm(formula, design)
        with jax.enable_x64(True):
            there = jax.block_until_ready(jax.device_put(y))

        def call() -> Outcome:
            # where another device was chosen, y goes there
            chosen = jax.config.jax_default_device  # type: ignore[attr-defined]
            return estimate_many(model.data.maker, DeviceColumns(there) if chosen is None else y)

        return Fitting(call, of_outcome, None, model)

    return prepare


def nested(responses: int) -> Fitting:
    """W4: 10,000 rows of families and their members."""
    data = families(10_000)
    y = simulated(data, {"family": [0.7], "subject": [1.0]}, responses)
    model = lj.lmm(NESTED, data)

    def alone(k: int) -> Results:
        return of_fit(lj.lmm("y " + NESTED, data.assign(y=y[:, k])).fit(), tests=False)

    return Fitting(lambda: model.fit_batch(y), of_batch, alone, model)


def strains(responses: int) -> tuple[lj.Model, np.ndarray, np.ndarray]:
    """W8: a kernel of 79 strains by 7,321 markers, the responses (79, T), and the markers."""
    rng = np.random.default_rng(8)
    individuals, markers = 79, 7_321
    g = rng.choice([-1.0, 1.0], size=(individuals, markers))
    ids = [f"s{k}" for k in range(individuals)]
    kernel = lj.Kernel(g @ g.T / markers, ids)
    u = g @ rng.normal(size=(markers, responses)) / np.sqrt(markers)
    y = rng.uniform(0, 1.5, responses) * u + rng.normal(size=u.shape)
    model = lj.lmm("~ 1 + (1 | id)", pd.DataFrame({"id": ids}), kernels={"id": kernel})
    return model, y, g + 1.0


def kinship(responses: int) -> Fitting:
    """The null fits of W8, the decomposition of the kernel done once."""
    model, y, _ = strains(responses)
    return Fitting(lambda: model.fit_batch(y), of_batch, None, model)


def by_ml(responses: int) -> Fitting:
    """The fits of W8 by maximum likelihood."""
    model, y, _ = strains(responses)
    return Fitting(lambda: model.fit_batch(y, reml=False), of_batch, None, model)


def holed(responses: int) -> Fitting:
    """Fits of W8 to responses that lack three values each, others each."""
    model, y, _ = strains(responses)
    rng = np.random.default_rng(9)
    gone = np.argsort(rng.random(y.shape), axis=0)[:3]
    y[gone, np.arange(responses)] = np.nan
    return Fitting(lambda: model.fit_batch(y), of_batch, None, model)


THRESHOLD = 3.5
"""LOD from which on pairs of a scan are kept, beside the first of each response."""


def scanned(responses: int) -> Fitting:
    """Every marker of W8 against its responses, at the ratio of the null: hits, of arrays of the host."""
    model, y, markers = strains(responses)
    fits, keep = model.fit_batch(y), [Top(1), Above(lod=THRESHOLD)]
    done = roofline.scan(*markers.shape, responses)
    return Fitting(lambda: fits.scan(markers, keep=keep, test="lrt"), of_scan, work=done)


def scanned_there(responses: int) -> Fitting:
    """The same of markers and responses that are on the device before."""
    model, y, markers = strains(responses)
    keep = [Top(1), Above(lod=THRESHOLD)]
    host = model.fit_batch(y)
    with jax.enable_x64(True):
        there = jax.block_until_ready(jax.device_put(markers))
        fits = model.fit_batch(jax.device_put(y))

    def call() -> pd.DataFrame:
        # where another device was chosen, arrays of the host go there
        chosen = jax.config.jax_default_device  # type: ignore[attr-defined]
        some = (fits, there) if chosen is None else (host, markers)
        return some[0].scan(some[1], keep=keep, test="lrt")

    return Fitting(call, of_scan, work=roofline.scan(*markers.shape, responses))


def of_scan(table: pd.DataFrame) -> Results:
    """What the hits of a scan say."""
    names = {"beta": "effect", "se": "se", "criterion": "lod"}
    return {name: table[column].to_numpy() for name, column in names.items()}


def all_pairs(responses: int) -> Fitting:
    """Every marker of W8 against some of its responses, and all pairs in a table."""
    model, y, markers = strains(responses)
    fits = model.fit_batch(y)

    def read(table: pd.DataFrame) -> Results:
        return {"beta": table["effect"].to_numpy(), "se": table["se"].to_numpy()}

    return Fitting(lambda: fits.scan(markers, test="wald"), read)


def single(formula: str, data: Callable[[], pd.DataFrame], **options: Any):
    """The `prepare` of a single fit."""

    def prepare(_: int) -> Fitting:
        model = lj.lmm(formula, data(), **options)
        return Fitting(model.fit, of_fit)

    return prepare


def sleep() -> pd.DataFrame:
    """180 rows: ten days of 18 subjects."""
    rng = np.random.default_rng(1)
    g, t = np.repeat(np.arange(18), 10), np.tile(np.arange(10.0), 18)
    b = rng.normal(size=(18, 2)) * [24.0, 6.0]
    return pd.DataFrame(
        {"g": g, "t": t, "y": 251 + 10 * t + b[g, 0] + b[g, 1] * t + 25 * rng.normal(size=180)}
    )


def pupils() -> pd.DataFrame:
    """20,000 rows of 4,000 pupils in 400 classes in 20 schools, who answered some of 40 items."""
    rng = np.random.default_rng(2)
    pupil = np.repeat(np.arange(4_000), 5)
    frame = pd.DataFrame({"pupil": pupil, "klass": pupil // 10, "school": pupil // 200})
    frame["item"] = rng.integers(0, 40, len(frame))
    frame["x"] = rng.normal(size=len(frame))
    y = 1 + 0.5 * frame["x"] + rng.normal(size=len(frame))
    for name, sd in (("pupil", 0.8), ("klass", 0.4), ("school", 0.5), ("item", 0.6)):
        y = y + sd * rng.normal(size=frame[name].max() + 1)[frame[name]]
    return frame.assign(y=y)


def series() -> pd.DataFrame:
    """20,000 rows: 500 subjects at 40 times, residuals with lag-one correlation 0.6."""
    rng = np.random.default_rng(3)
    e = rng.normal(size=(500, 40))
    for k in range(1, 40):
        e[:, k] = 0.6 * e[:, k - 1] + 0.8 * e[:, k]
    g, t = np.divmod(np.arange(20_000), 40)
    return pd.DataFrame({"g": g, "t": t, "y": 2 + 0.05 * t + rng.normal(size=500)[g] + e.ravel()})


def gradient(_: int) -> Fitting:
    """The derivative in y of the sum of β̂, ψ̂ and the standard errors of β̂, through the fit."""
    data = sleep()
    model = lj.lmm("y ~ t + (t | g)", data)
    y = data["y"].to_numpy()

    def number(y: jax.Array) -> jax.Array:
        found = lj.estimate(model.problem(y))
        errors = jax.numpy.sqrt(jax.numpy.diagonal(found.cov_beta))
        return jax.numpy.sum(found.beta) + jax.numpy.sum(found.psi) + jax.numpy.sum(errors)

    compiled: dict[Any, Any] = {}

    def call() -> Results:
        # a program a device
        with jax.enable_x64(True):
            key = str(jax.config.jax_default_device)
            value, slope = compiled.setdefault(key, jax.jit(jax.value_and_grad(number)))(y)
            return {"value": np.atleast_1d(value), "gradient": np.asarray(slope)}

    return Fitting(call, lambda found: {"criterion": found["value"], "gradient": found["gradient"]})


def fitted() -> lj.Fit:
    """A fit on the device that JAX would use at the moment."""
    return lj.lmm("y ~ t + (t | g)", sleep()).fit()


def bootstrap(draws: int) -> Fitting:
    """Parametric bootstrap: simulated responses are drawn by the host and fitted as a batch."""
    fit, key = fitted(), jax.random.key(6)
    return Fitting(lambda: fit.bootstrap(key, draws), lambda found: of_batch(found.fits))


def profiled(_: int) -> Fitting:
    """Limits by profile likelihood of all parameters: each evaluation is a program of the device."""
    fit = fitted()

    def read(table: pd.DataFrame) -> Results:
        return {"limits": table.to_numpy(dtype=float)}

    return Fitting(lambda: fit.conf_int(method="profile", which="all"), read)


def sampled(_: int) -> Fitting:
    """NUTS, four chains in one program, long enough that means differ by a tenth of a standard deviation."""
    fit, key = fitted(), jax.random.key(7)

    def read(found: Any) -> Results:
        table = found.summary()
        return {"beta": table["mean"].to_numpy(dtype=float), "se": table["sd"].to_numpy(dtype=float)}

    return Fitting(lambda: fit.posterior(key, draws=500, warmup=500), read)


NUTS = Piece("NUTS: four chains of 500 + 500", sampled, 0, (("beta", 0.2), ("se", 0.2)))
"""A piece where the extra `bayes` is installed."""

X, ONE = "~ t + x1 + x2", "(1 | g)"
PLAIN = {"balanced_time": False, "slopes": False}
PIECES = (
    Piece("W1: 800 rows, (1 | g)", batch(f"{X} + {ONE}", (101, 102), UNBALANCED, **PLAIN), 20_000),
    Piece(
        "W1: Y on the device, engine alone", engine(f"{X} + {ONE}", (101, 102), UNBALANCED, **PLAIN), 20_000
    ),
    Piece(
        "W2: 800 rows, (1 + t | g), irregular t",
        batch(f"{X} + (1 + t | g)", (201, 202), UNBALANCED, balanced_time=False, slopes=True),
        20_000,
    ),
    Piece("W4: 10,000 rows, (1 | family/subject)", nested, 20_484),
    Piece(
        "W3: 400 rows, (1 | g), weights",
        batch(f"{X} + {ONE}", (301, 302), SMALL_GROUPS, weighted=True, **PLAIN),
        5_000,
    ),
    Piece("W8: null fits, a kernel of 79 strains", kinship, 35_554),
    Piece("W8: a scan of 7,321 markers, hits", scanned, 35_554),
    Piece("W8: the scan, all there", scanned_there, 35_554),
    Piece("W8: a scan of 7,321 markers, all pairs", all_pairs, 32),
    Piece("W8: null fits by maximum likelihood", by_ml, 35_554),
    Piece("W8: null fits, three values missing", holed, 500),
    Piece(
        "W2: 800 rows, (1 + t | g), balanced t",
        batch(f"{X} + (1 + t | g)", (211, 212), BALANCED, balanced_time=True, slopes=True),
        20_000,
    ),
    Piece("gradient through a fit of 180 rows", gradient),
    Piece("bootstrap: 2,000 draws of 180 rows", bootstrap, 2_000),
    *([NUTS] if all(map(find_spec, ("arviz", "blackjax"))) else []),
    Piece("180 rows, (t | g)", single("y ~ t + (t | g)", sleep)),
    Piece("20,000 rows, (1 | pupil) + (1 | item)", single("y ~ x + (1 | pupil) + (1 | item)", pupils)),
    Piece("20,000 rows, (1 | school/klass/pupil)", single("y ~ x + (1 | school/klass/pupil)", pupils)),
    Piece(
        "20,000 rows, (1 | g), AR(1)",
        single("y ~ t + (1 | g)", series, residual=lj.AR1("t", group="g")),
    ),
    Piece("profile limits of 180 rows", profiled),
    Piece(
        "W1 with float32 descents",
        batch(f"{X} + {ONE}", (101, 102), UNBALANCED, dtype="float32", **PLAIN),
        20_000,
        (("criterion", 1e-5),),
    ),
)

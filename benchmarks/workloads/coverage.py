"""Coverage of 95 % intervals and size of 5 % tests, by simulation from small unbalanced designs.

Designs have 12 groups of 3 to 9 observations, or four such dozens; a factor `arm` of three levels varies
between groups and a covariate `x` within them; random intercepts, or random intercepts and slopes. Responses
are simulated with known parameters and fitted by REML as one batch. Wald intervals, t intervals, t tests and
F tests are those of all responses; profile and bootstrap intervals those of the first.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from benchmarks.harness.isolated import isolated
from benchmarks.harness.text import markdown
from benchmarks.harness.workload import Options, Record, Workload, register

if TYPE_CHECKING:
    import lmmjax as lj

LEVEL = 0.95
SIZES = [3, 4, 5, 6, 7, 8, 9, 3, 5, 6, 8, 9]
DDF = {"Wald z": "normal", "Satterthwaite": "satterthwaite", "Kenward-Roger": "kenward-roger"}
FIXED = ["Intercept", "arm[T.B]", "arm[T.C]", "x"]
SIGMA, SD, SD_SLOPE, CORRELATION = 1.0, 1.0, 0.6, 0.3
HYPOTHESES = {
    "x": ["x"],
    "arm[T.B]": ["arm[T.B]"],
    "arm": ["arm[T.B]", "arm[T.C]"],
    "arm[T.B] and x": ["arm[T.B]", "x"],
}
"""True hypotheses, all coefficients zero."""


@dataclass(frozen=True)
class Counts:
    """Data sets: all, those with profiles, those with bootstraps; and replicates of a bootstrap."""

    fitted: int = 10_000
    profiled: int = 2_000
    resampled: int = 1_000
    replicates: int = 999


@dataclass(frozen=True)
class Case:
    """A design of `dozens` × 12 groups, with random slopes or without."""

    dozens: int
    slopes: bool

    @property
    def formula(self) -> str:
        return "~ arm + x + (1 + x | g)" if self.slopes else "~ arm + x + (1 | g)"

    @property
    def name(self) -> str:
        return f"{12 * self.dozens} groups, `{self.formula}`"

    @property
    def truth(self) -> dict[str, float]:
        """The parameters, by their names in `conf_int`."""
        slopes = {"sd_x|g": SD_SLOPE, "cor_x.(Intercept)|g": CORRELATION} if self.slopes else {}
        return dict.fromkeys(FIXED, 0.0) | {"sd_(Intercept)|g": SD} | slopes | {"sigma": SIGMA}

    def design(self) -> pd.DataFrame:
        code = np.repeat(np.arange(12 * self.dozens), SIZES * self.dozens)
        x = np.random.default_rng(11).normal(size=len(code))
        return pd.DataFrame(
            {"g": [f"g{c:02d}" for c in code], "arm": np.array(list("ABC"))[code % 3], "x": x}
        )

    def responses(self, design: pd.DataFrame, count: int) -> np.ndarray:
        """y (n, T) = b₁ + b₂x + ε; β = 0, to which every method is equivariant."""
        rng = np.random.default_rng(12)
        code = pd.factorize(design["g"])[0]
        b = rng.normal(size=(2, code.max() + 1, count))
        y = SD * b[0, code] + SIGMA * rng.normal(size=(len(design), count))
        if self.slopes:
            slope = CORRELATION * b[0] + np.sqrt(1 - CORRELATION**2) * b[1]
            y += SD_SLOPE * slope[code] * design["x"].to_numpy()[:, None]
        return y


@dataclass
class Rate:
    """`rate` is a percentage of the `count` data sets that have a result: coverage, or rejections.

    `error` is its Monte Carlo standard error; `missing` the percentage of data sets without a result.
    """

    case: str
    kind: str
    method: str
    parameter: str
    rate: float
    error: float
    count: int
    missing: float


def rate(case: Case, kind: str, method: str, parameter: str, hits: np.ndarray, known: np.ndarray) -> Rate:
    """The rate of booleans (T,), `known` those that count."""
    count = int(known.sum())
    share = float(np.mean(hits[known])) if count else np.nan
    error = np.sqrt(share * (1 - share) / max(count, 1))
    return Rate(case.name, kind, method, parameter, 100 * share, 100 * error, count, 100 * (1 - known.mean()))


def intervals(case: Case, method: str, limits: dict[str, np.ndarray]) -> Iterator[Rate]:
    """Coverage of limits (T, 2) by parameter."""
    for name, ends in limits.items():
        low, high = ends.T
        truth = case.truth[name]
        known = ~(np.isnan(low) | np.isnan(high))
        yield rate(case, "coverage", method, name, (low <= truth) & (truth <= high), known)


def stacked(frames: list[pd.DataFrame], names: list[str]) -> dict[str, np.ndarray]:
    """Limits (T, 2) by parameter, of interval tables of single fits."""
    return {name: np.stack([frame.loc[name].to_numpy(float) for frame in frames]) for name in names}


def from_batch(case: Case, fits: lj.BatchFit) -> Iterator[Rate]:
    """Wald and t intervals, t tests of one coefficient."""
    everything = fits.conf_int(LEVEL, "all")
    components = [name for name in case.truth if name not in FIXED]
    yield from intervals(case, "Wald", {name: everything[name].to_numpy() for name in components})
    for method, ddf in DDF.items():
        table = fits.t_tests(ddf)
        half = stdtrit(np.where(np.isinf(table["df"]), 1e12, table["df"]), 0.5 + LEVEL / 2) * table["se"]
        limits = np.stack([table["estimate"] - half, table["estimate"] + half], axis=-1)
        yield from intervals(case, method, dict(zip(FIXED, limits.swapaxes(0, 1), strict=True)))
        for name, columns in HYPOTHESES.items():
            if len(columns) == 1:
                p = table["p"][:, FIXED.index(columns[0])]
                yield rate(case, "size", method, name, p < 1 - LEVEL, ~np.isnan(p))


def f_tests(case: Case, fits: lj.BatchFit) -> Iterator[Rate]:
    """F tests with two numerator degrees of freedom."""
    several = {name: columns for name, columns in HYPOTHESES.items() if len(columns) > 1}
    rows = [np.eye(len(FIXED))[[FIXED.index(c) for c in columns]] for columns in several.values()]
    p = np.array(
        [
            [[fit.test(l, ddf)["p"].iloc[0] for l in rows] for ddf in DDF.values()]
            for fit in (fits[k] for k in fits.names)
        ]
    )
    for i, method in enumerate(DDF):
        for j, name in enumerate(several):
            yield rate(case, "size", method, name, p[:, i, j] < 1 - LEVEL, ~np.isnan(p[:, i, j]))


def profiles(case: Case, fits: lj.BatchFit, count: int) -> Iterator[Rate]:
    """Intervals from the profile likelihood, and for variance components from the restricted one."""
    for criterion, names in (("ml", list(case.truth)), ("reml", [n for n in case.truth if n not in FIXED])):
        frames = [fits[k].conf_int("profile", LEVEL, "all", criterion=criterion) for k in fits.names[:count]]
        yield from intervals(case, f"profile {criterion.upper()}", stacked(frames, names))


def bootstraps(case: Case, fits: lj.BatchFit, counts: Counts) -> Iterator[Rate]:
    """Three kinds of interval from one parametric bootstrap of every data set."""
    import jax

    from lmmjax.postestimation.diagnostics.influence import leave_out

    frames: dict[str, list[pd.DataFrame]] = {"percentile": [], "basic": [], "bca": []}
    for number, k in enumerate(fits.names[: counts.resampled]):
        boot = fits[k].bootstrap(jax.random.key(number), counts.replicates)
        without = leave_out(fits[k].fitted, list(boot.original.index))
        for kind, made in frames.items():
            made.append(boot.conf_int(LEVEL, kind, without if kind == "bca" else None))
    for kind, made in frames.items():
        yield from intervals(case, f"boot {kind}", stacked(made, list(case.truth)))


def measure(dozens: int, slopes: bool, counts: dict[str, int]) -> Record:
    """All rates of a case, and what is to be known about its fits."""
    import lmmjax as lj

    case, many = Case(dozens, slopes), Counts(**counts)
    begin = time.perf_counter()
    design = case.design()
    fits = lj.lmm(case.formula, design).fit_batch(case.responses(design, many.fitted))
    with warnings.catch_warnings():
        # replicates that could not be fitted
        warnings.simplefilter("ignore", UserWarning)
        rates = [
            *from_batch(case, fits),
            *f_tests(case, fits),
            *profiles(case, fits, many.profiled),
            *bootstraps(case, fits, many),
        ]
    return {
        "case": case.name,
        "rows": len(design),
        "converged": float(fits.converged.mean()),
        "singular": float(fits.is_singular.mean()),
        "rates": [asdict(rate) for rate in rates],
        "seconds": time.perf_counter() - begin,
    }


def run(options: Options) -> Iterator[Record]:
    counts = asdict(Counts(200, 10, 5, 99) if options.small else Counts())
    for dozens in (1, 4):
        for slopes in (False, True):
            options.say(f"coverage: {Case(dozens, slopes).name}")
            facts = {"dozens": dozens, "slopes": slopes, "counts": counts}
            yield facts | isolated(measure, timeout=options.timeout, **facts)


def table(records: list[Record]) -> str:
    """Three tables a case."""
    return "\n\n".join(map(_case, records))


def _case(got: Record) -> str:
    rates = got["rates"]
    methods = list(dict.fromkeys(r["method"] for r in rates))
    components = [p for p in dict.fromkeys(r["parameter"] for r in rates) if p not in {*FIXED, *HYPOTHESES}]
    return "\n\n".join(
        [
            f"### {got['case']}",
            f"{got['rows']} observations; {100 * got['singular']:.1f} % of the fits are singular.",
            "Coverage of 95 % intervals of the fixed effects, in per cent:",
            _rates(rates, "coverage", methods, FIXED),
            "Of standard deviations and correlations:",
            _rates(rates, "coverage", methods, components),
            "True hypotheses rejected at 5 %, in per cent:",
            _rates(rates, "size", list(DDF), list(HYPOTHESES)),
        ]
    )


def _rates(rates: list[Record], kind: str, methods: list[str], parameters: list[str]) -> str:
    """Parameters × methods; in brackets the percentage of data sets without an interval."""
    at = {(r["parameter"], r["method"]): r for r in rates if r["kind"] == kind}
    used = [m for m in methods if any((p, m) in at for p in parameters)]
    counts = [max(at[p, m]["count"] for p in parameters if (p, m) in at) for m in used]
    columns = ["", *(f"{m} ({c:,})" for m, c in zip(used, counts, strict=True))]
    return markdown(columns, [[f"`{p}`", *(_cell(at.get((p, m))) for m in used)] for p in parameters])


def _cell(entry: Record | None) -> str:
    if entry is None:
        return ""
    missing = f" [{entry['missing']:.0f} % none]" if entry["missing"] >= 0.5 else ""
    return f"{entry['rate']:.1f} ± {entry['error']:.1f}{missing}"


register(
    Workload(
        id="coverage",
        title="coverage of all intervals, size of all tests, four small designs, 10,000 data sets each",
        goal="95 % of the intervals, 5 % of the tests",
        run=run,
        table=table,
    )
)

"""Coverage of 95 % intervals of predictions, by simulation: levels that were seen, new ones, and residuals.

Small designs, in which variances are estimated from few levels: a random intercept of 6 groups, intercepts
and slopes of 12, plots in sites, subjects by items, AR(1) residuals and variances by arm. Responses of the
fit and of new rows are drawn together, the model is fitted by REML to all data sets as a batch, and every
data set has its limits from `predict`. What limits have to cover is x'β + z'b ("confidence"), a new response
("prediction"), the same of a level drawn anew that is not named (`re="none"`), and a new response of a series
from its earlier residuals ("kriging").

Beside it, where it can be written down by hand (one factor), the interval of merTools::predictInterval: draws
of β from its estimate and covariance, draws of b from its conditional modes and variances given β, and of the
residual, independent of each other. That is a normal interval with the variance x'Φx + z'Var(b | y, β)z + σ²,
which leaves out how errors of β̂ and b̂ cancel: Knowles & Frederick, cran.r-project.org/package=merTools,
vignette "Prediction Intervals from merMod Objects".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from benchmarks.harness.isolated import isolated
from benchmarks.harness.text import markdown
from benchmarks.harness.workload import Options, Record, Workload, register

if TYPE_CHECKING:
    import lmmjax as lj

LEVEL = 0.95
DDF = ("satterthwaite", "kenward-roger")
SIZES = [3, 4, 5, 6, 7, 8, 9, 3, 5, 6, 8, 9]


@dataclass(frozen=True)
class Case:
    """A design: what is fitted and what is predicted, rows with `kind` "fit", "seen level" or "new level".

    Attributes
    ----------
    terms : factor (joined by ":"), columns of Z and their covariance matrix.
    phi : AR(1) parameter of residuals in the order of `t` within `id`; sds : of residuals by arm.
    """

    name: str
    formula: str
    rows: Any
    terms: tuple[tuple[str, tuple[str, ...], list[list[float]]], ...]
    phi: float = 0.0
    sds: dict[str, float] = field(default_factory=dict)

    def residual(self) -> Any:
        """The residual structure of the fit."""
        import lmmjax as lj

        if self.phi:
            return lj.AR1("t", group="id")
        return lj.VarIdent("arm") if self.sds else None

    def draw(self, frame: pd.DataFrame, count: int) -> tuple[np.ndarray, np.ndarray]:
        """z'b and y (n, T); β = 0."""
        rng = np.random.default_rng(21)
        eta = np.zeros((len(frame), count))
        for factor, columns, cov in self.terms:
            codes = frame.groupby(factor.split(":"), sort=False).ngroup().to_numpy()
            b = rng.normal(size=(codes.max() + 1, count, len(columns))) @ np.linalg.cholesky(cov).T
            z = np.column_stack([np.ones(len(frame)) if c == "1" else frame[c] for c in columns])
            eta += np.einsum("nq,ntq->nt", z, b[codes])
        noise = rng.normal(size=eta.shape)
        if self.phi:
            order = np.lexsort([frame["t"], frame["id"]])
            same = frame["id"].to_numpy()[order][1:] == frame["id"].to_numpy()[order][:-1]
            for here, before, linked in zip(order[1:], order[:-1], same, strict=True):
                if linked:
                    noise[here] = self.phi * noise[before] + np.sqrt(1 - self.phi**2) * noise[here]
        if self.sds:
            noise *= frame["arm"].map(self.sds).to_numpy()[:, None]
        return eta, eta + noise


def _labelled(fit: pd.DataFrame, seen: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    parts = {"fit": fit, "seen level": seen, "new level": new}
    return pd.concat([part.assign(kind=kind) for kind, part in parts.items()], ignore_index=True)


def _groups(sizes: list[int], extra: int) -> pd.DataFrame:
    """Groups with a covariate, a new row of each, and new groups."""
    rng = np.random.default_rng(22)

    def made(codes: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame({"g": [f"g{k:02d}" for k in codes], "x": rng.normal(size=len(codes))})

    old = np.arange(len(sizes))
    return _labelled(made(np.repeat(old, sizes)), made(old), made(90 + np.arange(extra)))


def _nested() -> pd.DataFrame:
    def made(site: np.ndarray, plot: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame({"site": [f"s{k}" for k in site], "plot": [f"p{k}" for k in plot]})

    site, plot, _ = (a.ravel() for a in np.meshgrid(range(8), range(3), range(3), indexing="ij"))
    old = made(*(a.ravel() for a in np.meshgrid(range(8), range(3), indexing="ij")))
    new = pd.concat([made(np.arange(8), np.full(8, 7)), made(90 + np.arange(4), np.zeros(4, int))])
    return _labelled(made(site, plot), old, new)


def _crossed() -> pd.DataFrame:
    def made(subject: np.ndarray, item: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame({"s": [f"s{k}" for k in subject], "i": [f"i{k}" for k in item]})

    grid = [a.ravel() for a in np.meshgrid(range(12), range(8), indexing="ij")]
    new = pd.concat([made(np.full(8, 90), np.arange(8)), made(np.arange(12), np.full(12, 91))])
    return _labelled(made(*grid), made(*grid), new)


def _series() -> pd.DataFrame:
    def made(subject: np.ndarray, t: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame({"id": [f"i{k:02d}" for k in subject], "t": t})

    subject, t = (a.ravel() for a in np.meshgrid(range(12), range(8), indexing="ij"))
    new = made(90 + np.arange(6), np.full(6, 4))
    return _labelled(made(subject, t), made(np.arange(12), np.full(12, 8)), new)


def _arms() -> pd.DataFrame:
    def made(code: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame({"g": [f"g{k:02d}" for k in code], "arm": np.array(["a", "b"])[code % 2]})

    old = np.arange(16)
    return _labelled(made(np.repeat(old, 6)), made(old), made(90 + np.arange(4)))


SLOPES = [[1.0, 0.18], [0.18, 0.36]]
CASES = (
    Case("6 groups of 4", "~ x + (1 | g)", lambda: _groups([4] * 6, 6), (("g", ("1",), [[1.0]]),)),
    Case(
        "12 groups of 3 to 9, slopes",
        "~ x + (1 + x | g)",
        lambda: _groups(SIZES, 6),
        (("g", ("1", "x"), SLOPES),),
    ),
    Case(
        "8 sites of 3 plots of 3",
        "~ 1 + (1 | site/plot)",
        _nested,
        (("site", ("1",), [[1.0]]), ("site:plot", ("1",), [[0.5]])),
    ),
    Case(
        "12 subjects by 8 items",
        "~ 1 + (1 | s) + (1 | i)",
        _crossed,
        (("s", ("1",), [[1.0]]), ("i", ("1",), [[0.5]])),
    ),
    Case("12 series of 8, AR(1)", "~ t + (1 | id)", _series, (("id", ("1",), [[1.0]]),), phi=0.6),
    Case(
        "16 groups of 6, variances by arm",
        "~ arm + (1 | g)",
        _arms,
        (("g", ("1",), [[1.0]]),),
        sds={"a": 0.7, "b": 1.4},
    ),
)


@dataclass
class Tally:
    """Shares of rows covered (T,) by what, kind of row and method, with median widths."""

    shares: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)
    widths: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)

    def add(
        self, what: str, method: str, kinds: pd.Series, low: np.ndarray, high: np.ndarray, y: np.ndarray
    ) -> None:
        for kind in dict.fromkeys(kinds):
            here = (kinds == kind).to_numpy() & np.isfinite(low)
            if here.any():
                inside = (low[here] <= y[here]) & (y[here] <= high[here])
                self.shares.setdefault((what, kind, method), []).append(float(inside.mean()))
                self.widths.setdefault((what, kind, method), []).append(
                    float(np.mean(high[here] - low[here]))
                )

    def rates(self) -> list[Record]:
        """Per cent, with the Monte Carlo standard error over data sets."""
        return [
            {
                "what": what,
                "kind": kind,
                "method": method,
                "rate": 100 * float(np.mean(shares)),
                "error": 100 * float(np.std(shares) / np.sqrt(len(shares))),
                "width": float(np.mean(self.widths[what, kind, method])),
                "count": len(shares),
            }
            for (what, kind, method), shares in self.shares.items()
        ]


def measure(number: int, count: int) -> Record:
    """All rates of a case."""
    import lmmjax as lj

    case, begin = CASES[number], time.perf_counter()
    frame = case.rows()
    eta, y = case.draw(frame, count)
    fitted = frame["kind"] == "fit"
    model = lj.lmm(case.formula, frame[fitted], residual=case.residual())
    fits = model.fit_batch(y[fitted])
    new, tally = frame[~fitted], Tally()
    for k, name in enumerate(fits.names):
        one(case, fits[name], new, eta[~fitted, k], y[~fitted, k], tally)
    return {
        "case": case.name,
        "formula": case.formula,
        "rows": int(fitted.sum()),
        "converged": float(fits.converged.mean()),
        "singular": float(fits.is_singular.mean()),
        "rates": tally.rates(),
        "seconds": time.perf_counter() - begin,
    }


def one(case: Case, fit: lj.Fit, new: pd.DataFrame, eta: np.ndarray, y: np.ndarray, tally: Tally) -> None:
    """The limits of a data set."""
    kinds = new["kind"]

    def limits(ddf: str, interval: str, **more: Any) -> tuple[np.ndarray, np.ndarray]:
        found = fit.predict(new, interval=interval, ddf=ddf, new_levels="population", level=LEVEL, **more)
        return found["lower"].to_numpy(), found["upper"].to_numpy()

    for ddf in DDF:
        tally.add("confidence", ddf, kinds, *limits(ddf, "confidence"), eta)
        tally.add("prediction", ddf, kinds, *limits(ddf, "prediction"), y)
        tally.add('re="none"', ddf, kinds, *limits(ddf, "prediction", re="none"), y)
        if case.phi:
            tally.add("kriging", ddf, kinds, *limits(ddf, "prediction", kriging=True), y)
    if len(case.terms) == 1 and not case.phi and not case.sds:
        for what, target in (("confidence", eta), ("prediction", y)):
            tally.add(what, "independent draws", kinds, *independent(fit, new, what == "prediction"), target)


def independent(fit: lj.Fit, new: pd.DataFrame, response: bool) -> tuple[np.ndarray, np.ndarray]:
    """Limits of independent draws of β, b and the residual, of one factor g and a covariate x; NaN if new."""
    columns = ["Intercept", "x"] if "x" in fit.params.index else ["Intercept"]
    x = np.column_stack([np.ones(len(new)), new["x"]])[:, : len(columns)]
    groups = list(fit.model.data.frame.random[0].levels)
    spread = next(iter(fit.cond_var().values()))
    q = spread.shape[-1]
    known = new["g"].isin(groups).to_numpy()
    at = np.array([groups.index(g) if ok else 0 for g, ok in zip(new["g"], known, strict=True)])
    z = np.column_stack([np.ones(len(new)), new["x"]])[:, :q]
    variance = np.einsum("np,pr,nr->n", x, fit.cov_params().to_numpy(), x)
    variance += np.einsum("nq,nqr,nr->n", z, np.asarray(spread)[at], z)
    half = ndtri(0.5 + LEVEL / 2) * np.sqrt(variance + (fit.scale if response else 0.0))
    centre = fit.predict(new, new_levels="population").to_numpy()
    half = np.where(known, half, np.nan)
    return centre - half, centre + half


def run(options: Options) -> Iterator[Record]:
    count = options.size(500, 20)
    for number, case in enumerate(CASES):
        options.say(f"predictions: {case.name}")
        yield isolated(measure, timeout=options.timeout, number=number, count=count)


COLUMNS = {
    "response, Satt.:": ("prediction", "seen level", "satterthwaite"),
    "response, KR:": ("prediction", "seen level", "kenward-roger"),
    "new level, Satt.:": ("prediction", "new level", "satterthwaite"),
    "x'β + z'b, Satt.:": ("confidence", "seen level", "satterthwaite"),
    "x'β + z'b, KR:": ("confidence", "seen level", "kenward-roger"),
    "new level's, Satt.:": ("confidence", "new level", "satterthwaite"),
    "x'β + z'b, independent draws:": ("confidence", "seen level", "independent draws"),
}
"""Columns of the tables: limits, kind of row, method."""


def table(records: list[Record]) -> str:
    """What limits cover, in per cent, and their mean widths; a row a case."""
    covered = _by_case(records, lambda r: f"{r['rate']:.1f} ± {r['error']:.1f}")
    # a variance near zero has hardly any degrees of freedom, and limits without bound
    widths = _by_case(records, lambda r: f"{r['width']:.2f}" if r["width"] < 20 else "unbounded")
    return f"{covered}\n\nMean widths of the limits:\n\n{widths}"


def _by_case(records: list[Record], shown: Callable[[Record], str]) -> str:
    lines = []
    for got in records:
        at = {(r["what"], r["kind"], r["method"]): r for r in got["rates"]}
        for response in ("prediction", "kriging"):
            own = [(response if what == "prediction" else what, *rest) for what, *rest in COLUMNS.values()]
            if response == "kriging":
                own = [key if key[0] == "kriging" else () for key in own]
            cells = [shown(at[key]) if key in at else "" for key in own]
            if any(cells):
                said = ", `kriging=True`" if response == "kriging" else f", `{got['formula']}`"
                lines.append([f"{got['case']}{said}", *cells])
    return markdown(("95 % limits", *COLUMNS), lines)


register(
    Workload(
        id="predictions",
        title="coverage of 95 % intervals of predictions, six small designs, 500 data sets of each",
        goal="93 to 97 % of new responses",
        run=run,
        table=table,
        counted="data sets",
    )
)

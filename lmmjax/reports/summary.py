"""The summary of a fit, in the layout of lme4 and lmerTest."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.fitted import Fitted, component_names, remarks, scaled_residuals
from lmmjax.postestimation.hypotheses.estimability import entangled_names
from lmmjax.postestimation.hypotheses.fixed_tests import coef_table, cov_params, possessive
from lmmjax.postestimation.parameters.intervals import wald_limits
from lmmjax.postestimation.parameters.varcorr import note_on_times, structure_name, varcorr
from lmmjax.reports.cells import decimals, number, p_value
from lmmjax.reports.group_counts import rows_by_group, sizes_note
from lmmjax.reports.markup import Grid, Markup, line_width, wrapped
from lmmjax.residual import Unstructured


@dataclasses.dataclass(frozen=True)
class Summary(Markup):
    """Lines before the tables, the tables, and notes after them."""

    head: tuple[str, ...]
    tables: tuple[Grid, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        blocks = ["\n".join(wrapped(self.head))]
        blocks += [f"{table.title}:\n{table.text()}" for table in self.tables]
        return "\n\n".join(blocks) + ("\n" + "\n".join(wrapped(self.notes)) if self.notes else "")

    __repr__ = __str__

    def _pieces(self) -> list[str | Grid]:
        """Lines and tables, in order."""
        return [*self.head, *self.tables, *self.notes]


def summarise(
    fitted: Fitted, ddf: str, robust: str | None = None, cluster: Any = None, correlation: bool = False
) -> Summary:
    """Build the summary of a fit, tests with the degrees of freedom `ddf`; see `Fit.summary`."""
    kind = "REML" if fitted.reml else "maximum likelihood"
    label = "REML criterion at convergence" if fitted.reml else "-2 log-likelihood"
    coefficients = coef_table(fitted, ddf, robust, cluster)
    tests = "" if ddf == "normal" else f"; t-tests use {possessive(coefficients.attrs['ddf'])} method"
    head = [
        f"Linear mixed model fit by {kind}{tests}",
        *([f"Formula: {fitted.data.formula}"] if fitted.data.formula else []),
        "",
        f"{label}: {fitted.deviance:.1f}    AIC: {fitted.aic:.1f}    BIC: {fitted.bic:.1f}",
    ]
    quantiles = np.quantile(scaled_residuals(fitted), [0.0, 0.25, 0.5, 0.75, 1.0])
    tables = [
        Grid(
            ("Min", "1Q", "Median", "3Q", "Max"),
            (tuple(f"{q:.4f}" for q in quantiles),),
            "Scaled residuals",
            left=frozenset(),
            labels=0,
        ),
        _random_table(fitted),
        *_residual_tables(fitted),
        _fixed_table(coefficients),
    ]
    if correlation and len(coefficients) > 1:
        tables.append(_correlations(cov_params(fitted, robust, cluster, ddf)))
    notes = _notes(fitted)
    if "note" in coefficients.attrs:
        notes.append(coefficients.attrs["note"])
    return Summary(tuple(head), tuple(tables), tuple(notes))


def without_residuals(summary: Summary) -> Summary:
    """The summary without the quantiles of residuals."""
    kept = tuple(table for table in summary.tables if table.title != "Scaled residuals")
    return dataclasses.replace(summary, tables=kept)


def _random_table(fitted: Fitted) -> Grid:
    table = varcorr(fitted)
    rows_of = list(zip(fitted.data.components, table.to_dict("records"), strict=True))
    digits = decimals(np.array([r["sdcor"] for c, r in rows_of if c.kind in ("variance", "sigma")]))
    rows, widest = [], 0
    for k, term in enumerate(fitted.data.frame.random):
        mine = [(c, r) for c, r in rows_of if c.term == k]
        if fitted.data.design.structure.terms[k].family.linear:
            values = {(c.i, c.j): r for c, r in mine}
            lines = [
                (name, values[i, i], [values.get((i, j)) for j in range(i)])
                for i, name in enumerate(term.names)
            ]
        else:
            lines = [(c.term1, r, []) for c, r in mine]
        for i, (name, row, others) in enumerate(lines):
            cor = [f"{r['sdcor']:.2f}" if r is not None else "" for r in others]
            widest = max(widest, len([c for c in cor if c]))
            spread = [number(row["vcov"]), f"{row['sdcor']:.{digits}f}"]
            if np.isnan(row["vcov"]) and np.isfinite(row["sdcor"]):
                spread = ["", number(row["sdcor"])]
            rows.append([term.group if i == 0 else "", name, *spread, *cor])
    last = table.iloc[-1]
    rows.append(["Residual", "", number(last["vcov"]), f"{last['sdcor']:.{digits}f}"])
    header = ["Groups", "Name", "Variance", "Std.Dev."] + ["Corr"] * bool(widest) + [""] * (widest - 1)
    rows = [tuple((row + [""] * len(header))[: len(header)]) for row in rows]
    left = frozenset({0, 1, *range(5, len(header))})
    return Grid(tuple(header), tuple(rows), "Random effects", left, labels=2)


def _residual_tables(fitted: Fitted) -> list[Grid]:
    """Parameters of the residual structure with standard errors and 95 % limits, if there is one."""
    if fitted.data.design.residual is None:
        return []
    limits = wald_limits(fitted, 0.95, "all", "normal")
    names = component_names(fitted.data.components)
    rows, table = [], varcorr(fitted).to_dict("records")
    if first := _first_visit(fitted):
        ends = limits.loc["sigma"] ** 2
        rows.append((first, *(number(v) for v in (table[-1]["vcov"], table[-1]["se"], *ends))))
    for name, c, row in zip(names, fitted.data.components, table, strict=True):
        if c.kind == "parameter" and c.group == "Residual":
            low, high = limits.loc[name]
            value = row["sdcor"] if np.isnan(row["vcov"]) else row["vcov"]
            rows.append((str(c.term1), *(number(v) for v in (value, row["se"], low, high))))
    header = ("Name", "Estimate", "Std. Error", "2.5 %", "97.5 %")
    return [Grid(header, tuple(rows), f"Residuals, {structure_name(fitted)}")]


def _first_visit(fitted: Fitted) -> str:
    """What σ² is called beside the parameters of a free covariance: the variance of its first visit."""
    own = fitted.data.frame.residual
    correlation = None if own is None else own.residual.correlation
    if own is None or not isinstance(correlation, Unstructured):
        return ""
    name = "1" if own.visits is None else str(own.visits.labels[0])
    if correlation.by is None:
        return f"var({name})"
    level = own.by[own.residual.by.index(correlation.by)].labels[0]
    return f"var({name}; {correlation.by}={level})"


def _fixed_table(table: pd.DataFrame) -> Grid:
    with_df = bool(np.any(np.isfinite(table["df"])))
    digits = decimals(table["se"].to_numpy())
    rows = []
    for name, row in zip(table.index, table.to_dict("records"), strict=True):
        rows.append(
            (
                str(name),
                f"{row['estimate']:.{digits}f}",
                f"{row['se']:.{digits}f}",
                *([number(row["df"])] if with_df else []),
                f"{row['t']:.3f}",
                p_value(row["p"]),
                stars(row["p"]),
            )
        )
    tail = ("df", "t value", "Pr(>|t|)", "") if with_df else ("t value", "Pr(>|z|)", "")
    header = ("", "Estimate", "Std. Error", *tail)
    return Grid(header, tuple(rows), "Fixed effects", frozenset({0, len(header) - 1}))


def _correlations(cov: pd.DataFrame) -> Grid:
    """The correlations of the estimates, below the diagonal."""
    names, values = list(map(str, cov.index)), cov.to_numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        sd = np.sqrt(np.diagonal(values))
        cor = values / sd[:, None] / sd[None]
    rows = [
        (name, *(f"{cor[i, j]:.3f}" if j < i else "" for j in range(len(names) - 1)))
        for i, name in enumerate(names)
    ]
    title = "Correlation of fixed effects"
    if max(map(len, names)) + sum(max(len(name), 6) + 1 for name in names[:-1]) <= line_width():
        return Grid(("", *names[:-1]), tuple(rows[1:]), title)
    # long names are numbered
    numbers = [f"({k})" for k in range(1, len(names))]
    rows = [
        (f"{number} {row[0]}", *row[1:])
        for number, row in zip([*numbers, " " * len(numbers[-1])], rows, strict=True)
    ]
    return Grid(("", *numbers), tuple(rows), title)


def _notes(fitted: Fitted) -> list[str]:
    frame = fitted.data.frame
    counted = "; ".join(f"{name}, {len(rows)}" for name, rows in rows_by_group(frame).items())
    notes = ["", f"Number of obs: {fitted.nobs}" + (f", groups: {counted}" if counted else "")]
    notes += filter(None, [sizes_note(frame)])
    if frame.n_dropped:
        listed = ", ".join(f"{name} {count}" for name, count in frame.missing.items())
        notes.append(f"{frame.n_dropped} rows dropped for missing values ({listed})")
    if frame.aliased:
        notes.append(f"dropped for linear dependence: {', '.join(frame.aliased)}")
        if entangled := entangled_names(fitted.data):
            notes.append(f"which depends on the order, and changes: {', '.join(entangled)}")
    if about := note_on_times(fitted.data, fitted.estimate.psi):
        notes.append(about)
    return notes + remarks(fitted)


def stars(p: float) -> str:
    return next((s for bound, s in ((1e-3, "***"), (1e-2, "**"), (0.05, "*"), (0.1, ".")) if p < bound), "")

"""The printed summary of a fit, in the layout of lme4 and lmerTest; plain text and HTML."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.fitted import Fitted, component_names, remarks, scaled_residuals
from lmmjax.postestimation.estimability import entangled_names
from lmmjax.postestimation.fixed_tests import coef_table
from lmmjax.postestimation.intervals import wald_limits
from lmmjax.postestimation.varcorr import note_on_times, structure_name, varcorr


@dataclasses.dataclass(frozen=True)
class Summary:
    """Lines before the tables, the tables by title, and notes after them."""

    head: tuple[str, ...]
    tables: tuple[tuple[str, tuple[str, ...], tuple[tuple[str, ...], ...]], ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        blocks = ["\n".join(self.head)]
        for title, header, rows in self.tables:
            blocks.append(f"{title}:\n" + _text_table(header, rows))
        return "\n\n".join(blocks) + ("\n" + "\n".join(self.notes) if self.notes else "")

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from html import escape

        parts = ["<div>", "".join(f"<div>{escape(line)}</div>" for line in self.head)]
        for title, header, rows in self.tables:
            cells = "".join(f"<th>{escape(h)}</th>" for h in header)
            body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows)
            parts.append(
                f"<table><caption>{escape(title)}</caption><thead><tr>{cells}</tr></thead>"
                f"<tbody>{body}</tbody></table>"
            )
        parts += [f"<div>{escape(note)}</div>" for note in self.notes]
        return "".join(parts) + "</div>"


def summarise(fitted: Fitted, ddf: str, robust: str | None = None, cluster: Any = None) -> Summary:
    """Build the summary of a fit, tests with the degrees of freedom `ddf`; arguments as of `coef_table`."""
    kind = "REML" if fitted.reml else "maximum likelihood"
    label = "REML criterion at convergence" if fitted.reml else "-2 log-likelihood"
    coefficients = coef_table(fitted, ddf, robust, cluster)
    tests = "" if ddf == "normal" else f"; t-tests use {coefficients.attrs['ddf']}'s method"
    head = [
        f"Linear mixed model fit by {kind}{tests}",
        *([f"Formula: {fitted.data.formula}"] if fitted.data.formula else []),
        "",
        f"{label}: {fitted.deviance:.1f}    AIC: {fitted.aic:.1f}    BIC: {fitted.bic:.1f}",
    ]
    quantiles = np.quantile(scaled_residuals(fitted), [0.0, 0.25, 0.5, 0.75, 1.0])
    tables = [
        (
            "Scaled residuals",
            ("Min", "1Q", "Median", "3Q", "Max"),
            (tuple(f"{q:.4f}" for q in quantiles),),
        ),
        ("Random effects", *_random_table(fitted)),
        *_residual_tables(fitted),
        ("Fixed effects", *_fixed_table(coefficients)),
    ]
    notes = _notes(fitted)
    if "note" in coefficients.attrs:
        notes.append(coefficients.attrs["note"])
    return Summary(tuple(head), tuple(tables), tuple(notes))


def _random_table(fitted: Fitted):
    table = varcorr(fitted)
    rows_of = list(zip(fitted.data.components, table.to_dict("records"), strict=True))
    digits = _digits(np.array([r["sdcor"] for c, r in rows_of if c.kind in ("variance", "sigma")]))
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
            spread = [_number(row["vcov"]), f"{row['sdcor']:.{digits}f}"]
            if np.isnan(row["vcov"]) and np.isfinite(row["sdcor"]):
                spread = ["", _number(row["sdcor"])]
            rows.append([term.group if i == 0 else "", name, *spread, *cor])
    last = table.iloc[-1]
    rows.append(["Residual", "", _number(last["vcov"]), f"{last['sdcor']:.{digits}f}"])
    header = ["Groups", "Name", "Variance", "Std.Dev."] + ["Corr"] * bool(widest) + [""] * (widest - 1)
    rows = [tuple((row + [""] * len(header))[: len(header)]) for row in rows]
    return tuple(header), tuple(rows)


def _residual_tables(fitted: Fitted) -> list[tuple]:
    """Parameters of the residual structure with standard errors and 95 % limits, if there is one."""
    if fitted.data.design.residual is None:
        return []
    limits = wald_limits(fitted, 0.95, "all", "normal")
    names = component_names(fitted.data.components)
    rows = []
    for name, c, row in zip(names, fitted.data.components, varcorr(fitted).to_dict("records"), strict=True):
        if c.kind == "parameter" and c.group == "Residual":
            low, high = limits.loc[name]
            value = row["sdcor"] if np.isnan(row["vcov"]) else row["vcov"]
            rows.append((str(c.term1), *(_number(v) for v in (value, row["se"], low, high))))
    header = ("Name", "Estimate", "Std. Error", "2.5 %", "97.5 %")
    return [(f"Residuals, {structure_name(fitted)}", header, tuple(rows))]


def _fixed_table(table: pd.DataFrame):
    with_df = bool(np.any(np.isfinite(table["df"])))
    digits = _digits(table["se"].to_numpy())
    rows = []
    for name, row in zip(table.index, table.to_dict("records"), strict=True):
        rows.append(
            (
                str(name),
                f"{row['estimate']:.{digits}f}",
                f"{row['se']:.{digits}f}",
                *([_number(row["df"])] if with_df else []),
                f"{row['t']:.3f}",
                _p_value(row["p"]),
                _stars(row["p"]),
            )
        )
    tail = ("df", "t value", "Pr(>|t|)", "") if with_df else ("t value", "Pr(>|z|)", "")
    return ("", "Estimate", "Std. Error", *tail), tuple(rows)


def _notes(fitted: Fitted) -> list[str]:
    frame = fitted.data.frame
    groups = dict.fromkeys((term.group, len(term.levels)) for term in frame.random)
    counted = "; ".join(f"{name}, {size}" for name, size in groups)
    notes = ["", f"Number of obs: {fitted.nobs}" + (f", groups: {counted}" if counted else "")]
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


def _digits(values: np.ndarray) -> int:
    """Decimals that leave the smallest positive value about four significant digits."""
    positive = values[np.isfinite(values) & (values > 0)]
    if not positive.size:
        return 4
    return int(np.clip(3 - np.floor(np.log10(positive.min())), 0, 8))


def _number(value: float) -> str:
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.4g}"


def _p_value(p: float) -> str:
    if not np.isfinite(p):
        return "NaN"
    return "<2e-16" if p < 2e-16 else f"{p:.3g}" if p < 1e-3 else f"{p:.4f}"


def _stars(p: float) -> str:
    return next((s for bound, s in ((1e-3, "***"), (1e-2, "**"), (0.05, "*"), (0.1, ".")) if p < bound), "")


def _text_table(header: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> str:
    widths = [max(len(line[k]) for line in (header, *rows)) for k in range(len(header))]
    left = {k for k, name in enumerate(header) if name in ("", "Groups", "Name")}
    return "\n".join(
        " "
        + " ".join(
            c.ljust(w) if k in left else c.rjust(w) for k, (c, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (header, *rows)
    )

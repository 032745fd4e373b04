"""Models side by side, as in papers: coefficients, random effects, and what the fits are of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.fitted import Component, Fitted, identified_sds, not_identified
from lmmjax.inference.delta import t_quantile
from lmmjax.postestimation.comparison.compare import comparable
from lmmjax.postestimation.hypotheses.fixed_tests import coef_table
from lmmjax.postestimation.parameters import functions
from lmmjax.reports.cells import decimals
from lmmjax.reports.escapes import latex_text
from lmmjax.reports.group_counts import group_counts
from lmmjax.reports.markup import Grid, Markup, wrapped

STARS = {"***": 0.001, "**": 0.01, "*": 0.05}
"""Marks of p-values below a level."""

BELOW = {"se": "Standard errors", "ci": "Limits", "t": "t values", "p": "p-values", "none": ""}
"""What may stand below an estimate, in brackets."""


def _r2(fitted: Fitted) -> np.ndarray:
    fun, weights, _ = functions.r2(fitted)
    return functions.at_estimate(fitted, fun, weights)


def _icc(fitted: Fitted) -> float:
    if not fitted.data.frame.random:
        raise ValueError("there is no group whose share it would be")
    fun, weights, _ = functions.icc(fitted, False)
    return float(functions.at_estimate(fitted, fun, weights)[0])


STATISTICS: dict[str, tuple[str, Callable[[Fitted], Any]]] = {
    "nobs": ("Observations", lambda fitted: fitted.nobs),
    "groups": ("Groups", lambda fitted: group_counts(fitted.data.frame)),
    "llf": ("Log-likelihood", lambda fitted: fitted.llf),
    "deviance": ("Deviance", lambda fitted: fitted.deviance),
    "aic": ("AIC", lambda fitted: fitted.aic),
    "bic": ("BIC", lambda fitted: fitted.bic),
    "aicc": ("AICc", lambda fitted: fitted.aicc),
    "r2_marginal": ("R² (marginal)", lambda fitted: _r2(fitted)[0]),
    "r2_conditional": ("R² (conditional)", lambda fitted: _r2(fitted)[1]),
    "icc": ("ICC", _icc),
    "n_params": ("Parameters", lambda fitted: fitted.n_params),
    "criterion": ("Criterion", lambda fitted: "REML" if fitted.reml else "ML"),
}
"""Rows below the coefficients by their key: label, and what it is of a fit."""

SHARES = ("r2_marginal", "r2_conditional", "icc")

DEFAULT = ("nobs", "groups", "llf", "aic", "bic", "r2_marginal", "r2_conditional", "icc", "criterion")


@dataclasses.dataclass(frozen=True)
class ModelTable(Markup):
    """Models side by side; made by `lmmjax.modeltable`. Prints as text, a notebook shows HTML.

    Attributes
    ----------
    grid : the table of text; notes : lines below it.
    """

    grid: Grid
    notes: tuple[str, ...]

    @property
    def table(self) -> pd.DataFrame:
        """The cells as text, a column a model, rows by their label."""
        index = pd.Index([row[0] for row in self.grid.rows])
        cells = [[cell.rstrip() for cell in row[1:]] for row in self.grid.rows]
        return pd.DataFrame(cells, index=index, columns=pd.Index(self.grid.header[1:]))

    def _pieces(self) -> list[str | Grid]:
        """The table and its notes."""
        return [self.grid, *self.notes]

    def to_latex(self, caption: str = "", label: str = "") -> str:
        r"""A `tabular` with rules of booktabs and the notes below, in a `table` with a caption or label.

        The document needs `\usepackage{booktabs}`.
        """
        made = self.grid.latex(caption, label)
        notes = ["\\par\\smallskip\\footnotesize " + latex_text(" ".join(self.notes))] * bool(self.notes)
        if not made.endswith("\\end{table}"):
            return "\n".join([made, *notes])
        return "\n".join([made.removesuffix("\\end{table}").rstrip(), *notes, "\\end{table}"])

    def __str__(self) -> str:
        return "\n".join([self.grid.text(rule="-"), *wrapped(self.notes, " ", " ")])

    __repr__ = __str__


def model_table(
    fits: Sequence[Fitted],
    names: Sequence[str],
    *,
    stars: Mapping[str, float],
    below: str,
    coefs: Mapping[str, str] | None,
    statistics: Sequence[str],
    digits: int,
    level: float,
    ddf: str,
    robust: str | None,
    cluster: Any,
) -> ModelTable:
    """See `lmmjax.modeltable`."""
    tests = [coef_table(fitted, ddf, robust, cluster) for fitted in fits]
    known = dict.fromkeys(str(name) for table in tests for name in table.index)
    labels = {name: name for name in known} if coefs is None else dict(coefs)
    rows = [("Response", *(fitted.response or "y" for fitted in fits))]
    rules = {1}
    for name, label in labels.items():
        rows += _coefficient(name, label, tests, stars, below, digits, level)
    rules.add(len(rows))
    # numbers without stars stand below those of estimates
    pad = " " * max(map(len, stars), default=0)
    numbers = _random_rows(fits, digits)
    rules.add(len(rows) + len(numbers))
    numbers += _statistic_rows(fits, statistics, digits)
    rows += [(label, *(cell and cell + pad for cell in cells)) for label, *cells in numbers]
    grid = Grid(("", *names), tuple(rows), rules=frozenset(rules))
    return ModelTable(grid, tuple(_notes(fits, names, tests, stars, below, level, robust, statistics)))


def _coefficient(
    name: str,
    label: str,
    tests: Sequence[pd.DataFrame],
    stars: Mapping[str, float],
    below: str,
    digits: int,
    level: float,
) -> list[tuple[str, ...]]:
    """The rows of a coefficient: estimates with their stars, and what stands below them."""
    found = [table.loc[name] if name in table.index else None for table in tests]
    se = np.array([row["se"] for row in found if row is not None])
    # two digits of the smallest standard error, too
    own = max(digits, decimals(se, 2)) if np.any(se > 0) else digits
    most = max(map(len, stars), default=0)
    first, second = [label], [""]
    for row in found:
        if row is None:
            first.append("")
            second.append("")
            continue
        mark = next((s for s, p in sorted(stars.items(), key=lambda pair: pair[1]) if row["p"] < p), "")
        first.append(_fixed(row["estimate"], own) + mark.ljust(most))
        if below != "none":
            second.append(_below(row, below, own, level) + " " * most)
    return [tuple(first)] if below == "none" else [tuple(first), tuple(second)]


def _below(row: Any, below: str, digits: int, level: float) -> str:
    if below == "ci":
        value, half = float(row["estimate"]), float(t_quantile(np.array(row["df"]), level)) * float(row["se"])
        return f"[{_fixed(value - half, digits)}, {_fixed(value + half, digits)}]"
    value = float(row[below])
    if below == "p" and value < 0.001:
        return "(<0.001)"
    return f"({_fixed(value, digits if below == 'se' else 3)})"


def _random_rows(fits: Sequence[Fitted], digits: int) -> list[tuple[str, ...]]:
    """Standard deviations, correlations and other parameters, those of the residuals last."""
    columns = []
    for fitted in fits:
        rows = fitted.data.components
        values = np.asarray(identified_sds(fitted.data.design.structure, rows, fitted.estimate))
        known = fitted.data.design.known is not None
        columns.append(
            {
                _component(c): (c, v)
                for c, v in zip(rows, values, strict=True)
                if not (known and c.kind == "sigma")
            }
        )
    labels = dict.fromkeys(label for column in columns for label in column)
    ordered = sorted(labels, key=lambda label: label.startswith("Residual: "))
    out = []
    for label in ordered:
        found = [column.get(label) for column in columns]
        sizes = np.abs([v for one in found if one is not None for v in one[1:]])
        own = max(digits, decimals(sizes, 2)) if np.any(sizes > 0) else digits
        out.append((label, *("" if one is None else _fixed(one[1], own) for one in found)))
    return out


def _component(row: Component) -> str:
    if row.kind == "sigma":
        return "Residual: sd"
    if row.kind == "variance":
        return f"{row.group}: sd {row.term1}"
    if row.kind == "covariance":
        return f"{row.group}: cor {row.term1}, {row.term2}"
    return f"{row.group}: {row.term1}"


def _statistic_rows(fits: Sequence[Fitted], keys: Sequence[str], digits: int) -> list[tuple[str, ...]]:
    out = []
    for key in keys:
        label, fun = STATISTICS[key]
        values = [_value(fun, fitted) for fitted in fits]
        if key == "groups":
            named = dict.fromkeys(name for value in values for name in value)
            out += [
                (f"{label}: {name}", *(f"{v[name]}" if name in v else "" for v in values)) for name in named
            ]
        elif key in SHARES:
            if any(value is not None for value in values):
                out.append((label, *("" if v is None else _fixed(v, digits) for v in values)))
        else:
            out.append((label, *(_fixed(v, digits) if isinstance(v, float) else str(v) for v in values)))
    return out


def _value(fun: Callable[[Fitted], Any], fitted: Fitted) -> Any:
    """A statistic; None where a model of this kind has none."""
    try:
        return fun(fitted)
    except ValueError:
        return None


def _fixed(value: float, digits: int) -> str:
    return "NaN" if np.isnan(value) else f"{value:.{digits}f}"


def _notes(
    fits: Sequence[Fitted],
    names: Sequence[str],
    tests: Sequence[pd.DataFrame],
    stars: Mapping[str, float],
    below: str,
    level: float,
    robust: str | None,
    statistics: Sequence[str],
) -> list[str]:
    """What a reader has to know."""
    out = [", ".join(f"{mark} p < {p:g}" for mark, p in stars.items())] * bool(stars)
    what = f"{level:.0%} limits" if below == "ci" else BELOW[below]
    about = ", ".join(dict.fromkeys(f"{t.attrs['ddf']} degrees of freedom" for t in tests))
    about += f", robust covariance {robust}" if robust else ""
    out.append(f"{what} in brackets; {about}" if what else about)
    out += dict.fromkeys(str(table.attrs["note"]) for table in tests if "note" in table.attrs)
    for name, fitted in zip(names, fits, strict=True):
        said = [not_identified(fitted)] if np.any(fitted.estimate.moves) else []
        said += ["singular fit"] * bool(fitted.estimate.singular)
        said += [f"not converged: {fitted.status}"] * (not fitted.converged)
        out += [f"{name}: {text}" for text in said]
    compared = {"llf", "deviance", "aic", "bic", "aicc"} & set(statistics)
    if compared and (reason := comparable(list(fits))):
        out.append(f"Log-likelihoods and information criteria do not compare: {reason}")
    return [f"{line}." for line in out]

"""`Fit.check`: what is worth worrying about. Every check is a function of a fit in `CHECKS`."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.fitted import (
    Fitted,
    fitted_modes,
    fitted_values,
    normalized_residuals,
    status,
    unidentified_names,
)
from lmmjax.inference.diagnostics import residual_checks as tests
from lmmjax.inference.diagnostics.deletion import change, without_groups
from lmmjax.postestimation.diagnostics.collinearity import repca, vif
from lmmjax.postestimation.diagnostics.influence import held_at

WIDTH = 80
"""Characters of a line in print."""

FEW = 5
"""Levels of a factor below which its variance is hardly estimated."""
SCALE = 1e4
"""Ratio of the sds of two columns of X from which coefficients are hard to read."""
COOK = 0.5
"""Cook's distance of a group from which it is named, or ten times the median, if it is above 4/G."""
INFLATED = 10.0
"""Variance inflation of a coefficient from which it is named."""
P = 0.01
"""p-values below which a pattern is named, if it is also of a size that matters."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something worth worrying about: the number, what it says, what to do."""

    check: str
    value: float
    text: str
    remedy: str


@dataclasses.dataclass(frozen=True, eq=False)
class Check:
    """What `Fit.check` found.

    Attributes
    ----------
    findings : in the order of the checks, none where nothing is worth worrying about.
    checked : names of the checks that were made; skipped : those that could not, and why.
    """

    findings: tuple[Finding, ...]
    checked: tuple[str, ...]
    skipped: dict[str, str]

    @property
    def table(self) -> pd.DataFrame:
        """A row a finding: check, value, finding, remedy."""
        rows = [(f.check, f.value, f.text, f.remedy) for f in self.findings]
        return pd.DataFrame(rows, columns=pd.Index(["check", "value", "finding", "remedy"]))

    def __len__(self) -> int:
        return len(self.findings)

    def __repr__(self) -> str:
        if not self.findings:
            lines = [f"Nothing to worry about in {len(self.checked)} checks."]
        else:
            count = len(self.findings)
            lines = [f"{count} thing{'s' * (count > 1)} worth a look ({len(self.checked)} checks):"]
        for finding in self.findings:
            text = f"{finding.check}: {finding.text}. Remedy: {finding.remedy}."
            lines += textwrap.wrap(text, WIDTH, initial_indent="- ", subsequent_indent="  ")
        for name, why in self.skipped.items():
            lines += textwrap.wrap(f"(not looked at: {name}, {why})", WIDTH)
        return "\n".join(lines)


def check(fitted: Fitted) -> Check:
    """See `Fit.check`."""
    findings: list[Finding] = []
    skipped = {}
    usable = bool(np.all(np.isfinite(fitted.estimate.psi)))
    for name, function in CHECKS.items():
        if not usable and name != "convergence":
            skipped[name] = "the fit has no estimates"
            continue
        try:
            findings += [
                Finding(name, float(value), text, remedy) for value, text, remedy in function(fitted)
            ]
        except ValueError as error:
            skipped[name] = str(error)
    return Check(tuple(findings), tuple(name for name in CHECKS if name not in skipped), skipped)


Found = Iterator[tuple[Any, str, str]]


def convergence(fitted: Fitted) -> Found:
    """The optimisation has not ended at a certified optimum."""
    if not fitted.converged:
        size = float(fitted.estimate.grad_norm)
        yield size, f"not converged, gradient {size:.2g}: {fitted.status}", "compare allfit(), or simplify"


def unidentified(fitted: Fitted) -> Found:
    """Parameters that the data leave open."""
    if names := unidentified_names(fitted):
        yield len(names), f"{', '.join(names)}: {status(fitted)}", "simplify the covariance structure"


def singular(fitted: Fitted) -> Found:
    """Components of random terms without variance."""
    if not bool(fitted.estimate.singular):
        return
    said = False
    for group, table in repca(fitted).items():
        size = table["sdev"].to_numpy()
        largest = np.nanmax(size, initial=0.0)
        if (empty := int(np.sum(size <= 1e-4 * max(largest, 1e-4)))) and not np.isnan(size).any():
            said = True
            what = f"{empty} of {len(size)} components of the random effects of {group} have no variance"
            yield (
                float(size.min()),
                f"singular fit: {what}",
                ("fewer random effects: ranova() and step() say which, repca() how many the data support"),
            )
    if not said:
        yield 0.0, "singular fit: a covariance parameter is at the end of its range", "simplify the structure"


def scaling(fitted: Fitted) -> Found:
    """Columns of X in units that differ by orders of magnitude."""
    x, names = np.asarray(fitted.data.design.x), fitted.data.x_names
    if not x.shape[1]:
        return
    sd = x.std(axis=0)
    varying = np.flatnonzero(sd > 1e-12 * np.abs(x).max(axis=0))
    if len(varying) < 2:
        return
    low, high = varying[np.argmin(sd[varying])], varying[np.argmax(sd[varying])]
    if (ratio := sd[high] / sd[low]) > SCALE:
        yield (
            ratio,
            f"the sd of {names[high]} is {ratio:.2g} times that of {names[low]}",
            ("other units or scale(x), for readable coefficients; the fit does not depend on units"),
        )


def levels(fitted: Fitted) -> Found:
    """Grouping factors with few levels."""
    for group, count in {t.group: len(t.levels) for t in fitted.data.frame.random}.items():
        if count < FEW:
            yield (
                count,
                f"{group} has {count} levels, which hardly tell a variance",
                (f"{group} as a fixed effect, Kenward-Roger degrees of freedom, or a posterior"),
            )


def groups(fitted: Fitted) -> Found:
    """Groups that move the fixed effects, with the variance parameters held."""
    fit, p = held_at(fitted), fitted.data.design.p
    for term in {t.group: t for t in fitted.data.frame.random}.values():
        present, codes = np.unique(np.asarray(term.codes), return_inverse=True)
        count, levels = len(present), term.levels[present]
        if count < 3 or not p:
            continue
        without = without_groups(fit, codes, count)
        d = change(fit.beta, fit.phi, without).cooks_distance
        limit = max(4.0 / count, min(COOK, 10.0 * np.nanmedian(d))) if np.isfinite(d).any() else np.inf
        if len(far := np.flatnonzero(np.nan_to_num(d) > limit)):
            far = far[np.argsort(-d[far])]
            named = ", ".join(f"{levels[k]} ({d[k]:.2f})" for k in far[:3])
            more = f" and {len(far) - 3} more" if len(far) > 3 else ""
            yield (
                d[far[0]],
                f"of {term.group}, {named}{more} move the fixed effects (Cook's distance)",
                (f"look at them; dfbetas({term.group!r}) says what without each, by refits"),
            )


def rows(fitted: Fitted) -> Found:
    """Rows that are far from what all others predict."""
    fit = held_at(fitted)
    t = fit.deleted(profiled=fitted.data.design.known is None)
    p = tests.outliers(t, fitted.nobs - fitted.data.design.p - 1)
    if len(far := np.flatnonzero(np.nan_to_num(p, nan=1.0) < 0.05)):
        far = far[np.argsort(p[far])]
        index = fitted.data.frame.index
        named = ", ".join(f"{index[k]} ({t[k]:+.1f})" for k in far[:3])
        more = f" and {len(far) - 3} more" if len(far) > 3 else ""
        yield (
            abs(t[far[0]]),
            f"row {named}{more}: off the prediction from all others, in sds",
            ("correct them if they are mistakes; compare the fit without them"),
        )


def variance(fitted: Fitted) -> Found:
    """Residuals whose spread depends on the fitted values or on the levels of a factor."""
    residuals = normalized_residuals(fitted)
    ratio, p = tests.spread(residuals, fitted_values(fitted))
    if p < P and not 1 / 1.3 < ratio < 1.3:
        yield (
            ratio,
            (
                f"the sd of the residuals is {ratio:.2f} times as large at high fitted values as at low ones "
                f"(p = {p:.1g})"
            ),
            "transform the response, or residual=lj.VarPower()",
        )
    frame = fitted.data.frame
    factors = {n: frame.factor_values[n] for n in frame.factor_levels if n in frame.factor_values}
    for name, codes in factors.items():
        ratio, p = tests.spread_between(residuals, np.asarray(codes))
        if p < P / len(factors) and ratio > 1.5:
            yield (
                ratio,
                f"the sd of the residuals differs {ratio:.2f}-fold between levels of {name} (p = {p:.1g})",
                (f"residual=lj.VarIdent({name!r})"),
            )


def order(fitted: Fitted) -> Found:
    """Errors of neighbouring rows of a group that correlate."""
    own, random = fitted.data.design.residual, fitted.data.frame.random
    if not random or (own is not None and own.structure.residual.correlation is not None):
        return
    # the finest factor that has several rows a level
    usable = [t for t in random if np.bincount(t.codes).max() > 2]
    if not usable:
        return
    term = max(usable, key=lambda t: len(t.levels))
    rho, p = tests.serial(held_at(fitted), np.asarray(term.codes))
    if p < P / 10 and abs(rho) > 0.1:
        yield (
            rho,
            (f"errors of neighbouring rows within {term.group} correlate by about {rho:.2f} (p = {p:.1g})"),
            f"if the rows are in order, residual=lj.AR1(group={term.group!r}); see semivariogram()",
        )


def collinearity(fitted: Fitted) -> Found:
    """Fixed terms that depend on each other."""
    table = vif(fitted)
    per_df = np.asarray(table["vif_root"]) ** 2
    high = [k for k in np.argsort(-per_df) if per_df[k] > INFLATED]
    if high:
        named = ", ".join(f"{table.index[k]} ({per_df[k]:.3g})" for k in high[:4])
        number = table.attrs["condition_number"]
        yield (
            per_df[high[0]],
            f"variance inflation of {named}; condition number of X {number:.3g}",
            (
                "centre covariates in interactions and powers, leave one of the related terms out, or test "
                "them together"
            ),
        )


def modes(fitted: Fitted) -> Found:
    """Modes of a random coefficient that are not normal."""
    frame = fitted.data.frame
    for term, own, matrix in zip(
        frame.random,
        fitted_modes(fitted),
        fitted.data.design.structure.absolute(fitted.estimate.psi),
        strict=True,
    ):
        for j, name in enumerate(term.names):
            total = float(np.asarray(matrix)[j, j])
            left = total - own.cond_var[:, j, j]
            if not total > 0 or not np.any(left > 1e-6 * total):
                continue
            z = own.b[:, j] / np.sqrt(np.where(left > 1e-6 * total, left, np.nan))
            skew, kurtosis, p = tests.normality(z)
            if p < P and (abs(skew) > 0.5 or abs(kurtosis) > 1):
                far = term.levels[int(np.nanargmax(np.abs(z)))]
                yield (
                    p,
                    (
                        f"{name} of {term.group} is not normal (skewness {skew:.2f}, excess kurtosis "
                        f"{kurtosis:.2f}, p = {p:.1g}; farthest: {far})"
                    ),
                    "a transformation, a covariate of the groups, or a closer look at the farthest",
                )


def normal(fitted: Fitted) -> Found:
    """Residuals that are not normal."""
    values = held_at(fitted).deleted(profiled=False)
    skew, kurtosis, p = tests.normality(values)
    if p < P and (abs(skew) > 0.5 or abs(kurtosis) > 1):
        yield (
            p,
            (f"residuals are not normal (skewness {skew:.2f}, excess kurtosis {kurtosis:.2f}, p = {p:.1g})"),
            "transform a skew response; bootstrap() or robust standard errors for intervals",
        )


CHECKS: dict[str, Callable[[Fitted], Found]] = {
    "convergence": convergence,
    "identification": unidentified,
    "singularity": singular,
    "scaling": scaling,
    "levels": levels,
    "influential groups": groups,
    "outliers": rows,
    "unequal variances": variance,
    "order of rows": order,
    "collinearity": collinearity,
    "random effects": modes,
    "residuals": normal,
}
"""By name; each yields the number, what it says, and the remedy."""

"""How the fits of many responses ended, response by response and in all."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lmmjax.fitted import FittedMany, component_names, identified_sds
from lmmjax.postestimation.hypotheses.batch_tests import fixed_t_tests
from lmmjax.postestimation.hypotheses.fixed_tests import METHODS, ddf_method, possessive
from lmmjax.reports.group_counts import group_counts
from lmmjax.reports.markup import Grid
from lmmjax.reports.summary import Summary

SHOWN = 8
"""Responses that a note names."""

FOUND = 0.05
"""q-values up to which responses are counted."""


def convergence(fits: FittedMany) -> pd.DataFrame:
    """See `BatchFit.convergence`."""
    estimate = fits.estimate
    return pd.DataFrame(
        {
            "status": fits.status,
            "converged": fits.converged,
            "n_iter": np.asarray(estimate.n_iter),
            "n_starts": np.asarray(fits.n_starts),
            "n_optima": np.asarray(fits.n_optima),
            "several": np.asarray(fits.n_optima) > 1,
            "is_singular": np.asarray(estimate.singular),
            "unidentified": np.asarray(estimate.unidentified).any(axis=-1),
            "reason": np.asarray(fits.reasons, dtype=object),
        },
        index=fits.names,
    )


def summarise(fits: FittedMany, ddf: str = "satterthwaite") -> Summary:
    """See `BatchFit.summary`."""
    ddf = ddf_method(ddf)
    table, frame = convergence(fits), fits.data.frame
    kind = "REML" if fits.reml else "maximum likelihood"
    tests = "" if ddf == "normal" else f"; t-tests use {possessive(METHODS[ddf])} method"
    groups = "; ".join(f"{name}, {count}" for name, count in group_counts(frame).items())
    head = (
        f"Linear mixed models of {len(table):,} responses fit by {kind}{tests}",
        *([f"Formula: {fits.data.formula}"] if fits.data.formula else []),
        f"Number of obs: {fits.data.design.n:,}" + (f", groups: {groups}" if groups else ""),
    )
    counts = table["status"].value_counts()
    ends = Grid(
        ("Status", "Responses"),
        tuple((str(name), f"{int(count):,}") for name, count in counts.items()),
        "Fits",
        left=frozenset({0}),
    )
    names = component_names(fits.data.components)
    sds = identified_sds(fits.data.design.structure, fits.data.components, fits.estimate)
    zero = [
        "" if not name.startswith("sd_") else f"{int(np.sum(s == 0)):,}"
        for name, s in zip(names, sds.T, strict=True)
    ]
    random = Grid(
        ("", "1Q", "Median", "3Q", "At 0"),
        tuple((name, *_quartiles(s), none) for name, s, none in zip(names, sds.T, zero, strict=True)),
        "Standard deviations and correlations over the responses",
        left=frozenset({0}),
    )
    found = fixed_t_tests(fits, ddf)
    small = np.sum(found["q"] <= FOUND, axis=0)
    fixed = Grid(
        ("", "1Q", "Median", "3Q", f"q <= {FOUND}"),
        tuple(
            (name, *_quartiles(found["estimate"][:, k]), f"{int(small[k]):,}")
            for k, name in enumerate(fits.data.x_names)
        ),
        "Fixed effects over the responses",
        left=frozenset({0}),
    )
    return Summary(head, (ends, random, fixed), _notes(table))


def _quartiles(values: np.ndarray) -> tuple[str, ...]:
    own = values[np.isfinite(values)]
    return tuple(f"{q:.4g}" for q in np.quantile(own, [0.25, 0.5, 0.75])) if len(own) else ("", "", "")


def _notes(table: pd.DataFrame) -> tuple[str, ...]:
    out = []
    tried, several = int(np.sum(table["n_starts"] > 1)), np.flatnonzero(table["several"])
    if len(several):
        out.append(
            f"{len(several):,} of {tried:,} responses with several starts had more than one optimum: "
            f"{_named(table, several)}; the best is reported, `convergence` has the numbers"
        )
    elif tried:
        out.append(f"{tried:,} responses had several starts, which ended at one optimum each")
    for column, what in (
        ("is_singular", "are singular: a variance is estimated as 0 or a correlation as ±1"),
        ("unidentified", "leave a covariance parameter open, which is missing"),
    ):
        if own := int(np.sum(table[column].to_numpy())):
            out.append(f"{own:,} fits {what}")
    failed = np.flatnonzero(~table["converged"].to_numpy(bool))
    if len(failed):
        out.append(f"{len(failed):,} responses have no certified fit: {_named(table, failed)}; see `reasons`")
    return tuple(out)


def _named(table: pd.DataFrame, at: np.ndarray) -> str:
    shown = ", ".join(str(table.index[k]) for k in at[:SHOWN])
    return shown + (", …" if len(at) > SHOWN else "")

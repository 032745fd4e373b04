"""The foremost of many responses: by t tests of one contrast, or by F tests of several together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.fitted import FittedMany, require_choice, require_count
from lmmjax.formula import nearest
from lmmjax.postestimation.averages import response_means
from lmmjax.postestimation.hypotheses.batch_f_tests import test_frame
from lmmjax.postestimation.hypotheses.batch_tests import combinations, estimable_combinations, fixed_t_tests
from lmmjax.reports.batch_tables import Table, Tester, labelled_contrasts, tester, with_limits

SINGLE = ["estimate", "se", "df", "lower", "upper", "average", "t", "p", "q"]
"""Columns of a table of t tests."""

JOINT = ["average", "F", "num_df", "den_df", "p", "q"]
"""Columns of a table of F tests, after an estimate for each contrast."""


@dataclass(frozen=True)
class Tests:
    """How the responses of a batch are tested.

    Attributes
    ----------
    fixed : () ↦ t tests of the fixed effects, (T, p) each; tested : of contrasts.
    joint : rows (k, p) of L ↦ F tests of Lβ = 0, a row a response.
    """

    fixed: Callable[[], Table]
    tested: Tester
    joint: Callable[[np.ndarray], pd.DataFrame]


def tests_of(fits: FittedMany, ddf: str, robust: str | None, cluster: Any) -> Tests:
    """Tests by the covariances of the model, or by robust ones."""
    return Tests(
        lambda: fixed_t_tests(fits, ddf, robust, cluster),
        tester(fits, ddf, robust, cluster),
        lambda rows: test_frame(fits, rows, ddf, None, 0.95, robust, cluster),
    )


def top_frame(
    tests: Tests, fits: FittedMany, term: Any, n: int | None, by: str, contrast: Any, level: float
) -> pd.DataFrame:
    """The n foremost responses; see `BatchFit.top`."""
    require_choice("by", by, list(dict.fromkeys([*SINGLE, *JOINT])))
    count = len(fits.names) if n is None else require_count("n", n, 0)
    rows, labels = asked(fits, term, contrast, "top")
    if len(rows) == 1 and by not in ("F", "num_df", "den_df"):
        table = with_limits(_single(tests, rows, labels, contrast is None), level)
        columns = {name: column[:, 0] for name, column in table.items()} | {"average": response_means(fits)}
        frame, first = pd.DataFrame({name: columns[name] for name in SINGLE}, index=fits.names), "t"
    else:
        if by not in JOINT:
            several = f"{len(rows)} contrasts are tested together, by F"
            raise ValueError(f"{several}: by is one of {', '.join(JOINT)}, not {by!r}; or take one of them")
        frame, first = _joint(tests, fits, rows, labels), "F"
    values = frame[by].to_numpy()
    # p-values that underflow are told apart by the statistic; missing values come last
    key = -np.abs(values) if by in ("t", "estimate", "F") else values
    order = np.lexsort((-np.abs(frame[first].to_numpy()), key))
    return frame.iloc[order[:count]]


def one_contrast(tests: Tests, fits: FittedMany, term: Any, contrast: Any, what: str) -> Table:
    """t tests (T, 1) of one coefficient, or of one contrast."""
    rows, labels = asked(fits, term, contrast, what)
    if len(labels) != 1:
        raise ValueError(f"{what} is of one contrast, not of {len(labels)}: take one of {', '.join(labels)}")
    return _single(tests, rows, labels, contrast is None)


def asked(fits: FittedMany, term: Any, contrast: Any, what: str) -> tuple[np.ndarray, list[str]]:
    """Rows (k, p) and labels of coefficients, of the columns of a term, or of contrasts."""
    if (term is None) == (contrast is None):
        raise ValueError(f"{what} is of one coefficient, term=, or of one contrast=: give one of them")
    if contrast is not None:
        return labelled_contrasts(fits, contrast)[:2]
    x_names, slices = fits.data.x_names, fits.data.frame.term_slices
    at: list[int] = []
    for name in [term] if isinstance(term, str) or not np.iterable(term) else list(term):
        if name in x_names:
            at.append(x_names.index(str(name)))
        elif isinstance(name, str) and len(slices.get(name, ())):
            at += [int(j) for j in slices[name]]
        else:
            raise ValueError(f"unknown coefficient {name!r}: {nearest(str(name), x_names)}")
    if not at:
        raise ValueError(f"{what} is of at least one coefficient, and term= is empty")
    at = list(dict.fromkeys(at))
    return np.eye(len(x_names))[at], [x_names[j] for j in at]


def _single(tests: Tests, rows: np.ndarray, labels: list[str], fixed: bool) -> Table:
    if not fixed:
        return tests.tested(rows, labels)
    at = int(np.flatnonzero(rows[0])[0])
    return {name: column[:, [at]] for name, column in tests.fixed().items()}


def _joint(tests: Tests, fits: FittedMany, rows: np.ndarray, labels: list[str]) -> pd.DataFrame:
    """An estimate a contrast, the mean, and the F test."""
    tested = tests.joint(rows)
    value, _ = combinations(fits, rows)
    value = np.where(estimable_combinations(fits, rows), value, np.nan)
    frame = pd.DataFrame(value, index=fits.names, columns=pd.Index(labels, dtype=object))
    own = tested.assign(average=response_means(fits))[JOINT]
    return pd.concat([frame, own], axis=1)

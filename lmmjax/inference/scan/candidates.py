"""Candidates as a scan reads them: values of individuals, and what each column multiplies them by."""

from __future__ import annotations

import dataclasses
from functools import cached_property

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Candidates:
    """M candidates of k columns.

    Attributes
    ----------
    values : (N, M) of N individuals; codes : (n,) the individual of every row.
    carriers : (n, k) what the value of a row's individual is multiplied by in each column: 1, and the
        covariates that it interacts with.
    """

    values: np.ndarray
    codes: np.ndarray
    carriers: np.ndarray

    @property
    def repeated(self) -> bool:
        """Whether individuals have several rows."""
        return len(self.codes) > len(self.values) or len(np.unique(self.codes)) < len(self.codes)

    @cached_property
    def rows(self) -> np.ndarray:
        """(n, k, M) of every row."""
        return self.carriers[:, :, None] * self.values[self.codes][:, None]

    def some(self, which: np.ndarray) -> Candidates:
        """Some of the candidates, or one again and again."""
        return dataclasses.replace(self, values=self.values[:, which])

    def on(self, rows: np.ndarray) -> Candidates:
        """The candidates on some of the rows."""
        return dataclasses.replace(self, codes=self.codes[rows], carriers=self.carriers[rows])

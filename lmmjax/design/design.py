"""The design of a model as arrays, and the checks of its shapes and ranks."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

import numpy as np
from jax.core import Tracer

from lmmjax.arrays import Array
from lmmjax.covariance import CovarianceFamily, Unstructured
from lmmjax.design.kernels import LevelKernel, is_plain, spread
from lmmjax.design.structure import Structure, TermStructure
from lmmjax.residual import ResidualStructure, classes

JUDGED, SAME = 8000, 1e-6
"""Rows up to which the kernels of terms are compared with the residuals, and the difference that is none."""


@dataclasses.dataclass(frozen=True)
class RandomTerm:
    """One random-effects term.

    Attributes
    ----------
    z : (n, q) columns; NumPy, JAX or traced.
    codes : (n,) integer group of each row, 0 … n_groups − 1; always concrete.
    n_groups : G.
    family : covariance family of the q coefficients.
    name : how messages call the term.
    kernel : the known covariance of the groups, some of which may have no rows; None: independent.
    """

    z: Array
    codes: np.ndarray
    n_groups: int
    family: CovarianceFamily = dataclasses.field(default_factory=Unstructured)
    name: str = "random term"
    kernel: LevelKernel | None = None

    @property
    def q(self) -> int:
        return self.z.shape[1]

    @property
    def n_effects(self) -> int:
        """Independent effects a column: the groups, or the rank of their kernel."""
        return self.n_groups if self.kernel is None else self.kernel.rank

    @property
    def lengths(self) -> np.ndarray:
        """√K_gg (n,) of the group of every row."""
        return np.ones(len(self.codes)) if self.kernel is None else np.sqrt(self.kernel.diagonal[self.codes])

    @property
    def blocks(self) -> np.ndarray:
        """(n,) the set of groups of every row that are independent of all others."""
        return self.codes if self.kernel is None else self.kernel.components[self.codes]

    def expand(self, values: np.ndarray, codes: np.ndarray | None = None) -> Any:
        """Rows (k, q) of groups (k,), its own if None, in the columns of its effects, (k, n_effects q).

        The q columns of an effect stand side by side; rows are sparse and keep their zeros.
        """
        import scipy.sparse as sp

        codes = self.codes if codes is None else codes
        if self.kernel is not None:
            return spread(self.kernel, codes, values)
        k, q = values.shape
        columns = np.asarray(codes, np.int64)[:, None] * q + np.arange(q)
        parts = values.ravel(), columns.ravel(), np.arange(k + 1) * q
        return sp.csr_array(parts, shape=(k, self.n_groups * q))

    def relation(self, rows: np.ndarray) -> np.ndarray:
        """Covariances (..., k, k) of the groups of rows (..., k): 1 or 0 where groups are independent."""
        codes = self.codes[rows]
        if self.kernel is not None:
            return self.kernel.between(codes, codes)
        return (codes[..., :, None] == codes[..., None, :]).astype(float)

    def take(self, rows: np.ndarray) -> RandomTerm:
        """The term on some rows, without groups that have none of them unless they are correlated."""
        codes, groups = self.codes[rows], self.n_groups
        if self.kernel is None:
            present, codes = np.unique(codes, return_inverse=True)
            groups = len(present)
        return dataclasses.replace(self, z=self.z[rows], codes=codes, n_groups=groups)


@dataclasses.dataclass(frozen=True)
class ResidualDesign:
    """Where the residual structure finds every row.

    Attributes
    ----------
    named : the structure with its names; `structure` is the same without them.
    codes : (n,) integer group of each row, within which rows correlate.
    n_groups : number of groups.
    place : (n,) or (n, k) occasion (integer) or coordinates of every row.
    covariates : per variance function (n,) its covariate, or integer level; then per `by` the level.
    units : of every class of rows with a free variance (`residual.units`), or None: 1.
    """

    named: ResidualStructure
    codes: np.ndarray
    n_groups: int
    place: np.ndarray
    covariates: tuple[np.ndarray, ...] = ()
    units: np.ndarray | None = None

    @cached_property
    def structure(self) -> ResidualStructure:
        """What programs are made for: models that differ in names share them."""
        return self.named.nameless()

    @property
    def classes(self) -> np.ndarray | None:
        """Class (n,) of every row; None where no part has a free variance for each of them."""
        return classes(self.structure, self.place, self.covariates)

    def take(self, rows: np.ndarray) -> ResidualDesign:
        """The same for some rows, or in another order."""
        present, codes = np.unique(self.codes[rows], return_inverse=True)
        return dataclasses.replace(self.at(rows), codes=codes, n_groups=len(present))

    def at(self, rows: np.ndarray) -> ResidualDesign:
        """The same for some rows, or in another order, with the groups as they are numbered."""
        covariates = tuple(v[rows] for v in self.covariates)
        return dataclasses.replace(
            self, codes=self.codes[rows], place=self.place[rows], covariates=covariates
        )


@dataclasses.dataclass(frozen=True)
class Condensed:
    """What rows stand for that have the products of others (`gram/grouped/condense.py`).

    Attributes
    ----------
    n : number of observations.
    logdet : log|R| = −Σ log w of them, whose roots the rows were multiplied by.
    covariance : (p, p) of the columns of X; squares : by term (q, q) the mean of zzᵀ; noise : that of 1/w.
    """

    n: int
    logdet: float
    covariance: np.ndarray
    squares: tuple[np.ndarray, ...]
    noise: float


@dataclasses.dataclass(frozen=True)
class Design:
    """X, Z, prior weights and offset of one model.

    Attributes
    ----------
    x : (n, p) of full column rank.
    terms : the random terms.
    weights : (n,) prior weights, Var(ε) = σ²/w, or None.
    offset : (n,) known part of the mean, or None.
    residual : correlations and variances of the residuals; None: independent.
    known : σ² where it is known, else None.
    factors : codes (n,) of the factors that X is made of, 0 the reference level; for rows that lack levels.
    condensed : what the rows stand for, if not for themselves.
    """

    x: Array
    terms: tuple[RandomTerm, ...]
    weights: Array | None = None
    offset: Array | None = None
    residual: ResidualDesign | None = None
    known: float | None = None
    factors: tuple[np.ndarray, ...] = ()
    condensed: Condensed | None = None

    @property
    def observations(self) -> int:
        """The number of observations: the rows, or those that they stand for."""
        return self.n if self.condensed is None else self.condensed.n

    @property
    def n(self) -> int:
        return self.x.shape[0]

    @property
    def p(self) -> int:
        return self.x.shape[1]

    @property
    def structure(self) -> Structure:
        own = None if self.residual is None else self.residual.structure
        return Structure(tuple(TermStructure(term.family, term.q) for term in self.terms), own)


def take_rows(design: Design, keep: np.ndarray, weights: np.ndarray | None = None) -> Design:
    """The design on the rows `keep` (n,), without groups that lose all of theirs; `weights` (n,) multiply."""
    own = design.weights if weights is None else weights * (1.0 if design.weights is None else design.weights)
    if own is not None and np.all(own[keep] == 1.0):
        own = None
    offset = None if design.offset is None else design.offset[keep]
    residual = None if design.residual is None else design.residual.take(np.arange(design.n)[keep])
    return Design(
        design.x[keep],
        tuple(term.take(keep) for term in design.terms),
        None if own is None else own[keep],
        offset,
        residual,
        design.known,
        tuple(codes[keep] for codes in design.factors),
    )


def take_columns(design: Design, kept: np.ndarray) -> Design:
    """The design with the columns of X at the positions `kept`."""
    return design if len(kept) == design.p else dataclasses.replace(design, x=design.x[:, kept])


def check_design(design: Design) -> None:
    """Raise ValueError if the design cannot be fitted; traced arrays are checked for shape only."""
    n = design.n
    if n == 0:
        raise ValueError("the data have no rows left; check for missing values or an empty subset")
    if design.p >= n:
        raise ValueError(
            f"{design.p} fixed-effect coefficients but only {n} observations: no residual degrees of "
            "freedom are left; drop fixed effects or add data"
        )
    for term in design.terms:
        _check_term(term, n, _unequal(design.weights), design.observations)
    for name, column in (("weights", design.weights), ("offset", design.offset)):
        if column is None:
            continue
        if column.shape != (n,):
            raise ValueError(f"{name} has shape {column.shape}; one value a row is needed: ({n},)")
        if not _traced(column) and not np.all(np.isfinite(column)):
            raise ValueError(f"{name} must be finite; remove or mend row {_first_bad(column)}")
    if design.weights is not None and not _traced(design.weights) and np.any(design.weights <= 0):
        row = int(np.argmax(np.asarray(design.weights) <= 0))
        raise ValueError(f"weights must be positive (Var(ε) = σ²/w); row {row} has {design.weights[row]:g}")
    if not _traced(design.x):
        _check_rank(np.asarray(design.x))
        _check_kernels(design)


def _unequal(weights: Array | None) -> bool:
    """Whether weights tell residuals from random coefficients: equal ones are none."""
    return weights is not None and (_traced(weights) or bool(np.ptp(np.asarray(weights)) > 0))


def _check_term(term: RandomTerm, n: int, weighted: bool, observations: int) -> None:
    if term.z.shape[0] != n or term.codes.shape != (n,):
        raise ValueError(
            f"{term.name}: z has {term.z.shape[0]} rows and groups has shape {term.codes.shape}; "
            f"the design has {n} rows"
        )
    if term.n_groups < 2:
        raise ValueError(
            f"{term.name}: the grouping factor has one level only; a variance between groups needs at "
            "least two (make it part of the fixed effects, or drop the term)"
        )
    if n > 0 and (term.codes.min() < 0 or term.codes.max() >= term.n_groups):
        odd = int(term.codes.min() if term.codes.min() < 0 else term.codes.max())
        last = term.n_groups - 1
        raise ValueError(f"{term.name}: the group code {odd} does not lie in 0 … {last}: number them so")
    term.family.check(term.q, term.name)
    occupied = int(np.count_nonzero(np.bincount(term.codes)))
    # a pattern of covariances may tell as many coefficients as observations from the residual
    if term.kernel is None and occupied * term.q >= observations and not weighted and term.family.linear:
        raise ValueError(
            f"{term.name}: {occupied} groups × {term.q} coefficients = {occupied * term.q} random "
            f"coefficients for {observations} observations; they cannot be told from the residual: use fewer "
            "coefficients, a coarser grouping factor or more observations per group"
        )
    if not _traced(term.z) and not np.all(np.isfinite(term.z)):
        raise ValueError(f"{term.name}: infinite or missing value in row {_first_bad(term.z)} of its columns")


def _check_rank(x: np.ndarray) -> None:
    if not np.all(np.isfinite(x)):
        raise ValueError(f"the fixed-effects matrix has an infinite or missing value in row {_first_bad(x)}")
    norms = np.linalg.norm(x, axis=0)
    if np.any(norms == 0):
        raise ValueError(f"column {int(np.argmax(norms == 0))} of the fixed-effects matrix is zero; drop it")
    diagonal = np.abs(np.diagonal(np.linalg.qr(x / norms, mode="r")))
    if diagonal.size and diagonal.min() < 1e-11:
        column = int(np.argmin(diagonal))
        raise ValueError(f"column {column} of the fixed-effects matrix depends on the others; drop it")


def _check_kernels(design: Design) -> None:
    """ValueError for a term with a kernel that, beside X, is nothing or another residual."""
    if (
        _traced(design.weights)
        or design.n > JUDGED
        or all(term.kernel is None or term.q > 1 for term in design.terms)
    ):
        return
    root = np.ones(design.n) if design.weights is None else np.sqrt(np.asarray(design.weights))
    basis = np.linalg.qr(np.asarray(design.x) * root[:, None])[0]
    every = np.arange(design.n)
    for term in design.terms:
        if term.kernel is None or term.q > 1 or _traced(term.z):
            continue
        z = np.asarray(term.z)[:, 0] * root
        if is_plain(term.kernel, term.codes, z, basis):
            continue
        whole = term.relation(every) * z[:, None] * z
        half = whole - basis @ (basis.T @ whole)
        inner = half - (half @ basis) @ basis.T
        square, trace, left = np.sum(inner**2), np.trace(inner), design.n - design.p
        if square <= SAME**2 * np.sum(whole**2):
            raise ValueError(
                f"{term.name}: beside the fixed effects nothing is left of its kernel on these rows: its "
                "variance cannot be estimated; drop the term"
            )
        # A'KA is a multiple of I, A a basis of what X leaves
        if square - trace**2 / left <= SAME**2 * square and design.known is None:
            raise ValueError(
                f"{term.name}: on these rows its kernel, beside the fixed effects, is that of the residuals: "
                "the two variances cannot be told apart; drop the term, or use another kernel"
            )


def _first_bad(column: Array) -> int:
    finite = np.isfinite(np.asarray(column)).reshape(column.shape[0], -1).all(axis=1)
    return int(np.argmin(finite))


def _traced(array: Array | None) -> bool:
    return isinstance(array, Tracer)

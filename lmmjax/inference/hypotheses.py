"""The hypotheses of an analysis of variance: for every term the contrasts L (k, p) with Lβ = 0.

Type I: a term given those before it. Type II: given all that do not contain it. Type III: the estimable
functions that involve only the term and those containing it, orthogonal to those that involve only the
containing ones; independent of how factors are coded. Term F₂ contains F₁ if it has all factors of F₁, more
of the categorical ones, and the same numeric ones. The definitions are those of SAS, as in lmerTest, and so
is the choice of the rows of L, on which Satterthwaite's df of a term with several depend: those of type I are
sequential; of type II as coded; of type III in treatment coding. A model with one term has sequential rows.

Source: Kuznetsova, Brockhoff & Christensen (2017, doi:10.18637/jss.v082.i13).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

DEPENDENT = 1e-7
"""A column whose part orthogonal to the others is below this, relative, depends on them."""


@dataclasses.dataclass(frozen=True)
class Term:
    """A fixed term: its columns of X (empty if all are aliased) and its categorical and numeric factors."""

    name: str
    columns: np.ndarray
    categorical: frozenset[str] = frozenset()
    numeric: frozenset[str] = frozenset()

    def contains(self, other: Term) -> bool:
        return self.numeric == other.numeric and self.categorical > other.categorical


def contrasts(
    kind: int,
    x: np.ndarray,
    terms: Sequence[Term],
    values: Mapping[str, np.ndarray],
    levels: Mapping[str, int],
    products: np.ndarray | None = None,
) -> list[np.ndarray]:
    """L (k, p) of every term; k = 0 where all its columns are aliased.

    Parameters
    ----------
    kind : 1, 2 or 3.
    x : (n, p) the model matrix, of full column rank.
    values : of the factors of terms that have a categorical one: codes (n,), or numbers (n, k).
    levels : number of levels of each categorical factor.
    products : (k, p) with the XᵀX of all rows, where x and values are some rows with their row space.
    """
    products = x if products is None else products
    if kind == 1 or (kind == 2 and len(terms) == 1):
        rows = _sequential(products)
        return [rows[term.columns] for term in terms]
    containing = [[other for other in terms if other.contains(term)] for term in terms]
    if kind == 2:
        pairs = zip(terms, containing, strict=True)
        return [_given_others(products, term, above) for term, above in pairs]
    factors = functools.cache(lambda: np.linalg.qr(x))

    def generators(term: Term) -> np.ndarray:
        """G = XM for all level indicators of a term times its numbers: M (p, P)."""
        q, r = factors()
        return np.linalg.solve(r, q.T @ _indicators(term, values, levels))

    pairs = zip(terms, containing, strict=True)
    out = [_estimable(x.shape[1], term, above, generators) for term, above in pairs]
    if len(out) != 1:
        return [rows for rows, _ in out]
    rows, columns = out[0]
    others = np.delete(products, terms[0].columns, axis=1)
    k = others.shape[1]
    return [_sequential(np.hstack([others, products @ columns]))[k:, k:] @ rows]


def _sequential(x: np.ndarray) -> np.ndarray:
    """Rows of R in X = QR, unit diagonal: row j is what column j adds to those before it."""
    r = np.linalg.qr(x, mode="r")
    return r / np.diagonal(r)[:, None]


def _given_others(x: np.ndarray, term: Term, above: list[Term]) -> np.ndarray:
    p = x.shape[1]
    if not above:
        return np.eye(p)[term.columns]
    last = np.concatenate([term.columns, *(other.columns for other in above)])
    order = np.concatenate([np.setdiff1d(np.arange(p), last), last])
    rows = np.empty((p, p))
    rows[np.ix_(order, order)] = _sequential(x[:, order])
    return rows[term.columns]


def _estimable(
    p: int, term: Term, above: list[Term], generators: Callable[[Term], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Type III. In the overparametrised model γ with a parameter for every level, β = Mγ.

    The rows of M for the term and those containing it span the functions of γ that involve only these;
    what is left of the former after projection on the latter is the hypothesis. Its rows are such
    that the contrast has an identity at the parameters that treatment coding would keep, whose columns
    of M (p, k) are returned beside them.
    """
    rows = np.eye(p)[term.columns]
    if (not term.categorical and not above) or not len(rows):
        return rows, rows.T
    own = generators(term)
    if above and (higher := np.concatenate([other.columns for other in above])).size:
        m = np.hstack([own, *(generators(other) for other in above)])
        rows[:, higher] = -np.linalg.lstsq(m[higher].T, m[term.columns].T, rcond=DEPENDENT)[0].T
    image = rows @ own
    kept = _last_independent(image)
    if len(kept) < len(rows):
        return rows, rows.T
    return np.linalg.solve(image[:, kept], rows), own[:, kept]


def _last_independent(image: np.ndarray) -> np.ndarray:
    """Positions of independent columns of image (k, P), the last ones first, in ascending order."""
    kept, basis = [], np.zeros((len(image), 0))
    for j in reversed(range(image.shape[1])):
        column = image[:, j]
        rest = column - basis @ (basis.T @ column)
        rest = rest - basis @ (basis.T @ rest)
        size = np.linalg.norm(rest)
        if size > DEPENDENT * max(np.linalg.norm(column), 1.0):
            kept.append(j)
            basis = np.column_stack([basis, rest / size])
    return np.array(kept[::-1], int)


def _indicators(term: Term, values: Mapping[str, np.ndarray], levels: Mapping[str, int]) -> np.ndarray:
    """(n, P) products of the indicators of all levels and of the numbers of a term's factors."""
    out = np.ones((1, 1))
    for expr in sorted(term.categorical | term.numeric):
        numbers = values[expr]
        columns = np.eye(levels[expr])[numbers] if expr in term.categorical else numbers
        out = (out[:, :, None] * columns[:, None, :]).reshape(len(columns), -1)
    return out

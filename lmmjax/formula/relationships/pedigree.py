"""Pedigrees with labels, and the relationship matrices of their individuals."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lmmjax import kinship
from lmmjax.arrays.caller import stack_level
from lmmjax.arrays.other_arguments import answered
from lmmjax.formula.labelled import eager
from lmmjax.formula.matching import given_labels

if TYPE_CHECKING:
    from scipy import sparse

UNKNOWN = (0, "0", "", ".", "*", "NA", "NaN", "nan", -1, "-1", -9, "-9")
"""What stands for an unknown parent in files, beside missing values."""


@answered
class Pedigree:
    """Who descends from whom, and the relationship matrices that follow.

    Rows may come in any order; parents without a row of their own are added as founders (`added`). An
    individual may be both parents of another (selfing), and sire here and dam there.

    Parameters
    ----------
    data : a frame of any library, or a dict of columns, with a row an individual.
    id, sire, dam : names of its columns: the individual and its parents, in either order.
    unknown : values that stand for an unknown parent beside missing ones; by default 0, ".", "*", "NA", the
        empty text, -1 and -9, as numbers or text.

    Attributes
    ----------
    ids : labels of the n individuals: the rows of data, then the founders that were added.
    added : those founders.

    Raises
    ------
    ValueError : a column is missing, an individual has two rows, no label or a label that reads like another,
        is its own ancestor (the loop is named), or has a label that stands for an unknown parent.

    Examples
    --------
    >>> import lmmjax as lj
    >>> rows = {"id": ["c", "d", "e"], "sire": ["a", "c", "d"], "dam": ["b", None, "c"]}
    >>> pedigree = lj.Pedigree(rows)
    >>> pedigree.inbreeding.to_dict()
    {'c': 0.0, 'd': 0.0, 'e': 0.25, 'a': 0.0, 'b': 0.0}
    """

    def __init__(
        self,
        data: Any,
        id: str = "id",
        sire: str = "sire",
        dam: str = "dam",
        unknown: Sequence[Any] | None = None,
    ):
        columns = [_column(data, name) for name in (id, sire, dam)]
        if len({len(column) for column in columns}) > 1:
            raise ValueError(f"the columns {id!r}, {sire!r} and {dam!r} of the pedigree differ in length")
        n = len(columns[0])
        missing = np.array([pd.isna(column) for column in columns], bool).reshape(3, n)
        if missing[0].any():
            raise ValueError(
                f"the individual in row {np.flatnonzero(missing[0])[0]} of the pedigree has no label"
            )
        absent = UNKNOWN if unknown is None else tuple(np.atleast_1d(np.array(unknown, dtype=object)))
        values = np.concatenate(columns)
        values[missing.ravel()] = None
        stands = np.array([_stands(value, absent) for value in values], bool).reshape(3, n)
        if stands[0].any():
            name = columns[0][np.flatnonzero(stands[0])[0]]
            raise ValueError(
                f"{name!r} labels an individual and stands for an unknown parent: say what does, "
                "unknown=[…], or "
                "unknown=[] if only missing values do"
            )
        values[stands.ravel()] = None
        codes, labels = pd.factorize(values)
        own, parents = codes[:n], codes[n:].reshape(2, n).T
        if len(twice := np.flatnonzero(pd.Series(own).duplicated())):
            raise ValueError(
                f"individual {columns[0][twice[0]]!r} has several rows in the pedigree: keep one"
            )
        _require_distinct(labels)
        if all(_whole(label) for label in labels):
            # parents beside missing ones are floats
            labels = [int(label) for label in labels]
        self.ids, self.added = pd.Index(labels), pd.Index(labels[n:])
        self._parents = np.vstack([parents, np.full((len(labels) - n, 2), -1)]).astype(int)
        try:
            self._ancestry = kinship.ancestry(self._parents)
        except kinship.PedigreeLoop as error:
            loop = [repr(self.ids.tolist()[k]) for k in (*error.loop, error.loop[0])]
            raise ValueError(
                "the pedigree has a loop, offspring ← parent: "
                f"{' ← '.join(loop[:8])}{' ← …' * (len(loop) > 8)}: correct one of these parents"
            ) from None

    @property
    def parents(self) -> pd.DataFrame:
        """Labels of the parents, columns sire and dam, missing where unknown; a row an individual."""
        names = np.array([*self.ids, None], dtype=object)[self._parents]
        return pd.DataFrame(names, index=self.ids, columns=["sire", "dam"])

    @cached_property
    def inbreeding(self) -> pd.Series:
        """F of every individual: the probability that its two alleles are identical by descent."""
        return pd.Series(self._ancestry.inbreeding[self._ancestry.place], index=self.ids, name="inbreeding")

    def additive(self, ids: Any = None) -> pd.DataFrame:
        """Additive relationships A, labelled: twice the coefficients of coancestry, with 1 + F on the
        diagonal.

        Parameters
        ----------
        ids : labels (k,) of those that are wanted, of which A is k × k; None for all.

        Source: Henderson (1976), doi:10.2307/2529339.

        Raises
        ------
        ValueError : a label that the pedigree does not have; more than the available memory.
        """
        at = self._places(ids)
        return pd.DataFrame(kinship.additive(self._ancestry, at), index=self.ids[at], columns=self.ids[at])

    def additive_inverse(self) -> sparse.csc_array:
        """A⁻¹ of all individuals, sparse, in the order of `ids`, inbreeding taken into account.

        Source: Henderson (1976), doi:10.2307/2529339; Quaas (1976), doi:10.2307/2529279.

        Raises
        ------
        ValueError : A has no inverse, as with an offspring of fully inbred parents.
        """
        try:
            return kinship.additive_inverse(self._ancestry)
        except ZeroDivisionError as error:
            name = self.ids.tolist()[error.args[0]]
            raise ValueError(
                f"the parents of {name!r} are fully inbred, which leaves A no inverse: use additive(), or "
                "take "
                "individuals with equal genotypes as one"
            ) from None

    def dominance(self, ids: Any = None) -> pd.DataFrame:
        """Dominance relationships D of non-inbred individuals, labelled; ¼ for full sibs, 1 on the diagonal.

        Parameters are those of `additive`.

        Parameters
        ----------
        ids : labels (k,), as of `additive`.

        Source: Cockerham (1954), doi:10.1093/genetics/39.6.859.

        Warns
        -----
        UserWarning : individuals are inbred; then D is an approximation.

        Raises
        ------
        ValueError : as `additive`.
        """
        at = self._places(ids)
        self._warn_of_inbred(at)
        return pd.DataFrame(kinship.dominance(self._ancestry, at), index=self.ids[at], columns=self.ids[at])

    def relationships(self, kind: str, ids: Any = None) -> tuple[Any, pd.Index]:
        """What a kernel is made of: "additive" or "dominance" relationships (k, k), and their labels.

        They are sparse where the individuals are many, and fall into small families. Parameters, warnings and
        errors are those of `additive` and `dominance`.

        Parameters
        ----------
        kind : see above. ids : as in `additive`.
        """
        at = self._places(ids)
        if not kinship.in_families(self._ancestry, at):
            matrix = getattr(self, kind)(ids)
            return matrix.to_numpy(), matrix.index
        if kind == "dominance":
            self._warn_of_inbred(at)
        of = kinship.additive_sparse if kind == "additive" else kinship.dominance_sparse
        return of(self._ancestry, at), self.ids[at]

    def _warn_of_inbred(self, at: np.ndarray) -> None:
        inbred = int(np.sum(self.inbreeding.to_numpy()[at] > 0))
        if inbred:
            warnings.warn(
                f"{inbred} individuals are inbred: their dominance relationships are by the formula for "
                "those that "
                "are not, an approximation",
                stacklevel=stack_level(),
            )

    def _places(self, ids: Any) -> np.ndarray:
        if ids is None:
            return np.arange(len(self.ids))
        wanted = given_labels([ids] if np.isscalar(ids) else ids, None, "the pedigree").astype(object)
        at = pd.Index(self.ids, dtype=object).get_indexer(wanted)
        if np.any(at < 0):
            raise ValueError(
                f"the pedigree has no individual {wanted[np.flatnonzero(at < 0)[0]]!r}: give it a row, "
                "without "
                "parents if they are unknown"
            )
        if not wanted.is_unique:
            raise ValueError(
                f"ids has {wanted[wanted.duplicated()][0]!r} several times: give every label once"
            )
        return at

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        founders = int(np.sum(np.all(self._parents < 0, axis=1)))
        depth = len(self._ancestry.first) - 1
        return (
            f"Pedigree({len(self)} individuals, {founders} of them founders, {len(self.added)} added; "
            f"{depth} generations, {int(np.sum(self.inbreeding > 0))} inbred)"
        )


def _column(data: Any, name: str) -> np.ndarray:
    """A column as Python objects."""
    frame = eager(data)
    known = list(frame) if isinstance(frame, Mapping) else list(getattr(frame, "columns", ()))
    if not known:
        raise ValueError("a pedigree is a frame, or a dict of columns, with a row an individual")
    if name not in known:
        raise ValueError(
            f"the pedigree has no column {name!r}: it has {', '.join(map(repr, known))}; say which are the "
            "individual and its parents, id=, sire= and dam="
        )
    values = frame[name]
    if isinstance(values, pd.Series | pd.Index):
        return values.astype(object).to_numpy()
    out = np.empty(len(values), object)
    out[:] = values.to_list() if hasattr(values, "to_list") else list(values)
    return out


def _stands(value: Any, absent: tuple[Any, ...]) -> bool:
    value = value.strip() if isinstance(value, str) else value
    return any(type(value) is not bool and value == other for other in absent)


def _whole(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and float(value).is_integer()


def _require_distinct(labels: Any) -> None:
    known: dict[str, Any] = {}
    for label in labels:
        other = known.setdefault(str(label).strip(), label)
        if other is not label:
            raise ValueError(
                f"the pedigree has individuals {other!r} and {label!r}, which read the same: write both as "
                "one"
            )

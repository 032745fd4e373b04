"""Known covariances of levels: relationship matrices and others, matched with the data by labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.arrays.other_arguments import answered
from lmmjax.design import LevelKernel
from lmmjax.design.kernel_roots import level_kernel
from lmmjax.formula.labelled import labelled
from lmmjax.formula.levels import require_different_texts, whole_labels
from lmmjax.formula.matching import given_labels, positions
from lmmjax.formula.relationships.files import read_kernel, write_kernel
from lmmjax.formula.relationships.genotypes import grm
from lmmjax.formula.relationships.pedigree import Pedigree

SPARSE = 0.25
"""Share of relationships that are not zero below which they are taken block by block."""


@answered
class Kernel:
    """A covariance matrix K of the levels of a factor, known up to a variance.

    Relationships of individuals, a phylogeny, distances in space: the effects of the levels are
    u ~ N(0, σ²ᵤK) in place of N(0, σ²ᵤI). Levels are matched by label, never by position; those of K that are
    not in the data are predicted too.

    Parameters
    ----------
    matrix : (G, G) symmetric and positive semi-definite: a frame with labels, an array, or a sparse matrix of
        SciPy, whose blocks of connected levels are factored one by one.
    ids : (G,) labels of the levels, those of the frame if None.
    name : what tables call it where a factor has several kernels.
    tolerance : eigenvalues above −tolerance times the largest one are zero: rounding. For a matrix that was
        printed with three decimals take 1e-3.

    Attributes
    ----------
    ids : labels (G,); levels : K in factors, as the fits take it; name : as given.

    Raises
    ------
    ValueError : K is not square, finite, symmetric or positive semi-definite (the eigenvalue is named), or
        its labels are missing, or occur twice.

    Examples
    --------
    >>> import lmmjax as lj
    >>> lj.Kernel([[1.0, 0.5], [0.5, 1.0]], ids=["sire", "calf"])
    Kernel(2 levels, rank 2, mean diagonal 1)
    """

    def __init__(
        self, matrix: Any, ids: Any = None, *, name: str | None = None, tolerance: float = 1e-8
    ) -> None:
        if hasattr(matrix, "tocsr"):
            k, index = _sparse_matrix(matrix), None
        else:
            given = labelled(matrix, "the kernel")
            k, index = _square(given.values), given.index
            place = positions(given.columns, given.index, "the columns of the kernel", "its rows", "labels")
            k = k if place is None else k[:, place]
        self.ids, self.name = _labels(ids, index, k.shape[0], name), name
        require_tolerance(tolerance)
        self.levels = level_kernel(k, self.ids.tolist(), tolerance)

    @classmethod
    def of_levels(cls, levels: LevelKernel, ids: pd.Index, name: str | None = None) -> Kernel:
        """A kernel from what another had, its `levels` and `ids`, unchecked."""
        made = cls.__new__(cls)
        made.ids, made.name, made.levels = ids, name, levels
        return made

    @classmethod
    def low_rank(cls, g: Any, ids: Any = None, *, name: str | None = None) -> Kernel:
        """K = GGᵀ for G (levels, r), r scaled genotypes or other features, without forming K.

        Parameters
        ----------
        g : a frame with labels, or an array. ids, name : as of the class.

        Raises
        ------
        ValueError : g is not a matrix of finite numbers; labels are missing, or occur twice.
        """
        given = labelled(g, "the factor of the kernel")
        values = given.values[:, None] if given.values.ndim == 1 else given.values
        if values.ndim != 2 or not values.size:
            raise ValueError(f"the factor of a kernel has a row a level, not shape {values.shape}")
        _require_finite(values, "the factor of the kernel")
        labels = _labels(ids, given.index, len(values), name)
        if values.shape[1] >= values.shape[0]:
            return cls.of_levels(level_kernel(values @ values.T, labels.tolist(), 1e-8), labels, name)
        return cls.of_levels(LevelKernel(np.ascontiguousarray(values)), labels, name)

    @classmethod
    def blocks(cls, parts: Sequence[Any], *, name: str | None = None, tolerance: float = 1e-8) -> Kernel:
        """Families that are independent of each other: kernels or labelled frames, of levels of their own.

        Parameters
        ----------
        parts : kernels, or labelled frames. name : of the whole; tolerance : of the frames.

        Raises
        ------
        ValueError : there are none; a level is in two of them; a part is no kernel.
        """
        import scipy.sparse as sp

        kernels = [part if isinstance(part, Kernel) else cls(part, tolerance=tolerance) for part in parts]
        if not kernels:
            raise ValueError("blocks: pass at least one kernel")
        ids = [label for kernel in kernels for label in kernel.ids]
        labels = _labels(ids, None, len(ids), name)
        factor = sp.block_diag([k.levels.factor for k in kernels], format="csr")
        whole = sp.block_diag([k.levels.whole for k in kernels], format="csr")
        return cls.of_levels(LevelKernel(sp.csr_array(factor), sp.csr_array(whole)), labels, name)

    @classmethod
    def from_pedigree(
        cls,
        pedigree: Any,
        ids: Any = None,
        *,
        kind: str = "additive",
        name: str | None = None,
        **columns: Any,
    ) -> Kernel:
        """Relationships of the individuals of a pedigree, block by block where families are not related.

        Parameters
        ----------
        pedigree : a `Pedigree`, or a frame of which one is made with `columns` (id, sire, dam, unknown).
        ids : those that are wanted, by default all, of which those without data are predicted too.
        kind : "additive" or "dominance".
        name : as of the class.

        Raises
        ------
        ValueError : an unknown kind; columns beside a `Pedigree`; an id that is not in the pedigree.
        """
        if kind not in ("additive", "dominance"):
            raise ValueError(f"unknown kind {kind!r} of relationships: additive or dominance")
        if not isinstance(pedigree, Pedigree):
            pedigree = Pedigree(pedigree, **columns)
        elif columns:
            raise ValueError(f"{', '.join(columns)} are for a frame: this is a Pedigree already")
        matrix, labels = pedigree.relationships(kind, ids)
        return cls._of_relationships(matrix, labels, name)

    @classmethod
    def from_markers(
        cls,
        markers: Any,
        ids: Any = None,
        method: str = "vanraden",
        *,
        name: str | None = None,
        **options: Any,
    ) -> Kernel:
        """Genomic relationships of individuals from their genotypes.

        Parameters
        ----------
        markers, ids, method, options : as of `lmmjax.grm`, whose errors are those here. name : of the kernel.
        """
        matrix = grm(markers, ids, method, **options)
        return cls._of_relationships(matrix.to_numpy(), matrix.index, name)

    @classmethod
    def _of_relationships(cls, matrix: Any, ids: pd.Index, name: str | None) -> Kernel:
        import scipy.sparse as sp

        if isinstance(matrix, np.ndarray) and np.count_nonzero(matrix) < SPARSE * matrix.size:
            matrix = sp.csr_array(matrix)
        return cls(matrix, ids, name=name)

    def save(self, path: str | Path) -> None:
        """Write it to a file (npz), with the decompositions that fits have made: they are not made again.

        Parameters
        ----------
        path : of the file, in a folder that is there.

        Raises
        ------
        OSError : it cannot be written.
        """
        write_kernel(path, self.levels, self.ids, self.name)

    @classmethod
    def load(cls, path: str | Path) -> Kernel:
        """A kernel that was saved; ValueError for other files.

        Parameters
        ----------
        path : of a file that `save` wrote.
        """
        return cls.of_levels(*read_kernel(path))

    @property
    def matrix(self) -> pd.DataFrame:
        """K (G, G) with its labels."""
        return pd.DataFrame(self.levels.whole, index=self.ids, columns=self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        named = "" if self.name is None else f"{self.name!r}, "
        mean = float(np.mean(self.levels.diagonal))
        return f"Kernel({named}{len(self)} levels, rank {self.levels.rank}, mean diagonal {mean:.3g})"


def require_tolerance(value: Any) -> None:
    """ValueError unless it is a number in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value < 1:
        raise ValueError(f"tolerance must be a number from 0 up to 1, not {value!r}")


def _labels(ids: Any, index: pd.Index | None, count: int, name: str | None) -> pd.Index:
    """The labels of the levels; ValueError where there are none, or too few, or some are equal."""
    what = "the kernel" if name is None else f"the kernel {name!r}"
    if ids is None:
        if index is None:
            raise ValueError(
                f"{what} has no labels: pass ids=, the label of every row, or a frame with an index"
            )
        ids = index
    labels = given_labels(ids, index, what)
    if labels.nlevels > 1 or len(labels) != count:
        raise ValueError(f"{what} has {count} rows and {len(labels)} ids: pass one label for each")
    if labels.hasnans:
        raise ValueError(f"{what}: a label is missing in row {int(np.argmax(labels.isna()))}")
    if not labels.is_unique:
        twice = labels[labels.duplicated()].tolist()[0]
        raise ValueError(f"{what} has the label {twice!r} twice: make them differ")
    plain = whole_labels(np.asarray(labels))
    require_different_texts(np.asarray(plain), what)
    return pd.Index(plain)


def _square(k: np.ndarray) -> np.ndarray:
    if k.ndim != 2 or k.shape[0] != k.shape[1] or not len(k):
        raise ValueError(
            f"a kernel is a square matrix, a row and a column for each level, not of shape {k.shape}"
        )
    return k


def _sparse_matrix(k: Any) -> Any:
    import scipy.sparse as sp

    _square(np.broadcast_to(0.0, k.shape))
    return sp.csr_array(k).astype(float)


def _require_finite(values: np.ndarray, what: str) -> None:
    if not np.all(np.isfinite(values)):
        row = int(np.argmin(np.isfinite(values).all(axis=-1))) if values.ndim > 1 else 0
        raise ValueError(f"{what} has a missing or infinite value in row {row}")

"""Genotypes of any library or file, individuals × markers, read a block of markers at a time."""

from __future__ import annotations

import dataclasses
import importlib
import warnings
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.arrays.caller import stack_level
from lmmjax.arrays.device_columns import on_device
from lmmjax.arrays.memory import require_memory
from lmmjax.arrays.other_arguments import answered
from lmmjax.formula.columns import nearest
from lmmjax.formula.labelled import eager
from lmmjax.formula.matching import given_labels, is_default, observations
from lmmjax.formula.numbers import doubles
from lmmjax.kinship import METHODS, genomic_relationship

BLOCK = 1 << 23
"""Numbers in a block of genotypes, 64 MiB."""

NO_DOSAGE = -9.0
"""What pgenlib has in the place of a missing dosage."""


@dataclasses.dataclass(frozen=True, eq=False)
class Genotypes:
    """n individuals × M markers; nothing is read before `block` is called.

    Attributes
    ----------
    shape : (n, M).
    ids, names : labels of the individuals and of the markers, None where there are none.
    read : the genotypes (n, k) of the markers from one place up to another, NaN where missing.
    there : (n, M) on a device, None where they are not.
    """

    shape: tuple[int, int]
    ids: pd.Index | None
    names: pd.Index | None
    read: Callable[[int, int], np.ndarray]
    there: Any = None

    def blocks(self, size: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Yields the place of the first marker of a block, and float64 (n, k) of at most `size` markers.

        Raises
        ------
        ValueError : names the marker with a value that is not between 0 and 2.
        """
        n, count = self.shape
        size = max(1, BLOCK // max(n, 1)) if size is None else size
        for first in range(0, count, size):
            block = self.read(first, min(first + size, count))
            with np.errstate(invalid="ignore"):
                wrong = (block < 0.0) | (block > 2.0)
            if wrong.any():
                i, j = np.argwhere(wrong)[0]
                name = first + j if self.names is None else repr(self.names[first + j])
                raise ValueError(
                    f"marker {name} has the genotype {block[i, j]:g}: genotypes count an allele, 0 to 2, "
                    "and NaN is "
                    "missing; recode them (add 1 to -1, 0, 1)"
                )
            yield first, block


def genotypes(markers: Any, ids: Any = None) -> Genotypes:
    """Genotypes with the labels that they have, or with `ids` (n,).

    Parameters
    ----------
    markers : (n, M) array of NumPy, JAX, SciPy (sparse), h5py, zarr or dask, a frame of any library, AnnData,
        the path of a PLINK .bed, .pgen or a .npy file, or an open `bed_reader.open_bed`.

    Raises
    ------
    ValueError : another shape, ids of another length, that are missing or occur twice.
    ImportError : bed-reader, or for .pgen pgenlib, is not installed (extra `genetics`).
    """
    found = markers if isinstance(markers, Genotypes) else _open(markers)
    if ids is not None:
        given = given_labels(ids, found.ids, "the markers")
        if len(given) != found.shape[0]:
            transposed = ": transpose them?" if len(given) == found.shape[1] else ""
            raise ValueError(
                f"{len(given)} ids for markers of shape {found.shape}, individuals × markers{transposed}"
            )
        found = dataclasses.replace(found, ids=given)
    if found.ids is not None:
        if found.ids.isna().any():
            raise ValueError(
                f"the id of individual {np.flatnonzero(found.ids.isna())[0]} of the markers is missing"
            )
        if not found.ids.is_unique:
            twice = found.ids[found.ids.duplicated()][0]
            raise ValueError(
                f"several individuals of the markers have the id {twice!r}: pass ids= that differ"
            )
    return found


@answered
def grm(
    markers: Any,
    ids: Any = None,
    method: str = "vanraden",
    *,
    maf: float = 0.0,
    max_missing: float = 1.0,
    block: int | None = None,
) -> pd.DataFrame:
    """Genomic relationship matrix (n × n) of individuals, labelled, in memory for one block of markers.

    A missing genotype is the mean of its marker (GCTA instead divides by the markers that two individuals
    both have). Markers that do not vary are left out, and a warning counts them; nothing else is left out
    unless asked.

    Parameters
    ----------
    markers : counts of an allele, 0 to 2, individuals × markers: an array of NumPy, SciPy, h5py or zarr, a
        frame, AnnData, or the path of a PLINK .bed or .pgen file (extra `genetics`) or of a .npy file.
    ids : labels (n,) of the individuals; by default those of the frame or file, else 0, 1, ….
    method : "vanraden", ZZᵀ/Σ2p(1 − p) with Z = x − 2p; "vanraden2" or "gcta", every marker divided by its
        2p(1 − p); "gemma-centered" and "gemma-standardized", GEMMA's -gk 1 and 2.
    maf, max_missing : leave out markers whose rarer allele is less frequent, or of which a larger share is
        missing (0.01 and 0.05 are GEMMA's).
    block : how many markers to read at a time; by default 64 MiB.

    Returns
    -------
    DataFrame, with the numbers of markers `used`, `monomorphic` and `filtered` and of genotypes `missing` in
    `attrs`.

    Sources: VanRaden (2008), doi:10.3168/jds.2007-0980; Yang et al. (2011), doi:10.1016/j.ajhg.2010.11.011;
    Zhou & Stephens (2012), doi:10.1038/ng.2310.

    Warns
    -----
    UserWarning : markers do not vary; no genotype is above 1, as where inbred lines are coded 0 and 1.

    Raises
    ------
    ValueError : an unknown method, genotypes that are none, ids that do not match, no marker left, more than
        the available memory.

    Examples
    --------
    >>> import lmmjax as lj
    >>> lj.grm([[0, 1, 2], [1, 1, 0], [2, 1, 1]], ids=["a", "b", "c"]).round(3).loc["a"].to_dict()
    {'a': 1.333, 'b': -0.667, 'c': -0.667}
    """
    if method not in METHODS:
        raise ValueError(
            f"unknown method {method!r} of genomic relationships: {nearest(str(method), METHODS)}"
        )
    if not 0.0 <= maf <= 0.5 or not 0.0 <= max_missing <= 1.0:
        raise ValueError(
            f"maf is between 0 and 0.5, max_missing between 0 and 1, not {maf} and {max_missing}"
        )
    if block is not None and block < 1:
        raise ValueError(f"block is a number of markers, not {block}")
    found = genotypes(markers, ids)
    n = found.shape[0]
    require_memory("the relationship matrix", 2, n, n, remedy="take fewer individuals")
    made = genomic_relationship((own for _, own in found.blocks(block)), n, method, maf, max_missing)
    if made.monomorphic:
        warnings.warn(
            f"{made.monomorphic} of {found.shape[1]} markers do not vary: left out", stacklevel=stack_level()
        )
    if made.largest <= 1.0 and method in ("vanraden", "vanraden2", "gcta"):
        warnings.warn(
            "no genotype is above 1, and counts of an allele go up to 2: code inbred lines 0 and 2",
            stacklevel=stack_level(),
        )
    labels = pd.RangeIndex(n) if found.ids is None else found.ids
    out = pd.DataFrame(made.matrix, index=labels, columns=labels)
    out.attrs = {"method": method, "used": made.used, "monomorphic": made.monomorphic}
    out.attrs |= {"filtered": made.filtered, "missing": made.missing}
    return out


def _open(markers: Any) -> Genotypes:
    if isinstance(markers, str | Path):
        return _file(Path(markers))
    if isinstance(markers, Pgen):
        return _plink(markers, markers.read)
    if hasattr(markers, "iid") and hasattr(markers, "read"):
        return _plink(markers, lambda a, b: np.asarray(markers.read(np.s_[:, a:b], dtype="float64")))
    if hasattr(markers, "obs_names") and hasattr(markers, "X"):
        inner = _open(markers.X)
        return dataclasses.replace(
            inner, ids=observations(markers.obs_names), names=pd.Index(markers.var_names)
        )
    values = eager(markers)
    if isinstance(values, pd.DataFrame):
        ids = None if is_default(values.index) else values.index
        return Genotypes(values.shape, ids, values.columns, lambda a, b: _frame(values.iloc[:, a:b]))
    if hasattr(values, "columns") and hasattr(values, "select"):
        import narwhals as nw

        frame = nw.from_native(values, eager_only=True)
        names = pd.Index(frame.columns)
        return Genotypes(
            frame.shape,
            None,
            names,
            lambda a, b: np.column_stack(
                [doubles(frame[name].to_native(), f"markers: column {name!r}") for name in names[a:b]]
            ),
        )
    if hasattr(values, "tocsc"):
        values = values.tocsc()
    elif not (hasattr(values, "shape") and hasattr(values, "__getitem__")):
        values = doubles(values, "markers")
    if len(values.shape) != 2:
        raise ValueError(f"markers have shape {values.shape}: pass individuals × markers")
    shape = int(values.shape[0]), int(values.shape[1])
    there = values if on_device(values) else None
    return Genotypes(shape, None, None, lambda a, b: doubles(values[:, a:b], "markers"), there)


def _frame(part: pd.DataFrame) -> np.ndarray:
    if all(isinstance(kind, np.dtype) and kind.kind in "biuf" for kind in set(part.dtypes)):
        return part.to_numpy(dtype=np.float64)
    return np.column_stack(
        [doubles(part.iloc[:, k], f"markers: column {name!r}") for k, name in enumerate(part.columns)]
    )


def _file(path: Path) -> Genotypes:
    if not path.exists():
        raise ValueError(f"markers: there is no file {str(path)!r}")
    if path.suffix == ".npy":
        return _open(np.load(path, mmap_mode="r", allow_pickle=False))
    if path.suffix == ".pgen":
        return _open(Pgen(path))
    if path.suffix != ".bed":
        raise ValueError(
            f"markers: {path.name!r} is of no known kind: pass a PLINK .bed or .pgen file, a .npy file or an "
            "array"
        )
    try:
        reader = importlib.import_module("bed_reader")
    except ImportError:
        raise ImportError(
            "PLINK files need bed-reader: pip install 'lmmjax[genetics]' (or pip install bed-reader)"
        ) from None
    return _open(reader.open_bed(path))


def _plink(bed: Any, read: Callable[[int, int], np.ndarray]) -> Genotypes:
    """Individuals by their IID, or by FID:IID where families share one."""
    ids = pd.Index(np.asarray(bed.iid, dtype=object))
    if not ids.is_unique:
        ids = pd.Index([f"{family}:{own}" for family, own in zip(bed.fid, bed.iid, strict=True)])
    n, count = bed.shape
    return Genotypes((int(n), int(count)), ids, pd.Index(np.asarray(bed.sid, dtype=object)), read)


class Pgen:
    """A .pgen file: dosages of the alternate allele, or its counts where there are none.

    Parameters
    ----------
    path : of the .pgen file.

    Attributes
    ----------
    shape : (n, M).
    fid, iid : labels of families (0 where the file has none) and individuals; sid, chromosome : of variants.

    Raises
    ------
    ImportError : pgenlib is not installed (extra `genetics`).
    ValueError : the .psam or .pvar beside it is missing, or of a variant with several alternate alleles.
    """

    def __init__(self, path: str | Path):
        path = Path(path)
        try:
            pgenlib: Any = importlib.import_module("pgenlib")
        except ImportError:
            raise ImportError(
                "files of PLINK 2 need pgenlib: pip install 'lmmjax[genetics]' (or pip install pgenlib)"
            ) from None
        people, variants = (_beside(path, end) for end in (".psam", ".pvar"))
        table = pd.read_csv(people, sep="\t", dtype=str, skiprows=_comments(people))
        table.columns = [str(name).lstrip("#") for name in table.columns]
        if "IID" not in table:
            raise ValueError(f"{people.name} has no column IID: write it with plink2 --make-pgen")
        self.iid = table["IID"].to_numpy(dtype=object)
        self.fid = table["FID"].to_numpy(dtype=object) if "FID" in table else np.full(len(table), "0", object)
        own = pgenlib.PvarReader(str(variants).encode())
        count = int(own.get_variant_ct())
        if own.get_max_allele_ct() > 2:
            raise ValueError(f"{path.name} has variants of several alternate alleles: split them first")
        self.sid = np.array([own.get_variant_id(k).decode() for k in range(count)], object)
        self.chromosome = np.array([own.get_variant_chrom(k).decode() for k in range(count)], object)
        self.reader = pgenlib.PgenReader(str(path).encode(), raw_sample_ct=len(table), variant_ct=count)
        self.shape = (len(table), count)

    def read(self, start: int, stop: int) -> np.ndarray:
        """(n, stop − start), NaN where missing."""
        out = np.empty((stop - start, self.shape[0]), np.float32)
        if len(out):
            self.reader.read_dosages_range(start, stop, out)
        return np.where(out == NO_DOSAGE, np.nan, out).T.astype(float)


def _beside(path: Path, end: str) -> Path:
    found = path.with_suffix(end)
    if not found.exists():
        raise ValueError(f"markers: {found.name!r} is not beside {path.name!r}: plink2 writes both")
    return found


def _comments(path: Path) -> int:
    """Lines before the header, which begin with ##."""
    with path.open() as file:
        return sum(1 for _ in takewhile(lambda line: line.startswith("##"), file))

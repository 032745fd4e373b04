"""Kernels of random terms as plain data, in the factors that fits take."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmmjax.design import LevelKernel
from lmmjax.formula import Kernel, ModelFrame, kernels_of
from lmmjax.gram.spectral.decomposition import Decomposition
from lmmjax.saving.archive import Arrays
from lmmjax.saving.values import Plain, packed_labels, unpacked_labels


def packed_kernels(frame: ModelFrame, arrays: Arrays) -> list[Plain]:
    """Of every random term of which something is known: its text, and by name its kernels."""
    out: list[Plain] = []
    for text, own in (kernels_of(frame.random) or {}).items():
        if own is not None:
            kernels = [_packed(name, kernel, arrays) for name, kernel in _parts(own)]
            out.append({"term": text, "named": isinstance(own, dict), "kernels": kernels})
    return out


def _parts(own: Any) -> list[tuple[str, Kernel | None]]:
    """The kernels of a term by name, of one alone by none."""
    return list(own.items()) if isinstance(own, dict) else [("", own)]


def unpacked_kernels(plain: list[Plain], arrays: Arrays) -> dict[str, Any] | None:
    """The kernels as `lmm` takes them."""
    out: dict[str, Any] = {}
    for one in plain:
        kernels = {part["name"]: _unpacked(part, arrays) for part in one["kernels"]}
        out[one["term"]] = kernels if one["named"] else kernels[""]
    return out or None


def _packed(name: str, kernel: Kernel | None, arrays: Arrays) -> Plain:
    if kernel is None:
        return {"name": name, "ids": None}
    ids = packed_labels(kernel.ids, arrays, "the labels of a kernel")
    levels = kernel.levels
    own = {"factor": _matrix(levels.factor, arrays), "matrix": _matrix(levels.matrix, arrays)}
    return {"name": name, "ids": ids, "called": kernel.name, **own}


def _unpacked(plain: Plain, arrays: Arrays) -> Kernel | None:
    if plain["ids"] is None:
        return None
    levels = LevelKernel(_read(plain["factor"], arrays), _read(plain["matrix"], arrays))
    return Kernel.of_levels(levels, unpacked_labels(plain["ids"], arrays), plain["called"])


def packed_decompositions(frame: ModelFrame, arrays: Arrays) -> list[list[Plain]]:
    """By random term the decompositions of its kernel, with the digests of what they are of."""
    out: list[list[Plain]] = []
    for term in frame.random:
        known = {} if term.kernel is None else term.kernel.levels.decompositions
        dense = [(key, own) for key, own in known.items() if isinstance(own, Decomposition)]
        out.append([{"of": key, "mu": arrays.put(own.mu), "b": arrays.put(own.b)} for key, own in dense])
    return out


def give_decompositions(frame: ModelFrame, plain: list[list[Plain]], arrays: Arrays) -> None:
    """Put what `packed_decompositions` packed beside the kernels of a frame."""
    for term, own in zip(frame.random, plain, strict=True):
        if term.kernel is not None:
            for one in own:
                found = Decomposition(arrays[one["mu"]], arrays[one["b"]])
                term.kernel.levels.decompositions[one["of"]] = found


def _matrix(a: Any, arrays: Arrays) -> Plain | None:
    if a is None or isinstance(a, np.ndarray):
        return None if a is None else {"at": arrays.put(a)}
    parts = {name: arrays.put(getattr(a, name)) for name in ("data", "indices", "indptr")}
    return {"shape": list(a.shape), **parts}


def _read(plain: Plain | None, arrays: Arrays) -> Any:
    if plain is None:
        return None
    if "at" in plain:
        return arrays[plain["at"]]
    import scipy.sparse as sp

    parts = tuple(arrays[plain[name]] for name in ("data", "indices", "indptr"))
    return sp.csr_array(parts, shape=tuple(plain["shape"]))

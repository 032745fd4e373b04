"""Digests (SHA-256) of what a run is made from: of its design, and of the values that a chunk has read."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS = 64
"""Responses that are turned at a time, so that a digest needs little memory beside its chunk."""

SAMPLES, LENGTH = 64, 1 << 16
"""Pieces of a file that are looked at, and bytes of each."""


def digest(*values: Any) -> str:
    """Of plain values, arrays, mappings, sequences and records of them, with their types and shapes."""
    hasher = hashlib.sha256()
    for value in values:
        _feed(hasher, value)
    return hasher.hexdigest()


def digest_columns(values: np.ndarray) -> str:
    """Of (n, k) values, as float64 and column after column, however they lie in memory."""
    hasher = hashlib.sha256(str(values.shape).encode())
    for k in range(0, values.shape[1], COLUMNS):
        hasher.update(np.ascontiguousarray(values[:, k : k + COLUMNS].T, dtype=np.float64).data)
    return hasher.hexdigest()


def digest_file(path: Path) -> str:
    """Of the size of a file and of pieces of it, evenly spaced, all of one of up to 4 MiB."""
    size = path.stat().st_size
    hasher = hashlib.sha256(str(size).encode())
    step = max(LENGTH, (size - LENGTH) / (SAMPLES - 1))
    with path.open("rb") as file:
        for k in range(SAMPLES):
            file.seek(int(k * step))
            hasher.update(file.read(LENGTH))
    return hasher.hexdigest()


def combine(digests: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """One digest by name, of those of all chunks in their order."""
    columns: dict[str, list[str]] = {}
    for each in digests:
        for name, value in each.items():
            columns.setdefault(name, []).append(value)
    return {name: digest(values) for name, values in columns.items()}


def _feed(hasher: Any, value: Any) -> None:
    kind = type(value)
    hasher.update(f"<{kind.__module__}.{kind.__qualname__} ".encode())
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic):
        hasher.update(repr(value).encode())
    elif hasattr(value, "__array__"):
        array = np.asarray(value)
        hasher.update(f"{array.dtype.str} {array.shape}".encode())
        if array.dtype.hasobject:
            _feed(hasher, array.ravel().tolist())
        else:
            hasher.update(np.ascontiguousarray(array).data)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            _feed(hasher, name)
            _feed(hasher, item)
    elif isinstance(value, set | frozenset):
        hasher.update("".join(sorted(digest(item) for item in value)).encode())
    elif isinstance(value, list | tuple):
        for item in value:
            _feed(hasher, item)
    elif isinstance(value, type) or callable(value):
        hasher.update(f"{value.__module__}.{value.__qualname__}".encode())
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _feed(hasher, field.name)
            _feed(hasher, getattr(value, field.name))
    else:
        _feed(hasher, vars(value))
    hasher.update(b">")

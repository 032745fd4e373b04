"""A compiled program as a file, and back."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pickle
import tempfile
from typing import Any

import jax
from jax.experimental import serialize_executable

from lmmjax.arrays.store import folder as place
from lmmjax.arrays.store.quiet import without_preferences

MAGIC = b"lmmjax program 2\n"


def save(name: str, compiled: Any, arguments: int, skeleton: Any) -> None:
    """Write a compiled program of so many arrays under its digest.

    It returns a list of arrays. `skeleton` is what they make up, with zeros for arrays: the structure of
    records does not pickle, they do. A kind that does not serialise is not kept, without a word.
    """
    with contextlib.suppress(Exception):
        if not _kept(name):
            payload, _, _ = serialize_executable.serialize(compiled)
            write(name, (arguments, skeleton, payload))


def load(name: str) -> tuple[Any, Any] | None:
    """A compiled program and what it returns, or None where there is none that can be used.

    A file that is whole and does not load (compiled for a processor that this jaxlib does not trust, say) is
    left, and not written again.
    """
    content = read(name)
    if content is None:
        return None
    with contextlib.suppress(Exception):
        arguments, skeleton, payload = content
        _initialise_lapack()
        taken = jax.tree.structure(((0,) * arguments, {}))
        returned = jax.tree.structure([0] * len(jax.tree.leaves(skeleton)))
        with without_preferences():
            return serialize_executable.deserialize_and_load(payload, taken, returned), skeleton
    return None


def _kept(name: str) -> bool:
    folder = place.directory()
    return folder is not None and (folder / (name + place.SUFFIX)).exists()


def write(name: str, content: Any) -> None:
    """Pickle plain data under a digest: to another name first, which then takes its place.

    What cannot be written (a full disk, another user's folder) is not kept, without a word.
    """
    with contextlib.suppress(Exception):
        folder = place.directory(make=True)
        if folder is None or _kept(name):
            return
        body = pickle.dumps(content, protocol=5)
        handle, temporary = tempfile.mkstemp(dir=folder, suffix=".writing")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(MAGIC + hashlib.sha256(body).digest() + body)
            os.replace(temporary, folder / (name + place.SUFFIX))
        except BaseException:
            os.unlink(temporary)
            raise
        place.trim(place.LARGEST)


def read(name: str) -> Any:
    """What was written under a digest, or None. A damaged file is deleted."""
    folder = place.directory()
    if folder is None:
        return None
    path = folder / (name + place.SUFFIX)
    try:
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as file:
            if not place.is_private(os.fstat(file.fileno())):
                return None
            content = file.read()
    except OSError:
        return None
    start = len(MAGIC) + 32
    body = content[start:]
    if not content.startswith(MAGIC) or hashlib.sha256(body).digest() != content[len(MAGIC) : start]:
        with contextlib.suppress(OSError):
            path.unlink()
        return None
    with contextlib.suppress(Exception):
        found = pickle.loads(body)
        with contextlib.suppress(OSError):
            os.utime(path)
        return found
    return None


def drop(name: str) -> None:
    """Delete a program of which is known that it does not run."""
    folder = place.directory()
    if folder is not None:
        with contextlib.suppress(OSError):
            (folder / (name + place.SUFFIX)).unlink()


@functools.cache
def _initialise_lapack() -> None:
    """Set the addresses of LAPACK's routines, which jaxlib does as it lowers: loading does without that."""
    try:
        from jaxlib import lapack

        lapack._lapack.initialize()  # type: ignore[attr-defined]
    except (ImportError, AttributeError):
        jax.jit(jax.numpy.linalg.cholesky).lower(jax.ShapeDtypeStruct((2, 2), "float32"))

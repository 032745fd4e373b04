"""Files that are written whole or not at all, and messages that name the file."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which becomes `path` when the block ends well, and goes when it does not.

    It has a temporary name in the same folder, unlike that of any other writer, and is on disk before it is
    renamed: `path` is what it was or complete, whenever the machine stops.

    Raises
    ------
    OSError : names `path`, as for a full disk or a folder that may not be written to.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno or errno.EIO, f"cannot be written: {reason}", str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """The names in a folder are on disk, where a system can say so."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def reading(path: Path, remedy: str = "restore the file or write it anew") -> Iterator[None]:
    """What a library says of a file that it cannot read, as a ValueError that names the file and the remedy.

    Errors that name a file themselves, such as one that is not there, pass; so do missing packages.
    """
    try:
        yield
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} cannot be read ({said}): {remedy}") from error


def target(path: str | Path, inputs: Iterable[Any], option: str) -> Path:
    """`path` as a file that may be written; a link is followed.

    Parameters
    ----------
    inputs : paths and arrays on disk that are read, which the file may not replace, by whatever name.
    option : how messages call the choice of the file.

    Raises
    ------
    ValueError : the file is an input, lies in one that is a folder, or is a folder or a device; there is no
        folder to write it to.
    """
    path = Path(path)
    if path.is_symlink():
        path = path.resolve()
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name another file as {option}")
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is a device and no file: name another file as {option}")
    if not path.parent.is_dir():
        raise ValueError(f"{path.parent} is no folder: make it, or name another file as {option}")
    for given in filter(None, map(on_disk, inputs)):
        same = path.exists() and given.exists() and path.samefile(given)
        if same or given.resolve() == path.resolve():
            raise ValueError(f"{path} is the input: name another file as {option}")
        if given.is_dir() and given.resolve() in path.resolve().parents:
            raise ValueError(f"{path} is inside the input {given}: name another file as {option}")
    return path


def on_disk(given: Any) -> Path | None:
    """The file of a path, a memmap, an HDF5 or zarr array or a backed AnnData; None of anything else."""
    if isinstance(given, str | Path):
        return Path(str(given).partition("::")[0])
    candidates = (
        getattr(given, "filename", None),
        getattr(getattr(given, "file", None), "filename", None),
        getattr(getattr(given, "store", None), "root", None),
    )
    return next((Path(found) for found in candidates if isinstance(found, str | Path) and str(found)), None)

"""The folder of ready programs: where it is, who may have written in it, how large it may become."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from pathlib import Path

LARGEST = 256 * 2**20
"""Bytes that all files may take; the ones not used for longest go first."""

SUFFIX = ".program"

OFF = ("0", "off", "no", "false")


def enabled() -> bool:
    """Whether the environment variable `LMMJAX_CACHE` leaves the store on."""
    return os.environ.get("LMMJAX_CACHE", "").lower() not in OFF


def place() -> Path | None:
    """Where the folder is or would be; None where the store is off or there is no home."""
    if not enabled():
        return None
    if chosen := os.environ.get("LMMJAX_CACHE"):
        return Path(chosen).expanduser() / "programs"
    try:
        return _user_cache() / "lmmjax" / "programs"
    except RuntimeError:
        return None


def _user_cache() -> Path:
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base)
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")


def directory(make: bool = False) -> Path | None:
    """The folder, if it is there (or can be made), is the user's, and nobody else can write in it.

    A file in it is code that will run; the folder is made with mode 0700.
    """
    path = place()
    if path is None:
        return None
    with contextlib.suppress(OSError):
        if make and not path.exists():
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path if is_private(path.lstat(), directory=True) else None
    return None


def is_private(found: os.stat_result, directory: bool = False) -> bool:
    """Whether a file is a plain one (a folder: no link) of this user that others cannot write."""
    if not (stat.S_ISDIR if directory else stat.S_ISREG)(found.st_mode):
        return False
    if not hasattr(os, "geteuid"):
        return True
    return found.st_uid == os.geteuid() and not found.st_mode & 0o022


def contents() -> dict[Path, os.stat_result]:
    """Files of the store, the one not used for longest first."""
    path = directory()
    found: dict[Path, os.stat_result] = {}
    if path is not None:
        with contextlib.suppress(OSError):
            for file in path.glob(f"*{SUFFIX}"):
                with contextlib.suppress(FileNotFoundError):
                    found[file] = file.lstat()
    return dict(sorted(found.items(), key=lambda item: item[1].st_mtime))


def clear() -> int:
    """Delete the files of the store, nothing else; their number."""
    count = 0
    for file in contents():
        with contextlib.suppress(OSError):
            file.unlink()
            count += 1
    return count


def trim(largest: int) -> None:
    """Delete files until the rest takes at most `largest` bytes."""
    files = contents()
    total = sum(found.st_size for found in files.values())
    for file, found in files.items():
        if total <= largest:
            return
        with contextlib.suppress(OSError):
            file.unlink()
        total -= found.st_size

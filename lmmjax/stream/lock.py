"""A lock on the results of a run, so that no two write to them at once."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold `path.lock`, which says who holds it, while the block runs.

    The lock is the operating system's (flock), which ends with its process, however that ends: what a killed
    run leaves is taken over. Where files cannot be locked, a file of a process that still runs is the lock.

    Raises
    ------
    ValueError : another process or thread holds it, or a process of another machine left it. The message says
        which file to delete if that one is dead.
    """
    file = path.with_name(path.name + ".lock")
    handle = _acquire(file, path)
    try:
        yield
    finally:
        # an open file can only be deleted where files can be locked
        if fcntl is None:
            os.close(handle)
        with contextlib.suppress(OSError):
            file.unlink()
        if fcntl is not None:
            os.close(handle)


def _acquire(file: Path, path: Path) -> int:
    while True:
        try:
            handle, new = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644), True
        except FileExistsError:
            try:
                handle, new = os.open(file, os.O_RDWR), False
            except FileNotFoundError:
                continue
        try:
            free = _flock(handle)
            # between open and flock its holder may have ended, and deleted it
            if not _is_at(handle, file):
                os.close(handle)
                continue
            holder = _holder(handle)
            if not new and not _may_take(holder, free):
                raise ValueError(_message(file, path, holder))
            os.ftruncate(handle, 0)
            os.lseek(handle, 0, os.SEEK_SET)
            os.write(handle, json.dumps(_self()).encode())
            os.fsync(handle)
            return handle
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.close(handle)
            if isinstance(error, OSError) and error.filename is None:
                raise OSError(error.errno, f"cannot be written: {error.strerror}", str(file)) from error
            raise


def _flock(handle: int) -> bool | None:
    """Whether the lock was free and is held now; None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(handle: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), file.stat())
    except FileNotFoundError:
        return False


def _self() -> dict[str, Any]:
    return {"host": platform.node(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def _holder(handle: int) -> dict[str, Any]:
    """What the file says; nothing if it is new, or was left before it was written."""
    try:
        found = json.loads(os.read(handle, 4096) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _may_take(holder: dict[str, Any], free: bool | None) -> bool:
    """Whether a file that was there is of no living process, as far as this one can know."""
    if free is False:
        return False
    here = holder.get("host") == platform.node()
    if free:
        return here or not holder
    return here and not _alive(holder.get("pid"))


def _alive(pid: Any) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    if os.name == "nt":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _message(file: Path, path: Path, holder: dict[str, Any]) -> str:
    who = f"process {holder.get('pid')} on {holder.get('host')}" if holder else "another process"
    since = f" since {holder['since']}" if "since" in holder else ""
    return f"{who} writes {path}{since}: wait for it, or delete {file} if it is dead"

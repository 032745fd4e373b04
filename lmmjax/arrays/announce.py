"""A line for people who wait for a compilation."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

WAIT = 2.0
"""Seconds of compilation before anything is said."""

_said = threading.Lock()


@contextlib.contextmanager
def announced(kept: bool) -> Iterator[None]:
    """Say once after `WAIT` seconds that this is a compilation, to people only: a terminal or a notebook.

    `LMMJAX_QUIET=1` in the environment says nothing. Compilations at the same time are one to a user.
    """
    if not _listening() or not _said.acquire(blocking=False):
        yield
        return
    timer = threading.Timer(WAIT, _say, [kept])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        _said.release()


def _listening() -> bool:
    if os.environ.get("LMMJAX_QUIET", "0") not in ("", "0"):
        return False
    notebook = "ipykernel" in sys.modules
    return notebook or bool(sys.stderr and sys.stderr.isatty())


def _say(kept: bool) -> None:
    later = "; kept for next time" if kept else ""
    with contextlib.suppress(OSError, ValueError):
        print(f"lmmjax: compiling this kind of model, once{later}", file=sys.stderr, flush=True)

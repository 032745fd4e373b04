"""XLA's two lines on stderr for every program that some processors load, which are wrong, kept from the user.

LLVM's preferences of a processor (prefer-no-gather) stand among the instructions that a compiled program asks
for, and are missed when it is loaded on the machine that compiled it: https://github.com/openxla/xla/issues/44565.
The digest of a program has the processor in it (`names.py`), so that one of another is never loaded.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator

MARK = b"Target machine feature +prefer-no-"

_one = threading.Lock()


@contextlib.contextmanager
def without_preferences() -> Iterator[None]:
    """What is written to file descriptor 2 meanwhile follows at the end, without lines that have `MARK`."""
    with contextlib.ExitStack() as stack:
        # a descriptor that is closed has nothing to be kept from
        try:
            stack.enter_context(_one)
            with contextlib.suppress(Exception):
                sys.stderr.flush()
            kept = os.dup(2)
            stack.callback(os.close, kept)
            written = stack.enter_context(tempfile.TemporaryFile())
            os.dup2(written.fileno(), 2)
        except OSError:
            yield
            return
        try:
            yield
        finally:
            with contextlib.suppress(Exception):
                sys.stderr.flush()
            os.dup2(kept, 2)
            written.seek(0)
            rest = b"".join(line for line in written if MARK not in line)
            if rest:
                os.write(2, rest)

"""The line of a user's program that a warning is about."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PACKAGE = str(Path(__file__).parents[1]) + os.sep


def stack_level() -> int:
    """`stacklevel` for a warning given where this is called: that of the first caller outside the package."""
    frame, level = sys._getframe(1), 1
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame, level = frame.f_back, level + 1
    return level

"""Versions of jaxlib that are known to compute wrong."""

from __future__ import annotations

import warnings

from jaxlib.version import __version__ as JAXLIB

KNOWN_FAULTS = {
    "0.10.2": ("cpu", "wrong sums of mapped matrix products beyond 16,384 rows on a CPU (jax#39103)"),
    "0.11.0": ("gpu", "reported to compute wrong outside jit on some GPUs (jax#40633)"),
    "0.11.1": ("gpu", "reported to compute wrong outside jit on some GPUs (jax#40633)"),
}
"""Version of jaxlib -> the platform that it is wrong on, and what is wrong."""


def known_fault(version: str, platform: str) -> str:
    """What is known to be wrong in a version of jaxlib on a platform ("cpu", "gpu", …); else empty."""
    where, what = KNOWN_FAULTS.get(version, ("", ""))
    return what if platform == where else ""


def warn_of_known_fault(version: str = JAXLIB) -> None:
    """RuntimeWarning of a version that is wrong on a CPU, on which something is computed everywhere."""
    if what := known_fault(version, "cpu"):
        message = f"jaxlib {version}: {what}. Install another version; lmmjax.self_check() shows it"
        warnings.warn(message, RuntimeWarning, stacklevel=3)

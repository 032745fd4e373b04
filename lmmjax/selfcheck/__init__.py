"""Whether the installed JAX computes right: patterns of the engine beside NumPy, on the device JAX would use.

A compiler can be wrong without a word, and from a certain size on only.
"""

from lmmjax.selfcheck import patterns, whole
from lmmjax.selfcheck.table import self_check
from lmmjax.selfcheck.versions import JAXLIB, KNOWN_FAULTS, known_fault, warn_of_known_fault

__all__ = ["JAXLIB", "KNOWN_FAULTS", "known_fault", "patterns", "self_check", "warn_of_known_fault", "whole"]

"""Many candidate columns against a fitted model: g'Py and g'Pg by blocks, exact refits, on arrays."""

from lmmjax.inference.scan.engine import Engine, Null, Refitted, partial
from lmmjax.inference.scan.statistics import Statistics, statistics, term_statistics

__all__ = [
    "Engine",
    "Null",
    "Refitted",
    "Statistics",
    "partial",
    "statistics",
    "term_statistics",
]

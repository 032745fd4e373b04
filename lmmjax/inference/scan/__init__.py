"""Many candidate columns against a fitted model: g'Py and g'Pg by blocks, exact refits, on arrays."""

from lmmjax.inference.scan.engine import Engine, Null, Refitted
from lmmjax.inference.scan.several import Several, several
from lmmjax.inference.scan.statistics import Statistics, statistics

__all__ = [
    "Engine",
    "Null",
    "Refitted",
    "Several",
    "Statistics",
    "several",
    "statistics",
]

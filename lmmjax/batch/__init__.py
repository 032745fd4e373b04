"""Many responses at once: which share a design, lanes of responses, Newton over lanes, their programs."""

from lmmjax.batch.determined import open_along
from lmmjax.batch.estimate_many import estimate_many
from lmmjax.batch.lanes import LANES, lane_count
from lmmjax.batch.outcome import Outcome, blank
from lmmjax.batch.sources import FEW
from lmmjax.batch.starts import Starts

__all__ = [
    "FEW",
    "LANES",
    "Outcome",
    "Starts",
    "blank",
    "estimate_many",
    "lane_count",
    "open_along",
]

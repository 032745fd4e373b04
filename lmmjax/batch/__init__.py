"""Many responses at once: which share a design, lanes of responses, Newton over lanes, their programs."""

from lmmjax.batch.estimate_many import FEW, estimate_many
from lmmjax.batch.lanes import LANES, lane_count, take_lanes
from lmmjax.batch.newton_lanes import fit_lanes

__all__ = ["FEW", "LANES", "estimate_many", "fit_lanes", "lane_count", "take_lanes"]

"""Batches on devices that are no CPU: rows move to them in large blocks, and stages stay there.

The steps are those of `batch.newton_lanes`, and so are the results, up to rounding. What differs is where
arrays live: products of responses are formed on the device by the function of a single fit, traced; lanes are
counted by the device's memory; between stages one integer comes to the host, the most lanes of a device that
go on; the records come in two transfers at the end.
"""

from lmmjax.batch.device.blocks import fit_blocks
from lmmjax.batch.device.kernel_gaps import gaps_on_devices
from lmmjax.batch.device.left_out import left_out_on_devices
from lmmjax.batch.device.one_kernel import one_kernel_on_devices
from lmmjax.batch.device.own_designs import own_on_devices
from lmmjax.batch.device.shared_design import on_devices
from lmmjax.batch.device.where import Place, forced, placed

__all__ = [
    "Place",
    "fit_blocks",
    "forced",
    "gaps_on_devices",
    "left_out_on_devices",
    "on_devices",
    "one_kernel_on_devices",
    "own_on_devices",
    "placed",
]

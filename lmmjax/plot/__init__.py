"""Pictures of results: functions of tables that draw on Axes and return them; the only importer of
matplotlib."""

from lmmjax.plot.means import plot_means
from lmmjax.plot.power import plot_power

__all__ = ["plot_means", "plot_power"]

"""Pictures of results: functions of tables that draw on Axes and return them; the only importer of
matplotlib."""

from lmmjax.plot.means import plot_means

__all__ = ["plot_means"]

"""Pictures of results: functions of tables that draw on Axes and return them; the only importer of
matplotlib."""

from lmmjax.plot.caterpillar import plot_ranef
from lmmjax.plot.covariance import plot_covariance
from lmmjax.plot.effects import plot_effects
from lmmjax.plot.manhattan import plot_lod, plot_manhattan
from lmmjax.plot.means import plot_means
from lmmjax.plot.posterior import plot_posterior
from lmmjax.plot.power import plot_power
from lmmjax.plot.profiles import plot_contour, plot_profile
from lmmjax.plot.pvalues import plot_pvalues, plot_qq
from lmmjax.plot.residual_panel import plot_residuals
from lmmjax.plot.semivariogram import plot_semivariogram
from lmmjax.plot.shares import plot_shares
from lmmjax.plot.shrinkage import plot_shrinkage
from lmmjax.plot.spaghetti import plot_spaghetti
from lmmjax.plot.volcano import plot_ma, plot_volcano

__all__ = [
    "plot_contour",
    "plot_covariance",
    "plot_effects",
    "plot_lod",
    "plot_ma",
    "plot_manhattan",
    "plot_means",
    "plot_posterior",
    "plot_power",
    "plot_profile",
    "plot_pvalues",
    "plot_qq",
    "plot_ranef",
    "plot_residuals",
    "plot_semivariogram",
    "plot_shares",
    "plot_shrinkage",
    "plot_spaghetti",
    "plot_volcano",
]

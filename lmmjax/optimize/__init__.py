"""Minimisers: they know nothing of mixed models."""

from lmmjax.optimize.lbfgs import lbfgs
from lmmjax.optimize.newton import NewtonState, newton
from lmmjax.optimize.status import Status

__all__ = ["NewtonState", "Status", "lbfgs", "newton"]

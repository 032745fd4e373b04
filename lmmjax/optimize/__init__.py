"""Minimisers: they know nothing of mixed models."""

from lmmjax.optimize.lbfgs import lbfgs
from lmmjax.optimize.newton import NewtonState, at_rest, newton
from lmmjax.optimize.status import Status, advice

__all__ = ["NewtonState", "Status", "advice", "at_rest", "lbfgs", "newton"]

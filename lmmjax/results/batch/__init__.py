"""Fits of many responses as users hold them: `BatchFit` with its methods, and what these return."""

from lmmjax.results.batch.fits import BatchFit

__all__ = ["BatchFit"]

"""Counts of genes to what a linear model takes: normalisation, weights, one correlation for all genes."""

from lmmjax.omics.correlation import DuplicateCorrelation, duplicate_correlation
from lmmjax.omics.normalisation import tmm
from lmmjax.omics.voom import Voom, voom

__all__ = ["DuplicateCorrelation", "Voom", "duplicate_correlation", "tmm", "voom"]

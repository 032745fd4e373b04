"""Relationship matrices of individuals, from pedigrees and from genotypes, on codes and arrays.

`pedigree` and `genotypes` in `lmmjax.formula.relationships` give them the labels of individuals.
"""

from lmmjax.kinship.families import additive_sparse, dominance_sparse, in_families
from lmmjax.kinship.markers import METHODS, Genomic, genomic_relationship, genomic_sums
from lmmjax.kinship.pedigree import (
    Ancestry,
    PedigreeLoop,
    additive,
    additive_inverse,
    ancestry,
    dominance,
)

__all__ = [
    "METHODS",
    "Ancestry",
    "Genomic",
    "PedigreeLoop",
    "additive",
    "additive_inverse",
    "additive_sparse",
    "ancestry",
    "dominance",
    "dominance_sparse",
    "genomic_relationship",
    "genomic_sums",
    "in_families",
]

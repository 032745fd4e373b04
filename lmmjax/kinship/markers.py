"""Genomic relationships from genotypes, a block of markers at a time.

x_ij counts an allele of marker j in individual i, p_j = ½ mean(x_j) its frequency, m the number of markers
used.

    vanraden            Σ (x_j − 2p_j)(x_j − 2p_j)ᵀ / Σ 2p_j(1 − p_j)          VanRaden's first method
    vanraden2, gcta     Σ (x_j − 2p_j)(x_j − 2p_j)ᵀ / 2p_j(1 − p_j) / m        his second; Yang and others,
    GCTA gemma-centered      Σ (x_j − 2p_j)(x_j − 2p_j)ᵀ / m                        GEMMA -gk 1
    gemma-standardized  Σ (x_j − 2p_j)(x_j − 2p_j)ᵀ / var(x_j) / m             GEMMA -gk 2

A missing genotype is the mean of its marker, also in var, which divides by n. Markers without variation in
the allele (p = 0 or 1) are left out and not counted.

Sources: VanRaden (2008), doi:10.3168/jds.2007-0980; Yang et al. (2011), doi:10.1016/j.ajhg.2010.11.011; Zhou
& Stephens (2012), doi:10.1038/ng.2310.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

METHODS = ("vanraden", "vanraden2", "gcta", "gemma-centered", "gemma-standardized")


@dataclasses.dataclass(frozen=True, eq=False)
class Genomic:
    """Genomic relationships and what they were made of.

    Attributes
    ----------
    matrix : (n, n). used : number of markers in it.
    monomorphic, filtered : numbers of markers left out, without variation and by `maf` or `max_missing`.
    missing : number of missing genotypes in the markers used.
    largest : the largest genotype. weight : what the sums over markers are divided by.
    """

    matrix: np.ndarray
    used: int
    monomorphic: int
    filtered: int
    missing: int
    largest: float
    weight: float


def genomic_relationship(
    blocks: Iterable[np.ndarray], n: int, method: str, maf: float = 0.0, max_missing: float = 1.0
) -> Genomic:
    """The relationships of n individuals by one of `METHODS`.

    Parameters
    ----------
    blocks : genotypes (n, m) of some markers each, 0 to 2, NaN where missing.
    maf : markers whose rarer allele is less frequent are left out.
    max_missing : markers with a larger share of missing genotypes are left out.

    Raises
    ------
    ValueError : no marker is left.
    """
    found = genomic_sums(blocks, n, method, maf, max_missing)
    if not found.used:
        raise ValueError(
            f"no marker is left: {found.monomorphic} do not vary and {found.filtered} are left out by maf= "
            "or max_missing="
        )
    return dataclasses.replace(found, matrix=found.matrix / found.weight)


def genomic_sums(
    blocks: Iterable[np.ndarray],
    n: int,
    method: str,
    maf: float = 0.0,
    max_missing: float = 1.0,
    rows: np.ndarray | None = None,
) -> Genomic:
    """What relationships are made of, sums over markers: those of other markers can be added and taken off.

    Parameters
    ----------
    rows : (r,) the individuals that are wanted, all if None; frequencies are those of all.

    Others as for `genomic_relationship`. With no marker left the sums are zero.
    """
    r = n if rows is None else len(rows)
    matrix, total = np.zeros((r, r)), 0.0
    used, monomorphic, filtered, missing, largest = 0, 0, 0, 0, 0.0
    for block in blocks:
        absent = np.isnan(block)
        counts = n - absent.sum(axis=0)
        mean = np.where(absent, 0.0, block).sum(axis=0) / np.maximum(counts, 1)
        p = 0.5 * mean
        # sums of equal numbers may round: all that are there are 0, or all are 2
        constant = (
            (counts == 0) | np.all(absent | (block == 0.0), axis=0) | np.all(absent | (block == 2.0), axis=0)
        )
        lacking = ~constant & ((np.minimum(p, 1.0 - p) < maf) | (counts < (1.0 - max_missing) * n))
        keep = ~constant & ~lacking
        monomorphic, filtered = monomorphic + int(constant.sum()), filtered + int(lacking.sum())
        if not keep.any():
            continue
        absent, p = absent[:, keep], p[keep]
        z = np.where(absent, 0.0, block[:, keep] - 2.0 * p)
        used, missing = used + z.shape[1], missing + int(absent.sum())
        largest = max(largest, float(np.max(z + 2.0 * p)))
        heterozygous = 2.0 * p * (1.0 - p)
        if method == "vanraden":
            total += heterozygous.sum()
        else:
            total += z.shape[1]
        if method in ("vanraden2", "gcta"):
            z /= np.sqrt(heterozygous)
        elif method == "gemma-standardized":
            variance = np.mean(z**2, axis=0)
            z /= np.sqrt(np.where(variance > 0, variance, 1.0))
        z = z if rows is None else z[rows]
        matrix += z @ z.T
    return Genomic(matrix, used, monomorphic, filtered, missing, largest, total)

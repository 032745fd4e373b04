"""The chromosome of every marker: given, or what the file of the markers says."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.formula import genotypes
from lmmjax.formula.relationships.genotypes import Pgen
from lmmjax.scan.markers import Markers


def chromosomes(markers: Markers, given: Any, chromosome: Any) -> tuple[np.ndarray, pd.Index]:
    """(M,) codes and the labels of the chromosomes, in their order of appearance."""
    if chromosome is None:
        chromosome = _of_file(given)
    if chromosome is None:
        raise ValueError("loco= needs chromosome=, the chromosome of every marker")
    if isinstance(chromosome, Mapping):
        chromosome = pd.Series(dict(chromosome), dtype=object)
    if isinstance(chromosome, pd.Series) and not isinstance(markers.names, pd.RangeIndex):
        twice = chromosome.index[chromosome.index.duplicated()]
        if len(twice):
            raise ValueError(f"chromosome= has the marker {twice[0]!r} twice: name each once")
        place = chromosome.index.get_indexer(markers.names)
        if np.any(place < 0):
            raise ValueError(f"chromosome= has no marker {markers.names[int(np.argmax(place < 0))]!r}")
        chromosome = chromosome.iloc[place]
    values = np.asarray(chromosome)
    if values.shape != (len(markers),):
        raise ValueError(
            f"chromosome has shape {values.shape} for {len(markers)} markers: pass a label for each"
        )
    codes, labels = pd.factorize(values)
    if np.any(codes < 0):
        raise ValueError(f"the chromosome of marker {markers.names[int(np.argmax(codes < 0))]!r} is missing")
    # 1 and "1" are one chromosome
    merged, texts = pd.factorize(np.array([str(label) for label in labels], dtype=object))
    if len(texts) < len(labels):
        codes, labels = merged[codes], texts
    return codes, pd.Index(labels)


def _of_file(given: Any) -> Any:
    """The chromosomes that a PLINK file says."""
    file: Any = given
    if isinstance(given, str | Path) and str(given).endswith(".pgen"):
        return Pgen(given).chromosome
    if isinstance(given, str | Path) and str(given).endswith(".bed"):
        genotypes(given)  # says how to install what is missing
        file = importlib.import_module("bed_reader").open_bed(given)
    return np.asarray(file.chromosome) if hasattr(file, "chromosome") and hasattr(file, "iid") else None

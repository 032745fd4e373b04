"""The command `lmmjax grm`: relationships from genotypes or a pedigree, to a file that fits take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from lmmjax.cli.common import (
    PARQUET,
    Force,
    one_line_errors,
    read_table,
    require_free,
    waiting,
    write_table,
)
from lmmjax.cli.genotypes import MaxMissing, MinorFrequency, read_markers
from lmmjax.formula import Kernel, Pedigree
from lmmjax.formula import grm as relationships
from lmmjax.kinship import METHODS
from lmmjax.stream.files import target
from lmmjax.stream.tables import TEXT, kind_of

EXAMPLES = """Examples

lmmjax grm mice.bed -o K.npz --method gemma-centered --maf 0.01

lmmjax grm genotypes.parquet -o K.csv

lmmjax grm calves.csv --pedigree -o A.npz

lmmjax fit 'y ~ sex + (1 | id)' mice.csv --kernel id=K.npz"""

KINDS = (".npz", *TEXT, *PARQUET, ".txt")


def grm(
    source: Annotated[
        Path,
        typer.Argument(
            help="Genotypes, individuals × markers: PLINK .bed or .pgen, .npy, or a CSV, TSV or Parquet file "
            "with labels in the first column. With --pedigree a table of it.",
            metavar="FILE",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="File to write: .npz (for --kernel and Kernel.load), .csv, .tsv, .parquet with labels, or "
            ".txt without, as GEMMA reads it.",
            metavar="FILE",
        ),
    ],
    method: Annotated[
        str, typer.Option(help=f"Of genotypes: {', '.join(METHODS)}.", metavar="NAME")
    ] = "vanraden",
    maf: MinorFrequency = 0.0,
    max_missing: MaxMissing = 1.0,
    pedigree: Annotated[
        bool, typer.Option("--pedigree", help="FILE is a pedigree: columns id, sire, dam.")
    ] = False,
    kind: Annotated[
        str, typer.Option(help="Of a pedigree: additive or dominance.", metavar="NAME")
    ] = "additive",
    force: Force = False,
) -> None:
    """Relationships of individuals, from genotypes or from a pedigree.

    The last line says how many individuals, and of how many markers.
    """
    with one_line_errors():
        target(out, [source], "--out")
        if kind_of(out) not in KINDS:
            raise ValueError(f"{out}: end the name of --out in one of {', '.join(KINDS)}")
        require_free(out, force)
        with waiting("relationships"):
            matrix, said = (
                _of_pedigree(source, kind) if pedigree else _of_markers(source, method, maf, max_missing)
            )
            _write(out, matrix)
    typer.echo(f"{len(matrix):,} individuals, {said}: {out}")


def _of_markers(path: Path, method: str, maf: float, max_missing: float) -> tuple[pd.DataFrame, str]:
    markers = read_markers(path)
    found = relationships(markers, method=method, maf=maf, max_missing=max_missing)
    own = found.attrs
    parts = [f"{own['used']:,} markers"]
    parts += [f"{own[what]:,} {words}" for what, words in _LEFT.items() if own[what]]
    return found, ", ".join(parts)


_LEFT = {"monomorphic": "that do not vary", "filtered": "left out", "missing": "genotypes missing"}


def _of_pedigree(path: Path, kind: str) -> tuple[pd.DataFrame, str]:
    if kind not in ("additive", "dominance"):
        raise ValueError(f"unknown --kind {kind!r}: additive or dominance")
    found = getattr(Pedigree(read_table(path)), kind)()
    return found, f"{kind} relationships"


def _write(path: Path, matrix: pd.DataFrame) -> None:
    if kind_of(path) == ".npz":
        Kernel(matrix).save(path)
    elif kind_of(path) == ".txt":
        np.savetxt(path, matrix.to_numpy(), fmt="%.17g", delimiter="\t")
    else:
        table = matrix.set_axis([str(label) for label in matrix.columns], axis=1)
        write_table(path, table.rename_axis("id").reset_index())

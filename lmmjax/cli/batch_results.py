"""What `lmmjax batch` makes of a table of results: q-values, long tables, maps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.postestimation.hypotheses.batch_tests import adjust
from lmmjax.stream.files import written_whole
from lmmjax.stream.packages import pyarrow
from lmmjax.stream.parts import written

TESTS = ("estimate", "se", "df", "t", "F", "num_df", "den_df", "p", "q")
"""Columns of a long table, beside response, term and status."""


def with_q(path: Path) -> None:
    """Add to a table of results q-values over all responses (Benjamini & Hochberg), after each p."""
    parquet = pyarrow("parquet")
    table = parquet.read_table(path, page_checksum_verification=True)
    columns: dict[str, Any] = {}
    for name in table.column_names:
        if name.startswith("q:"):
            continue
        columns[name] = table[name]
        if name.startswith("p:"):
            columns[f"q:{name[2:]}"] = adjust(table[name].to_numpy())
    _write(path, columns, table.schema.metadata)


def _write(path: Path, columns: dict[str, Any], metadata: Any) -> None:
    import pyarrow as pa

    table = pa.table(columns).replace_schema_metadata(metadata)
    with written_whole(path) as file:
        pyarrow("parquet").write_table(table, file, **written(table.column_names))


def long_table(wide: pd.DataFrame) -> pd.DataFrame:
    """A row a response × coefficient, contrast, test or variance parameter."""
    found: dict[str, dict[str, Any]] = {}
    for column in wide.columns:
        what, sep, term = str(column).partition(":")
        if sep and what in (*TESTS, "icc"):
            key, what = (f"icc:{term}", "estimate") if what == "icc" else (term, what)
            found.setdefault(key, {})[what] = wide[column].to_numpy()
        elif re.match(r"(sd|cor|cov)_|sigma$|s2", str(column)):
            found[str(column)] = {"estimate": wide[column].to_numpy()}
    kept = [what for what in TESTS if any(what in own for own in found.values())]
    count, terms = len(wide), len(found)
    missing = np.full(count, np.nan)
    columns = {
        what: np.stack([own.get(what, missing) for own in found.values()], axis=1).ravel() for what in kept
    }
    return pd.DataFrame(
        {
            "response": np.repeat(wide["response"].to_numpy(), terms),
            "term": np.tile(np.array(list(found), dtype=object), count),
            **columns,
            "status": np.repeat(wide["status"].to_numpy(), terms),
        }
    )


def write_maps(folder: Path, images: Any, wide: pd.DataFrame) -> int:
    """An image of each column of numbers, into a folder; how many."""
    numbers = [name for name in wide.columns if name != "response" and wide[name].dtype.kind in "fib"]
    for name in numbers:
        image = images.to_img(wide.set_index("response")[name].astype(float))
        plain = re.sub(r"[^\w.+-]+", "_", str(name)).strip("_")
        image.to_filename(folder / f"{plain}{_ending(image)}")
    return len(numbers)


def _ending(image: Any) -> str:
    if hasattr(image, "darrays"):
        return ".func.gii"
    if hasattr(image, "nifti_header"):
        return ".pscalar.nii" if hasattr(image.header.get_axis(1), "nvertices") else ".dscalar.nii"
    return ".mgz" if type(image).__name__ == "MGHImage" else ".nii.gz"

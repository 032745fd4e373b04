"""What a streamed batch is asked for: responses, with their weights and offsets, and contrasts."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.fitted import ModelData
from lmmjax.formula.matching import positions
from lmmjax.postestimation.hypotheses.contrasts import contrast_matrix, hypothesis
from lmmjax.stream.files import on_disk, target
from lmmjax.stream.sources import Source, open_source
from lmmjax.stream.tables import TEXT, kind_of


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The responses, and what has a value for each of their values.

    Attributes
    ----------
    responses, weights, offset : sources of the same shape.
    """

    responses: Source
    weights: Source | None = None
    offset: Source | None = None

    @property
    def n_responses(self) -> int:
        """T."""
        return self.responses.n_responses

    def read(self, start: int, stop: int) -> list[np.ndarray | None]:
        """Each (n, stop − start)."""
        sources = (self.responses, self.weights, self.offset)
        return [None if source is None else source.read(start, stop) for source in sources]


def open_inputs(
    data: ModelData,
    source: Any,
    weights: Any = None,
    offset: Any = None,
    *,
    index: str | None = None,
    layer: str | None = None,
    rows: bool = False,
) -> Inputs:
    """Open and check the sources of `stream_batch`; ValueError says which does not match.

    Rows go by their labels, where sources and design have some, and by position otherwise.
    """
    responses = open_source(source, index=index, layer=layer, rows=rows)
    inputs = Inputs(responses, *(_beside(given, index, rows) for given in (weights, offset)))
    _check_shapes(data, inputs)
    return Inputs(
        in_order(data, responses, "responses"),
        inputs.weights and in_order(data, inputs.weights, "weights"),
        inputs.offset and in_order(data, inputs.offset, "offset"),
    )


def in_order(data: ModelData, source: Source, what: str) -> Source:
    """The source with its rows in the order of the design's labels; ValueError where these differ."""
    frame = data.frame
    labels = frame.data_index if source.n_rows == len(frame.data_index) else frame.index
    place = positions(source.index, labels, what, "the design")
    if place is None:
        return source

    def read(start: int, stop: int) -> np.ndarray:
        return source.read(start, stop)[place]

    return dataclasses.replace(source, read=read, index=labels, place=place)


def out_path(out: str | Path, sources: Iterable[Any]) -> tuple[Path, Path]:
    """(file of the results, folder of its parts); ValueError if they would replace a source."""
    sources = list(sources)
    path = target(out, sources, "out")
    parts = parts_of(path)
    for given in filter(None, map(on_disk, sources)):
        if parts.resolve() in (given.resolve(), *given.resolve().parents):
            raise ValueError(f"{given} is where parts of the results are kept: name another file as out")
    return path, parts


def parts_of(path: Path) -> Path:
    """The folder of the parts of some results."""
    return path.with_name(path.name + ".parts")


_NAMED = re.compile(r"\s*([^()\[\]=]*[^()\[\]=\s])\s*=(?!=)(.*)", re.DOTALL)


def named_contrasts(contrasts: Any, x_names: list[str]) -> dict[str, np.ndarray]:
    """Weights (p,) of each contrast by name.

    Parameters
    ----------
    contrasts : as for `BatchFit.contrast`, or None; a text may be "NAME = text". The name has no brackets, so
        that the = of "C(g, Treatment(reference=2))[T.1]" is none of it.
    """
    if contrasts is None or len(contrasts) == 0:
        return {}
    pieces, own = [contrasts] if isinstance(contrasts, str) else contrasts, {}
    if isinstance(pieces, list | tuple):
        pieces = list(pieces)
        for k, piece in enumerate(pieces):
            if isinstance(piece, str) and (match := _NAMED.fullmatch(piece)):
                own[k], pieces[k] = match.groups()
    matrix, labels, _ = contrast_matrix(pieces, x_names)
    found: dict[str, np.ndarray] = {}
    for k, (label, row) in enumerate(zip(labels, matrix, strict=True)):
        name = own.get(k, label).strip()
        if name in found or name in x_names:
            what = "two contrasts are" if name in found else "a fixed effect is"
            raise ValueError(f"{what} called {name!r}: name the contrast, as 'NAME = {label.strip()}'")
        found[name] = row
    return found


def named_hypotheses(tests: Any, x_names: list[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """L (k, p) and right-hand sides (k,) of each hypothesis by its text.

    Parameters
    ----------
    tests : texts, or None; equations of one that are tested together stand between semicolons.
    """
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for text in [tests] if isinstance(tests, str) else tests or ():
        if not isinstance(text, str):
            raise ValueError(f"a test is a text, such as 'a = b; c = 0', not {text!r:.60}")
        name = " ".join(text.split())
        if name in found:
            raise ValueError(f"the test {name!r} is asked for twice")
        pieces = [piece for piece in text.split(";") if piece.strip()]
        rows, right, _ = hypothesis(pieces or [text], x_names)
        found[name] = rows, right
    return found


def options_beside(given: Any, index: str | None, rows: bool) -> dict[str, Any]:
    """How a source of weights or offsets is opened: the options are for files of columns."""
    columns = isinstance(given, str | Path) and kind_of(Path(given)) in (".parquet", ".pq", *TEXT)
    return {"index": index if columns else None, "rows": rows and columns}


def _beside(given: Any, index: str | None, rows: bool) -> Source | None:
    return None if given is None else open_source(given, **options_beside(given, index, rows))


def _check_shapes(data: ModelData, inputs: Inputs) -> None:
    n, dropped = data.design.n, data.frame.n_dropped
    source = inputs.responses
    if source.n_rows not in (n, n + dropped):
        without = f" ({n} without those that have missing values)" if dropped else ""
        raise ValueError(
            f"responses have {source.n_rows} rows; the data of the design have {n + dropped}{without}: one "
            "row a row of the design is needed, one column a response"
        )
    for what, other in (("weights", inputs.weights), ("offset", inputs.offset)):
        if other is None:
            continue
        shapes = [(s.n_rows, s.n_responses) for s in (other, source)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"{what} have shape {shapes[0]}, the responses {shapes[1]}: pass one for each value"
            )
        # what has no names is matched by position
        if any(isinstance(s.names, pd.RangeIndex) for s in (other, source)):
            continue
        for k, (theirs, name) in enumerate(zip(other.names, source.names, strict=True)):
            if str(theirs) != str(name):
                raise ValueError(
                    f"column {k} of the {what} is called {theirs!r}, that of the responses {name!r}: pass "
                    "the same responses in the same order"
                )

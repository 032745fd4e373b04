"""A model of data that are read by the chunk, and its fit: what needs no rows at once, what needs them by the
chunk, and words for the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from lmmjax.fitted import announce, fit_one, require_switch
from lmmjax.fitted.condensed import Chunked, chunked_model
from lmmjax.reports.summary import Summary, without_residuals
from lmmjax.results.fit import Fit

SAME = frozenset(
    (
        "params",
        "bse",
        "tvalues",
        "pvalues",
        "df",
        "cov_params",
        "coef_table",
        "test",
        "contrast",
        "conf_int",
        "delta",
        "varcorr",
        "ranef",
        "estimate",
        "theta",
        "sigma",
        "scale",
        "deviance",
        "llf",
        "aic",
        "aicc",
        "bic",
        "n_params",
        "nobs",
        "status",
        "converged",
        "is_singular",
        "bound",
        "unidentified",
        "grad_norm",
        "n_iter",
        "reml",
        "response",
        "icc",
        "predict",
        "tidy",
    )
)
"""What a fit has whose rows were condensed: the same as of all rows."""


class ChunkedModel:
    """A model of data that are read by the chunk; made by `lmm` from a path, a dataset or a function.

    Attributes
    ----------
    data : the model on rows that stand for all; nobs : the rows that these stand for.
    """

    def __init__(self, chunked: Chunked):
        self.chunked, self.data = chunked, chunked.data
        self.nobs = chunked.data.design.observations

    def fit(self, reml: bool = True, **options: Any) -> ChunkedFit:
        """Fit by REML or maximum likelihood; options as of `Model.fit`."""
        fitted = fit_one(self.data, self.data.response(), require_switch("reml", reml), **options)
        announce(fitted)
        return ChunkedFit(self, Fit(self, fitted))  # type: ignore[arg-type]

    def __repr__(self) -> str:
        rows = f"{self.nobs:,} rows, condensed to {self.data.design.n:,}"
        return f"ChunkedModel({self.data.formula!r}, {rows})"


class ChunkedFit:
    """A fit of data that are read by the chunk.

    Estimates, tests, intervals, random effects and predictions for new rows are those of `Fit`, under the
    same names. What has a value for every row is read by the chunk again: `rows`, `write_rows`.
    """

    def __init__(self, model: ChunkedModel, fit: Fit):
        self.model, self._fit = model, fit

    def __getattr__(self, name: str) -> Any:
        if name in SAME:
            return getattr(self._fit, name)
        if not name.startswith("_") and hasattr(Fit, name):
            raise AttributeError(
                f"{name} needs all rows at once, and those of this fit are read by the chunk: rows() has "
                "fitted values and residuals; fit the rows that fit in memory for the rest"
            )
        raise AttributeError(f"a fit of data that are read by the chunk has no {name!r}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *SAME]

    def summary(self, ddf: str = "satterthwaite") -> Summary:
        """The tables of `Fit.summary`, without those of residuals."""
        return without_residuals(self._fit.summary(ddf))

    def rows(self, columns: list[str] | None = None) -> Iterator[pd.DataFrame]:
        """Of every chunk the `columns` of the data, all if None, with `fitted`, `population` and `resid`.

        `fitted` are conditional on the random effects, `population` is Xβ̂ + offset; rows with missing values
        have NaN.
        """
        reads = self.model.chunked.columns
        wanted = None if columns is None else list(dict.fromkeys([*reads, *columns]))
        response = self._fit.fitted.data.frame.response
        for piece in self.model.chunked.chunks(wanted):
            frame = piece.reset_index(drop=True)
            shown = frame if columns is None else frame[columns]
            own = self._fit.predict(frame)
            y = self._response(frame, response)
            yield shown.assign(fitted=own, population=self._fit.predict(frame, re="none"), resid=y - own)

    def write_rows(self, path: str | Path, columns: list[str] | None = None) -> int:
        """Write `rows` to the Parquet file `path`, whole or not at all; how many there are."""
        import pyarrow as pa
        from pyarrow import parquet

        from lmmjax.stream.files import written_whole

        total, writer = 0, None
        with written_whole(Path(path)) as file:
            for frame in self.rows(columns):
                table = pa.Table.from_pandas(frame, preserve_index=False)
                writer = writer or parquet.ParquetWriter(file, table.schema)
                writer.write_table(table.cast(writer.schema))
                total += len(frame)
            if writer is not None:
                writer.close()
        return total

    def _response(self, frame: pd.DataFrame, name: str | None) -> pd.Series:
        from lmmjax.formula import new_frame

        new = new_frame(self._fit.fitted.data.frame, frame, groups=[], require_response=True)
        return pd.Series(new.y, index=frame.index, name=name)

    def __repr__(self) -> str:
        return repr(self.summary())

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()


def chunked(formula: str, data: Any, beside: dict[str, Any], backend: str | None, safe: bool) -> Any:
    """The model of data that are read by the chunk; ValueError for what it cannot have."""
    for name in ("residual", "kernels"):
        if beside.pop(name) is not None:
            raise ValueError(
                f"{name} of data that are read by the chunk: such a model needs all rows; read them, as with "
                "pd.read_parquet"
            )
    return ChunkedModel(chunked_model(formula, data, **beside, backend=backend, safe=safe))

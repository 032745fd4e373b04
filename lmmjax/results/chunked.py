"""A model of data that are read by the chunk, and its fit: what needs no rows at once, what needs them by the
chunk, and words for the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from lmmjax.arrays.other_arguments import answered
from lmmjax.fitted import Fitted, ModelData, announce, fit_one, refitted, require_switch
from lmmjax.fitted.chunks import chunks_of
from lmmjax.fitted.condensed import Chunked, chunked_model, loaded_chunks, reformulated
from lmmjax.fitted.streamed import ROWS, response_columns, row_values
from lmmjax.reports.summary import Summary, without_residuals
from lmmjax.results.fit import Fit

if TYPE_CHECKING:
    from lmmjax.results.plots import ChunkedPlots

SAME = frozenset(
    (
        "params",
        "bse",
        "tvalues",
        "pvalues",
        "cov_params",
        "coef_table",
        "fe_params",
        "bse_fe",
        "df_resid",
        "test",
        "contrast",
        "t_test",
        "f_test",
        "anova",
        "drop1",
        "ranova",
        "emmeans",
        "emtrends",
        "conf_int",
        "profile",
        "contour",
        "delta",
        "icc",
        "r2",
        "variance_shares",
        "heritability",
        "reliability",
        "varcorr",
        "ranef",
        "random_effects",
        "coef",
        "cond_var",
        "repca",
        "vif",
        "condition_indices",
        "estimate",
        "fitted",
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
        "predict",
        "get_prediction",
        "tidy",
        "glance",
        "allfit",
        "to_maketables",
    )
)
"""What a fit has whose rows were condensed: the same as of all rows."""


@answered
class ChunkedModel:
    """A model of data that are read by the chunk; made by `lmm` from a path, a dataset or a function.

    Attributes
    ----------
    data : the model on rows that stand for all; nobs : the rows that these stand for.
    """

    def __init__(self, chunked: Chunked):
        self.chunked, self.data = chunked, chunked.data
        self.nobs = chunked.data.design.observations

    @property
    def formula(self) -> str:
        """The formula as given."""
        return self.data.formula

    def fit(self, reml: bool = True, **options: Any) -> ChunkedFit:
        """Fit by REML or maximum likelihood; options as of `Model.fit`."""
        fitted = fit_one(self.data, self.data.response(), require_switch("reml", reml), **options)
        announce(fitted)
        return ChunkedFit(self, fitted)

    def update(self, formula: str | None = None, *, data: Any = None, **changes: Any) -> ChunkedModel:
        """The model with another formula, weights or offset, by reading the data again, or other data.

        Parameters
        ----------
        formula : as of `Model.update`: "~ . - x", ". ~ . + z + (1 | h)".
        data : as `lmm` takes them; those of this model if None.

        Raises
        ------
        ValueError : a model that was loaded from a file, without `data`.
        """
        return ChunkedModel(reformulated(self.chunked, formula, data, changes))

    def save(self, path: str | Path) -> None:
        """Write the model to a file, which `lmmjax.load` reads: the condensed rows, not the data.

        Parameters
        ----------
        path : of the file, in a folder that is there.

        Raises
        ------
        OSError : it cannot be written.
        """
        from lmmjax.saving import save_record

        save_record(self.data, path)

    def _wrap(self, fitted: Fitted) -> ChunkedFit:
        """A fit of this model with its methods."""
        return ChunkedFit(self, fitted)

    def __repr__(self) -> str:
        rows = f"{self.nobs:,} rows, condensed to {self.data.design.n:,}"
        return f"ChunkedModel({self.data.formula!r}, {rows})"


@answered
class ChunkedFit:
    """A fit of data that are read by the chunk.

    Estimates, tests, marginal means, intervals, random effects and predictions for new rows are those of
    `Fit`, under the same names. What has a value for every row is read by the chunk again: `rows`,
    `write_rows`.
    """

    def __init__(self, model: ChunkedModel, fitted: Fitted):
        self.model, self._fit = model, Fit(model, fitted)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        if name in SAME:
            return getattr(self._fit, name)
        if not name.startswith("_") and hasattr(Fit, name):
            raise AttributeError(f"{name} {ROWS}")
        raise AttributeError(f"a fit of data that are read by the chunk has no {name!r}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *SAME]

    def summary(self, ddf: str = "satterthwaite", *, correlation: bool = False) -> Summary:
        """The tables of `Fit.summary`, without those of residuals.

        Parameters
        ----------
        ddf, correlation : as there.

        Raises
        ------
        ValueError : as there.
        """
        return without_residuals(self._fit.summary(ddf, correlation=correlation))

    @property
    def plot(self) -> ChunkedPlots:
        """Pictures that need no rows; see `FitPlots`."""
        from lmmjax.results.plots import ChunkedPlots

        return ChunkedPlots(self._fit.fitted)

    def refit(self, *, reml: bool) -> ChunkedFit:
        """The same model by the other criterion.

        Parameters
        ----------
        reml : the criterion.

        Raises
        ------
        ValueError : reml is no bool.
        """
        return ChunkedFit(self.model, refitted(self._fit.fitted, None, require_switch("reml", reml)))

    def update(self, formula: str | None = None, *, reml: bool | None = None, **changes: Any) -> ChunkedFit:
        """The fit with another formula, weights, offset or data; see `ChunkedModel.update`."""
        own = self._fit.reml if reml is None else require_switch("reml", reml)
        return self.model.update(formula, **changes).fit(own)

    def save(self, path: str | Path) -> None:
        """Write the fit to a file, which `lmmjax.load` reads: the condensed rows, not the data.

        What has rows needs the data again then: `rows(data=…)`.

        Parameters
        ----------
        path : of the file, in a folder that is there.

        Raises
        ------
        OSError : it cannot be written.
        """
        from lmmjax.saving import save_record

        save_record(self._fit.fitted, path)

    def rows(self, columns: list[str] | None = None, *, data: Any = None) -> Iterator[pd.DataFrame]:
        """Of every chunk the `columns` of the data, all if None, with `fitted`, `population` and `resid`.

        `fitted` are conditional on the random effects, `population` is Xβ̂ + offset; rows with missing values
        have NaN. `data` are those of the model if None, or others as `lmm` takes them by the chunk; without a
        column of the response `resid` is NaN.

        Raises
        ------
        ValueError : a fit that was loaded from a file, without `data`; a grouping factor has a level that the
            fit does not know.
        """
        chunks = self.model.chunked.chunks if data is None else chunks_of(data)
        if chunks is None:
            raise ValueError("a fit that was loaded has no rows: give rows(data=…) what it was read from")
        return self._rows(chunks, columns)

    def _rows(self, chunks: Any, columns: list[str] | None) -> Iterator[pd.DataFrame]:
        reads = self.model.chunked.columns
        wanted = None
        if columns is not None and (first := next(iter(chunks(None)), None)) is not None:
            # new rows may have no response
            gone = [name for name in response_columns(self._fit.fitted) if name not in first]
            wanted = [
                name for name in dict.fromkeys([*reads, *columns]) if name in columns or name not in gone
            ]
        for piece in chunks(wanted):
            frame = piece.reset_index(drop=True)
            shown = frame if columns is None else frame[columns]
            yield shown.assign(**row_values(self._fit.fitted, piece, reads))

    def write_rows(self, path: str | Path, columns: list[str] | None = None, *, data: Any = None) -> int:
        """Write `rows` to the Parquet file `path`, whole or not at all; how many there are.

        Parameters
        ----------
        columns, data : as of `rows`.

        Raises
        ------
        ValueError : as of `rows`. OSError : the file cannot be written.
        """
        import pyarrow as pa
        from pyarrow import parquet

        from lmmjax.stream.files import written_whole

        total, writer = 0, None
        with written_whole(Path(path)) as file:
            for frame in self.rows(columns, data=data):
                table = pa.Table.from_pandas(frame, preserve_index=False)
                writer = writer or parquet.ParquetWriter(file, table.schema)
                writer.write_table(table.cast(writer.schema))
                total += len(frame)
            if writer is not None:
                writer.close()
        return total

    def __repr__(self) -> str:
        return repr(self.summary())

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()


def chunked(formula: str, data: Any, beside: dict[str, Any], backend: str | None, safe: bool) -> Any:
    """The model of data that are read by the chunk; ValueError for what it cannot have."""
    if beside.pop("residual") is not None:
        raise ValueError(
            "residual of data that are read by the chunk: such a model needs all rows; read them, as with "
            "pd.read_parquet"
        )
    return ChunkedModel(chunked_model(formula, data, **beside, backend=backend, safe=safe))


def is_condensed(record: ModelData | Fitted) -> bool:
    """Whether the rows of a model or fit stand for others."""
    data = record if isinstance(record, ModelData) else record.data
    return data.design.condensed is not None


def loaded(record: ModelData | Fitted) -> ChunkedModel | ChunkedFit:
    """A model or fit from a file, whose rows are not there."""
    model = ChunkedModel(loaded_chunks(record if isinstance(record, ModelData) else record.data))
    return model if isinstance(record, ModelData) else ChunkedFit(model, record)

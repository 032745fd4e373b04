"""A fit as a model of the package marginaleffects: what its functions ask of one, for the population level.

Source: Arel-Bundock, Greifer & Heiss (2024), doi:10.18637/jss.v111.i09.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lmmjax.fitted import Fitted, ModelData, identified_effects
from lmmjax.formula import new_frame
from lmmjax.postestimation.hypotheses.fixed_tests import cov_params
from lmmjax.postestimation.means.reference_grid import Predictor, predictors

OFFSET = "(offset)"
"""Column of the data with an offset that was given as an array."""


def marginal_model(fitted: Fitted, ddf: str, robust: str | None, cluster: Any, df: float | None) -> Any:
    """See `Fit.to_marginaleffects`."""
    try:
        import polars as pl
        from marginaleffects.classes.model import (  # pyright: ignore[reportMissingImports]
            ModelAbstract,
            ModelVault,
        )
    except ImportError as error:
        raise ImportError(
            "fit.to_marginaleffects needs the package marginaleffects, 0.6 or later: "
            "pip install 'lmmjax[marginaleffects]'"
        ) from error
    data = fitted.data
    own = predictors(data)
    covariance = cov_params(fitted, robust, cluster, ddf).to_numpy()
    response = data.frame.response or fitted.response or "y"
    if response in {p.name for p in own}:
        response = f"{response} (response)"

    class MixedModel(ModelAbstract):
        """Predictions x'β + offset, and β̂ with its covariance; other attributes are those of the fit."""

        df_resid = None if df is None else float(df)

        def validation(self) -> None:
            # types are known here; the package's own look at them fails with polars 2 (marginaleffects 0.6)
            self.validate_coef()
            self.validate_response_name()
            self.validate_formula()
            self.validate_modeldata()
            self.vault.variables_type = {p.name: _type(data, p) for p in own}

        def get_vcov(self, vcov: Any = True) -> np.ndarray | None:
            """The covariance, None for False; of another kind for its name ("CR2", "kenward-roger")."""
            if isinstance(vcov, str):
                kind = vcov.upper() if vcov.upper().startswith("CR") else None
                named = cov_params(fitted, kind, cluster, "satterthwaite" if kind else vcov)
                return named.to_numpy()
            return covariance if vcov is None or vcov else None

        def find_response(self) -> str:
            return response

        def find_predictors(self) -> list[str]:
            return [p.name for p in own]

        def get_autodiff_args(self) -> dict[str, Any] | str:
            """With an offset the package differentiates by differences, else exactly."""
            if data.frame.offset is not None:
                return "models with offset"
            return {"model_type": "linear", "family": None, "link": None}

        def get_exog(self, newdata: pl.DataFrame) -> np.ndarray:
            """Rows (n, p) of X; (n, p + 1) with the offset in a model that has one."""
            return _rows(data, own, newdata)

        def get_predict(self, params: np.ndarray, newdata: Any) -> pl.DataFrame:
            """Columns rowid and estimate."""
            rows, p = newdata if isinstance(newdata, np.ndarray) else self.get_exog(newdata), data.design.p
            values = rows[:, :p] @ np.asarray(params) + rows[:, p:].sum(axis=1)
            return pl.DataFrame(
                {"rowid": np.arange(len(values), dtype=np.int32), "estimate": values.astype(float)}
            )

    columns = {response: np.asarray(fitted.y, float)} | _columns(data, own)
    # own rows make the matrices, so that the formula only has to name the columns
    sides = " + ".join(f"`{p.name}`" for p in own) or "1"
    vault = ModelVault(
        coef=identified_effects(fitted),
        coefnames=np.array(data.x_names),
        formula=f"`{response}` ~ {sides}",
        modeldata=pl.DataFrame(columns),
        package="lmmjax",
        vcov=covariance,
        variable_names=[response, *(p.name for p in own)],
    )
    return MixedModel(fitted, vault)


def _type(data: ModelData, p: Predictor) -> str:
    """What marginaleffects calls the kind of a predictor."""
    column = data.frame.columns[p.name]  # pyright: ignore[reportOptionalSubscript]
    if column.dtype == bool:
        return "boolean"
    if not p.covariate:
        return "character"
    if p.levels in ([0, 1], [0], [1]):
        return "binary"
    return "integer" if column.dtype.kind in "iu" else "numeric"


def _columns(data: ModelData, own: tuple[Predictor, ...]) -> dict[str, Any]:
    """Columns of the rows of the fit: predictors, grouping factors, an offset given as an array."""
    import polars as pl

    frame, out = data.frame, {}
    for p in own:
        column = frame.columns[p.name]  # pyright: ignore[reportOptionalSubscript]
        if isinstance(column.dtype, pd.CategoricalDtype):
            out[p.name] = pl.Series(column.astype(str).tolist(), dtype=pl.Enum([str(v) for v in p.levels]))
        else:
            out[p.name] = pl.Series(column.to_numpy())
    for term in frame.random:
        if term.group not in out:
            labels = [str(v) for v in term.levels]
            out[term.group] = pl.Series([labels[k] for k in term.codes], dtype=pl.Enum(labels))
    if frame.has_array_offset:
        out[OFFSET] = pl.Series(np.asarray(frame.offset) - _formula_offset(data))
    return out


def _formula_offset(data: ModelData) -> np.ndarray:
    """The offsets (n,) that the formula has."""
    frame, zero = data.frame, np.zeros(data.design.n)
    if frame.columns is None or not len(frame.columns.columns):
        return zero
    found = new_frame(frame, frame.columns, groups=(), offset=zero).offset
    return zero if found is None else found


def _rows(data: ModelData, own: tuple[Predictor, ...], newdata: Any) -> np.ndarray:
    frame, n = data.frame, newdata.height
    columns: dict[str, Any] = {}
    for p in own:
        if p.name not in newdata.columns:
            raise ValueError(f"newdata has no column {p.name!r}, which the fit reads")
        values = newdata[p.name]
        if isinstance(frame.columns[p.name].dtype, pd.CategoricalDtype):  # pyright: ignore
            columns[p.name] = _factor(p, [None if v is None else str(v) for v in values.to_list()])
        else:
            columns[p.name] = values.to_pandas() if values.dtype.is_temporal() else values.to_numpy()
    offset = None
    if frame.has_array_offset:
        if OFFSET not in newdata.columns:
            raise ValueError(f"the model has an offset beside its data: newdata needs a column {OFFSET!r}")
        offset = newdata[OFFSET].to_numpy()
    if not columns:
        rows = np.ones((n, data.design.p))
        return rows if offset is None else np.column_stack([rows, offset])
    new = new_frame(frame, pd.DataFrame(columns), groups=(), offset=offset)
    if new.lost.any():
        # averages of marginaleffects leave out what is missing
        raise ValueError(
            f"{int(new.lost.sum())} of {n} rows of newdata are not estimable, because the data have no such "
            "combination: leave them out of newdata, or use fit.emmeans, which names them"
        )
    return new.x if new.offset is None else np.column_stack([new.x, new.offset])


def _factor(p: Predictor, values: list[str | None]) -> pd.Categorical:
    place = {str(level): k for k, level in enumerate(p.levels)}
    for value in values:
        if value is not None and value not in place:
            raise ValueError(f"{p.name!r} has no level {value!r}: there are {', '.join(place)}")
    codes = [-1 if value is None else place[value] for value in values]
    return pd.Categorical.from_codes(codes, pd.Index(p.levels))

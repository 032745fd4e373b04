"""Methods of `BatchFit` that hand results on: to AnnData, to Parquet files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmmjax._version import __version__
from lmmjax.arrays.sparse_columns import SparseColumns
from lmmjax.fitted import FittedMany, require_choice, require_switch
from lmmjax.formula.annotated import is_annotated, modality
from lmmjax.postestimation.hypotheses.batch_moderated import moderate_many
from lmmjax.postestimation.hypotheses.fixed_tests import METHODS, ddf_method
from lmmjax.reports.result_table import result_table
from lmmjax.reports.top_tables import tests_of
from lmmjax.results.batch.moderated import Moderated
from lmmjax.stream.files import target, written_whole
from lmmjax.stream.packages import needed, pyarrow

NOT_FITTED = "not_fitted"
"""Status of variables of AnnData that are no responses of the fits."""


class BatchExports:
    """Results of many responses as tables of other programs."""

    fitted: FittedMany

    def to_anndata(
        self,
        adata: Any = None,
        key: str = "lmm",
        *,
        ddf: str = "satterthwaite",
        contrasts: Any = None,
        moderated: bool | Moderated = False,
        mod: str | None = None,
        copy: bool = False,
    ) -> Any:
        """Put the results into AnnData: a table by variable in `varm[key]`, what it is of in `uns[key]`.

        Columns of the table are `estimate:x`, `se:x`, `df:x`, `t:x`, `p:x`, `q:x` of every fixed effect and
        contrast, standard deviations and correlations as in `sdcor`, the mean of the response, and how its
        fit ended. `uns[key]` has formula, criterion, degrees of freedom, the names of coefficients and
        contrasts, the prior of moderated tests, and the version.

        Parameters
        ----------
        adata : AnnData, or MuData with `mod`, whose variables are matched with the responses by name; those
            that were not fitted are missing, with the status "not_fitted". None makes AnnData of responses
            and design.
        key : name of the table; what had it is replaced.
        ddf : as in `t_tests`. contrasts : further ones, as in `contrast`.
        moderated : True for tests of `moderate()`, or such an object, whose options then hold.
        copy : leave `adata` as it is.

        Returns
        -------
        the AnnData or MuData.

        Raises
        ------
        ValueError : responses that are no variables of `adata`; an option that means nothing.
        ImportError : AnnData is to be made without anndata.
        """
        table, said = self._results(ddf, contrasts, moderated)
        if adata is None:
            adata = self._as_anndata()
        if not is_annotated(adata):
            raise ValueError(
                f"adata must be AnnData or MuData, not {type(adata).__name__}: read it with anndata or mudata"
            )
        adata = adata.copy() if require_switch("copy", copy) else adata
        own = modality(adata, mod)
        names = pd.Index(own.var_names).astype(str)
        asked = table.index.astype(str)
        lost = asked[~asked.isin(names)]
        if len(lost):
            raise ValueError(
                f"{len(lost)} of {len(asked)} responses are no variables of adata, such as {lost[0]!r}: give "
                "the AnnData whose variables were fitted"
            )
        if not names.is_unique:
            raise ValueError("two variables of adata have one name: call adata.var_names_make_unique() first")
        whole = table.set_axis(asked, axis=0).reindex(names)
        gone = ~names.isin(asked)
        for name, kind in table.dtypes.items():
            if name in ("status", "reason"):
                whole[name] = whole[name].astype(object).where(~gone, NOT_FITTED if name == "status" else "")
            elif kind.kind == "b":
                whole[name] = whole[name].astype(object).where(~gone, False).astype(bool)
            elif kind.kind == "i":
                whole[name] = whole[name].where(~gone, 0).astype(kind)
        # no slashes in names of groups of HDF5
        whole.columns = [str(name).replace("/", "|") for name in whole.columns]
        own.varm[key] = whole.set_axis(own.var_names, axis=0)
        own.uns[key] = said
        return adata

    def to_parquet(
        self,
        path: str | Path,
        *,
        ddf: str = "satterthwaite",
        contrasts: Any = None,
        moderated: bool | Moderated = False,
    ) -> None:
        """Write the results to a Parquet file, a row a response, with the columns of `to_anndata`.

        Parameters
        ----------
        path : of the file, which is written whole or not at all; one of that name is replaced.
        ddf, contrasts, moderated : as in `to_anndata`.

        Raises
        ------
        ImportError without pyarrow. ValueError : a folder. OSError : the file cannot be written.
        """
        parquet, file = pyarrow("parquet"), target(path, (), "path")
        import pyarrow as arrow

        table, said = self._results(ddf, contrasts, moderated)
        names = table.index
        if names.dtype == object:
            names = names.astype(str)
        table = table.reset_index(drop=True)
        table.insert(0, "response", np.asarray(names))
        made = arrow.Table.from_pandas(pd.DataFrame(table), preserve_index=False)
        own = {f"lmmjax.{name}": str(value) for name, value in said.items()}
        made = made.replace_schema_metadata({**(made.schema.metadata or {}), **own})
        with written_whole(file) as out:
            parquet.write_table(made, out)

    def _results(
        self, ddf: str, contrasts: Any, moderated: bool | Moderated
    ) -> tuple[pd.DataFrame, dict[str, Any]]:
        """The table, and what it is of."""
        fits, ddf = self.fitted, ddf_method(ddf)
        said: dict[str, Any] = {
            "formula": fits.data.formula,
            "criterion": "REML" if fits.reml else "ML",
            "coefficients": fits.data.x_names,
        }
        if isinstance(moderated, Moderated) or require_switch("moderated", moderated):
            made = (
                moderated
                if isinstance(moderated, Moderated)
                else Moderated(moderate_many(fits, False, False, ddf))
            )
            of = made.moderated
            if not of.fits.names.equals(fits.names):
                raise ValueError("moderated has other responses than these fits: call moderate() of them")
            fits, ddf = of.fits, of.ddf
            said |= {
                "criterion": "REML",
                "df_prior": _number(of.prior.df),
                "var_prior": _number(of.prior.variance),
            }
            tests = made._tests
        else:
            tests = tests_of(fits, ddf, None, None)
        require_choice("ddf", ddf, METHODS)
        table = result_table(fits, tests, contrasts)
        return table, said | {"ddf": ddf, "moderated": "df_prior" in said, "lmmjax": __version__}

    def _as_anndata(self) -> Any:
        anndata = needed("anndata", "AnnData objects", "omics")
        fits, frame = self.fitted, self.fitted.data.frame
        columns = {} if frame.columns is None else dict(frame.columns.items())
        columns |= {t.group: np.asarray(t.levels)[t.codes] for t in frame.random}
        obs = pd.DataFrame({name: np.asarray(own) for name, own in columns.items()})
        obs = obs.set_axis(frame.index.astype(str), axis=0)
        matrix: Any = fits.y.csc() if isinstance(fits.y, SparseColumns) else fits.y
        var = pd.DataFrame(index=pd.Index(fits.names).astype(str))
        return anndata.AnnData(matrix.copy(), obs=obs, var=var)


def _number(values: np.ndarray) -> Any:
    return float(values) if values.ndim == 0 else np.asarray(values, dtype=float)

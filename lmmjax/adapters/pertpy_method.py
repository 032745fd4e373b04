"""Mixed models as a method of differential expression of pertpy."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.fitted import require_switch
from lmmjax.formula import new_frame, quoted
from lmmjax.model import Model, lmm
from lmmjax.omics import voom as voom_weights
from lmmjax.results import BatchFit


class Absent:
    """In place of pertpy's base where it is not installed."""


Base: Any = Absent
with contextlib.suppress(ImportError):
    Base = importlib.import_module("pertpy.tools._differential_gene_expression").LinearModelBase


class PertpyLMM(Base):
    """A mixed model of every gene, as pertpy's methods of differential expression (extra `pertpy`).

    `pt.tl.EdgeR`, `PyDESeq2` and `Statsmodels` take fixed effects; the design of this one has random terms
    too, "~ treatment + (1 | patient)". Methods, results and plots are those of pertpy.

    Parameters
    ----------
    adata : AnnData, usually pseudobulks: log expression, or counts with `fit(voom=True)`.
    design : a formula without response, in lme4's notation, of columns of `adata.obs`; or a matrix of fixed
        effects, a frame with a row a sample.
    random : random terms of a design that is a matrix, such as "(1 | patient)".
    mask : column of `adata.var` that says which genes to take. layer : of adata, X if None.

    Attributes
    ----------
    model : the `Model`; fits : the `BatchFit`, once it is fitted.

    Raises
    ------
    ValueError : values that are no finite numbers, or a formula that `lmm` refuses. ImportError : pertpy is
        missing.

    Examples
    --------
    ```
    method = lj.PertpyLMM(pdata, "~ treatment + (1 | patient)")
    method.fit(voom=True)
    table = method.test_contrasts(method.contrast("treatment", baseline="control", group_to_compare="drug"))
    method.plot_volcano(table)
    ```
    """

    def __init__(
        self,
        adata: Any,
        design: Any,
        *,
        random: str = "",
        mask: str | None = None,
        layer: str | None = None,
        **kwargs: Any,
    ):
        if Base is Absent:
            raise ImportError("this method needs pertpy: pip install 'lmmjax[pertpy]'")
        # a base of fixed effects reads the formula itself, which has no bars then
        Base.__mro__[1].__init__(self, adata, mask=mask, layer=layer)
        if kwargs:
            raise ValueError(f"unknown option {next(iter(kwargs))!r} of the method")
        self._check_counts()
        self.formulaic_contrasts = None
        obs = self.adata.obs
        if isinstance(design, str):
            if random:
                raise ValueError("random terms are part of the formula: leave out random=")
            formula = design if "~" in design else f"~ {design}"
        else:
            design = pd.DataFrame(design).set_axis(obs.index)
            names = [str(name) for name in design.columns]
            obs = obs.drop(columns=[name for name in names if name in obs]).join(
                design.set_axis(names, axis=1)
            )
            formula = " + ".join([f"~ 0 + {' + '.join(map(quoted, names))}", *([random] if random else [])])
        self.model: Model = lmm(formula, obs)
        frame = self.model.frame
        self.design = pd.DataFrame(frame.x, index=frame.index, columns=list(frame.x_names))
        self.fits: BatchFit | None = None

    def _check_counts(self) -> None:
        """The base has seen that they are finite numbers."""

    @property
    def variables(self) -> set[str]:
        """The columns of `adata.obs` that fixed effects are made of."""
        columns = self.model.frame.columns
        return set() if columns is None else {str(name) for name in columns}

    def fit(self, *, voom: bool = False, reml: bool = True, **options: Any) -> None:
        """Fit the model to every gene.

        Parameters
        ----------
        voom : the values are counts: fit log₂ counts per million with precision weights (`lj.voom`).
        reml : or maximum likelihood. options : of `Model.fit_batch`.

        Raises
        ------
        ValueError : as of `Model.fit_batch` and `lmmjax.voom`.
        """
        data = self.data.toarray() if hasattr(self.data, "toarray") else np.asarray(self.data)
        values = pd.DataFrame(data, index=self.adata.obs_names, columns=self.adata.var_names)
        if require_switch("voom", voom):
            found = voom_weights(values, self.model)
            values, options = found.logcpm, {"weights": found.weights} | options
        self.fits = self.model.fit_batch(values, reml, **options)

    def _test_single_contrast(
        self, contrast: Any, *, ddf: str = "satterthwaite", moderated: bool = False, **kwargs: Any
    ) -> pd.DataFrame:
        """A row a gene, the smallest p first; see `BatchFit.top`."""
        if self.fits is None:
            raise RuntimeError("the method is not fitted: call fit() first")
        weights = np.asarray(contrast, dtype=float)
        options = {"ddf": ddf, "moderated": moderated} | kwargs
        table = self.fits.top(n=len(self.fits), contrast=weights, **options)
        return pd.DataFrame(
            {
                "variable": table.index,
                "p_value": table["p"].to_numpy(),
                "t_value": table["t"].to_numpy(),
                "sd": table["se"].to_numpy(),
                "log_fc": table["estimate"].to_numpy(),
                "adj_p_value": table["q"].to_numpy(),
                "df": table["df"].to_numpy(),
            }
        )

    def cond(self, **kwargs: Any) -> pd.Series:
        """The row of the design of a condition: what is not named is a reference level, or 0.

        ValueError for a column that is not in the model, or a level that is none.

        Parameters
        ----------
        kwargs : values of columns of the design by name.
        """
        frame = self.model.frame
        if unknown := sorted(set(kwargs) - self.variables):
            there = ", ".join(sorted(self.variables))
            raise ValueError(f"no variable {unknown[0]!r} in the model: there are {there}")
        for name, value in kwargs.items():
            if name in frame.factor_levels and value not in frame.factor_levels[name]:
                levels = ", ".join(map(repr, frame.factor_levels[name]))
                raise ValueError(f"no level {value!r} of {name}: there are {levels}")
        row = {name: kwargs.get(name, self._default(name)) for name in self.variables}
        if not row:
            return self.design.iloc[0]
        new = new_frame(frame, pd.DataFrame({name: [value] for name, value in row.items()}), groups=())
        return pd.Series(new.x[0], index=list(frame.x_names))

    def contrast(self, column: str, baseline: Any, group_to_compare: Any) -> pd.Series:
        """Weights of one level of a column against another, at the reference of all else in the design.

        Parameters
        ----------
        column : of the design. baseline, group_to_compare : two of its levels.

        Raises
        ------
        ValueError : as of `cond`.
        """
        return self.cond(**{column: group_to_compare}) - self.cond(**{column: baseline})

    def _default(self, name: str) -> Any:
        frame = self.model.frame
        levels = frame.factor_levels.get(name)
        if levels is not None:
            return levels[0]
        column = frame.columns[name] if frame.columns is not None else pd.Series([0])
        return 0 if pd.api.types.is_numeric_dtype(column.dtype) else column.iloc[0]

    @classmethod
    def compare_groups(
        cls,
        adata: Any,
        column: str,
        baseline: str,
        groups_to_compare: str | Iterable[str],
        *,
        paired_by: str | None = None,
        mask: str | None = None,
        layer: str | None = None,
        fit_kwargs: Mapping[str, Any] = MappingProxyType({}),
        test_kwargs: Mapping[str, Any] = MappingProxyType({}),
    ) -> pd.DataFrame:
        """Levels of a column against a baseline; `paired_by`, such as the patient, is a random effect.

        Returns the rows of all comparisons, which the column `contrast` names.

        Parameters
        ----------
        adata, mask, layer : as of the class. column : of adata.obs; baseline, groups_to_compare : its levels.
        fit_kwargs, test_kwargs : options of `fit` and of `BatchFit.top`.
        """
        groups = [groups_to_compare] if isinstance(groups_to_compare, str) else list(groups_to_compare)
        random = "" if paired_by is None else f" + (1 | {quoted(paired_by)})"
        method = cls(adata, f"~ {quoted(column)}{random}", mask=mask, layer=layer)
        method.fit(**fit_kwargs)
        contrasts = {group: method.contrast(column, baseline, group) for group in groups}
        return method.test_contrasts(contrasts, **test_kwargs)

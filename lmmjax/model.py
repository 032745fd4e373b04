"""`lmm` and `Model`: from a formula and a data frame to fits, as users hold them."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from lmmjax.arrays import Array
from lmmjax.arrays.other_arguments import answered
from lmmjax.core import Problem
from lmmjax.fitted import (
    Component,
    Fitted,
    FittedMany,
    ModelData,
    announce,
    fit_one,
    kept_rows,
    model_data,
    require_data,
    require_known,
    require_switch,
    response_vector,
)
from lmmjax.fitted.chunks import is_chunked
from lmmjax.formula import array_frame, model_frame, updated_frame
from lmmjax.postestimation.parameters.moments import moments
from lmmjax.reports.structure import StructureReport, structure_report
from lmmjax.results import BatchFit, Fit, Moments, chunked
from lmmjax.results.batches import Batches
from lmmjax.results.chunked import is_condensed, loaded
from lmmjax.stream.whole import design_table


@answered
def lmm(
    formula: str,
    data: Any,
    *,
    weights: Any = None,
    offset: Any = None,
    residual: Any = None,
    kernels: Any = None,
    backend: str | None = None,
    safe: bool = False,
) -> Model:
    """A linear mixed model in lme4's notation.

    Parameters
    ----------
    formula : "y ~ x + (x | g)"; without a response ("~ x + (x | g)") for `fit_batch`.
    data : frame of pandas, polars (lazy too) or Arrow, a dict of columns, AnnData or MuData (their `obs`), or
        the path of a CSV, TSV or .h5ad file; for more rows than memory holds a path of Parquet files, a
        pyarrow dataset or reader, or a function (docs/many_rows.md). Rows with a missing value in any
        variable of the formula are dropped and counted.
    weights : prior weights w, Var(ε) = σ²/w: a column's name, an expression or an array.
    offset : known part of the mean, likewise; added to `offset(...)` terms.
    residual : correlations and variances of the residuals, such as `lj.AR1("week", group="id")`,
        `lj.VarIdent("sex")` or a product of them; None: independent, with equal variances.
    kernels : known covariances of the levels of grouping factors, matched by label: {"id": K}, K a `Kernel`
        or a frame with labels; several, a random term each: {"id": [A, D, None]}; by term: {"1 | id": A}.
    backend : "grouped", "dense", or None for the cheapest that covers the model.
    safe : for formulas of other people. Expressions are Python, and run; safe ones have columns, literals,
        arithmetic, comparisons and known functions, and nothing else (docs/security.md).

    ValueError names what is wrong with the formula or the data, and the remedy.

    Examples
    --------
    >>> import lmmjax as lj
    >>> from lmmjax.datasets import load
    >>> fit = lj.lmm("Reaction ~ Days + (Days | Subject)", load("sleepstudy")).fit()
    >>> fit.params.round(3).to_dict()
    {'Intercept': 251.405, 'Days': 10.467}
    """
    require_switch("safe", safe)
    beside = {"weights": weights, "offset": offset, "residual": residual, "kernels": kernels}
    if is_chunked(data):
        return chunked(formula, data, beside, backend, safe)
    frame = model_frame(formula, design_table(data), safe=safe, **beside)
    return Model(require_data(model_data(frame, backend)))


@answered
class Model(Batches):
    """A model with its data, ready to be fitted; made by `lmm` or `Model.from_arrays`.

    Attributes
    ----------
    data : the model with its data as a record, which all functions of a model take.
    frame : its rows with their names; design : the same as arrays; maker : of problems from responses.
    """

    def __init__(self, data: ModelData):
        self.data = data
        self.frame, self.design, self.maker = data.frame, data.design, data.maker

    @classmethod
    def from_arrays(cls, y: Any, x: Any, groups: Any, z: Any = None, **options: Any) -> Model:
        """A model from matrices: x (n, p), groups (n,) or a dict of them, z (n, q) or None for an intercept.

        `options` are those of `lmmjax.formula.array_frame` (names, weights, offset, …) and `backend`.

        Parameters
        ----------
        y : (n,) the response, labels of rows as of x, if both have some.

        Raises
        ------
        ValueError : shapes, types or labels that do not fit together; an unknown option.
        """
        backend = options.pop("backend", None)
        require_known("option of from_arrays", options, [*signature(array_frame).parameters, "backend"])
        return cls(require_data(model_data(array_frame(y, x, groups, z, **options), backend)))

    @property
    def formula(self) -> str:
        """The formula as given."""
        return self.data.formula

    @property
    def components(self) -> list[Component]:
        """The entries of ψ, in order."""
        return self.data.components

    @property
    def endog_names(self) -> str | None:
        """Name of the response, as statsmodels calls it; None without one."""
        return self.frame.response

    @property
    def exog_names(self) -> list[str]:
        """Names of the p fixed effects, as statsmodels calls them."""
        return self.data.x_names

    def structure(self) -> StructureReport:
        """The blocks that the backend works on and the cost of an evaluation of them; prints as text."""
        return structure_report(self.data)

    def problem(self, y: Array | None = None, reml: bool = True, dtype: Any = None) -> Problem:
        """The pytree that the pure functions take; y (n,), the model's own if None, may be traced.

        Parameters
        ----------
        reml : REML, or maximum likelihood. dtype : of its arrays, float64 if None.

        Raises
        ------
        ValueError : y is of another shape, not numeric or not finite; the formula has no response.
        """
        return self.data.problem(y, reml, dtype)

    def expanded(self, y: np.ndarray, reml: bool = True) -> Problem:
        """The problem with the products of every group kept, for conditional modes.

        Parameters
        ----------
        y : (n,) the response. reml : REML, or maximum likelihood.

        Raises
        ------
        ValueError : as `problem`.
        """
        return self.data.expanded(y, reml)

    def fit(
        self, reml: bool = True, *, method: str = "newton", start: Array | None = None, max_iter: int = 100
    ) -> Fit:
        """Fit by REML, or by maximum likelihood with reml=False.

        Parameters
        ----------
        method : "newton" (exact Hessians) or "lbfgs".
        start : θ (m,) as `fit.theta` reports it, the only start then; by default moment estimates,
            near zero, zero and far from it, of which the best optimum is kept. Where every factor has 50
            groups, or an evaluation is costly, moment estimates alone.
        max_iter : most evaluations of the criterion; 0 reports it at the start, which is no optimum.
        reml : the criterion.

        Raises
        ------
        ValueError : the formula has no response, or its squares are no doubles; an option is none of those
            above, or of another shape.

        Warns
        -----
        FitWarning : the fit is singular, leaves parameters unidentified, or has not converged.
        """
        options = {"method": method, "start": start, "max_iter": max_iter}
        fitted = fit_one(self.data, self.data.response(), reml, **options)
        announce(fitted)
        return self._wrap(fitted)

    def fit_response(
        self,
        y: Any,
        reml: bool = True,
        *,
        method: str = "newton",
        start: Array | None = None,
        max_iter: int = 100,
        name: str | None = None,
    ) -> Fit:
        """Fit the model to a response y (n,) on its rows.

        Parameters
        ----------
        y : (n,), matched by the labels of rows, if it has some. name : what tables call it.
        reml, method, start, max_iter : as of `fit`.

        Raises
        ------
        ValueError : y is of another shape, not numeric or not finite; all of `fit`.
        """
        options = {"method": method, "start": start, "max_iter": max_iter, "name": name}
        fitted = fit_one(self.data, y, reml, **options)
        announce(fitted)
        return self._wrap(fitted)

    def moments(
        self,
        kind: str = "minque0",
        *,
        prior: Any = None,
        iterate: bool = False,
        truncate: bool = False,
        max_iter: int = 1000,
    ) -> Moments:
        """Variance components by quadratic unbiased estimation, fixed effects by feasible GLS at them.

        Unbiased without normality, in one step; variances can come out negative, and are reported so.

        Parameters
        ----------
        kind : "minque0", the prior that all components but σ² are zero; "minque1", that every random
            coefficient has variance σ², in the units of the columns as given; "mivque", `prior`: under
            normality of minimum variance if the prior is right.
        prior : (m + 1,) components in the order of `varcorr()`, σ² last; only their ratios matter.
        iterate : take the estimates as the next prior, negative ones as zero, until they settle. Inside the
            parameter space that is REML.
        truncate : report the nearest covariance matrices that are positive semi-definite.
        max_iter : most priors that are tried with `iterate`.

        Raises
        ------
        ValueError : an unknown kind; a prior that is missing or of another shape; structures that are not
            linear.

        Source: Rao (1971), doi:10.1016/0047-259X(71)90001-7.
        """
        found = moments(self.data, self.data.response(), kind, prior, iterate, truncate, max_iter)
        return Moments(self, found.psi, found.beta, found.cov_beta, found.n_iter, found.converged)

    def subset(self, keep: Any, weights: Any = None) -> Model:
        """The model on those of its rows for which `keep` (n,) is true; `weights` (n,) multiply its own.

        Both go by their labels, where they have some. ValueError for one that does not match.
        """
        own = None if weights is None else response_vector(self.data, weights, "weights")
        return Model(self.data.subset(kept_rows(self.data, keep), own))

    def simulate(self, key: Array, mean: Any, psi: Any, draws: int) -> np.ndarray:
        """Responses (n, draws) with fixed part mean (n,) and natural covariance parameters ψ (m + 1,).

        The mean goes by its labels, where it has some. ValueError for one that does not match, and for bad ψ.

        Parameters
        ----------
        key : of `jax.random`. draws : how many.
        psi : in the order of `varcorr()`, σ² last.
        """
        from lmmjax.postestimation.simulation.resample import require_psi, simulate

        means = response_vector(self.data, mean, "mean")
        return simulate(self.data, key, means, require_psi(self.data, psi), draws)

    def update(self, formula: str | None = None, **changes: Any) -> Model:
        """The model with another formula, on other data, or with other weights: what is not named stays.

        Parameters
        ----------
        formula : a change in which `.` stands for what was there: "~ . - x", ". ~ . + z + (1 | h)",
            "log(.) ~ .". Random terms are taken out as they are put in, "~ . - (x | g)"; without `.` right of
            ~ the formula is new.
        changes : data, weights, offset, residual or kernels as `lmm` takes them.

        The data are those that the model was made from, complete rows of the new formula; those of a `subset`
        stay within its rows.

        Raises
        ------
        ValueError : takes out what is not there; a model of matrices, which has no formula.
        """
        known = ("data", "weights", "offset", "residual", "kernels")
        require_known("argument of update", changes, known)
        frame = updated_frame(self.frame, formula, **changes)
        return Model(require_data(model_data(frame, self.data.backend)))

    def save(self, path: str | Path, columns: str | Iterable[str] = ()) -> None:
        """Write the model with its data to a file, which `lmmjax.load` reads; arguments as of `Fit.save`.

        Raises
        ------
        ValueError, OSError : as of `Fit.save`.
        """
        from lmmjax.saving import save_record

        save_record(self.data, path, columns)

    def _wrap(self, fitted: Fitted) -> Fit:
        """A fit of this model, or of the same on other rows, with its methods."""
        return Fit(self if fitted.data is self.data else Model(fitted.data), fitted)

    def __repr__(self) -> str:
        groups = {term.group: len(term.levels) for term in self.frame.random}
        return f"Model({self.formula!r}, n={self.design.n}, groups={groups})"


@answered
def load(path: str | Path, *, safe: bool = True) -> Any:
    """A model, a fit or fits of many responses, from a file that its method `save` wrote.

    Nothing is fitted. The formula is evaluated on the columns in the file, and the likelihood of the
    estimates is compared with the one that was kept.

    Parameters
    ----------
    safe : refuse formulas that are more than columns, literals, arithmetic, comparisons and known
        functions: a file of unknown origin then runs no code (docs/security.md).
    path : of the file.

    Raises
    ------
    FileNotFoundError : there is no such file.
    ValueError : it is not one of lmmjax, of a later version, damaged or changed; its formula is not safe; its
        estimates and its data do not belong together.
    """
    from lmmjax.saving import load_record

    record = load_record(path, require_switch("safe", safe))
    if not isinstance(record, FittedMany) and is_condensed(record):
        return loaded(record)
    model = Model(record if isinstance(record, ModelData) else record.data)
    if isinstance(record, ModelData):
        return model
    return BatchFit(model, record, warn=False) if isinstance(record, FittedMany) else Fit(model, record)

"""`lmm` and `Model`: from a formula and a data frame to a problem, and from its estimate to a fit."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pandas as pd

from lmmjax.arrays import Array, quick_jit
from lmmjax.batch import estimate_many
from lmmjax.batchfit import BatchFit
from lmmjax.core import METHODS, Estimate, Problem, ProblemMaker, estimate_jit
from lmmjax.core.conditional import effects, normals
from lmmjax.core.residuals import coloured
from lmmjax.covariance import family
from lmmjax.design import Design, RandomTerm
from lmmjax.formula import ModelFrame, array_frame, model_frame, take_rows
from lmmjax.mean_variance import by_mean, fit_by_mean
from lmmjax.moments import Moments, moments
from lmmjax.optimize import Status
from lmmjax.results import Fit
from lmmjax.structure import StructureReport, structure_report
from lmmjax.varcomp import Component, components

if TYPE_CHECKING:
    from lmmjax.stream import Streamed

MANY = 50
"""Groups of a factor from which on one descent is made: several optima are a matter of few groups."""


def lmm(
    formula: str,
    data: Any,
    *,
    weights: Any = None,
    offset: Any = None,
    residual: Any = None,
    backend: str | None = None,
) -> Model:
    """A linear mixed model in lme4's notation.

    Parameters
    ----------
    formula : "y ~ x + (x | g)"; without a response ("~ x + (x | g)") for `fit_batch`.
    data : pandas or polars frame, or a dict of columns. Rows with a missing value in any variable of
        the formula are dropped and counted.
    weights : prior weights w, Var(ε) = σ²/w: a column's name, an expression or an array.
    offset : known part of the mean, likewise; added to `offset(...)` terms of the formula.
    residual : correlations and variances of the residuals, such as `lj.AR1("week", group="id")`,
        `lj.VarIdent("sex")` or a product of them; None: independent, with equal variances.
    backend : "grouped", "dense", or None for the cheapest that covers the model.

    Raises
    ------
    ValueError : names what is wrong with the formula or the data, and the remedy.
    """
    frame = model_frame(formula, data, weights=weights, offset=offset, residual=residual)
    return Model(frame, backend=backend)


class Model:
    """A model with its data, ready to be fitted; made by `lmm` or `Model.from_arrays`."""

    def __init__(self, frame: ModelFrame, backend: str | None = None):
        self.frame = frame
        self._backend = backend
        self.design = frame_design(frame)
        self.maker = ProblemMaker(self.design, backend)
        self._expanded: ProblemMaker | None = None

    @classmethod
    def from_arrays(cls, y: Any, x: Any, groups: Any, z: Any = None, **options: Any) -> Model:
        """A model from matrices: x (n, p), groups (n,) or a dict of them, z (n, q) or None for an intercept.

        `options` are those of `lmmjax.formula.array_frame` (names, weights, offset, residual, columns) and
        `backend`.
        """
        backend = options.pop("backend", None)
        return cls(array_frame(y, x, groups, z, **options), backend=backend)

    @property
    def formula(self) -> str:
        """The formula as given."""
        return self.frame.formula

    @property
    def components(self) -> list[Component]:
        """The entries of ψ, in order."""
        random = self.frame.random
        return components(self.design.structure, [t.group for t in random], [t.names for t in random])

    def structure(self) -> StructureReport:
        """The blocks that the backend works on and the cost of an evaluation of them; prints as text."""
        return structure_report(self)

    def problem(self, y: Array | None = None, reml: bool = True, dtype: Any = None) -> Problem:
        """The pytree that the pure functions take; y (n,), the model's own if None, may be traced."""
        response = self._response() if y is None else y
        if response.shape[-1] != self.design.n:
            raise ValueError(f"y has {response.shape[-1]} values for {self.design.n} rows of the model")
        return self.maker(response, reml, dtype)

    def expanded(self, y: np.ndarray, reml: bool = True) -> Problem:
        """The problem with the products of every group kept, for conditional modes."""
        compressed = getattr(self.maker.prepared, "compressed", False)
        if compressed and self._expanded is None:
            self._expanded = ProblemMaker(self.design, self._backend, compress=False)
        return (self._expanded or self.maker)(y, reml)

    def fit(
        self, reml: bool = True, *, method: str = "newton", start: Array | None = None, max_iter: int = 100
    ) -> Fit:
        """Fit by REML, or by maximum likelihood with reml=False.

        Parameters
        ----------
        method : "newton" (exact Hessians) or "lbfgs".
        start : θ (m,) as `fit.theta` reports it, the only start then; by default moment estimates,
            near zero and zero, of which the best optimum is kept. Where every factor has `MANY` groups,
            or an evaluation is costly, moment estimates alone.
        """
        return self.fit_response(self._response(), reml, method=method, start=start, max_iter=max_iter)

    def fit_response(
        self,
        y: Any,
        reml: bool = True,
        *,
        method: str = "newton",
        start: Array | None = None,
        max_iter: int = 100,
        name: str | None = None,
        settled: bool = False,
    ) -> Fit:
        """Fit the model to a response y (n,) on its rows.

        With `settled` a variance function of the mean keeps its covariate, instead of taking fitted values.
        """
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}; choose one of: {', '.join(METHODS)}")
        y = np.asarray(y, dtype=float)
        if y.shape != (self.design.n,):
            raise ValueError(f"y has shape {y.shape}; the model has {self.design.n} rows: ({self.design.n},)")
        if not np.all(np.isfinite(y)):
            row = int(np.argmin(np.isfinite(y)))
            raise ValueError(f"the response is not finite in row {row}: drop the row, or use fit_batch")
        if by_mean(self) and not settled:
            options: dict[str, Any] = {"method": method, "start": start, "max_iter": max_iter, "name": name}
            return fit_by_mean(self, y, reml, **options)
        m = self.design.structure.n_params
        first = np.full(m, np.nan) if start is None else np.asarray(start, float)
        if first.shape != (m,):
            raise ValueError(
                f"start has shape {first.shape}; the model has {m} covariance parameters: ({m},)"
            )
        with jax.enable_x64(True):
            problem = self.problem(y, reml)
            starts = [first] if start is not None else [first, *self._other_starts]
            results = [estimate_jit(problem, s, method=method, max_iter=max_iter) for s in starts]
            result = min(results, key=lambda r: (int(r.status) != Status.CONVERGED, float(r.deviance)))
            return Fit(self, y, jax.tree.map(np.asarray, result), reml, name)

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

        Source: Rao (1971), doi:10.1016/0047-259X(71)90001-7.
        """
        return moments(self, self._response(), kind, prior, iterate, truncate, max_iter)

    @cached_property
    def _other_starts(self) -> list[np.ndarray]:
        """θ at zero and near it, and the further starts of every parameter: they reach other optima."""
        structure = self.design.structure
        many = min((t.n_groups for t in self.design.terms), default=MANY) >= MANY
        if not structure.n_params or self.maker.prepared.shared.costly or (many and structure.linear):
            return []
        chosen, starts = structure.components, []
        outward = np.asarray(structure.entry_map(self.maker.basis.outward))
        for k in range(1, max(len(p.starts) for p in structure.parameters)):
            d = np.asarray(structure.prior(float)).copy()
            rest = np.setdiff1d(np.arange(structure.n_params), chosen)
            d[rest] = [
                p.starts[min(k, len(p.starts) - 1)] for p in np.array(structure.parameters, object)[rest]
            ]
            starts.append(np.asarray(structure.encode(outward @ d)))
        if len(chosen) and not many:
            d = np.asarray(structure.prior(float)).copy()
            d[chosen] *= 0.01
            small = np.asarray(structure.encode(outward @ d))
            starts += [small, np.where(np.isin(np.arange(len(small)), chosen), 0.0, small)]
        return starts

    def fit_batch(
        self,
        responses: Any,
        reml: bool = True,
        *,
        weights: Any = None,
        offset: Any = None,
        max_iter: int = 100,
        dtype: str = "float64",
    ) -> BatchFit:
        """Fit the model to every column of `responses`, an n × T array or frame.

        Rows match those of the data the model was made from; rows that were dropped there are dropped
        here. A missing value leaves its row out of the fit of its response only. A response that cannot be
        fitted gets a status and missing results. Each gets one descent, where `fit` makes three.

        Parameters
        ----------
        weights : n × T, a weight w ≥ 0 for every value, Var(ε) = σ²/w (precision weights, as of voom);
            they multiply the model's own. A weight of zero leaves the value out.
        offset : n × T, a known part of the mean of every value, beside the model's own.
        dtype : "float32" lets more than 512 responses descend in single precision. Cross-products, and all
            that is reported at the optimum found, stay in float64: criteria agree to 1e-5, fixed effects
            to 1e-3 of their standard errors. For devices that are slow in float64; on a CPU it gains nothing.
        """
        if dtype not in ("float64", "float32"):
            raise ValueError(f"unknown dtype {dtype!r}; choose one of: float64, float32")
        if by_mean(self):
            raise ValueError(
                "a variance function of the fitted values differs between responses: fit one by one"
            )
        names, values = _columns(responses)
        values = self._matching(values, "responses")
        shape = values.shape
        own = None if weights is None else self._matching(_columns(weights)[1], "weights", shape)
        if own is not None and not np.all(own >= 0):
            raise ValueError("weights must be at least zero, and not missing")
        if offset is not None:
            values = values - self._matching(_columns(offset)[1], "offset", shape)
        result = estimate_many(self.maker, values, reml, max_iter, own, dtype)
        return BatchFit(self, names, values, result, reml, own)

    def _matching(self, values: np.ndarray, what: str, shape: tuple | None = None) -> np.ndarray:
        """Values (n, T) on the rows of the model."""
        n_data = self.design.n + self.frame.n_dropped
        if values.shape[0] == n_data:
            values = values[self.frame.rows] if self.frame.n_dropped else values
        elif values.shape[0] != self.design.n:
            raise ValueError(
                f"{what} have {values.shape[0]} rows; the data have {n_data}: pass an n × T "
                "array with one row per row of the data (transpose it?)"
            )
        if shape is not None and values.shape != shape:
            raise ValueError(f"{what} are {values.shape[1]} columns for {shape[1]} responses: pass one each")
        return values

    def subset(self, keep: np.ndarray, weights: np.ndarray | None = None) -> Model:
        """The model on the rows `keep` (n,) of its own; `weights` (n,) multiply its prior weights."""
        return Model(take_rows(self.frame, keep, weights), backend=self._backend)

    def stream_batch(self, source: Any, out: Any, **options: Any) -> Streamed:
        """`fit_batch` in bounded memory, from a file or array to the Parquet file `out`.

        Sources, columns and options are those of `lmmjax.stream.stream_batch`.
        """
        from lmmjax.stream import stream_batch

        return stream_batch(self, source, out, **options)

    def simulate(self, key: Array, mean: np.ndarray, psi: np.ndarray, draws: int) -> np.ndarray:
        """Responses (n, draws) with fixed part mean (n,) and natural covariance parameters ψ (m + 1,)."""
        terms = self.design.terms
        shapes = ((self.design.n, draws), *((t.q, t.n_groups, draws) for t in terms))
        with jax.enable_x64(True):
            white, *u = (np.asarray(a) for a in _normals(key, shapes))
            covariances = tuple(np.asarray(a) for a in self.design.structure.absolute(np.asarray(psi)))
        drawn = effects(
            tuple(np.asarray(t.z) for t in terms), tuple(t.codes for t in terms), covariances, tuple(u)
        )
        return coloured(self.design, psi, white) + drawn + mean[:, None]

    def _response(self) -> np.ndarray:
        if self.frame.y is None:
            raise ValueError(
                f"the formula {self.formula!r} has no response: use fit_batch, or write one left of ~"
            )
        return self.frame.y

    def __repr__(self) -> str:
        groups = {term.group: len(term.levels) for term in self.frame.random}
        return f"Model({self.formula!r}, n={self.design.n}, groups={groups})"


def frame_design(frame: ModelFrame) -> Design:
    """The arrays of a model frame, its covariance families looked up."""
    terms = tuple(
        RandomTerm(t.z, t.codes, len(t.levels), family(t.structure, *t.args), f"({t.text})")
        for t in frame.random
    )
    own, weights, known = frame.residual, frame.weights, None
    if own is not None and own.known is not None:
        weights, known = (1.0 if weights is None else weights) / own.known, 1.0
    return Design(frame.x, terms, weights, frame.offset, own and own.design, known)


def _columns(responses: Any) -> tuple[pd.Index, np.ndarray]:
    names = pd.Index(list(responses.columns)) if hasattr(responses, "columns") else None
    try:
        if isinstance(responses, pd.DataFrame):
            values = responses.to_numpy(dtype=float, na_value=np.nan)
        else:
            values = np.asarray(responses if names is None else responses.to_numpy(), dtype=float)
    except (TypeError, ValueError):
        wrong = [] if names is None else [name for name in names if not _numeric(responses[name])]
        what = f"response {wrong[0]!r} is" if wrong else "responses are"
        raise ValueError(f"{what} not numeric: leave out what is not a response") from None
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"responses have shape {values.shape}: pass an n × T array, one column a response")
    return pd.RangeIndex(values.shape[1]) if names is None else names, values


def _numeric(column: Any) -> bool:
    try:
        np.asarray(column, dtype=float)
    except (TypeError, ValueError):
        return False
    return True


_normals = quick_jit(normals, static_argnames="shapes")

__all__ = ["Estimate", "Model", "lmm"]

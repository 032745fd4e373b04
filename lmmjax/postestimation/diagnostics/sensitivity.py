"""`Fit.sensitivity`: how much every estimate owes to every response, weight and group."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from lmmjax.arrays import quick_jit
from lmmjax.fitted import (
    Component,
    Fitted,
    ModelData,
    component_names,
    kept,
    require_choice,
    require_estimates,
)
from lmmjax.gram import grouping_factors, nested_chain
from lmmjax.inference.delta import delta
from lmmjax.inference.sensitivity import (
    chained,
    group_derivatives,
    infinitesimal_jackknife,
    row_derivatives,
)
from lmmjax.postestimation.parameters.functions import named, parameter_arrays

UNITS = ("group", "observation")


@dataclasses.dataclass(frozen=True, eq=False)
class Sensitivity:
    """Derivatives of estimates; columns are the estimates: coefficients, standard deviations, correlations.

    On the boundary they are those of the active model: what is estimated as zero stays there.

    Attributes
    ----------
    estimate : the values themselves.
    y : rows × estimates, ∂/∂y_i.
    weights : rows × estimates, ∂/∂w_i of prior weights, Var(ε) = σ²/w, at the n there is.
    cases : rows × estimates, ∂/∂ω_i of case weights, by which a row counts ω times; −cases is the first-order
        effect of leaving it out.
    groups : levels × estimates, the same for the levels of the coarsest grouping factor, which count as
        groups of their own; None where the factors are crossed, and for covariance structures that are not
        linear and for structured residuals.
    bse : standard errors of the model, for comparison.
    missing : why there are no derivatives in groups.
    """

    estimate: pd.Series
    y: pd.DataFrame
    weights: pd.DataFrame
    cases: pd.DataFrame
    groups: pd.DataFrame | None
    bse: pd.Series
    missing: str = ""

    def cov(self, by: str = "group") -> pd.DataFrame:
        """Covariance matrix of the estimates by the infinitesimal jackknife.

        Parameters
        ----------
        by : "group" needs no more than that groups are independent; with few of them it is too small, as any
            sandwich estimator. "observation" takes the rows for independent, which they are not where there
            are random effects: for comparison.

        Raises
        ------
        ValueError : an unknown unit; the model has no groups that are independent.
        """
        require_choice("unit", by, UNITS)
        if by == "group" and self.groups is None:
            raise ValueError(f"{self.missing}; use by='observation', Fit.influence or Fit.bootstrap")
        frame = self.cases if by == "observation" or self.groups is None else self.groups
        names = pd.Index(self.estimate.index)
        return pd.DataFrame(infinitesimal_jackknife(frame.to_numpy().T), index=names, columns=names)

    @property
    def se(self) -> pd.DataFrame:
        """Standard errors of the estimates: by the model, and by infinitesimal jackknife over each unit."""
        units = UNITS if self.groups is not None else UNITS[1:]
        columns = {unit: np.sqrt(np.diagonal(self.cov(unit))) for unit in units}
        return pd.DataFrame({"model": self.bse, **columns}, index=self.estimate.index)

    def __repr__(self) -> str:
        return f"Sensitivity({len(self.estimate)} estimates, {len(self.y)} observations)"


def sensitivity(fitted: Fitted, fun: Callable | None = None) -> Sensitivity:
    """See `Fit.sensitivity`."""
    require_estimates(fitted)
    data, estimate = fitted.data, fitted.estimate
    output, names = _parameters(data) if fun is None else named(data, fun)
    factors = grouping_factors(data.design)
    missing = _no_groups(data, bool(factors) and nested_chain(factors) is not None)

    def values(beta, psi, *rest):
        def flat(*at):
            return jnp.ravel(jnp.asarray(output(*at), psi.dtype))

        jacobian = jax.jacfwd(flat, argnums=(0, 1))(beta, psi)
        return *delta(output, beta, psi, *rest), jnp.concatenate(jacobian, axis=1)

    at = fitted.y, estimate.theta, np.asarray(float(fitted.reml))
    with jax.enable_x64(True):
        by_row = _rows(data)(*at)
        by_group = _groups(data)(*at) if not missing else None
        value, cov, jacobian = quick_jit(values)(*parameter_arrays(fitted))
    labels = pd.Index(names)

    def table(derivatives: Any, index: pd.Index) -> pd.DataFrame:
        return pd.DataFrame(
            chained(np.asarray(jacobian), np.asarray(derivatives)).T, index=index, columns=labels
        )

    index = data.frame.index
    own = None
    if by_group is not None:
        term = data.frame.random[factors[-1].terms[0]]
        own = table(by_group, pd.Index(term.levels, name=term.group))
    with np.errstate(invalid="ignore"):
        bse = np.sqrt(np.diagonal(np.asarray(cov)))
    return Sensitivity(
        estimate=pd.Series(np.asarray(value), index=labels, name="estimate"),
        y=table(by_row.y, index),
        weights=table(by_row.weights, index),
        cases=table(by_row.cases, index),
        groups=own,
        bse=pd.Series(bse, index=labels, name="se"),
        missing=missing,
    )


def _no_groups(data: ModelData, nested: bool) -> str:
    """Why there are no derivatives in case weights of groups; empty if there are."""
    structure = data.design.structure
    if structure.residual is not None:
        return "no derivatives by group: the residuals have a structure"
    if not all(term.family.linear for term in structure.terms):
        return "no derivatives by group: a term has a covariance structure that is not linear"
    if any(term.kernel is not None for term in data.design.terms):
        return "no derivatives by group: the levels of a term are related"
    return "" if nested else "the grouping factors are crossed: no groups are independent"


@kept
def _rows(data: ModelData) -> Callable:
    """The program of `row_derivatives`, a function of y, θ and κ."""
    return quick_jit(lambda y, theta, reml: row_derivatives(data.design, y, theta, reml, data.backend))


@kept
def _groups(data: ModelData) -> Callable:
    """That of `group_derivatives`."""
    return quick_jit(lambda *at: group_derivatives(data.design, *at))


def _parameters(data: ModelData) -> tuple[Callable, list[str]]:
    """Fixed effects, sds, correlations and other parameters as a function of (β, ψ), and their names."""
    rows = data.components
    variance = {(r.term, r.i): k for k, r in enumerate(rows) if r.kind == "variance"}

    def root(variance: Any) -> Any:
        # an sd of zero stays where it is, with derivative zero
        positive = variance > 0
        return jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1.0)), 0.0)

    def value(psi: Any, k: int, row: Component) -> Any:
        if row.kind == "covariance":
            return psi[k] / (root(psi[variance[row.term, row.i]]) * root(psi[variance[row.term, row.j]]))
        return row.reported(psi[k]) if row.kind == "parameter" else root(psi[k])

    def output(beta: Any, psi: Any) -> Any:
        return jnp.concatenate([beta, jnp.stack([value(psi, k, row) for k, row in enumerate(rows)])])

    return output, [*data.x_names, *component_names(rows)]

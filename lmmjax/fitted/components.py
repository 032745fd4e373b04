"""The entries of ψ by name, and on the scale of standard deviations and correlations with their errors."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.special import ndtri

from lmmjax.arrays import Array, namespace
from lmmjax.covariance import Parameter
from lmmjax.design import Structure


@dataclasses.dataclass(frozen=True)
class Component:
    """One entry of ψ.

    `kind` is "variance" of coefficient `term1`, "covariance" of `term1` and `term2` at positions (i, j) of a
    term's matrix, "parameter" of a structure, called `term1`, or "sigma". `unit` is how many of the user's
    units of time or distance are one of the design's.
    """

    kind: str
    group: str
    term1: str | None
    term2: str | None
    term: int
    i: int
    j: int
    parameter: Parameter | None = None
    unit: float = 1.0

    @property
    def per_unit(self) -> bool:
        """Whether it is a correlation at distance 1 that is no step of the lattice."""
        p = self.parameter
        return p is not None and p.scale == "rate" and p.steps * self.unit != 1.0

    def reported(self, value: Array) -> Array:
        """A parameter (...) of ψ in the user's units."""
        return value if self.parameter is None else self.parameter.reported(value, self.unit)

    def slope(self, value: Array) -> Array:
        """The derivative of `reported`."""
        if self.parameter is None:
            return namespace(value).ones_like(value)
        return self.parameter.slope(value, self.unit)


def components(
    structure: Structure, groups: list[str], names: list[tuple[str, ...]], unit: float = 1.0
) -> list[Component]:
    """The entries of ψ in order; the last is the residual variance."""
    rows = []
    for k, (term, group, columns) in enumerate(zip(structure.terms, groups, names, strict=True)):
        if term.family.linear:
            for i, j in term.entries:
                # lme4 writes the earlier coefficient first
                kind, second = ("variance", None) if i == j else ("covariance", columns[i])
                rows.append(Component(kind, group, columns[j], second, k, i, j))
            continue
        for c, p in enumerate(term.parameters):
            if p.kind == "variance":
                label = "common" if p.place is None else columns[p.place]
                rows.append(Component("variance", group, label, None, k, c, c, p))
            else:
                rows.append(Component("parameter", group, p.name, None, k, c, c, p))
    last = len(groups)
    if structure.residual is not None:
        own = enumerate(structure.residual.parameters)
        rows += [Component("parameter", "Residual", p.name, None, last, c, c, p, unit) for c, p in own]
    return [*rows, Component("sigma", "Residual", None, None, last, 0, 0)]


def sd_scale(psi: np.ndarray, rows: list[Component]) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviations, correlations and parameters (..., m + 1) of ψ, and their Jacobians in ψ."""
    variance = {(r.term, r.i): k for k, r in enumerate(rows) if r.kind == "variance"}
    values, jacobian = np.full(psi.shape, np.nan), np.zeros((*psi.shape, len(rows)))
    with np.errstate(divide="ignore", invalid="ignore"):
        for k, row in enumerate(rows):
            if row.kind == "parameter":
                values[..., k], jacobian[..., k, k] = row.reported(psi[..., k]), row.slope(psi[..., k])
                continue
            if row.kind != "covariance":
                values[..., k] = np.sqrt(psi[..., k])
                jacobian[..., k, k] = 0.5 / values[..., k]
                continue
            a, b = variance[row.term, row.i], variance[row.term, row.j]
            root = np.sqrt(psi[..., a]) * np.sqrt(psi[..., b])
            values[..., k] = psi[..., k] / root
            jacobian[..., k, k] = 1.0 / root
            jacobian[..., k, a] = -0.5 * values[..., k] / psi[..., a]
            jacobian[..., k, b] = -0.5 * values[..., k] / psi[..., b]
    return values, jacobian


def reported(psi: np.ndarray, rows: list[Component]) -> tuple[np.ndarray, np.ndarray]:
    """ψ (..., m + 1) with parameters in the user's units of time and distance, and the derivatives."""
    values, slopes = np.array(psi), np.ones(np.shape(psi))
    for k, row in enumerate(rows):
        values[..., k], slopes[..., k] = row.reported(psi[..., k]), row.slope(psi[..., k])
    return values, slopes


def delta_se(jacobian: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """Standard errors (..., k) of functions with Jacobian (..., k, m).

    Missing parts of `cov` (..., m, m) spoil the functions that use them and no others.
    """
    out = np.empty(jacobian.shape[:-1])
    with np.errstate(invalid="ignore"):
        for k in range(jacobian.shape[-2]):
            row = jacobian[..., k, :]
            used = row != 0
            needed = np.where(used[..., :, None] & used[..., None, :], cov, 0.0)
            out[..., k] = np.sqrt(np.einsum("...i,...ij,...j->...", row, needed, row))
    return out


def component_names(rows: list[Component]) -> list[str]:
    """`sd_(Intercept)|Subject`, `cor_Days.(Intercept)|Subject`, `rho|Worker`, `Phi`, `sigma`."""
    out = []
    for row in rows:
        if row.kind == "sigma":
            out.append("sigma")
        elif row.kind == "parameter":
            out.append(str(row.term1) if row.group == "Residual" else f"{row.term1}|{row.group}")
        elif row.kind == "variance":
            out.append(f"sd_{row.term1}|{row.group}")
        else:
            out.append(f"cor_{row.term2}.{row.term1}|{row.group}")
    return out


def sd_limits(
    rows: list[Component], psi: np.ndarray, se: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Wald limits (..., m + 1), lower and upper, from ψ̂ and the standard errors of `sd_scale`.

    Standard deviations on the log scale, correlations on Fisher's z scale, others as their range asks.
    """
    values, _ = sd_scale(psi, rows)
    half = ndtri(0.5 + level / 2) * se
    correlation = np.array([row.kind == "covariance" for row in rows])
    # the interval of an sd near zero reaches to infinity
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        z, stretch = np.arctanh(np.where(correlation, values, 0.0)), 1.0 - values**2
        lower = np.where(correlation, np.tanh(z - half / stretch), values * np.exp(-half / values))
        upper = np.where(correlation, np.tanh(z + half / stretch), values * np.exp(half / values))
    for k, row in enumerate(rows):
        if row.kind == "parameter" and row.parameter is not None:
            # on the design's scale, where intervals do not depend on the unit of time
            own = half[..., k] / row.slope(psi[..., k])
            low, high = row.parameter.limits(psi[..., k], own)
            low = np.where(psi[..., k] < 0.0, low, np.maximum(low, 0.0)) if row.per_unit else low
            lower[..., k], upper[..., k] = row.reported(low), row.reported(high)
    return lower, upper

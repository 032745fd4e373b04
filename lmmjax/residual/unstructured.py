"""Unstructured covariances and correlations between visits: the models of MMRM."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, diagonal, psd_cholesky
from lmmjax.covariance import Parameter
from lmmjax.residual.base import Space, Timed


@dataclasses.dataclass(frozen=True)
class Visits(Timed):
    """Levels of `time` are the visits; `time` None takes the order of the rows."""

    kind = "visit"

    def check(self, space: Space) -> None:
        if space.size > 40:
            raise ValueError(f"{self.name}: {space.size} visits are too many for a free covariance matrix")
        if space.size < 2:
            raise ValueError(f"{self.name}: there is one visit only, nothing to correlate")


@dataclasses.dataclass(frozen=True)
class Unstructured(Visits):
    """A free covariance matrix of the visits; σ² is the variance of the first one.

    The parameters are the variances of the other visits and all covariances. PROC MIXED's type=un.
    """

    name = "Unstructured"

    def parameters(self, space: Space) -> tuple[Parameter, ...]:
        rows, columns = _below(space.size)
        label = [str(v) for v in space.labels] or [str(k + 1) for k in range(space.size)]
        variances = [
            Parameter(f"var({v})", "positive", (1.0,), power=1.0, place=k)
            for k, v in enumerate(label[1:], start=1)
        ]
        return (
            *variances,
            *(
                Parameter(f"cov({label[j]}, {label[i]})", "real", (0.3,), power=1.0, pair=(int(i), int(j)))
                for i, j in zip(rows, columns, strict=True)
            ),
        )

    def _matrix(self, r: Array, size: int) -> Array:
        rows, columns = _below(size)
        variances = jnp.concatenate([jnp.ones(1, r.dtype), r[: size - 1]])
        off = jnp.zeros((size, size), r.dtype).at[rows, columns].set(r[size - 1 :])
        return off + off.T + jnp.diag(variances)

    def between(self, r: Array, left: Array, right: Array, space: Space) -> Array:
        return self._matrix(jnp.asarray(r), space.size)[left, right]

    def decode(self, theta: Array, space: Space) -> Array:
        # θ are the entries of the Cholesky factor, below its first; diagonal, then the others by columns
        size, (rows, columns) = space.size, _below(space.size)
        factor = jnp.diag(jnp.concatenate([jnp.ones(1, theta.dtype), theta[: size - 1]]))
        factor = factor.at[rows, columns].set(theta[size - 1 :])
        matrix = factor @ factor.T
        return jnp.concatenate([diagonal(matrix)[1:], matrix[rows, columns]])

    def encode(self, r: Array, space: Space) -> Array:
        size, (rows, columns) = space.size, _below(space.size)
        factor = psd_cholesky(self._matrix(jnp.asarray(r), size), 1e-13)
        return jnp.concatenate([diagonal(factor)[1:], factor[rows, columns]])

    def margin(self, theta: Array, space: Space) -> Array:
        least = jnp.min(jnp.abs(theta[: space.size - 1]))
        return jnp.broadcast_to(least, theta.shape)


@dataclasses.dataclass(frozen=True)
class Symmetric(Visits):
    """A free correlation matrix of the visits, one variance. nlme's corSymm.

    Working values are rows of a Cholesky factor with unit diagonal, before they are scaled to length 1.
    """

    name = "Symmetric"
    within = frozenset({"Unstructured"})
    covariances = True

    def parameters(self, space: Space) -> tuple[Parameter, ...]:
        rows, columns = _below(space.size)
        label = [str(v) for v in space.labels] or [str(k + 1) for k in range(space.size)]
        pairs = [f"cor({label[j]}, {label[i]})" for i, j in zip(rows, columns, strict=True)]
        return tuple(Parameter(name, "interval", (0.2,)) for name in pairs)

    def between(self, r: Array, left: Array, right: Array, space: Space) -> Array:
        size, (rows, columns) = space.size, _below(space.size)
        off = jnp.zeros((size, size), r.dtype).at[rows, columns].set(jnp.asarray(r))
        return (off + off.T + jnp.eye(size, dtype=r.dtype))[left, right]

    def decode(self, theta: Array, space: Space) -> Array:
        rows, columns = _below(space.size)
        factor = jnp.eye(space.size, dtype=theta.dtype).at[rows, columns].set(theta)
        factor = factor / jnp.sqrt(jnp.sum(factor**2, axis=1))[:, None]
        return (factor @ factor.T)[rows, columns]

    def encode(self, r: Array, space: Space) -> Array:
        size, (rows, columns) = space.size, _below(space.size)
        off = jnp.zeros((size, size), r.dtype).at[rows, columns].set(jnp.asarray(r))
        factor = psd_cholesky(off + off.T + jnp.eye(size, dtype=r.dtype), 1e-13)
        return (factor / diagonal(factor)[:, None])[rows, columns]

    def margin(self, theta: Array, space: Space) -> Array:
        return jnp.ones_like(theta)


def _below(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns below the diagonal, column after column."""
    columns, rows = np.triu_indices(size, k=1)
    return rows, columns

"""Unstructured covariances and correlations between visits: the models of MMRM."""

from __future__ import annotations

import abc
import dataclasses

import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import BRIEF, Array, diagonal, psd_cholesky
from lmmjax.covariance import Parameter
from lmmjax.residual.base import Space, Timed

MOST = 50
"""Visits of a free matrix: with 40, 819 parameters, a fit takes half a minute, which grows as their cube."""


@dataclasses.dataclass(frozen=True)
class Visits(Timed):
    """Levels of `time` are the visits; `time` None takes the order of the rows."""

    kind = "visit"

    def check(self, space: Space) -> None:
        if space.size > MOST:
            count = space.size * (space.size + 1) // 2
            raise ValueError(
                f"{self.name}: {space.size} visits are too many for a free covariance matrix: the "
                f"derivatives of its {count} entries take very long; have at most {MOST}, or use "
                "Toeplitz, AR1 or CompoundSymmetry"
            )
        if space.size < 2:
            raise ValueError(f"{self.name}: there is one visit only, nothing to correlate")


@dataclasses.dataclass(frozen=True)
class FreeMatrix(Visits):
    """A matrix of the visits of which nothing is known: (FT)(FT)ᵀ, working values those of T.

    The frame F is a factor of a matrix near the estimate, so that T is near the identity and the working
    values know neither the units of the visits nor their correlations; without one F = I.
    """

    framed = True

    @abc.abstractmethod
    def decode(self, theta: Array, space: Space, frame: Array | None = None) -> Array: ...

    @abc.abstractmethod
    def margin(self, theta: Array, space: Space, frame: Array | None = None) -> Array: ...

    @abc.abstractmethod
    def centre(self, r: Array, space: Space) -> tuple[Array, Array]:
        """A frame in which the working values of r are those of the identity, and these."""


@dataclasses.dataclass(frozen=True)
class Unstructured(FreeMatrix):
    """A free covariance matrix of the visits; σ² is the variance of the first one.

    The parameters are the variances of the other visits and all covariances. PROC MIXED's type=un. With `by`
    a level after the first has its own variance of the first visit too, before the others.

    Working values are the lower triangle of T, diagonal first, T₁₁ = 1 where R₁₁ is.

    Parameters
    ----------
    time : the column whose levels are the visits; None for the order of the rows.
    group : the factor within whose levels rows are correlated, all rows if None. by : a factor that is
        constant within groups, each level of which has its own parameters.
    """

    name = "Unstructured"
    variances = True

    def parameters(self, space: Space, apart: bool = False) -> tuple[Parameter, ...]:
        rows, columns = _below(space.size)
        label = [str(v) for v in space.labels] or [str(k + 1) for k in range(space.size)]
        variances = [
            Parameter(f"var({v})", "positive", (1.0,), power=1.0, place=k) for k, v in enumerate(label)
        ]
        return (
            *variances[0 if apart else 1 :],
            *(
                Parameter(f"cov({label[j]}, {label[i]})", "real", (0.3,), power=1.0, pair=(int(i), int(j)))
                for i, j in zip(rows, columns, strict=True)
            ),
        )

    def _matrix(self, r: Array, size: int) -> Array:
        rows, columns = _below(size)
        r = _with_first(jnp.asarray(r), size)
        off = jnp.zeros((size, size), r.dtype).at[rows, columns].set(r[size:])
        return off + off.T + jnp.diag(r[:size])

    def _entries(self, matrix: Array, count: int) -> Array:
        """The `count` free ones."""
        whole = jnp.concatenate([diagonal(matrix), matrix[_below(len(matrix))]])
        return whole[len(whole) - count :]

    def _factor(self, theta: Array, space: Space, frame: Array | None) -> Array:
        whole = _with_first(theta, space.size)
        factor = jnp.diag(whole[: space.size]).at[_below(space.size)].set(whole[space.size :])
        return factor if frame is None else frame.astype(theta.dtype) @ factor

    def between(self, r: Array, left: Array, right: Array, space: Space) -> Array:
        return self._matrix(r, space.size)[left, right]

    def decode(self, theta: Array, space: Space, frame: Array | None = None) -> Array:
        factor = self._factor(theta, space, frame)
        return self._entries(factor @ factor.T, len(theta))

    def encode(self, r: Array, space: Space, frame: Array | None = None) -> Array:
        return self._entries(psd_cholesky(self._matrix(r, space.size), 1e-13, BRIEF), len(r))

    def centre(self, r: Array, space: Space) -> tuple[Array, Array]:
        return _frame(self._matrix(r, space.size)), self._entries(jnp.eye(space.size, dtype=r.dtype), len(r))

    def feasible(self, r: Array, space: Space) -> Array:
        matrix = self._matrix(r, space.size)
        variances = jnp.where(diagonal(matrix) > 0, diagonal(matrix), 1.0)
        root = jnp.sqrt(variances)
        scale = root[:, None] * root[None, :]
        return self._entries(_definite(matrix / scale) * scale, len(r))

    def sizes(self, r: Array, space: Space) -> Array:
        """(k,) standard deviation times standard deviation of the visits of every entry."""
        root = jnp.sqrt(diagonal(self._matrix(r, space.size)))
        return self._entries(root[:, None] * root[None, :], len(r))

    def margin(self, theta: Array, space: Space, frame: Array | None = None) -> Array:
        factor = self._factor(theta, space, frame)
        left = jnp.abs(diagonal(factor)) / jnp.sqrt(jnp.sum(factor**2, axis=1))
        return jnp.broadcast_to(jnp.min(left), theta.shape)


@dataclasses.dataclass(frozen=True)
class Symmetric(FreeMatrix):
    """A free correlation matrix of the visits, one variance. nlme's corSymm.

    T has a unit diagonal, and the rows of FT are scaled to length 1.

    Parameters
    ----------
    time : the column whose levels are the visits; None for the order of the rows.
    group : the factor within whose levels rows are correlated, all rows if None. by : a factor that is
        constant within groups, each level of which has its own parameters.
    """

    name = "Symmetric"
    within = frozenset({"Unstructured"})
    covariances = True

    def parameters(self, space: Space) -> tuple[Parameter, ...]:
        rows, columns = _below(space.size)
        label = [str(v) for v in space.labels] or [str(k + 1) for k in range(space.size)]
        pairs = [f"cor({label[j]}, {label[i]})" for i, j in zip(rows, columns, strict=True)]
        return tuple(Parameter(name, "interval", (0.2,)) for name in pairs)

    def _matrix(self, r: Array, size: int) -> Array:
        off = jnp.zeros((size, size), r.dtype).at[_below(size)].set(r)
        return off + off.T + jnp.eye(size, dtype=r.dtype)

    def between(self, r: Array, left: Array, right: Array, space: Space) -> Array:
        return self._matrix(jnp.asarray(r), space.size)[left, right]

    def decode(self, theta: Array, space: Space, frame: Array | None = None) -> Array:
        factor = jnp.eye(space.size, dtype=theta.dtype).at[_below(space.size)].set(theta)
        factor = factor if frame is None else frame.astype(theta.dtype) @ factor
        factor = factor / jnp.sqrt(jnp.sum(factor**2, axis=1))[:, None]
        return (factor @ factor.T)[_below(space.size)]

    def encode(self, r: Array, space: Space, frame: Array | None = None) -> Array:
        factor = psd_cholesky(self._matrix(jnp.asarray(r), space.size), 1e-13, BRIEF)
        return (factor / diagonal(factor)[:, None])[_below(space.size)]

    def centre(self, r: Array, space: Space) -> tuple[Array, Array]:
        return _frame(self._matrix(r, space.size)), jnp.zeros_like(r)

    def feasible(self, r: Array, space: Space) -> Array:
        return _definite(self._matrix(r, space.size))[_below(space.size)]

    def margin(self, theta: Array, space: Space, frame: Array | None = None) -> Array:
        return jnp.ones_like(theta)


def _below(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns below the diagonal, column after column."""
    columns, rows = np.triu_indices(size, k=1)
    return rows, columns


def _with_first(values: Array, size: int) -> Array:
    """Values of all entries: the first of the diagonal is 1 where it is not given."""
    if len(values) == size * (size + 1) // 2:
        return values
    return jnp.concatenate([jnp.ones(1, values.dtype), values])


def _frame(matrix: Array) -> Array:
    """A Cholesky factor (q, q) without zeros on its diagonal: a matrix that is singular can be left again."""
    factor, root = psd_cholesky(matrix, 1e-13, BRIEF), jnp.sqrt(diagonal(matrix))
    return factor + jnp.diag(jnp.where(diagonal(factor) > 0, 0.0, 1e-6 * root))


def _definite(correlations: Array) -> Array:
    """Correlations (q, q) that belong to a positive definite matrix: as they are if they do, else smaller."""
    eye = jnp.eye(len(correlations), dtype=correlations.dtype)
    off = correlations * (1.0 - eye)
    reach = jnp.max(jnp.sum(jnp.abs(off), axis=1))
    out = off * jnp.minimum(1.0, 0.9 / jnp.maximum(reach, 0.1))
    for share in (0.8, 0.95, 1.0):
        definite = jnp.min(diagonal(psd_cholesky(share * off + eye, 1e-3, BRIEF))) > 0
        out = jnp.where(definite, share * off, out)
    return out + eye

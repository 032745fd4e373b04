"""What a scan asks of a fitted model: an engine, made once, that takes candidate columns by blocks.

With V = σ²H at the null fit, P = H⁻¹ − H⁻¹X(X'H⁻¹X)⁻¹X'H⁻¹ and a candidate g beside X,

    a = y'Py,   b = g'Py,   c = g'Pg,   r₁ = a − b²/c,
    effect b/c,   −2ℓ = log|H| + κ(log|X'H⁻¹X| + log c) + ν₁(1 + log(2π r₁/ν₁)),   ν₁ = n − κ(p + 1).
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from lmmjax.arrays.processors import mapped
from lmmjax.core.problem import ProblemMaker
from lmmjax.inference.scan.sweep import Sweepable, Wanted, sweep

ALL = slice(None)

TOGETHER = 1 << 10
"""Pairs that are worked out together."""


@dataclasses.dataclass(frozen=True, eq=False)
class KernelFits:
    """Fits of T responses under one kernel with independent residuals.

    Attributes
    ----------
    maker : of the model; y : (n, T) the responses, of NumPy or, where they have all rows, on a device.
    psi : (T, 2) variances of the kernel and of the residuals, estimated; deviance : (T,) the criterion there.
    reml : whether they are by REML; ml : makes the estimates by maximum likelihood, ψ and the criterion.
    """

    maker: ProblemMaker
    y: Any
    psi: np.ndarray
    deviance: np.ndarray
    reml: bool
    ml: Callable[[], tuple[np.ndarray, np.ndarray]]

    @property
    def response(self) -> np.ndarray:
        """(n, T) less the offset."""
        offset, y = self.maker.rows.offset, np.asarray(self.y)
        return y if offset is None else y - np.asarray(offset)[:, None]

    def by_ml(self) -> KernelFits:
        """Those by maximum likelihood."""
        psi, deviance = self.ml()
        return dataclasses.replace(self, psi=psi, deviance=deviance, reml=False)


@dataclasses.dataclass(frozen=True, eq=False)
class Null:
    """The null fits of T responses.

    Attributes
    ----------
    n, p : (T,) rows and fixed effects of each response.
    a : (T,) y'Py; logdet : (T,) log|H| + κ log|X'H⁻¹X|; reml : κ.
    ratio : (T,) the ratio of variances of a kernel, NaN for models that have not just one.
    """

    n: np.ndarray
    p: np.ndarray
    a: np.ndarray
    logdet: np.ndarray
    reml: bool
    ratio: np.ndarray

    @classmethod
    def of(cls, n: Any, p: Any, a: np.ndarray, deviance: np.ndarray, reml: bool, ratio: np.ndarray) -> Null:
        """That of fits whose criterion is `deviance` (T,)."""
        n, p = (np.broadcast_to(np.asarray(v, float), np.shape(a)) for v in (n, p))
        nu = n - reml * p
        with np.errstate(divide="ignore", invalid="ignore"):
            logdet = deviance - nu * (1.0 + np.log(2.0 * np.pi * a / nu))
        return cls(n, p, a, logdet, reml, ratio)

    @property
    def deviance(self) -> np.ndarray:
        """(T,) the criterion of the null fits."""
        nu = self.n - self.reml * self.p
        return self.logdet + nu * (1.0 + np.log(2.0 * np.pi * self.a / nu))

    def some(self, part: Any) -> Null:
        """Those of some responses."""
        arrays = {name: getattr(self, name)[part] for name in ("n", "p", "a", "logdet", "ratio")}
        return Null(**arrays, reml=self.reml)


@dataclasses.dataclass(frozen=True, eq=False)
class Refitted:
    """Fits with the candidate in the model, of Q pairs of a candidate and a response.

    Attributes
    ----------
    effect, se : (Q, s) of the s columns of the candidate; ratio, deviance : (Q,), as of `Null`.
    joint : (Q,) the F statistic of all columns, on s and n − p − s degrees of freedom.
    """

    effect: np.ndarray
    se: np.ndarray
    ratio: np.ndarray
    deviance: np.ndarray
    joint: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Hits:
    """Q pairs of candidates and responses that may be kept, by candidate, then response.

    Attributes
    ----------
    marker, response : (Q,) their places; b, c : (Q,) g'Py and g'Pg.
    by_ml : the same two at the ratios of the fits by maximum likelihood, None where nobody asked.
    """

    marker: np.ndarray
    response: np.ndarray
    b: np.ndarray
    c: np.ndarray
    by_ml: tuple[np.ndarray, np.ndarray] | None


class Engine(abc.ABC):
    """T responses under one design, their variance parameters held at the null fit.

    Attributes
    ----------
    null : the null fits; alone : whether g'Pg depends on more than the ratio, so that no response shares it.
    """

    null: Null
    alone: bool = False

    @property
    def sweeps(self) -> bool:
        """Whether `hits` finds pairs."""
        return self.sweepable is not None

    def hits(self, block: Any, wanted: Wanted, by_ml: bool) -> Hits:
        """The pairs of a block that may be kept: by a sweep in float32, and in float64 what it finds."""
        assert self.sweepable is not None
        found, total = sweep(self.sweepable, block, self.single(block), block.lost, wanted), len(self.null.n)
        pair = np.unique(found[0].astype(np.int64) * total + found[1])
        marker, response = pair // total, pair % total
        b, c = self._by_response(block, marker, response)
        fine = np.isfinite(c)
        marker, response, b, c = (values[fine] for values in (marker, response, b, c))
        other = self.by_ml()._by_response(block, marker, response) if by_ml else None
        return Hits(marker, response, b, c, other)

    def _by_response(
        self, block: Any, marker: np.ndarray, response: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """b and c (Q,) of pairs, by parts that stay in cache and of neighbouring responses."""
        order = np.argsort(response, kind="stable")
        parts = [order[k : k + TOGETHER] for k in range(0, max(len(order), 1), TOGETHER)]
        found = mapped(lambda at: self.pairs(block, marker[at], response[at]), parts)
        out = np.empty((2, len(order)))
        out[:, order] = np.concatenate(found, axis=1)
        return out[0], out[1]

    @property
    def sweepable(self) -> Sweepable | None:
        """What a sweep in float32 takes of the responses, None where it has to be done without."""
        return None

    def single(self, block: Any) -> np.ndarray:
        """The coordinates (m, k) of a block of candidates for a sweep, in float32."""
        raise TypeError("this engine has no sweep")

    def pairs(self, block: Any, marker: np.ndarray, response: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """b and c (Q,) of pairs of a candidate of a block and a response."""
        raise TypeError("this engine has no sweep")

    @abc.abstractmethod
    def prepare(self, g: np.ndarray) -> Any:
        """What `products` and `cross` need of candidates g (n, k) in the rows of the fit, finite."""

    @abc.abstractmethod
    def products(self, block: Any, part: slice = ALL) -> tuple[np.ndarray, np.ndarray]:
        """b (k, t) and c, (k, t) or (k, 1), of the responses `part`; NaN for candidates that X determines."""

    @abc.abstractmethod
    def cross(self, one: Any, two: Any, part: slice = ALL) -> np.ndarray:
        """g'Ph, (k, t) or (k, 1), of a candidate of one block and the one of the other in its place."""

    @abc.abstractmethod
    def refit(
        self, columns: tuple[np.ndarray, ...], marker: np.ndarray, response: np.ndarray, reml: bool
    ) -> Refitted:
        """Exact fits of the pairs marker (Q,), response (Q,).

        Parameters
        ----------
        columns : s blocks (n, k): a candidate has a column in each.
        """

    @abc.abstractmethod
    def by_ml(self) -> Engine:
        """The engine of the fits by maximum likelihood: itself, if they are."""

    def df(self, s: int, part: slice = ALL) -> np.ndarray:
        """(t,) degrees of freedom of the residual beside s columns of a candidate."""
        return self.null.n[part] - self.null.p[part] - s

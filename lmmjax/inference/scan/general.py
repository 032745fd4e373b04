"""Scans of any model: candidates beside X at the null fits' V, or refitted, of responses that share a design.

What is fixed at the null is formed once for a tile of responses; a block of candidates then takes products of
matrices (`null_model.py`). Responses of a grouped design share the products of the block, others have an
inverse each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lmmjax.core import Estimate, ProblemMaker
from lmmjax.inference.scan import wald
from lmmjax.inference.scan.candidates import Candidates
from lmmjax.inference.scan.grouped_inverse import GroupedInverse, GroupedRows, is_grouped
from lmmjax.inference.scan.inverses import Features, Inverse, RowInverse, inverse_of
from lmmjax.inference.scan.null_model import (
    Moments,
    NullModel,
    UnitSums,
    alone,
    beside_x,
    independent_units,
)

TILE, KEPT = 1 << 22, 1 << 26
"""Numbers of the rows of a tile of responses, and of all tiles that are kept."""

DDF = ("satterthwaite", "residual", "normal")

LOD = 2.0 * np.log(10.0)

Tiles = Iterator[tuple[slice, Moments]]
"""Parts of the responses, and the moments of candidates beside these."""

Values = dict[str, np.ndarray]
"""Statistics by name, each (M, T) or of pairs (Q,)."""


@dataclasses.dataclass(frozen=True, eq=False)
class NullFits:
    """Fits of T responses that share a design.

    Attributes
    ----------
    maker : of the design; y : (n, T), complete.
    psi, cov : (T, m + 1) and (T, m + 1, m + 1), `psi` and `cov_relative` of their `Estimate`.
    deviance : (T,); reml : whether they are by REML.
    """

    maker: ProblemMaker
    y: np.ndarray
    psi: np.ndarray
    cov: np.ndarray
    deviance: np.ndarray
    reml: bool

    def some(self, part: Any) -> NullFits:
        """Those of some responses."""
        return NullFits(
            self.maker, self.y[:, part], self.psi[part], self.cov[part], self.deviance[part], self.reml
        )

    @property
    def response(self) -> np.ndarray:
        """(n, T) less the offset."""
        offset = self.maker.design.offset
        return self.y if offset is None else self.y - np.asarray(offset)[:, None]

    def tests(self) -> wald.Fits:
        """What tests need of them."""
        design = self.maker.design
        unit = design.structure.units(self.psi[:, -1:])
        cov = self.cov * unit[:, :, None] * unit[:, None, :]
        return wald.Fits(design.n, design.p, self.reml, design.known is not None, self.deviance, cov)


Refit = Callable[[ProblemMaker, np.ndarray, np.ndarray, bool], Estimate]
"""Fits of y (n, Q) with columns g (n, k, Q) after those of X, by REML or not; arrays lead with Q."""


class GeneralScan:
    """Candidates against T responses.

    Parameters
    ----------
    fits : of the responses; by_ml : makes those by maximum likelihood, if they are not; refit : exact fits.
    ddf : degrees of freedom, one of `DDF`.
    """

    def __init__(self, fits: NullFits, by_ml: Callable[[], NullFits], refit: Refit, ddf: str):
        self.fits, self._by_ml, self._refit, self.ddf = fits, by_ml, refit, ddf
        self.design = fits.maker.design
        self.grouped = GroupedRows(fits.maker) if is_grouped(fits.maker) else None
        x = np.asarray(self.design.x)
        self.x = np.linalg.qr(x)[0] if x.shape[1] else x
        m, n, p = fits.psi.shape[1], self.design.n, self.design.p
        self.width = n * (2 + 2 * p + (m * p if ddf == "satterthwaite" else 0))
        self.size = 1 if self.grouped is None else max(1, TILE // self.width)
        self._tiles: dict[int, tuple[NullModel, dict[bytes, UnitSums]]] = {}
        self._isolated: dict[bytes, bool] = {}
        self._ml: GeneralScan | None = None

    @property
    def lanes(self) -> int:
        return len(self.fits.psi)

    def inverse(self, psi: np.ndarray) -> Inverse:
        """V⁻¹ of responses at ψ (t, m + 1)."""
        if self.grouped is not None:
            return GroupedInverse(self.grouped, psi)
        return inverse_of(self.design, psi[0])

    def by_ml(self) -> GeneralScan:
        """The scan of the fits by maximum likelihood: itself, if they are."""
        if not self.fits.reml:
            return self
        if self._ml is None:
            self._ml = GeneralScan(self._by_ml(), self._by_ml, self._refit, self.ddf)
        return self._ml

    def _tile(self, part: slice) -> tuple[NullModel, dict[bytes, UnitSums]]:
        found = self._tiles.get(part.start)
        if found is None:
            own = self.fits.some(part)
            null = NullModel(self.design, self.inverse(own.psi), own.response, self.ddf == "satterthwaite")
            found = null, {}
            if (len(self._tiles) + 1) * self.size * self.width <= KEPT:
                self._tiles[part.start] = found
        return found

    def _units(self, found: Candidates) -> bool:
        """Whether sums over units take the place of rows."""
        if not found.repeated:
            return False
        key = found.codes.tobytes()
        if key not in self._isolated:
            self._isolated[key] = independent_units(self.design, found.codes)
        return self._isolated[key]

    def moments(self, found: Candidates) -> Tiles:
        """Yields tiles of responses and the moments of all candidates."""
        by_unit = self._units(found)
        features, void = None, np.zeros(0)
        if not by_unit:
            g, void = beside_x(self.x, found.rows)
            features = Features(g) if self.grouped is None else self.grouped.features(g)
        for first in range(0, self.lanes, self.size):
            part = slice(first, min(first + self.size, self.lanes))
            null, sums = self._tile(part)
            if features is not None:
                yield part, null.rows(features, void)
                continue
            key = found.codes.tobytes() + found.carriers.tobytes()
            if key not in sums:
                sums[key] = UnitSums(null, found.codes, found.carriers, len(found.values))
            yield part, sums[key].moments(found.values)

    def at_null(self, found: Candidates, lrt: bool, score: bool) -> list[Values]:
        """Statistics (M, T) of every column of the candidates, at the ratios of the null fits."""
        return self._statistics(lambda scan: scan.moments(found), lrt, score)

    def own_at_null(self, g: np.ndarray, lrt: bool, score: bool) -> list[Values]:
        """The same (1, T) of a candidate g (n, k, T) for every response, its own."""
        return self._statistics(lambda scan: scan.own_moments(g), lrt, score)

    def own_moments(self, g: np.ndarray) -> Tiles:
        """Yields tiles of responses and the moments of their own candidates g (n, k, T)."""
        for first in range(0, self.lanes, self.size):
            part = slice(first, min(first + self.size, self.lanes))
            yield part, self._tile(part)[0].own(g[:, :, part])

    def _statistics(self, moments: Callable[..., Tiles], lrt: bool, score: bool) -> list[Values]:
        out: list[Values] = []
        whole = self.fits.tests()
        for part, m in moments(self):
            fits = whole.some(part)
            own = wald.solve(m)
            df, joint = wald.degrees(own, m, fits, self.ddf)
            s = wald.scale(own, fits)
            values = column_statistics(own.effect, np.sqrt(own.inverse * s[..., None]), df)
            values["loglik"] = _spread(wald.loglik(own, m.a, fits), df)
            values["ratio"] = _spread(ratio(self.fits.psi[part])[:, None], df)
            if lrt:
                values |= lrt_statistics(wald.likelihood_ratio(own, fits))
            k = own.effect.shape[-1]
            if k > 1:
                with np.errstate(divide="ignore", invalid="ignore"):
                    f = own.explained / (k * s)
                    lrt_all = own.explained if fits.known else fits.n * np.log1p(own.explained / own.left)
                values["p_joint"] = _spread(wald.upper_f(f, k, joint), df)
                values["joint"] = _spread(lrt_all, df)
            if not out:
                shape = (m.b.shape[1], self.lanes)
                out = [{name: np.empty(shape) for name in values} for _ in range(k)]
            for j in range(k):
                for name, value in values.items():
                    out[j][name][:, part] = value[..., j].T
        if score:
            ml = self.by_ml()
            for values, p in zip(out, ml._scores(moments(ml)), strict=True):
                values["p_score"] = p
        return out

    def _scores(self, moments: Tiles) -> list[np.ndarray]:
        """p (M, T) of the score test of every column."""
        whole, parts = self.fits.tests(), []
        for part, m in moments:
            fits = whole.some(part)
            own = wald.solve(m)
            df, _ = wald.degrees(own, m, fits, self.ddf)
            parts.append(np.swapaxes(wald.upper_f(wald.score(own, fits), 1, df), 0, 1))
        return list(np.moveaxis(np.concatenate(parts, axis=1), -1, 0))

    def refitted(self, g: np.ndarray, response: np.ndarray, lrt: bool) -> list[Values]:
        """Statistics (Q,) of every column of exact fits of Q pairs.

        Parameters
        ----------
        g : (n, k, Q) columns of each pair; response : (Q,) its response.
        """
        y, reml, k = self.fits.y[:, response], self.fits.reml, g.shape[1]
        found = self._refit(self.fits.maker, y, g, reml)
        p = self.design.p
        effect = found.beta[:, p:]
        cov = found.cov_beta[:, p:, p:]
        se = np.sqrt(np.einsum("qkk->qk", cov))
        df, joint = self._pair_df(found, y, g)
        values = column_statistics(effect, se, df)
        values["loglik"] = _spread(-0.5 * found.deviance, df)
        values["ratio"] = _spread(ratio(found.psi), df)
        if k > 1:
            inverse, _, _ = wald.inverses(cov)
            f = np.sum(effect * (inverse @ effect[..., None])[..., 0], axis=-1) / k
            values["p_joint"] = _spread(wald.upper_f(f, k, joint), df)
            nu = self.design.n - p - k
            values["joint"] = _spread(self.design.n * np.log1p(k * f / nu), df)
        if lrt:
            values |= lrt_statistics(self._pair_lrt(found, y, g, response))
        return [{name: value[..., j] for name, value in values.items()} for j in range(k)]

    def _pair_lrt(self, found: Estimate, y: np.ndarray, g: np.ndarray, response: np.ndarray) -> np.ndarray:
        """(Q, k) likelihood ratio, both fits by maximum likelihood, of every column beside the others."""
        if self.fits.reml:
            found = self._refit(self.fits.maker, y, g, False)
        k, out = g.shape[1], []
        for j in range(k):
            if k == 1:
                without = self.by_ml().fits.deviance[response]
            else:
                without = self._refit(self.fits.maker, y, np.delete(g, j, axis=1), False).deviance
            out.append(without - found.deviance)
        return np.stack(out, axis=-1)

    def _pair_df(self, found: Estimate, y: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """df (Q, k) and (Q,) of exact fits of pairs."""
        fits = NullFits(self.fits.maker, y, found.psi, found.cov_relative, found.deviance, self.fits.reml)
        df, joint = np.full((len(y.T), g.shape[1]), np.nan), np.full(len(y.T), np.nan)
        fine = np.flatnonzero(np.isfinite(found.psi).all(axis=1))
        if self.ddf != "satterthwaite":
            known = self.ddf == "normal" or self.design.known is not None
            constant = np.inf if known else float(self.design.n - self.design.p - g.shape[1])
            df[fine], joint[fine] = constant, constant
            return df, joint
        for first in range(0, len(fine), self.size):
            part = fine[first : first + self.size]
            own = fits.some(part)
            inverse = self.inverse(own.psi)
            if isinstance(inverse, RowInverse):
                m = alone(inverse, self.x, g[:, :, part[0]])
            else:
                m = NullModel(self.design, inverse, own.response, True).own(g[:, :, part])
            single, all_ = wald.degrees(wald.solve(m), m, own.tests(), self.ddf)
            df[part], joint[part] = single[:, 0], all_[:, 0]
        return df, joint


def ratio(psi: np.ndarray) -> np.ndarray:
    """The ratio of the two variances of ψ (t, m + 1), NaN where there are more or fewer."""
    if psi.shape[1] != 2:
        return np.full(len(psi), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        return psi[:, 0] / psi[:, 1]


def column_statistics(effect: np.ndarray, se: np.ndarray, df: np.ndarray) -> Values:
    """Estimate, standard error and Wald test of columns."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = effect / se
    return {"effect": effect, "se": se, "t": t, "p_wald": wald.two_sided(t, df), "f": t * t, "df": df}


def lrt_statistics(lrt: np.ndarray) -> Values:
    """Likelihood ratios of columns as p and LOD."""
    return {"p_lrt": wald.upper_f(lrt, 1, np.full(lrt.shape, np.inf)), "lod": lrt / LOD}


def _spread(a: np.ndarray, like: np.ndarray) -> np.ndarray:
    """The same value for every column."""
    return np.broadcast_to(a[..., None], like.shape)

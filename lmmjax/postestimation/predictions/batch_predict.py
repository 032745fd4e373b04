"""Predictions of many responses for new rows, with their limits; for all that share a design at once."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.batch.added_rows import Effects, sizes, weight_of, with_effects
from lmmjax.batch.ddf import Covariances, Responses, covariances
from lmmjax.batch.sources import few
from lmmjax.design import Structure
from lmmjax.fitted import FittedMany, ModelData, by_reml_many
from lmmjax.formula import NewFrame, confined
from lmmjax.postestimation.alike import Alike, alike
from lmmjax.postestimation.hypotheses.fixed_tests import ADJUSTED, METHODS, REFITTED, ddf_method
from lmmjax.postestimation.predictions.batch_modes import modes_of
from lmmjax.postestimation.predictions.predict import (
    Request,
    check,
    half_length,
    new_rows,
    predicted,
    warn_of_limits,
)

ADDED = 8
"""Rows that are added to a design at a time."""

ENTRIES = 1 << 22
"""Numbers in an array of some responses and new rows."""


def predict_many(fits: FittedMany, newdata: Any, request: Request) -> pd.DataFrame:
    """See `BatchFit.predict`."""
    check(fits.data, newdata, request)
    ddf = ddf_method(request.ddf)
    made_from = by_reml_many(fits) if request.errors and ddf in ADJUSTED else fits
    if request.residual and made_from.weights is not None and request.weights is None:
        raise ValueError(
            "residuals of new rows depend on their weights, and those of the responses are an array: pass "
            "newdata and weights= for the new rows"
        )
    new = new_rows(fits.data, newdata, request)
    shape = len(fits.names), len(new.index)
    values, se, half = (np.full(shape, np.nan) for _ in range(3))
    for own in alike(made_from):
        rows = new if own.whole else _rows_of(own, new, newdata, request)
        for some, together in _split(own, rows, request):
            if together:
                found = _together(some, rows, request, ddf)
            else:
                each = [predicted(some.fit(int(j)), rows, request, ddf) for j in some.which]
                found = tuple(np.array(column) for column in zip(*each, strict=True))
            values[some.which], se[some.which], half[some.which] = found
    if not request.errors:
        return pd.DataFrame(values, index=fits.names, columns=new.index)
    index = pd.MultiIndex.from_product([fits.names, new.index], names=[fits.names.name, new.index.name])
    columns = {"fit": values, "se": se, "lower": values - half, "upper": values + half}
    out = pd.DataFrame({name: column.ravel() for name, column in columns.items()}, index=index)
    said = {"ddf": METHODS[ddf]} | ({} if made_from is fits else {"note": REFITTED})
    out.attrs.update(said | {"interval": request.interval or "confidence", "level": request.level})
    warn_of_limits(half, ddf)
    return out


def _rows_of(own: Alike, new: NewFrame, newdata: Any, request: Request) -> NewFrame:
    """The new rows for responses that lack some of the model's, and their groups and visits."""
    if request.residual and newdata is not None and own.data.design.residual is not None:
        return new_rows(own.data, newdata, request, warn=False)
    return confined(new, own.fits.data.frame, own.data.frame)


def _split(own: Alike, new: NewFrame, request: Request) -> list[tuple[Alike, bool]]:
    """The responses, and whether they are predicted together.

    Those whose ψ is not identified are not, nor are few, nor what needs residuals of a structure, or a
    covariance that is not linear in its parameters at levels that are unknown.
    """
    design, moves = own.data.design, own.fits.estimate.moves[own.which].any(axis=(1, 2))
    one, rest = own.which[moves], own.which[~moves]
    together = not request.kriging
    if request.errors:
        together &= design.residual is None and len(rest) > few(own.data.maker)
        together &= not own.data.maker.prepared.shared.sequential
        # structured families take part where they are known, by one method of two
        bent = not design.structure.linear
        together &= not (bent and request.ddf == "kenward-roger-sas")
        together &= not (bent and any(np.nan_to_num(_unknown(term, request)).any() for term in new.random))
    pairs = ((one, False), (rest, together))
    return [(own.some(which), way) for which, way in pairs if len(which)]


def _unknown(term: Any, request: Request) -> np.ndarray:
    """z (k, q) of what is predicted of a term at levels of which nothing is known."""
    z = term.z if request.interval == "prediction" else term.z * term.columns
    return np.where((term.codes < 0)[:, None], z, z * ~term.columns)


def _together(
    own: Alike, new: NewFrame, request: Request, ddf: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`predicted` of responses alike (t, k)."""
    values = _values(own, new)
    se, half = np.full(values.shape, np.nan), np.full(values.shape, np.nan)
    known = np.isfinite(new.x).all(axis=1)
    known &= True if new.offset is None else np.isfinite(new.offset)
    for term in new.random:
        known &= np.isfinite(term.z).all(axis=1)
    if request.errors and known.any():
        rows = np.flatnonzero(known)
        se[:, rows], half[:, rows] = _Errors(own, new, rows, request, ddf).found()
    return values, np.where(np.isnan(values), np.nan, se), np.where(np.isnan(values), np.nan, half)


def _values(own: Alike, new: NewFrame) -> np.ndarray:
    """x'β̂ + z'b̂ + offset (t, k)."""
    beta = own.fits.estimate.beta[own.which][:, own.columns]
    values = beta @ new.x.T + (0.0 if new.offset is None else new.offset)
    terms = [term for term in new.random if np.any(term.codes >= 0)]
    if not terms:
        return values
    place = np.empty(len(own.fits.names), int)
    place[own.which] = np.arange(len(own.which))
    for some, modes in modes_of(own):
        for term in terms:
            b = modes[term.term][:, term.codes]
            part = np.einsum("kq,tkq->tk", term.z * term.columns, b)
            values[place[some]] += np.where(term.codes < 0, 0.0, part)
    return values


@dataclasses.dataclass(frozen=True, eq=False)
class _Errors:
    """Standard errors and limits of responses alike, for `rows` (k,) of new ones, in units of σ."""

    own: Alike
    new: NewFrame
    rows: np.ndarray
    request: Request
    ddf: str

    def found(self) -> tuple[np.ndarray, np.ndarray]:
        """se, and half the lengths of the intervals (t, k)."""
        t = len(self.own.which)
        se, half = np.empty((t, len(self.rows))), np.empty((t, len(self.rows)))
        effects, place = _effects(self.own.data, self.new, self.rows)
        size = min(ADDED, len(effects))
        for first in range(0, max(len(effects), 1), ADDED):
            # the last ones once more, so that all blocks share a program
            some = np.resize(np.arange(first, min(first + ADDED, len(effects))), size)
            here = np.flatnonzero((place >= first) & (place < first + ADDED) | ((place < 0) & (first == 0)))
            self._block(effects.take(some), here, place[here] - first, se, half)
        return se, half

    def _block(
        self, effects: Effects, here: np.ndarray, place: np.ndarray, se: np.ndarray, half: np.ndarray
    ) -> None:
        """Fill in the columns `here` of se and half, rows with the combinations `place` of `effects`."""
        fits, own, data = self.own.fits, self.own, self.own.data
        size = sizes(data.maker, effects)
        maker = with_effects(data.maker, effects, size) if len(effects) else data.maker
        structure, p = data.design.structure, data.design.p
        x = np.zeros((len(here), p + len(effects)))
        x[:, :p] = self.new.x[self.rows[here]]
        random = place >= 0
        x[np.flatnonzero(random), p + place[random]] = -size[place[random]]
        psi, cov = fits.estimate.psi[own.which], fits.estimate.cov_relative[own.which]
        of = Responses(maker, np.broadcast_to(0.0, (maker.design.n, len(psi))), psi, cov, fits.reml)
        relative = np.column_stack([structure.relative(psi), np.ones(len(psi))])
        unknown, unknown_slopes = self._unknown_variance(here, relative, structure)
        residual = self._new_variance(here)
        taken = np.zeros(len(here))
        taken[random] = size[place[random]] ** 2 / weight_of(data.design)
        everyone = np.ones(len(psi), bool)
        for at, unit, found in covariances(of, everyone, np.eye(maker.design.p), self._method):
            step = max(1, ENTRIES // max(found.slopes.size // x.shape[1], 1))
            for start in range(0, len(here), step):
                part = slice(start, start + step)
                v, gradient, added = _parts(found, x[part])
                v = v - taken[part] + unknown[at, part]
                gradient[:, -1] -= taken[part]
                gradient += found.outward.T @ unknown_slopes[:, part]
                added = added if self.ddf in ADJUSTED else np.zeros_like(v)
                se[at[:, None], here[None, part]] = unit[:, None] * np.sqrt(v + added)
                total = v + residual[part]
                gradient[:, -1] += residual[part]
                with np.errstate(divide="ignore", invalid="ignore"):
                    spread = np.einsum("tck,tcd,tdk->tk", gradient, found.cov_psi, gradient)
                    moved = total + np.where(random[part], added, 0.0)
                    df = np.where(spread > 0.0, 2.0 * moved**2 / spread, np.inf)
                df = np.full_like(df, np.inf) if self.ddf == "normal" else df
                length = unit[:, None] * np.sqrt(total + added)
                half[at[:, None], here[None, part]] = half_length(df, length, self.request.level)

    @property
    def _method(self) -> str:
        return "satterthwaite" if self.ddf == "normal" else self.ddf

    def _unknown_variance(
        self, here: np.ndarray, psi: np.ndarray, structure: Structure
    ) -> tuple[np.ndarray, np.ndarray]:
        """Σ z'Dz (t, k) of unknown levels, and its derivatives (m + 1, k) in ψ, relative to σ²."""
        slopes, parts = np.zeros((psi.shape[1], len(here))), structure.slices()
        for term in self.new.random:
            z, s = _unknown(term, self.request)[self.rows[here]], parts[term.term]
            if not z.any():
                continue
            slopes[s] += np.einsum("ka,cab,kb->ck", z, np.asarray(structure.terms[term.term].units), z)
        return psi @ slopes, slopes

    def _new_variance(self, here: np.ndarray) -> np.ndarray:
        """Var(ε)/σ² (k,) of new responses; 0 where these are not what is predicted."""
        if self.request.interval != "prediction":
            return np.zeros(len(here))
        places = self.new.places
        if places is None or places.weights is None:
            return np.ones(len(here))
        at = np.searchsorted(places.rows, self.rows[here])
        return 1.0 / places.weights[at]


def _parts(found: Covariances, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """lᵀΦl (t, k), its derivatives (t, m + 1, k) and lᵀ(Φ_A − Φ)l for rows l (k, p)."""

    def squares(a: np.ndarray) -> np.ndarray:
        return np.sum((a @ rows.T) * rows.T, axis=-2)

    return squares(found.phi), -squares(found.slopes), squares(found.adjusted - found.phi)


def _effects(data: ModelData, new: NewFrame, rows: np.ndarray) -> tuple[Effects, np.ndarray]:
    """The different combinations of effects of known levels, and that of each row, −1 where it has none."""
    terms = data.design.terms
    z = [np.zeros((len(rows), term.q)) for term in terms]
    codes = [np.zeros(len(rows), np.int64) for _ in terms]
    for term in new.random:
        there = term.codes[rows] >= 0
        z[term.term] = np.where(there[:, None], term.z[rows] * term.columns, 0.0)
        codes[term.term] = np.where(z[term.term].any(axis=1), term.codes[rows], 0)
    flat = np.column_stack([*z, *codes]) if terms else np.zeros((len(rows), 0))
    some = np.column_stack([a.any(axis=1) for a in z]).any(axis=1) if terms else np.zeros(len(rows), bool)
    place = np.full(len(rows), -1)
    if not some.any():
        return Effects((), ()), place
    _, first, kind = np.unique(flat[some], axis=0, return_index=True, return_inverse=True)
    place[some] = kind.ravel()
    return Effects(tuple(z), tuple(codes)).take(np.flatnonzero(some)[first]), place

"""Tables over many responses: tidy and top tables, contrasts, intervals, multiple testing, BLUPs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from lmmjax import varcomp
from lmmjax.conditional import conditional_means
from lmmjax.formula.columns import nearest
from lmmjax.problem import response_axes

if TYPE_CHECKING:
    from lmmjax.batchfit import BatchFit

TIDY = ["response", "effect", "group", "term", "estimate", "se", "t", "p", "q"]
TABLE = ["estimate", "se", "t", "p", "q"]

CHUNK = 4_000_000
"""Numbers that a chunk of responses may hold while their random effects are computed."""


def adjust(p: np.ndarray) -> np.ndarray:
    """Benjamini–Hochberg q-values of p (T, ...), each column by itself; missing values stay out of it.

    With p₍₁₎ ≤ … ≤ p₍ₘ₎ the q-value of p₍ᵢ₎ is min over j ≥ i of m p₍ⱼ₎/j, at most 1.

    Source: Benjamini & Hochberg (1995), doi:10.1111/j.2517-6161.1995.tb02031.x.
    """
    p = np.asarray(p, float)
    order = np.argsort(p, axis=0)
    count = np.sum(~np.isnan(p), axis=0)
    rank = np.arange(1, len(p) + 1).reshape((-1,) + (1,) * (p.ndim - 1))
    # missing values sort last: infinity there leaves the running minimum alone
    raised = np.nan_to_num(np.take_along_axis(p, order, axis=0) * count / rank, nan=np.inf)
    least = np.minimum(np.minimum.accumulate(raised[::-1], axis=0)[::-1], 1.0)
    q = np.empty_like(p)
    np.put_along_axis(q, order, least, axis=0)
    return np.where(np.isnan(p), np.nan, q)


def wald(estimate: np.ndarray, se: np.ndarray) -> dict[str, np.ndarray]:
    """Columns of `TABLE` for estimates and standard errors (T, k); p two-sided normal."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = estimate / se
    p = 2.0 * ndtr(-np.abs(t))
    return dict(zip(TABLE, (estimate, se, t, p, adjust(p)), strict=True))


def fixed_table(fits: BatchFit) -> dict[str, np.ndarray]:
    """Columns of `TABLE` for the fixed effects, each (T, p)."""
    p = fits.pvalues.to_numpy()
    columns = (fits.params, fits.bse, fits.tvalues, p, adjust(p))
    return {name: np.asarray(column) for name, column in zip(TABLE, columns, strict=True)}


def tidy(fits: BatchFit) -> pd.DataFrame:
    """See `BatchFit.tidy`."""
    count, x_names = len(fits), fits.model.frame.x_names
    labels = fits.names.to_numpy()
    fixed = pd.DataFrame(
        {
            "response": np.repeat(labels, len(x_names)),
            "effect": "fixed",
            "group": None,
            "term": np.tile(np.array(x_names, dtype=object), count),
            **{name: column.ravel() for name, column in fixed_table(fits).items()},
        }
    )
    rows = fits.model.components
    values, jacobian = varcomp.sd_scale(fits.estimate.psi, rows)
    random = pd.DataFrame(
        {
            "response": np.repeat(labels, len(rows)),
            "effect": "random",
            "group": np.tile(np.array([row.group for row in rows], dtype=object), count),
            "term": np.tile(np.array([n.split("|")[0] for n in varcomp.names(rows)], dtype=object), count),
            "estimate": values.ravel(),
            "se": varcomp.delta_se(jacobian, fits.estimate.cov_psi).ravel(),
            **{name: np.full(values.size, np.nan) for name in ("t", "p", "q")},
        }
    )
    return pd.concat([fixed, random], ignore_index=True).reindex(columns=TIDY)


def conf_int(fits: BatchFit, level: float) -> pd.DataFrame:
    """See `BatchFit.conf_int`."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    beta, half = fits.params.to_numpy(), ndtri(0.5 + level / 2) * fits.bse.to_numpy()
    values = np.stack([beta - half, beta + half], axis=-1).reshape(len(fits), -1)
    columns = pd.MultiIndex.from_product([fits.model.frame.x_names, ["lower", "upper"]])
    return pd.DataFrame(values, index=fits.names, columns=columns)


def top(fits: BatchFit, term: str, n: int, by: str) -> pd.DataFrame:
    """See `BatchFit.top`."""
    x_names = list(fits.model.frame.x_names)
    if term not in x_names:
        raise ValueError(f"unknown coefficient {term!r}: {nearest(str(term), x_names)}")
    if by not in TABLE:
        raise ValueError(f"unknown by {by!r}; choose one of: {', '.join(TABLE)}")
    at = x_names.index(term)
    columns = {name: column[:, at] for name, column in fixed_table(fits).items()}
    key = -np.abs(columns[by]) if by in ("t", "estimate") else columns[by]
    # p-values that underflow are told apart by t; missing values come last
    order = np.lexsort((-np.abs(columns["t"]), key))[: max(n, 0)]
    return pd.DataFrame(columns, index=fits.names).iloc[order]


def contrast(fits: BatchFit, contrasts: Any, names: Sequence[str] | None) -> pd.DataFrame:
    """See `BatchFit.contrast`."""
    weights, labels, several = contrast_matrix(contrasts, list(fits.model.frame.x_names))
    if names is not None:
        labels = [names] if isinstance(names, str) else list(names)
        if len(labels) != len(weights):
            raise ValueError(f"{len(labels)} names for {len(weights)} contrasts: give one name each")
    estimate = fits.estimate.beta @ weights.T
    variance = np.einsum("kp,tpr,kr->tk", weights, fits.estimate.cov_beta, weights)
    table = wald(estimate, np.sqrt(variance))
    index = fits.names
    if several:
        index = pd.MultiIndex.from_product([labels, fits.names], names=["contrast", fits.names.name])
    return pd.DataFrame({name: column.T.ravel() for name, column in table.items()}, index=index)


def contrast_matrix(contrasts: Any, x_names: list[str]) -> tuple[np.ndarray, list[str], bool]:
    """Weights L (k, p) with labels, and whether several contrasts were asked for.

    Parameters
    ----------
    contrasts : as for `BatchFit.contrast`.
    """
    if isinstance(contrasts, str | Mapping):
        pieces, several = [contrasts], False
    elif isinstance(contrasts, list | tuple) and any(isinstance(c, str | Mapping) for c in contrasts):
        pieces, several = list(contrasts), True
    else:
        try:
            array = np.asarray(contrasts, dtype=float)
        except (TypeError, ValueError):
            raise ValueError("a contrast is a text, a dict {coefficient: weight} or an array") from None
        if array.ndim not in (1, 2) or array.shape[-1] != len(x_names):
            raise ValueError(
                f"contrasts have shape {array.shape}; the model has {len(x_names)} coefficients "
                f"({', '.join(x_names)}): pass ({len(x_names)},) or (k, {len(x_names)})"
            )
        pieces, several = list(np.atleast_2d(array)), array.ndim == 2
    rows = [_row(piece, x_names) for piece in pieces]
    labels = [
        piece if isinstance(piece, str) else _text(row, x_names)
        for piece, row in zip(pieces, rows, strict=True)
    ]
    for row, label in zip(rows, labels, strict=True):
        if not np.all(np.isfinite(row)) or not np.any(row):
            raise ValueError(f"contrast {label!r} is zero or not finite: give it a finite weight")
    return np.array(rows).reshape(-1, len(x_names)), labels, several


def _row(piece: Any, x_names: list[str]) -> np.ndarray:
    if isinstance(piece, str):
        return parse_contrast(piece, x_names)
    if not isinstance(piece, Mapping):
        return np.asarray(piece, dtype=float)
    row = np.zeros(len(x_names))
    for name, weight in piece.items():
        if name not in x_names:
            raise ValueError(f"unknown coefficient {name!r}: {nearest(str(name), x_names)}")
        row[x_names.index(name)] = weight
    return row


def _text(row: np.ndarray, x_names: list[str]) -> str:
    """A contrast as `parse_contrast` reads it."""
    parts = [
        ("- " if w < 0 else "+ ") + ("" if abs(w) == 1 else f"{abs(w):g} * ") + name
        for w, name in zip(row, x_names, strict=True)
        if w
    ]
    return " ".join(parts).removeprefix("+ ")


_SIGN = re.compile(r"\s*([+-])\s*|\s+")
_FACTOR = re.compile(r"(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)\s*\*\s*")
_DIVISOR = re.compile(r"\s*/\s*(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)")


def parse_contrast(text: str, x_names: Sequence[str]) -> np.ndarray:
    """Weights (p,) of a text such as "a - b" or "0.5 * a + b / 2".

    Coefficient names are matched literally, the longest first, so "Sex[T.F]:Days" or "I(x - 1)" need no
    quotes.
    """
    row = np.zeros(len(x_names))
    longest = sorted(x_names, key=len, reverse=True)
    at, rest = 0, text.rstrip()
    while at < len(rest) or at == 0:
        sign = _SIGN.match(rest, at)
        if at and not (sign and sign.group(1)):
            raise ValueError(f"contrast {text!r}: + or - expected at position {at}: {rest[at:]!r}")
        at = sign.end() if sign else at
        weight = -1.0 if sign and sign.group(1) == "-" else 1.0
        if factor := _FACTOR.match(rest, at):
            weight *= float(factor.group(1))
            at = factor.end()
        name = next((n for n in longest if rest.startswith(n, at) and _ends(rest, at + len(n))), None)
        if name is None:
            found = re.split(r"\s+[+-]\s+|\s*/\s*|\s+$", rest[at:])[0]
            raise ValueError(
                f"contrast {text!r}: unknown coefficient {found!r} at position {at}: "
                + nearest(found, x_names)
            )
        at += len(name)
        if divisor := _DIVISOR.match(rest, at):
            weight /= float(divisor.group(1)) or np.nan
            at = divisor.end()
        row[list(x_names).index(name)] += weight
    return row


def _ends(text: str, at: int) -> bool:
    """Whether a name may end here: not in the middle of a longer word."""
    return at == len(text) or text[at] in " \t+-/"


def icc(fits: BatchFit, by_group: bool) -> Any:
    """See `BatchFit.icc`."""
    shares: dict[str, np.ndarray] = {}
    structure, psi = fits.model.design.structure, fits.estimate.psi
    for term, entries, own in zip(
        fits.model.frame.random, structure.entry_slices(), structure.terms, strict=True
    ):
        # mean of zᵀDz over rows = ⟨D, ZᵀZ/n⟩
        square = term.z.T @ term.z / len(term.z)
        weights = np.array([square[i, j] * (1.0 if i == j else 2.0) for i, j in own.entries])
        shares[term.group] = shares.get(term.group, 0.0) + psi[:, entries] @ weights
    total = sum(shares.values()) + psi[:, -1]
    if by_group:
        return pd.DataFrame({group: share / total for group, share in shares.items()}, index=fits.names)
    return pd.Series(sum(shares.values()) / total, index=fits.names, name="icc")


def random_effects(fits: BatchFit, group: str | None) -> pd.DataFrame:
    """See `BatchFit.random_effects`."""
    random = fits.model.frame.random
    group = only_group(list(dict.fromkeys(term.group for term in random)), group)
    wanted = [k for k, term in enumerate(random) if term.group == group]
    levels, names = random[wanted[0]].levels, [name for k in wanted for name in random[k].names]
    out = np.full((len(fits), len(levels), len(names)), np.nan)
    for part, modes in _means(fits):
        out[part] = np.concatenate([modes[k] for k in wanted], axis=2)
    columns = pd.MultiIndex.from_product([levels, names], names=[group, "term"])
    return pd.DataFrame(out.reshape(len(fits), -1), index=fits.names, columns=columns)


def only_group(groups: list[str], group: str | None) -> str:
    """The grouping factor that is meant, or ValueError."""
    if not groups:
        raise ValueError("the model has no random effects")
    if group is None and len(groups) > 1:
        raise ValueError(f"the model has several grouping factors: pass group=, one of: {', '.join(groups)}")
    if group is not None and group not in groups:
        raise ValueError(f"unknown grouping factor {group!r}: {nearest(str(group), groups)}")
    return groups[0] if group is None else group


def _means(fits: BatchFit) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Yields (positions of responses, per term (chunk, G, q)) for all that were fitted."""
    fitted = np.flatnonzero(np.isfinite(fits.estimate.psi).all(axis=1))
    for lanes, keep, weights in _alike(fits, fitted):
        whole = weights is None and keep.all()
        # a subset keeps all levels; of one without values nothing is known: b = 0
        part = fits.model if whole else fits.model.subset(keep, weights)
        yield from _chunks(fits, lanes, part.expanded, keep)


def _alike(fits: BatchFit, lanes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Yields (responses, rows they have (n,), their weights (n,)) with rows and weights in common."""
    if fits._weights is not None:
        for k in lanes:
            w = fits._weights[:, k]
            yield np.array([k]), np.isfinite(fits._y[:, k]) & (w > 0), w
        return
    missing = np.isnan(fits._y)
    complete = ~np.any(missing[:, lanes], axis=0)
    yield lanes[complete], np.ones(len(missing), bool), None
    lanes = lanes[~complete]
    missing = missing[:, lanes]
    patterns, which = np.unique(np.packbits(missing, axis=0), axis=1, return_inverse=True)
    for k in range(patterns.shape[1]):
        chosen = np.flatnonzero(which.ravel() == k)
        yield lanes[chosen], ~missing[:, chosen[0]], None


def _chunks(
    fits: BatchFit, lanes: np.ndarray, make: Callable, keep: np.ndarray
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Yields (positions, modes) for the responses `lanes`; chunks of one shape, so one program."""
    design, estimate = fits.model.design, fits.estimate
    cost = design.n + sum(t.n_groups * t.q * (t.q + design.p + 2) for t in design.terms)
    size = max(1, min(len(lanes), CHUNK // cost))
    if fits.model.maker.prepared.shared.sequential:
        size = 1
    for first in range(0, len(lanes), size):
        part = lanes[first : first + size]
        padded = np.resize(part, size)
        with jax.enable_x64(True):
            y = np.asarray(fits._y[:, padded].T, dtype=float)
            problem = make(y if keep.all() else y[:, keep], fits.reml)
            modes = _lane_means(problem, estimate.psi[padded], estimate.beta[padded])
            arrays = [np.asarray(b)[: len(part)] for b in modes]
        yield part, [b[:, : t.n_groups] for b, t in zip(arrays, design.terms, strict=True)]


@jax.jit
def _lane_means(problem: Any, psi: Any, beta: Any) -> Any:
    """`conditional_means` over the leading axis."""
    return jax.vmap(conditional_means, in_axes=(response_axes(problem), 0, 0))(problem, psi, beta)

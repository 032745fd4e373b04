"""Tables over many responses: tidy and top tables, contrasts, intervals, multiple testing, BLUPs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pandas as pd
from scipy.special import ndtri, stdtr

from lmmjax import varcomp
from lmmjax.batch.ddf import single_tests
from lmmjax.contrasts import contrast_matrix
from lmmjax.core import conditional_means, response_axes
from lmmjax.fit_tests import check_ddf
from lmmjax.formula.columns import nearest

if TYPE_CHECKING:
    from lmmjax.batchfit import BatchFit

TABLE = ["estimate", "se", "df", "t", "p", "q"]
TIDY = ["response", "effect", "group", "term", *TABLE]

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


def t_tests(fits: BatchFit, rows: np.ndarray, ddf: str) -> dict[str, np.ndarray]:
    """Columns of `TABLE` for the rows (k, p) of L, each (T, k); `ddf` as in `Fit.coef_table`."""
    check_ddf(ddf)
    source = fits.by_reml if ddf == "kenward-roger" else fits
    estimate = source.estimate
    value = estimate.beta @ rows.T
    with np.errstate(divide="ignore", invalid="ignore"):
        se = np.sqrt(np.einsum("kp,tpr,kr->tk", rows, estimate.cov_beta, rows))
        df = np.where(np.isnan(se), np.nan, np.inf)
        if ddf != "normal":
            adjusted = ddf == "kenward-roger"
            df, own = single_tests(
                fits.model.maker,
                fits._y,
                estimate.psi,
                estimate.cov_psi,
                rows,
                reml=source.reml,
                adjust=adjusted,
                weights=fits._weights,
            )
            se = own if adjusted else se
        t = value / se
    p = 2.0 * stdtr(df, -np.abs(t))
    return dict(zip(TABLE, (value, se, df, t, p, adjust(p)), strict=True))


def tidy(fits: BatchFit, ddf: str) -> pd.DataFrame:
    """See `BatchFit.tidy`."""
    count, x_names = len(fits), fits.model.frame.x_names
    labels = fits.names.to_numpy()
    fixed = pd.DataFrame(
        {
            "response": np.repeat(labels, len(x_names)),
            "effect": "fixed",
            "group": None,
            "term": np.tile(np.array(x_names, dtype=object), count),
            **{name: column.ravel() for name, column in fits.t_tests(ddf).items()},
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
            **{name: np.full(values.size, np.nan) for name in TABLE[2:]},
        }
    )
    return pd.concat([fixed, random], ignore_index=True).reindex(columns=TIDY)


def conf_int(fits: BatchFit, level: float, which: str) -> pd.DataFrame:
    """See `BatchFit.conf_int`."""
    if which not in ("fixed", "all"):
        raise ValueError(f"unknown which {which!r}; choose one of: fixed, all")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    beta, half = fits.params.to_numpy(), ndtri(0.5 + level / 2) * fits.bse.to_numpy()
    values, names = np.stack([beta - half, beta + half], axis=-1), list(fits.model.frame.x_names)
    if which == "all":
        rows = fits.model.components
        limits = varcomp.sd_limits(rows, fits.estimate.psi, fits.estimate.cov_psi, level)
        values = np.concatenate([np.stack(limits, axis=-1), values], axis=1)
        names = varcomp.names(rows) + names
    columns = pd.MultiIndex.from_product([names, ["lower", "upper"]])
    return pd.DataFrame(values.reshape(len(fits), -1), index=fits.names, columns=columns)


def top(fits: BatchFit, term: str, n: int, by: str, ddf: str) -> pd.DataFrame:
    """See `BatchFit.top`."""
    x_names = list(fits.model.frame.x_names)
    if term not in x_names:
        raise ValueError(f"unknown coefficient {term!r}: {nearest(str(term), x_names)}")
    if by not in TABLE:
        raise ValueError(f"unknown by {by!r}; choose one of: {', '.join(TABLE)}")
    at = x_names.index(term)
    columns = {name: column[:, at] for name, column in fits.t_tests(ddf).items()}
    key = -np.abs(columns[by]) if by in ("t", "estimate") else columns[by]
    # p-values that underflow are told apart by t; missing values come last
    order = np.lexsort((-np.abs(columns["t"]), key))[: max(n, 0)]
    return pd.DataFrame(columns, index=fits.names).iloc[order]


def contrast(fits: BatchFit, contrasts: Any, names: Sequence[str] | None, ddf: str) -> pd.DataFrame:
    """See `BatchFit.contrast`."""
    weights, labels, several = contrast_matrix(contrasts, list(fits.model.frame.x_names))
    if names is not None:
        labels = [names] if isinstance(names, str) else list(names)
        if len(labels) != len(weights):
            raise ValueError(f"{len(labels)} names for {len(weights)} contrasts: give one name each")
    table = t_tests(fits, weights, ddf)
    index = fits.names
    if several:
        index = pd.MultiIndex.from_product([labels, fits.names], names=["contrast", fits.names.name])
    return pd.DataFrame({name: column.T.ravel() for name, column in table.items()}, index=index)


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

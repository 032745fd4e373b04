"""Precision weights of counts (voom), for least squares and for mixed models."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.arrays.other_arguments import answered
from lmmjax.fitted import FittedMany, ModelData, fit_many, identified_psi, response_vector
from lmmjax.fitted.responses import response_matrix
from lmmjax.formula.labelled import Labelled, labelled
from lmmjax.formula.matching import positions
from lmmjax.inference.lowess import lowess
from lmmjax.omics.normalisation import tmm
from lmmjax.postestimation.predictions.batch_predict import predict_many
from lmmjax.postestimation.predictions.predict import Request


@dataclasses.dataclass(frozen=True, eq=False)
class Voom:
    """Log₂ counts per million with precision weights, for `model.fit_batch(v)`.

    Made by `voom`.

    Attributes
    ----------
    logcpm : (n × T) log₂[(count + ½)/(library + 1) · 10⁶], samples × genes.
    weights : (n × T) inverse variances of these.
    lib_size : (n,) library sizes times normalisation factors; norm_factors : (n,).
    trend : a row a gene: `count`, its mean log₂ count, `sd`, the square root of its residual standard
        deviation, and `fitted`, the trend at it; missing for genes without counts.
    """

    logcpm: pd.DataFrame
    weights: pd.DataFrame
    lib_size: pd.Series
    norm_factors: pd.Series
    trend: pd.DataFrame

    def __repr__(self) -> str:
        n, t = self.logcpm.shape
        factors = self.norm_factors
        return (
            f"Voom({n} samples, {t} genes, normalisation factors {factors.min():.3g} to {factors.max():.3g})"
        )


@answered
def voom(
    counts: Any, design: Any, *, lib_size: Any = None, norm_factors: Any = "tmm", span: float = 0.5
) -> Voom:
    """Precision weights from the trend of residual standard deviations over the sizes of counts.

    Log counts per million are fitted gene by gene, lowess gives the square root of the residual standard
    deviation as a function of the log count, and every value has the inverse fourth power of it at its fitted
    count.

    Parameters
    ----------
    counts : (n, T) samples × genes: array, frame, sparse matrix or AnnData (the transpose of limma's).
    design : a model, `lj.lmm("~ drug + (1 | donor)", samples)`, whose batch fit gives residual and fitted
        values, with those of the random effects (as dream's voom); or a matrix (n, p) of fixed effects for
        least squares.
    lib_size : (n,) library sizes; by default the sums of the counts.
    norm_factors : (n,) factors of these, or "tmm" (trimmed means of M-values), or None for ones.
    span : of lowess.

    Sources: Law et al. (2014), doi:10.1186/gb-2014-15-2-r29; Robinson & Oshlack (2010),
    doi:10.1186/gb-2010-11-3-r25; Hoffman & Roussos (2021), doi:10.1093/bioinformatics/btaa687.

    Raises
    ------
    ValueError : counts that are negative or missing, a sample without counts, labels that do not match, or a
        design that leaves no residuals.

    Examples
    --------
    >>> import numpy as np
    >>> import lmmjax as lj
    >>> counts = np.random.default_rng(0).poisson(np.exp(np.linspace(1, 6, 50)), (6, 50))
    >>> lj.voom(counts, np.ones((6, 1)))
    Voom(6 samples, 50 genes, normalisation factors 0.984 to 1.01)
    """
    if not isinstance(span, int | float) or not 0 < span <= 1:
        raise ValueError(f"span is a share of the genes, above 0 and at most 1, not {span}")
    own = getattr(design, "data", None)
    data = own if isinstance(own, ModelData) else None
    if isinstance(design, str) or hasattr(design, "fitted"):
        raise ValueError(
            "design is a model, such as lj.lmm('~ drug + (1 | donor)', samples), or a matrix of fixed "
            "effects, not "
            f"{type(design).__name__}"
        )
    if data is not None:
        names, values = response_matrix(data, counts)
        index = data.frame.index
    else:
        given = labelled(counts, "counts")
        values, index, names = given.values, given.index, given.columns
    _require_counts(values)
    names = pd.RangeIndex(values.shape[1]) if names is None else names
    index = pd.RangeIndex(len(values)) if index is None else index
    sizes = values.sum(axis=1) if lib_size is None else _of_samples(lib_size, data, index, "lib_size")
    if np.any(sizes <= 0):
        raise ValueError(f"sample {index.tolist()[int(np.argmin(sizes > 0))]!r} has no counts: leave it out")
    if isinstance(norm_factors, str):
        if norm_factors != "tmm":
            raise ValueError(
                f'norm_factors are "tmm", None or a number for each sample, not {norm_factors!r}'
            )
        factors = tmm(values, sizes)
    else:
        factors = np.ones(len(sizes))
        if norm_factors is not None:
            factors = _of_samples(norm_factors, data, index, "norm_factors")
    sizes = sizes * factors
    logcpm = np.log2((values + 0.5) / (sizes[:, None] + 1.0) * 1e6)
    frame = pd.DataFrame(logcpm, index=index, columns=names)
    if data is None:
        fitted, sigma = _least_squares(logcpm, labelled(design, "design"), index)
    else:
        fitted, sigma = _mixed(fit_many(data, frame), frame)
    weights, trend = _weights(logcpm, fitted, sigma, sizes, np.any(values > 0, axis=0), span)
    return Voom(
        frame,
        pd.DataFrame(weights, index=index, columns=names),
        pd.Series(sizes, index=index, name="lib_size"),
        pd.Series(factors, index=index, name="norm_factors"),
        pd.DataFrame(trend, index=names),
    )


def _require_counts(values: np.ndarray) -> None:
    if values.ndim != 2 or not values.size:
        raise ValueError(f"counts have shape {values.shape}: pass samples × genes")
    if not np.isfinite(values).all() or np.any(values < 0):
        row, column = np.argwhere(~(np.isfinite(values) & (values >= 0)))[0]
        raise ValueError(
            f"counts must be at least 0 and not missing: {values[row, column]:g} in row {row}, column "
            f"{column}; correct it, or leave out the sample or the gene"
        )


def _of_samples(values: Any, data: ModelData | None, index: pd.Index, what: str) -> np.ndarray:
    """Positive numbers (n,), matched by the labels of the samples."""
    if data is not None:
        out = response_vector(data, values, what)
    else:
        given = labelled(values, what)
        if given.values.shape != (len(index),):
            raise ValueError(
                f"{what} has shape {given.values.shape}: one number for each of {len(index)} samples"
            )
        place = given.places(index, what)
        out = given.values if place is None else given.values[place]
    if not np.all(np.isfinite(out) & (out > 0)):
        raise ValueError(f"{what} must be positive, and not missing")
    return out


def _least_squares(y: np.ndarray, design: Labelled, index: pd.Index) -> tuple[np.ndarray, np.ndarray]:
    x = design.values[:, None] if design.values.ndim == 1 else design.values
    if len(x) != len(y):
        raise ValueError(f"the design has {len(x)} rows for {len(y)} samples")
    place = positions(design.index, index, "design", "the counts")
    u, values, _ = np.linalg.svd(x if place is None else x[place], full_matrices=False)
    q = u[:, values > 1e-10 * values[0]]
    left = len(y) - q.shape[1]
    if left < 1:
        raise ValueError(f"the design has {q.shape[1]} columns for {len(y)} samples: it leaves no residuals")
    fitted = q @ (q.T @ y)
    return fitted, np.sqrt(np.sum((y - fitted) ** 2, axis=0) / left)


def _mixed(fits: FittedMany, y: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Fitted values (n, T), with modes of the random effects, and residual standard deviations (T,)."""
    fitted = predict_many(fits, None, Request("all")).to_numpy().T
    sigma = np.sqrt(identified_psi(fits.estimate)[:, -1])
    # genes that cannot be fitted have no part in the trend
    return np.where(np.isnan(fitted), y.to_numpy().mean(axis=0), fitted), sigma


def _weights(
    y: np.ndarray, fitted: np.ndarray, sigma: np.ndarray, sizes: np.ndarray, present: np.ndarray, span: float
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Weights (n, T) and the trend at every gene."""
    shift = np.log2(sizes + 1.0) - np.log2(1e6)
    x, sd = y.mean(axis=0) + shift.mean(), np.sqrt(sigma)
    use = present & np.isfinite(sd)
    if use.sum() < 2:
        raise ValueError(f"{int(use.sum())} genes have counts and a residual variance: there is no trend")
    smooth = lowess(x[use], sd[use], span)
    at, first = np.unique(x[use], return_index=True)
    curve = smooth[first]
    weights = np.interp(fitted + shift[:, None], at, curve) ** -4.0
    there = {"count": x, "sd": sd, "fitted": np.interp(x, at, curve)}
    return weights, {name: np.where(use, column, np.nan) for name, column in there.items()}

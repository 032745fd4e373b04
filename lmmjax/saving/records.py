"""Records of models and fits as files; what is read is compared with the likelihood that was kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import quick_jit
from lmmjax.arrays.sparse_columns import HostColumns, SparseColumns
from lmmjax.core import Estimate, loglik, restricted_loglik
from lmmjax.fitted import Fitted, FittedMany, ModelData, by_mean, model_data, one_of_many, with_mean
from lmmjax.saving.archive import Arrays, read, write
from lmmjax.saving.frames import require_same
from lmmjax.saving.kernels import give_decompositions, packed_decompositions
from lmmjax.saving.many_rows import packed_any, unpacked_any
from lmmjax.saving.values import Plain, packed_labels, plain_of, unpacked_labels, value_of

Record = ModelData | Fitted | FittedMany

CLOSE = 1e-6
"""Relative difference of a log-likelihood from the one kept: its last digits depend on the machine."""

LOOKED_AT = 3
"""Responses of a batch whose likelihoods are compared."""


def save_record(record: Record, path: str | Path, columns: Any = (), *, decompositions: bool = False) -> None:
    """Write a model, a fit or fits of many responses to a file.

    Parameters
    ----------
    columns : as for `frames.packed_frame`.
    decompositions : whether those of kernels are kept, of n² numbers, for whoever reads the file many times.

    Raises
    ------
    ValueError : what a file cannot keep, with what to do. OSError : the file cannot be written.
    """
    arrays, data = Arrays(), record if isinstance(record, ModelData) else record.data
    plain = {"kind": type(record).__name__, "backend": data.backend}
    plain["frame"] = packed_any(data.frame, arrays, columns)
    if decompositions:
        plain["decompositions"] = packed_decompositions(data.frame, arrays)
    if isinstance(record, Fitted):
        plain["fit"] = _packed_fit(record, arrays)
    elif isinstance(record, FittedMany):
        plain["fit"] = _packed_fits(record, arrays)
    require_same(data.frame, unpacked_any(plain["frame"], arrays, False))
    write(path, plain, arrays)


def load_record(path: str | Path, safe: bool) -> Record:
    """Read a file that `save_record` wrote.

    Parameters
    ----------
    safe : refuse a formula with expressions that are not those of a safe one.

    Raises
    ------
    ValueError : no such file, one of a later version, damaged or changed; a formula that is not safe;
        estimates that are none of the model.
    """
    plain, arrays, version = read(path)
    try:
        frame = unpacked_any(plain["frame"], arrays, safe)
        give_decompositions(frame, plain.get("decompositions", [[]] * len(frame.random)), arrays)
        data = model_data(frame, plain["backend"])
        if plain["kind"] == ModelData.__name__:
            return data
        make = {Fitted.__name__: _fit, FittedMany.__name__: _fits}[plain["kind"]]
        record = make(data, plain["fit"], arrays)
        _require_likelihood(record, version)
    except (ImportError, MemoryError):
        raise
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:
        why = f"lacks {error}" if isinstance(error, KeyError) else f"is no whole fit ({error})"
        raise ValueError(f"{path}, written by lmmjax {version}, {why}: save the fit again") from error
    return record


def _packed_fit(fitted: Fitted, arrays: Arrays) -> Plain:
    mean = None
    if by_mean(fitted.data):
        design = fitted.data.design.residual
        assert design is not None
        variances = design.structure.residual.variances
        mean = next(c for v, c in zip(variances, design.covariates, strict=False) if v.source is None)
    return {
        "y": arrays.put(fitted.y),
        "reml": bool(fitted.reml),
        "response": plain_of(fitted.response, "the name of the response"),
        "estimate": _packed_estimate(fitted.estimate, arrays),
        "mean": None if mean is None else arrays.put(mean),
    }


def _fit(data: ModelData, plain: Plain, arrays: Arrays) -> Fitted:
    if plain["mean"] is not None:
        data = with_mean(data, arrays[plain["mean"]])
    estimate = _estimate(plain["estimate"], arrays)
    return Fitted(data, arrays[plain["y"]], estimate, plain["reml"], value_of(plain["response"]))


def _packed_fits(fits: FittedMany, arrays: Arrays) -> Plain:
    return {
        "names": packed_labels(fits.names, arrays, "the names of the responses"),
        "y": _packed_columns(fits.y, arrays),
        "weights": None if fits.weights is None else arrays.put(fits.weights),
        "reml": bool(fits.reml),
        "reasons": [str(reason) for reason in fits.reasons],
        "n_optima": arrays.put(fits.n_optima),
        "n_starts": arrays.put(fits.n_starts),
        "estimate": _packed_estimate(fits.estimate, arrays),
    }


def _fits(data: ModelData, plain: Plain, arrays: Arrays) -> FittedMany:
    return FittedMany(
        data,
        unpacked_labels(plain["names"], arrays),
        _columns(plain["y"], arrays),
        _estimate(plain["estimate"], arrays),
        plain["reml"],
        np.array(plain["reasons"], dtype=object),
        arrays[plain["n_optima"]],
        None if plain["weights"] is None else arrays[plain["weights"]],
        # files of the first versions do not say how many there were
        arrays[plain["n_starts"]] if "n_starts" in plain else np.maximum(arrays[plain["n_optima"]], 1),
    )


def _packed_columns(y: HostColumns, arrays: Arrays) -> Any:
    if not isinstance(y, SparseColumns):
        return arrays.put(y)
    matrix = y.csc()
    parts = {name: arrays.put(getattr(matrix, name)) for name in ("data", "indices", "indptr")}
    return parts | {"shape": list(y.shape)}


def _columns(plain: Any, arrays: Arrays) -> HostColumns:
    if isinstance(plain, str):
        return arrays[plain]
    from scipy.sparse import csc_array

    parts = tuple(arrays[plain[name]] for name in ("data", "indices", "indptr"))
    matrix = csc_array(parts, shape=tuple(plain["shape"]))
    matrix.check_format(full_check=True)
    return SparseColumns(matrix)


def _packed_estimate(estimate: Estimate, arrays: Arrays) -> Plain:
    names = [field.name for field in dataclasses.fields(estimate)]
    return {name: arrays.put(getattr(estimate, name)) for name in names}


def _estimate(plain: Plain, arrays: Arrays) -> Estimate:
    # scalars as scalars of NumPy
    return Estimate(**{name: arrays[at][()] for name, at in plain.items()})


@quick_jit
def _llf(problem: Any, beta: Any, sigma2: Any, theta: Any, reml: Any) -> Any:
    restricted = restricted_loglik(problem, sigma2, theta)
    return jnp.where(reml > 0, restricted, loglik(problem, beta, sigma2, theta))


def _require_likelihood(record: Fitted | FittedMany, version: str) -> None:
    """ValueError if estimates have another likelihood in the model than when they were saved."""
    if isinstance(record, FittedMany):
        some = np.flatnonzero(np.isfinite(record.estimate.psi).all(axis=-1))[:LOOKED_AT]
        for k in some:
            _require_likelihood(one_of_many(record, int(k)), version)
        return
    estimate = record.estimate
    numbers = [estimate.beta, estimate.sigma2, estimate.theta]
    if not all(np.isfinite(number).all() for number in [*numbers, estimate.deviance]):
        return
    with jax.enable_x64(True):
        problem = record.data.problem(record.y, record.reml)
        there = float(_llf(problem, *numbers, np.float64(record.reml)))
    if not abs(there - record.llf) <= CLOSE * max(abs(record.llf), record.nobs):
        raise ValueError(
            f"the estimates have log-likelihood {there:.6f} in the model of the file and had "
            f"{record.llf:.6f} when lmmjax {version} saved them: they do not belong together, so fit again"
        )

"""LAPACK's factorisations as JAX has them: NaN where there is none, leading axes mapped."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmmjax.arrays.interpret.rules import PARAMETERS, WITH_KNOWN, Rule, Unsupported


def _lapack(name: str, *arrays: np.ndarray) -> Any:
    # takes a while to import, for programs that need none of it
    from scipy.linalg import get_lapack_funcs

    return get_lapack_funcs((name,), arrays)[0]


def _cholesky(p: dict[str, Any], known: list[np.ndarray | None]) -> Rule:
    def one(a: np.ndarray) -> np.ndarray:
        lower, info = _lapack("potrf", a)(a, lower=True, clean=True)
        return lower if info == 0 else np.full_like(a, np.nan)

    return lambda a: one(a) if a.ndim == 2 and a.size else _mapped(one, a)


def _triangular_solve(p: dict[str, Any], known: list[np.ndarray | None]) -> Rule:
    # XA = B is AᵀXᵀ = Bᵀ
    left, lower = p["left_side"], p["lower"]
    transposed = bool(p["transpose_a"]) == left

    def one(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        found, info = _lapack("trtrs", a, b)(
            a, b if left else b.T, lower=lower, trans=int(transposed), unitdiag=bool(p["unit_diagonal"])
        )
        found = found if info == 0 else np.full_like(found, np.nan)
        return found if left else found.T

    return lambda a, b: one(a, b) if a.ndim == 2 and a.size and b.size else _mapped(one, a, b)


def _eigh(p: dict[str, Any], known: list[np.ndarray | None]) -> Rule:
    def rule(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not np.isfinite(a).all():
            return np.full_like(a, np.nan), np.full(a.shape[:-1], np.nan, a.dtype)
        values, vectors = np.linalg.eigh(a, UPLO="L" if p["lower"] else "U")
        return vectors, values

    return rule


def _qr(p: dict[str, Any], known: list[np.ndarray | None]) -> Rule:
    mode = "complete" if p["full_matrices"] else "reduced"
    return lambda a: tuple(np.linalg.qr(a, mode))


def _qr_parameters(eqn: Any) -> dict[str, Any]:
    if eqn.params.get("pivoting"):
        raise Unsupported("no rule for a pivoted QR factorisation")
    return {"full_matrices": bool(eqn.params["full_matrices"])}


def _lu(p: dict[str, Any], known: list[np.ndarray | None]) -> Rule:
    def one(a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        factors, pivots, _ = _lapack("getrf", a)(a)
        order = np.arange(len(a), dtype=np.int32)
        for row, other in enumerate(pivots):
            order[[row, other]] = order[[other, row]]
        return factors, pivots.astype(np.int32), order

    def rule(a: np.ndarray) -> tuple[np.ndarray, ...]:
        *lead, m, n = a.shape
        out = np.empty_like(a), np.empty((*lead, min(m, n)), np.int32), np.empty((*lead, m), np.int32)
        for at in np.ndindex(*lead) if a.size else ():
            for whole, part in zip(out, one(a[at]), strict=True):
                whole[at] = part
        return out

    return rule


def _mapped(one: Rule, *arrays: np.ndarray) -> np.ndarray:
    last = arrays[-1]
    if not last.size:
        return np.zeros_like(last)
    lead = last.shape[:-2]
    return np.stack([one(*(a[k] for a in arrays)) for k in np.ndindex(*lead)]).reshape(last.shape)


def _parameters(*names: str) -> Any:
    return lambda eqn: {name: bool(eqn.params[name]) for name in names}


PARAMETERS["cholesky"] = _parameters()
WITH_KNOWN["cholesky"] = _cholesky
PARAMETERS["triangular_solve"] = _parameters("left_side", "lower", "transpose_a", "unit_diagonal")
WITH_KNOWN["triangular_solve"] = _triangular_solve
PARAMETERS["qr"] = _qr_parameters
WITH_KNOWN["qr"] = _qr
PARAMETERS["lu"] = _parameters()
WITH_KNOWN["lu"] = _lu
PARAMETERS["eigh"] = _parameters("lower")
WITH_KNOWN["eigh"] = _eigh

"""Residual and random structures on small designs, and their criteria in plain NumPy, formula by formula."""

import functools

import jax
import numpy as np

import lmmjax as lj
from lmmjax.arrays import quick_jit
from lmmjax.design import Design, RandomTerm, ResidualDesign
from lmmjax.residual import CORRELATIONS, ResidualStructure, Space, as_residual

BLOCKS = 4
CASES = {
    **{name: CORRELATIONS[name](group="id") for name in ("AR1", "CompoundSymmetry", "Toeplitz")},
    **{name: CORRELATIONS[name](group="id") for name in ("Unstructured", "Symmetric")},
    "ARMA": lj.ARMA(p=2, q=1, group="id"),
    "MA": lj.ARMA(p=0, q=2, group="id"),
    "CAR1": lj.CAR1("t", group="id"),
    "AR1 + nugget": lj.AR1(group="id", nugget=True),
    "CAR1 + nugget": lj.CAR1("t", group="id", nugget=True),
    "Exponential": lj.Exponential("t", group="id"),
    "Exponential + nugget": lj.Exponential(("u", "v"), nugget=True, group="id"),
    "Gaussian": lj.Gaussian("t", nugget=True, group="id"),
    "Matern32": lj.Matern32(("u", "v"), group="id"),
    "Matern52": lj.Matern52("t", group="id"),
    "AR1 by": lj.AR1(group="id", by="arm"),
    "Unstructured by": lj.Unstructured(group="id", by="arm"),
    "Exponential by": lj.Exponential("t", group="id", nugget=True, by="arm"),
}
"""Correlations by name; other arguments than the defaults where a family has them."""


def residual_design(rng, correlation, variances, codes, visits) -> ResidualDesign:
    """Places and covariates of rows in groups `codes`: occasions, some missing, or any coordinates."""
    n = len(codes)
    residual = functools.reduce(lambda a, b: a * b, [p for p in (correlation, *variances) if p is not None])
    space, place = Space(), np.zeros(n, np.int32)
    if correlation is not None and correlation.reads == "coordinates":
        # no two that are so close that the matrix is nearly singular
        apart = 0.2 * np.arange(n) + rng.uniform(0, 0.1, (len(correlation.columns), n))
        place, space = rng.permuted(apart, axis=1).T, Space(visits, 0.5)
        place = place[:, 0] if place.shape[1] == 1 else place
    elif correlation is not None:
        for code in np.unique(codes):
            rows = np.flatnonzero(codes == code)
            place[rows] = rng.permutation(visits)[: len(rows)]
        space = Space(visits, 1.0, tuple("abcdef")[:visits])
    covariates, levels = [], []
    for variance in variances:
        named = variance.reads == "levels"
        covariates.append(rng.integers(0, 3, n) if named else rng.uniform(0.5, 3.0, n))
        levels.append(("a", "b", "c") if named else ())
    if correlation is not None and correlation.by:
        covariates.append(codes % 2)
    structure = ResidualStructure(
        as_residual(residual), space, tuple(levels), (("A", "B"),) * len(as_residual(residual).by)
    )
    return ResidualDesign(structure, codes, int(codes.max()) + 1, place, tuple(covariates))


def design(
    rng, correlation=None, variances=(), terms=(), *, weights=False, sizes=(4,) * 8, visits=5, inside=True
) -> Design:
    """Rows in no order, in groups of the residuals, which lie within those of the terms if `inside`."""
    codes = np.repeat(np.arange(len(sizes)), sizes)
    n = len(codes)
    blocks = codes % BLOCKS if inside else rng.integers(0, BLOCKS, n)
    order = rng.permutation(n)
    codes, blocks = codes[order], blocks[order]
    x = np.column_stack([np.ones(n), rng.normal(size=n)])
    made = tuple(
        RandomTerm(np.column_stack([np.ones(n), rng.normal(size=(n, q - 1))]), blocks, BLOCKS, f, "(term)")
        for f, q in terms
    )
    own = residual_design(rng, correlation, variances, codes, visits) if correlation or variances else None
    return Design(x, made, rng.uniform(0.5, 2.0, n) if weights else None, residual=own)


# --- correlations and variances as the literature writes them ------------------------------------------


def correlation_matrix(family, r, place, size):
    """c (n, n) of rows at `place`, which may be complex in r."""
    if family.reads == "coordinates":
        points = place.reshape(len(place), -1)
        h = np.sqrt(((points[:, None] - points[None]) ** 2).sum(-1))
        u = h / r[0]
        c = {
            "CAR1": lambda: r[0] ** h,
            "Exponential": lambda: np.exp(-u),
            "Gaussian": lambda: np.exp(-(u**2)),
            "Matern32": lambda: (1 + np.sqrt(3) * u) * np.exp(-np.sqrt(3) * u),
            "Matern52": lambda: (1 + np.sqrt(5) * u + 5 / 3 * u**2) * np.exp(-np.sqrt(5) * u),
        }[family.name]()
        return np.where(np.eye(len(place), dtype=bool), 1.0, (1 - r[1]) * c if family.nugget else c)
    lag = np.abs(place[:, None] - place[None])
    lower = [(i, j) for j in range(size) for i in range(j + 1, size)]
    if family.name in ("Unstructured", "Symmetric"):
        visits, own = np.eye(size, dtype=r.dtype), len(r) - len(lower)
        for k in range(own):
            visits[size - own + k, size - own + k] = r[k]
        for (i, j), value in zip(lower, r[own:], strict=True):
            visits[i, j] = visits[j, i] = value
        return visits[place[:, None], place[None]]
    if family.name == "ARMA":
        return arma(r[: family.p], r[family.p :], size)[lag]
    table = {
        "AR1": lambda: np.array([r[0] ** k for k in range(size)]),
        "CompoundSymmetry": lambda: np.array([1.0] + [r[0]] * (size - 1)),
        "Toeplitz": lambda: np.concatenate([[1.0], r]),
    }[family.name]()
    share = 1 - r[1] if getattr(family, "nugget", False) else 1.0
    return np.where(lag == 0, 1.0, share * table[lag])


def arma(phi, theta, size, terms=400):
    """Autocorrelations at lags 0 … size − 1 from the weights of the moving average of infinite order."""
    weights = np.zeros(terms, np.result_type(phi, theta))
    for k in range(terms):
        own = 1.0 if k == 0 else theta[k - 1] if k <= len(theta) else 0.0
        weights[k] = own + sum(phi[j] * weights[k - 1 - j] for j in range(min(len(phi), k)))
    gamma = np.array([np.sum(weights[: terms - k] * weights[k:]) for k in range(size)])
    return gamma / gamma[0]


def standard_deviation(family, r, covariate):
    """s (n,), which may be complex in r."""
    return {
        "VarIdent": lambda: np.concatenate([[1.0], r])[covariate.astype(int)],
        "VarPower": lambda: np.abs(covariate) ** r[0],
        "VarExp": lambda: np.exp(covariate * r[0]),
    }[family.name]()


def random_matrix(name, a, q):
    """D (q, q) of a family at natural parameters a."""
    lower = [(i, j) for j in range(q) for i in range(j + 1, q)]
    out = np.zeros((q, q), a.dtype)
    if name in ("us", "diag"):
        out[np.arange(q), np.arange(q)] = a[:q]
        for (i, j), value in zip(lower, a[q:], strict=False):
            out[i, j] = out[j, i] = value
        return out
    if name in ("rr", "fa"):
        own = q if name == "fa" else 0
        rank = 2 if name == "rr" else 1
        loadings = np.zeros((q, rank), a.dtype)
        places = [(i, j) for j in range(rank) for i in range(j, q)]
        for place, value in zip(places, a[own:], strict=True):
            loadings[place] = value
        return loadings @ loadings.T + (np.diag(a[:q]) if own else 0.0)
    v = a[:q] if name in ("cs", "hetar1", "toep") else np.full(q, a[0])
    r = a[q:] if name in ("cs", "hetar1", "toep") else a[1:]
    for i in range(q):
        for j in range(q):
            k = abs(i - j)
            c = {
                "homdiag": lambda: 0.0,
                **dict.fromkeys(("cs", "homcs"), lambda: r[0]),
                **dict.fromkeys(("ar1", "hetar1"), lambda k=k: r[0] ** k),
                **dict.fromkeys(("toep", "homtoep"), lambda k=k: r[k - 1]),
            }[name]
            out[i, j] = np.sqrt(v[i] * v[j]) * (1.0 if k == 0 else c())
    return out


# --- the criterion and its derivatives ------------------------------------------------------------------


def matrix(d, values):
    """H (n, n) at natural parameters (m,), relative to σ²."""
    weights = np.ones(d.n) if d.weights is None else d.weights
    h = np.diag(1.0 / weights).astype(values.dtype)
    tail = values[sum(t.family.n_params(t.q) for t in d.terms) :]
    if d.residual is not None:
        own, structure = d.residual, d.residual.structure
        same = own.codes[:, None] == own.codes[None]
        family, size = structure.residual.correlation, structure.space.size
        blocks = iter([tail[block.at] for block in structure.blocks])
        c, s = np.eye(d.n, dtype=tail.dtype), 1.0 / np.sqrt(weights)
        if family is not None:
            levels = own.covariates[-1] if family.by else np.zeros(d.n, int)
            for level in range(2 if family.by else 1):
                r, at = next(blocks), levels == level
                if level and family.name != "Unstructured":
                    s, r = np.where(at, r[0] * s, s), r[1:]
                c = np.where(same & at, correlation_matrix(family, r, own.place, size), c)
        for variance, covariate in zip(structure.residual.variances, own.covariates, strict=False):
            s = s * standard_deviation(variance, next(blocks), covariate)
        h = s[:, None] * np.where(same, c, 0.0) * s
    start = 0
    for term in d.terms:
        stop = start + term.family.n_params(term.q)
        inner = random_matrix(term.family.name, values[start:stop], term.q)
        h = h + np.where(term.codes[:, None] == term.codes, term.z @ inner @ term.z.T, 0.0)
        start = stop
    return h


def cholesky(a):
    """L (..., n, n) with A = LLᵀ, no conjugates: analytic in A."""
    a = a.copy()
    for k in range(a.shape[-1]):
        a[..., k:, k] /= np.sqrt(a[..., k, k])[..., None]
        a[..., k + 1 :, k + 1 :] -= a[..., k + 1 :, k, None] * a[..., None, k + 1 :, k]
    return np.tril(a)


def half_logdet(factor):
    """log|L| (...) of triangular matrices."""
    return np.sum(np.log(np.diagonal(factor, axis1=-2, axis2=-1)), axis=-1)


def gram(d, y, values):
    """log|H| and WᵀH⁻¹W for W = [X y], at values (m,) or (k, m)."""
    rows = np.atleast_2d(values)
    factor = cholesky(np.stack([matrix(d, row) for row in rows]))
    white = np.linalg.solve(factor, np.column_stack([d.x, y]).astype(values.dtype)[None])
    logdet, s = 2 * half_logdet(factor), np.swapaxes(white, -1, -2) @ white
    return (logdet, s) if values.ndim == 2 else (logdet[0], s[0])


def criterion(d, y, values, reml):
    """−2ℓ or −2ℓᴿ with β and σ² profiled out, at values (m,) or (k, m)."""
    logdet, s = gram(d, y, values)
    xx, xy, yy = s[..., :-1, :-1], s[..., :-1, -1], s[..., -1, -1]
    nu = d.n - reml * d.p
    r2 = yy - np.sum(xy * np.linalg.solve(xx, xy[..., None])[..., 0], axis=-1)
    logdet = logdet + reml * 2 * half_logdet(cholesky(xx))
    return logdet + nu * (1 + np.log(2 * np.pi * r2 / nu))


@functools.cache
def decoder(structure):
    """Compiled: natural parameters of θ, and their derivatives."""
    return quick_jit(lambda theta: (structure.decode(theta), jax.jacfwd(structure.decode)(theta)))


def gradient(d, y, theta, reml):
    """∂f/∂θ: complex steps in the natural parameters, and the chain rule."""
    values, jacobian = (np.asarray(a) for a in decoder(d.structure)(theta))
    steps = values + 1e-30j * np.eye(len(values))
    return criterion(d, y, steps, reml).imag / 1e-30 @ jacobian


def hessian(d, y, theta, reml, step=4e-4):
    """∂²f/∂θ²: differences of the gradient at ±step and ±2 step, of fourth order."""
    rows = []
    for move in step * np.eye(len(theta)):
        near, far = (
            gradient(d, y, theta + k * move, reml) - gradient(d, y, theta - k * move, reml) for k in (1, 2)
        )
        rows.append((8 * near - far) / (12 * step))
    return np.array(rows)


def random_theta(rng, d):
    """Working values (m,) of moderate parameters: matrices that are well conditioned."""
    positive = np.array([p.kind == "positive" for p in d.structure.parameters])
    return rng.uniform(-0.6, 0.6, len(positive)) + np.where(positive, 0.8, 0.05)


VARIANCE_CASES = {
    "VarIdent": (lj.VarIdent("a"),),
    "VarPower": (lj.VarPower("v"),),
    "VarExp": (lj.VarExp("v"),),
    "VarIdent * VarExp": (lj.VarIdent("a"), lj.VarExp("v")),
}


@functools.cache
def differentiated():
    """Compiled: the criterion and its gradient in reverse mode."""
    return quick_jit(jax.value_and_grad(lj.profiled_deviance))

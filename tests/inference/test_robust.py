"""Robust covariances and their tests, written out with dense matrices cluster by cluster."""

import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import lmmjax as lj
from lmmjax.core.marginal import blocks
from lmmjax.covariance import family
from lmmjax.design import Design, RandomTerm
from lmmjax.inference.robust import clusters
from lmmjax.inference.robust.bias_reduced import BySums, bias_reduced
from lmmjax.inference.robust.sandwich import KINDS, by_rows


def made():
    """Twelve sites of 1 to 9 rows in one to three classes, covariates within and between sites."""
    rng = np.random.default_rng(8)
    site = np.repeat(np.arange(12), [1, 9, 2, 5, 7, 6, 6, 8, 4, 3, 6, 5])
    n = len(site)
    first = np.searchsorted(site, site)
    t = np.arange(n) - first
    room = t // 3
    frame = pd.DataFrame(
        {
            "site": site,
            "room": site * 10 + room,
            "item": site * 10 + t % 2,
            "t": t,
            "x": rng.normal(size=n) + 0.3 * site,
            "a": np.where(rng.normal(size=12) > 0, "u", "v")[site],
            "w": rng.choice([0.5, 1.0, 3.0], n),
            "v": rng.uniform(0.3, 2.0, n),
            "kind": rng.choice(["p", "q"], n),
        }
    )
    slope = 0.6 * rng.normal(size=12)[site]
    effect = rng.normal(size=12)[site] + slope * frame.x + 0.7 * rng.normal(size=200)[frame.room]
    frame["y"] = 1 + frame.x + effect + rng.normal(size=n) * np.where(frame.kind == "p", 0.6, 1.4)
    return frame


DATA = made()
MODELS = {
    "intercepts": ("y ~ x + a + (1 | site)", {}, None),
    "maximum likelihood, weights, offset": (
        "y ~ x + a + offset(2 * t) + (x | site)",
        {"weights": "w", "reml": False},
        None,
    ),
    "crossed in clusters": ("y ~ x + a + (1 | room) + (1 | item)", {}, "site"),
    "a coarser cluster": ("y ~ x + a + (1 | room)", {"weights": "v"}, "a b c a b c a b c a b c"),
    "fixed sites": ("y ~ x + C(site) + (1 | room)", {}, DATA["site"]),
    "aliased": ("y ~ x + a + t + I(2 * t) + (1 | site)", {}, None),
    "autoregressive": ("y ~ x + a", {"residual": lj.AR1("t", group="site"), "weights": "v"}, None),
    "exchangeable in rooms": (
        "y ~ x + a + (1 | site)",
        {"residual": lj.CompoundSymmetry(group="room")},
        "site",
    ),
    "variances by kind": ("y ~ x + a + (1 | site)", {"residual": lj.VarIdent("kind")}, None),
    "a structured term": ("y ~ x + a + cs(0 + kind | site)", {}, None),
}


@pytest.fixture(scope="module", params=MODELS)
def case(request):
    """A fit, its clusters as an argument and as codes."""
    formula, options, cluster = MODELS[request.param]
    options = dict(options)
    reml = options.pop("reml", True)
    codes = DATA["site"].to_numpy()
    if isinstance(cluster, str) and " " in cluster:
        cluster = np.array(cluster.split())[codes]
        codes = np.unique(cluster, return_inverse=True)[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lj.FitWarning)
        return lj.lmm(formula, DATA, **options).fit(reml=reml), cluster, codes


def marginal(fit):
    """V (n, n) from the definition of every part of the model."""
    design, psi = fit.fitted.data.design, fit.estimate.psi
    columns, weights = fit.model.frame.residual, fit.model.frame.weights
    r = psi[-1] * np.eye(design.n)
    if columns is not None:
        own = columns.residual
        names = [c.term1 for c in fit.fitted.data.components if c.group == "Residual" and c.term1]
        value = {name: psi[-1 - len(names) + k] for k, name in enumerate(names)}
        sd = np.ones(design.n)
        for name, ratio in value.items():
            if name.startswith("sd"):
                sd = np.where(DATA["kind"] == name.split("(")[-1].rstrip(")").split("=")[-1], ratio, sd)
        if own.correlation is not None:
            rho = next(v for name, v in value.items() if not name.startswith("sd"))
            group = DATA[own.correlation.group].to_numpy()
            apart = np.abs(np.subtract.outer(*2 * [DATA["t"].to_numpy()]))
            power = apart if own.correlation.name == "AR1" else np.minimum(apart, 1)
            r = psi[-1] * rho**power * (group[:, None] == group)
        r = r * sd[:, None] * sd
    if weights is not None:
        r = r / np.sqrt(weights[:, None] * weights)
    for term, matrix in zip(design.terms, design.structure.absolute(psi), strict=True):
        r = r + np.where(term.codes[:, None] == term.codes, term.z @ matrix @ term.z.T, 0.0)
    return r


def power(a, exponent):
    """A symmetric matrix to a power, the pseudo-inverse where it is singular."""
    values, vectors = np.linalg.eigh(a)
    positive = values > 1e-10 * values[-1]
    return (vectors * np.where(positive, np.where(positive, values, 1.0) ** exponent, 0.0)) @ vectors.T


def sandwich(fit, codes, kind):
    """V_R and the vectors a_i (n, p) of M Σ a_i a_iᵀ M, by the definitions."""
    x, v = fit.model.design.x, marginal(fit)
    m = np.linalg.inv(x.T @ np.linalg.solve(v, x))
    assert_allclose(m, fit.cov_params(), rtol=1e-7, atol=1e-10)
    hat = np.eye(len(x)) - x @ m @ x.T @ np.linalg.inv(v)
    cov, columns = 0.0, []
    for g in range(codes.max() + 1):
        i = np.flatnonzero(codes == g)
        own, xi = v[np.ix_(i, i)], x[i]
        adjust = np.eye(len(i))
        if kind == "CR2":
            d = np.linalg.cholesky(own).T
            adjust = d.T @ power(d @ (own - xi @ m @ xi.T) @ d.T, -0.5) @ d
        elif kind == "CR3":
            d = power(own, -0.5)
            adjust = power(own, 0.5) @ power(np.eye(len(i)) - d @ xi @ m @ xi.T @ d, -1.0) @ d
        side = adjust.T @ np.linalg.solve(own, xi) @ m
        score = side.T @ (fit.y - fit.fitted.population)[i]
        cov = cov + np.outer(score, score)
        columns.append(hat[i].T @ side)
    g = len(columns)
    return cov * (g / (g - 1) if kind == "CR1" else 1.0), np.array(columns), v


@pytest.mark.parametrize("kind", KINDS)
def test_by_the_definitions(case, kind):
    """Standard errors, degrees of freedom and a joint test; of fixed sites what does not belong to a site."""
    fit, cluster, codes = case
    cov, sides, v = sandwich(fit, codes, kind)
    # P_ij = q_iᵀVq_j for every coefficient
    inner = np.einsum("inp,nm,jmp->pij", sides, v, sides, optimize=True)
    df = np.trace(inner, axis1=1, axis2=2) ** 2 / np.sum(inner**2, axis=(1, 2))
    ok = [k for k, name in enumerate(fit.params.index) if "site" not in name]
    if len(ok) < len(df):
        ok = [fit.params.index.get_loc("x")]
        with pytest.warns(lj.EstimabilityWarning, match=r"Intercept; C\(site\)"):
            table = fit.coef_table(robust=kind, cluster=cluster)
        with pytest.warns(lj.EstimabilityWarning):
            found = fit.cov_params(kind, cluster).to_numpy()
        lost = np.delete(np.arange(len(df)), ok)
        assert np.isnan(table["se"].iloc[lost]).all()
        assert np.isnan(found[lost]).all()
    else:
        table, found = fit.coef_table(robust=kind, cluster=cluster), fit.cov_params(kind, cluster).to_numpy()
    assert_allclose(found[np.ix_(ok, ok)], cov[np.ix_(ok, ok)], rtol=1e-6, atol=1e-9 * np.abs(cov).max())
    assert_allclose(table["se"].iloc[ok], np.sqrt(np.diagonal(cov))[ok], rtol=1e-6)
    assert_allclose(table["df"].iloc[ok], df[ok], rtol=1e-6)
    if len(ok) < 3 or codes.max() < 3:
        return
    # Hotelling's T²: variances of the entries of Ω^(−½) L V_R Lᵀ Ω^(−½), one by one
    l = np.eye(len(df))[[fit.params.index.get_loc(name) for name in ("x", "a[T.v]")]]
    moved = sides @ l.T
    whole = np.einsum("ins,nm,jmt->ijst", moved, v, moved, optimize=True)
    root = power(np.einsum("iist->st", whole), -0.5)
    whole = np.einsum("as,ijst,bt->ijab", root, whole, root)
    total = np.einsum("ijss,ijtt->", whole, whole) + np.einsum("ijst,ijts->", whole, whole)
    k = len(l)
    eta = k * (k + 1) / total
    difference = l @ fit.params.to_numpy()
    f = (eta - k + 1) / (eta * k) * difference @ np.linalg.solve(l @ cov @ l.T, difference)
    row = fit.test(l, robust=kind, cluster=cluster).iloc[0]
    expected = [f, k, eta - k + 1, stats.f.sf(f, k, eta - k + 1)]
    assert_allclose(row[["F", "num_df", "den_df", "p"]].astype(float), expected, rtol=1e-5)
    chi2 = fit.test(l, "normal", robust=kind, cluster=cluster).iloc[0]
    assert_allclose(chi2["F"] * (eta - k + 1) / eta, f, rtol=1e-5)


def test_what_large_clusters_do(case, monkeypatch):
    """Clusters in the space that X and Z span, products in small chunks, pairs of clusters one by one."""
    fit, cluster, _ = case
    rows = np.eye(len(fit.params))[[fit.params.index.get_loc("x")]]
    before = [fit.test(rows, robust=kind, cluster=cluster) for kind in KINDS]
    monkeypatch.setattr(clusters, "SMALL", 0)
    monkeypatch.setattr(clusters, "ENTRIES", 64)
    after = [fit.test(rows, robust=kind, cluster=cluster) for kind in KINDS]
    assert_allclose(np.array(after, float), np.array(before, float), rtol=1e-9)


def test_clusters_by_name():
    """Of factors, their parts, columns of the data, combinations of two; rows are dropped and labelled."""
    data = DATA.assign(y=DATA["y"].where(DATA["t"] != 1), half=DATA["site"] // 6, rest=DATA["site"] % 6)
    data.loc[data["t"] == 1, "half"] = np.nan
    fit = lj.lmm("y ~ x + a + (1 | site:room)", data).fit()
    expected = fit.coef_table(robust="CR2", cluster=data["site"].to_numpy())
    shuffled = data["site"].sample(frac=1.0, random_state=1)
    for cluster in ("site", "half:rest", shuffled, data["site"].astype(str).tolist()):
        assert_allclose(fit.coef_table(robust="CR2", cluster=cluster), expected, rtol=1e-12)
    default = fit.coef_table(robust="CR2", cluster="room")
    assert_allclose(fit.coef_table(robust="CR2"), default, rtol=1e-12)
    assert default.attrs["cluster"] == "room"


@pytest.mark.parametrize(("spread", "between"), [(1.0, 0.1), (6.0, 1.0), (3.0, 1e4)])
def test_large_clusters_with_variances_of_their_own(spread, between):
    """A by a rational approximation beside matrices of the rows, which lose some digits themselves."""
    rng = np.random.default_rng(3)
    r, b = np.exp(spread * rng.uniform(-0.5, 0.5, 150)), np.sqrt(between) * rng.normal(size=(150, 3))
    x, e = rng.normal(size=(150, 2)), rng.normal(size=150)
    v = np.diag(r) + b @ b.T
    # X with XᵀV⁻¹X = 0.9 I: a cluster of leverage 0.9
    x = x @ np.linalg.inv(np.linalg.cholesky(x.T @ np.linalg.solve(v, x) / 0.9)).T
    found, dense = bias_reduced(r, b, x, e), by_rows("CR2", v[None], x[None], e[None])
    assert found is not None
    pairs = zip(
        (found.scores, *found.moments(np.eye(2))), (dense.scores, *dense.moments(np.eye(2))), strict=True
    )
    for one, two in pairs:
        assert_allclose(one, two, rtol=1e-9, atol=1e-9 * np.abs(two).max())
    assert bias_reduced(r, b, x / np.sqrt(0.9), e) is None


def test_large_weighted_clusters_of_a_design():
    """Are summed up without matrices of their rows, and are the same."""
    rng = np.random.default_rng(4)
    codes = np.repeat(np.arange(5), 90)
    x = np.column_stack([np.ones(450), rng.normal(size=450)])
    term = RandomTerm(np.ones((450, 1)), codes * 2 + rng.integers(0, 2, 450), 10, family("us"))
    design = Design(x, (term,), rng.uniform(0.2, 3.0, 450))
    own = clusters.clustered(design, np.array([0.5, 1.0]), np.zeros(2), rng.normal(size=450), codes)
    pieces = list(own.pieces("CR2"))
    assert all(isinstance(piece, BySums) for piece in pieces)
    rows = own.order.reshape(5, 90)
    parts = blocks(design, own.psi, rows), x[rows] @ own.factor, own.residual.reshape(5, 90)
    scores = np.concatenate([piece.scores for piece in pieces])
    assert_allclose(scores, by_rows("CR2", *parts).scores, rtol=1e-9)

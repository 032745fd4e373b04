"""Shares of variance by hand from their definition, with standard errors by finite differences."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import lmmjax as lj

RNG = np.random.default_rng(5)
N = 72
DATA = pd.DataFrame(
    {
        "donor": np.repeat([f"d{k}" for k in range(12)], 6),
        "batch": np.tile(list("pqr"), 24),
        "drug": np.tile(["no", "yes"], 36),
        "dose": RNG.normal(size=N),
    }
)
U, V = RNG.normal(size=(12, 2)).repeat(6, axis=0).T
Y = pd.DataFrame(
    {
        "plain": U
        + 0.5 * V * DATA["dose"]
        + (DATA["drug"] == "yes")
        + 0.3 * DATA["dose"]
        + RNG.normal(size=N),
        "holes": U + (DATA["batch"] == "q") * 2.0 + RNG.normal(size=N),
    }
)
Y.loc[[3, 17, 40], "holes"] = np.nan
FORMULA = "~ batch + drug + dose + (1 + dose | donor)"


def by_hand(fit):
    """The parts of the definition, term by term, from β̂ and the table of variances."""
    frame, beta = fit.model.frame, fit.params.to_numpy()
    parts = {
        name: np.var(frame.x[:, at] @ beta[at], ddof=1)
        for name, at in frame.term_slices.items()
        if name != "Intercept"
    }
    table, term = fit.varcorr(), frame.random[0]
    a, ab, b = (
        table.query(f"group == 'donor' and term1 == {x!r} and term2 {c}")["vcov"].item()
        for x, c in (("(Intercept)", "!= term2"), ("(Intercept)", "== 'dose'"), ("dose", "!= term2"))
    )
    d = np.array([[a, ab], [ab, b]])
    parts["donor"] = np.mean(np.einsum("na,ab,nb->n", term.z, d, term.z))
    parts["Residual"] = fit.sigma**2
    return pd.Series(parts) / sum(parts.values())


@pytest.fixture(scope="module")
def fits():
    return lj.lmm(FORMULA, DATA).fit_batch(Y)


def test_shares_are_those_of_the_definition(fits):
    table = fits.variance_shares()
    assert list(table) == ["batch", "drug", "dose", "donor", "Residual"]
    assert_allclose(table.sum(axis=1), 1.0, rtol=1e-12)
    for name in Y:
        assert_allclose(table.loc[name], by_hand(fits[name]), rtol=1e-10)
        # a fit of its own ends a little elsewhere within the tolerance of the optimum
        assert_allclose(fits[name].variance_shares(), table.loc[name], rtol=1e-10)


def test_standard_errors(fits):
    """The delta method, its derivatives by central differences of the definition."""
    fit = fits["plain"]
    table = fit.variance_shares(se=True)
    assert_allclose(table["estimate"], fit.variance_shares())
    assert_allclose(fits.variance_shares(se=True).loc["plain"].to_numpy().reshape(-1, 4), table, rtol=1e-8)
    frame, e = fit.model.frame, fit.estimate
    z, x = frame.random[0].z, frame.x - frame.x.mean(axis=0)
    terms = [at for name, at in frame.term_slices.items() if name != "Intercept"]

    def shares(parameters):
        # in the order of `varcorr`: variances, then the covariance
        beta, (a, b, ab, s2) = parameters[: len(e.beta)], parameters[len(e.beta) :]
        d = np.array([[a, ab], [ab, b]])
        parts = [np.sum((x[:, at] @ beta[at]) ** 2) / (N - 1) for at in terms]
        parts += [np.mean(np.einsum("na,ab,nb->n", z, d, z)), s2]
        return np.array(parts) / np.sum(parts)

    at = np.concatenate([e.beta, e.psi])
    cov = np.zeros((len(at), len(at)))
    cov[: len(e.beta), : len(e.beta)], cov[len(e.beta) :, len(e.beta) :] = e.cov_beta, e.cov_psi
    steps = 1e-5 * np.eye(len(at))
    jacobian = np.array([(shares(at + h) - shares(at - h)) / 2e-5 for h in steps]).T
    se = np.sqrt(np.diag(jacobian @ cov @ jacobian.T))
    # differences are good to the square of their step
    assert_allclose(table["se"], se, rtol=1e-6)
    assert (table["lower"] < table["estimate"]).all()
    assert (table["estimate"] < table["upper"]).all()


def test_names_and_edges():
    crossed = lj.lmm("~ dose + (1 | donor) + (0 + dose | donor) + (1 | batch)", DATA).fit_batch(Y[["plain"]])
    names = ["dose", "(1 | donor)", "(0 + dose | donor)", "batch", "Residual"]
    assert list(crossed.variance_shares()) == names
    with pytest.warns(UserWarning, match="1 of 3 responses"):
        both = lj.lmm("~ batch + dose + (1 | donor)", DATA).fit_batch(Y.assign(none=np.nan))
    shares = both.variance_shares()
    assert shares.loc["none"].isna().all()
    assert list(shares) == ["batch", "dose", "donor", "Residual"]
    alone = lj.lmm("plain ~ 1", DATA.assign(plain=Y["plain"])).fit()
    assert alone.variance_shares().to_dict() == {"Residual": 1.0}
    with pytest.raises(ValueError, match="se must be True or False"):
        both.variance_shares(se="yes")


def test_shares_do_not_depend_on_units_or_coding():
    one = lj.lmm(FORMULA, DATA).fit_batch(Y).variance_shares()
    scaled = DATA.assign(dose=1000 * DATA["dose"] + 5)
    other = lj.lmm("~ C(batch, contr.sum) + drug + dose + (1 + dose | donor)", scaled).fit_batch(Y * 1e3)
    # optima are equal to the tolerance of the criterion
    assert_allclose(other.variance_shares(), one, rtol=2e-4, atol=1e-6)

"""Comparison of fitted models: likelihood ratio tests of nested models, information criteria."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from lmmjax.fitted import Fitted, by_criterion, require_estimates
from lmmjax.formula.many_rows import x_products
from lmmjax.inference.chisq import akaike_weights, chi_square_p, mixture_p
from lmmjax.postestimation.comparison.nesting import null_weights, spans
from lmmjax.postestimation.parameters.varcorr import structure_name


def compare(fits: list[Fitted], names: list[str] | None, refit: bool, force: bool) -> pd.DataFrame:
    """See `lmmjax.compare`."""
    if names is not None and len(names) != len(fits):
        raise ValueError(f"{len(names)} names for {len(fits)} models: give one name each")
    labels = [_label(fitted) for fitted in fits] if names is None else [str(name) for name in names]
    for fitted in fits:
        require_estimates(fitted)
        same_data(fits[0], fitted)
    again = [refit and fitted.reml for fitted in fits]
    ordered = sorted(
        (
            (
                by_criterion(fitted, False) if new else fitted,
                "ML (refitted)" if new else "REML" if fitted.reml else "ML",
                label,
            )
            for fitted, new, label in zip(fits, again, labels, strict=True)
        ),
        key=lambda triple: triple[0].n_params,
    )
    models = [fitted for fitted, *_ in ordered]
    _same_criterion(models)
    tests = [[np.nan] * 4]
    for small, large in pairwise(models):
        df = large.n_params - small.n_params
        try:
            weights = _weights(small, large, either=df == 0)
        except ValueError as error:
            if not force:
                raise ValueError(f"{error}; force=True compares their information criteria") from None
            tests.append([np.nan] * 4)
            continue
        if df == 0:
            # the same model, or one at the boundary of the other: there is nothing to test
            tests.append([np.nan, 0.0, np.nan, np.nan])
            continue
        chisq = max(small.deviance - large.deviance, 0.0)
        boundary = np.nan if weights is None else mixture_p(chisq, weights)
        tests.append([chisq, df, chi_square_p(chisq, df), boundary])
    table = pd.DataFrame(
        {name: [getattr(fitted, name) for fitted in models] for name in ("aic", "bic", "llf", "deviance")},
        index=pd.Index([label for *_, label in ordered], name="model"),
    )
    table.insert(0, "npar", [fitted.n_params for fitted in models])
    table[["chisq", "df", "p", "p_boundary"]] = tests
    table["aicc"] = [fitted.aicc for fitted in models]
    table["weight"] = akaike_weights(table["aic"].to_numpy())
    table["criterion"] = [criterion for _, criterion, _ in ordered]
    return table


def _weights(small: Fitted, large: Fitted, either: bool) -> dict[int, float] | None:
    """`null_weights`; of models with as many parameters either may be the smaller."""
    one, two = small.data.frame, large.data.frame
    try:
        return null_weights(one, two)
    except ValueError:
        if not either:
            raise
        return null_weights(two, one)


def _label(fitted: Fitted) -> str:
    """The formula, with the residual structure if there is one."""
    if fitted.data.design.residual is None:
        return fitted.data.formula
    return f"{fitted.data.formula}; {structure_name(fitted)}"


def same_data(a: Fitted, b: Fitted) -> None:
    """ValueError unless two fits are of the same response, rows, weights and offset."""
    if a.nobs != b.nobs:
        raise ValueError(
            f"the models have {a.nobs} and {b.nobs} observations: fit both to the rows that are complete in "
            "all their variables"
        )
    if a.data.design.condensed is not None or b.data.design.condensed is not None:
        if not np.allclose(_sizes(a), _sizes(b), rtol=1e-9, atol=0.0):
            raise ValueError(
                "the models differ in their response, weights or offset: compare fits of the same data"
            )
        return
    for what, left, right in (
        ("response", a.y, b.y),
        ("weights", a.data.frame.weights, b.data.frame.weights),
        ("offset", a.data.frame.offset, b.data.frame.offset),
    ):
        alike = left is right if left is None or right is None else np.array_equal(left, right)
        if not alike:
            raise ValueError(f"the models differ in their {what}: compare fits of the same data")


def _sizes(fitted: Fitted) -> tuple[float, float]:
    """Σw(y − offset)², and −Σ log w where rows stand for others: what turning them leaves as it is."""
    frame, many = fitted.data.frame, fitted.data.design.condensed
    w = 1.0 if frame.weights is None else frame.weights
    y = fitted.y if frame.offset is None else fitted.y - frame.offset
    return float(np.sum(w * y * y)), -float(np.sum(np.log(w))) if many is None else many.logdet


def comparable(fits: list[Fitted]) -> str:
    """Why log-likelihoods and information criteria of fits cannot be compared; empty where they can."""
    try:
        for fitted in fits:
            same_data(fits[0], fitted)
        _same_criterion(fits)
    except ValueError as error:
        return str(error).partition(":")[0]
    return ""


def _same_criterion(fits: list[Fitted]) -> None:
    if not any(fit.reml for fit in fits):
        return
    if not all(fit.reml for fit in fits):
        raise ValueError("some models were fitted by REML and some by ML: leave refit=True")
    first = x_products(fits[0].data.frame)
    condensed = any(fit.data.design.condensed is not None for fit in fits)
    for fit in fits[1:]:
        x = x_products(fit.data.frame)
        if condensed:
            # rows that stand for others are turned, each fit's in its own way
            alike = fit.data.x_names == fits[0].data.x_names
        else:
            alike = x.shape == first.shape and spans(x, first)
        if not alike:
            raise ValueError("REML criteria of different fixed effects cannot be compared: leave refit=True")
        # the criterion has log|XᵀX|, which a change of units or contrasts moves
        if abs(_log_volume(x) - _log_volume(first)) > 1e-8 * max(1.0, abs(_log_volume(first))):
            raise ValueError(
                "REML criteria depend on units and contrasts of the fixed effects, which differ here: leave "
                "refit=True, or write the fixed part alike"
            )


def _log_volume(x: np.ndarray) -> float:
    """½ log|XᵀX| of x (n, p)."""
    return float(np.sum(np.log(np.abs(np.diagonal(np.linalg.qr(x, mode="r"))))))

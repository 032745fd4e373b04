"""Tests of random terms by deletion, and the models without them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np
import pandas as pd

from lmmjax.arrays import quick_jit
from lmmjax.core import profiled_deviance
from lmmjax.fitted import Fitted, ModelData, fit_one, model_data, require_estimates
from lmmjax.formula import ModelFrame, RandomColumns, nearest, quoted, reduced_text
from lmmjax.formula.many_rows import row_space
from lmmjax.inference.chisq import boundary_weights, chi_square_p, mixture_p


def ranova(fitted: Fitted) -> pd.DataFrame:
    """See `Fit.ranova`."""
    require_estimates(fitted)
    rows = {"<none>": [fitted.n_params, fitted.llf, fitted.aic, np.nan, np.nan, np.nan, np.nan]}
    for label, random, blocks in deletions(fitted.data.frame):
        npar, deviance = reduced(fitted, random)
        # below zero by rounding, where the term has no variance
        chisq, df = max(deviance - fitted.deviance, 0.0), fitted.n_params - npar
        weights = boundary_weights(0, blocks)
        tests = [chisq, df, chi_square_p(chisq, df), mixture_p(chisq, weights)]
        rows[label] = [npar, -0.5 * deviance, deviance + 2 * npar, *tests]
    columns = ["npar", "llf", "aic", "chisq", "df", "p", "p_boundary"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("term")


def which_term(random: tuple[RandomColumns, ...], term: str | None) -> int:
    """Position of the random term that is meant."""
    texts = [t.label for t in random]
    if not random:
        raise ValueError("the model has no random effects")
    if term is None:
        if len(random) > 1:
            raise ValueError(f"the model has several random terms: pass term=, one of: {', '.join(texts)}")
        return 0
    plain = " ".join(term.strip().removeprefix("(").removesuffix(")").split())
    found = [k for k, t in enumerate(random) if plain == t.text]
    found = found if len(found) == 1 else [k for k, t in enumerate(random) if plain in (t.label, t.group)]
    if len(found) != 1:
        raise ValueError(f"no one random term {term!r}: {nearest(plain, texts)}")
    return found[0]


_deviance = quick_jit(profiled_deviance)


def reduced(fitted: Fitted, random: tuple[RandomColumns, ...]) -> tuple[int, float]:
    """Number of parameters and minimised criterion of the model with other random terms."""
    data = fitted.data
    if not random and data.design.residual is None and data.design.structure.linear:
        with jax.enable_x64(True):
            problem = data.problem(fitted.y, fitted.reml)
            theta = np.zeros(data.design.structure.n_params)
            return data.design.p + (data.design.known is None), float(_deviance(theta, problem))
    refit = fit_one(smaller(data, random), fitted.y, fitted.reml)
    return refit.n_params, refit.deviance


def smaller(data: ModelData, random: tuple[RandomColumns, ...]) -> ModelData:
    """The model with other random terms: fewer of them may leave the range of a backend."""
    backend = "dense" if data.backend == "dense" else None
    return model_data(dataclasses.replace(data.frame, random=random), backend)


def deletions(frame: ModelFrame) -> Iterator[tuple[str, tuple[RandomColumns, ...], list[tuple[int, int]]]]:
    """Yields (label, random terms left, blocks for `boundary_weights`) for every deletion."""
    for k, term in enumerate(frame.random):
        before, after, count = frame.random[:k], frame.random[k + 1 :], len(term.names)
        if term.structure not in ("us", "diag"):
            yield f"({term.label})", (*before, *after), [(1, n_entries(term, count) - 1)]
            continue
        for label, keep in slopes(frame, term):
            if not keep.any():
                intercept = _intercept(frame, term, (*before, *after))
                taken = count - len(intercept)
                covariances = n_entries(term, count) - len(intercept) - taken
                yield label, (*before, *intercept, *after), _blocks(term, taken, covariances)
                continue
            left = {"names": tuple(np.array(term.names)[keep]), "text": reduced_text(frame, term, keep)}
            rest = dataclasses.replace(term, z=term.z[:, keep], **left)
            lost = count - int(keep.sum())
            covariances = n_entries(term, count) - n_entries(term, count - lost) - lost
            yield label, (*before, rest, *after), _blocks(term, lost, covariances)


def n_entries(term: RandomColumns, q: int) -> int:
    """Covariance parameters of a term of this kind with q columns."""
    return term.family.n_params(q)


def _blocks(term: RandomColumns, variances: int, covariances: int) -> list[tuple[int, int]]:
    return [(variances, covariances)] if term.structure == "us" else [(1, 0)] * variances


def _intercept(
    frame: ModelFrame, term: RandomColumns, others: tuple[RandomColumns, ...]
) -> tuple[RandomColumns, ...]:
    """The random intercept that is left when a factor coded by all its levels is taken out."""
    # Z as the data have it: rows that stand for many are turned
    same = (t.z for t in row_space(frame).random if (t.text, t.group) == (term.text, term.group))
    z = next(same, term.z)
    one = np.ones((len(z), 1))
    spanned = np.linalg.lstsq(z, one)[0]
    known = any(t.group == term.group and "(Intercept)" in t.names for t in others)
    if len(term.names) == 1 or known or not np.allclose(z @ spanned, one):
        return ()
    one = term.z @ spanned if z is not term.z else one
    text = f"1 | {':'.join(map(quoted, term._levels.names))}"
    return (dataclasses.replace(term, z=one, names=("(Intercept)",), structure="us", text=text),)


def slopes(frame: ModelFrame, term: RandomColumns) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (label, columns kept) for each piece of a random term that is deleted by itself.

    A piece is a term left of the bar that is not part of an interaction there. The intercept goes last, with
    the whole term; so does a term that is the only one and leaves no intercept.
    """
    pieces = _pieces(frame, term)
    inside = {
        name
        for name, (factors, _) in pieces.items()
        if any(set(factors) < set(others) for others, _ in pieces.values())
    }
    whole = np.zeros(len(term.names), bool)
    if not pieces:
        yield f"({term.label})", whole
    for name, (_, columns) in pieces.items():
        if name in inside:
            continue
        keep = np.ones(len(term.names), bool)
        keep[columns] = False
        yield f"{name} in ({term.label})", keep


def _pieces(frame: ModelFrame, term: RandomColumns) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Factors and columns of the terms left of the bar, the intercept left out."""
    if frame._recipe is None:
        names = [name for name in term.names if name != "(Intercept)"]
        return {name: ((name,), np.array([term.names.index(name)])) for name in names}
    part = frame._recipe.parts[term.text]
    return {
        name: (factors, part.terms[name])
        for name, factors in part.term_factors.items()
        if factors and len(part.terms[name])
    }

"""Models written in another way: other formulas, structures, backends and arguments for one covariance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from meta_models import MODELS, Case
from meta_moves import MOVES, Move, Moved, relabelled, unchanged

import lmmjax as lj

CURVE = ("criterion", "flags")
"""What any other parameters, of the mean as well, leave as it is."""
MEAN = (*CURVE, "fitted", "predicted", "shares")
"""What another basis of the same spaces leaves."""
MARGINAL = (*CURVE, "beta", "se satt", "se kr", "df ", "F ", "lower of", "upper of", "predicted, population")
"""What is a function of the marginal model: of X and V, however V is made."""


NAMES: set[str] = set()
APART: set[str] = set()


def spelled(
    model: str,
    name: str,
    *,
    back: Callable[[pd.DataFrame], pd.DataFrame] = unchanged,
    only: tuple[str, ...] | None = None,
    lost: str | None = None,
    columns: bool = False,
    data: Callable[[pd.DataFrame], pd.DataFrame] | None = None,
    apart: bool = False,
    **changes: Any,
) -> None:
    """Put another way to write a model into the registry; `apart` if it takes long to compile."""
    own, key = MODELS[model], f"spelling: {name}"
    assert key not in MOVES
    NAMES.add(key)
    if apart:
        APART.add(key)

    def make(case: Case) -> Moved:
        new = case.but(**changes)
        new = new if data is None else new.but(data=data(case.data), new=data(case.new))
        return Moved(new, back, only, lost, columns)

    MOVES[key] = Move(lambda case: case is own, make)


def names(**changes: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Labels with text replaced."""

    def change(label: str) -> str:
        for old, new in changes.items():
            label = label.replace(old, new)
        return label

    return lambda table: relabelled(table, change)


def nested_labels(table: pd.DataFrame) -> pd.DataFrame:
    """Groups p00, p01, … and numbers after schools, s:k, as numbers before schools, k:s."""
    of = {
        g: f"{k}:{s}"
        for g, s, k in zip(*(MODELS["intercepts"].data[c] for c in ("g", "s", "k")), strict=True)
    }

    def change(label: str) -> str:
        group, _, level = label.partition("|")
        level, _, term = level.partition("|")
        if group == "s:k":
            level = ":".join(level.split(":")[::-1])
        if group in ("g", "s:k") and term:
            return f"k:s|{of.get(level, level)}|{term}"
        return label.replace("|s:k", "|k:s").replace("|g", "|k:s")

    return relabelled(table, change)


def ordered(table: pd.DataFrame) -> pd.DataFrame:
    """Interactions with their parts in the order of the model."""
    return relabelled(
        table, lambda s: ":".join(sorted(s.split(":"), reverse=True)) if "T." in s or s == "arm:f" else s
    )


# --- random effects -----------------------------------------------------------------------------------

spelled(
    "intercepts",
    "1 | g as us(1 | g), f as C(f)",
    formula="y ~ 1 + C(f) + x + us(1 | g)",
    back=names(**{"C(f)": "f"}),
)
spelled("intercepts", "the same term twice", formula="y ~ x + f + x + (1 | g)")
spelled(
    "intercepts",
    "a pattern of visits",
    formula="y ~ x + f + homdiag(1 | g)",
    only=(*MARGINAL, "fitted", "modes"),
)
spelled("slopes", "1 + x | g", formula="y ~ arm + x + us(1 + x | g)")
spelled("slopes, ML", "slope written first", formula="y ~ 1 + b + x + (x + 1 | g)")
spelled("uncorrelated slopes", "in two terms", formula="y ~ x + (1 | g) + (0 + x | g)")
spelled("uncorrelated slopes", "diag", formula="y ~ x + diag(1 + x | g)")
spelled("small nested", "s and s:k", formula="y ~ x + (1 | s) + (1 | s:k)", back=nested_labels)
spelled("small nested", "k:s and s", formula="y ~ x + (1 | k:s) + (1 | s)", apart=True)
spelled("small nested", "labels that are nested", formula="y ~ x + (1 | s) + (1 | g)", back=nested_labels)
spelled(
    "layered",
    "labels that are nested, crossed",
    formula="y ~ x + (1 | h) + (1 | s) + (1 | g)",
    back=nested_labels,
    apart=True,
)
spelled("crossed", "in another order", formula="y ~ z + x + (1 | h) + (1 | g)", apart=True)
spelled(
    "levels",
    "an intercept and a contrast",
    formula="y ~ x + (b | h)",
    only=(*MARGINAL, "fitted", "predicted", "shares"),
)
spelled("levels", "0 + b | h", formula="y ~ x + (0 + b | h)")
spelled("two terms", "uncorrelated", formula="y ~ x + t + (t || g)")
spelled(
    "cs",
    "an intercept and levels",
    formula="y ~ x + (1 | h) + homdiag(0 + f | h)",
    only=(*MARGINAL, "fitted", "predicted"),
    apart=True,
)
spelled(
    "cs",
    "an interaction of groups",
    formula="y ~ x + (1 | h) + (1 | h:f)",
    only=(*MARGINAL, "fitted"),
    apart=True,
)

for _name in (
    "slopes",
    "small nested",
    "nested",
    "crossed",
    "layered",
    "weights",
    "AR1, VarIdent",
    "Toeplitz",
    "VarPower",
    "cs",
):
    spelled(
        _name, f"by the dense backend, {_name}", backend="dense", apart=_name not in ("slopes", "crossed")
    )

# --- fixed effects ------------------------------------------------------------------------------------

spelled("cells", "f + arm + f:arm", formula="y ~ f + arm + f:arm + z + (1 | g)")
spelled("cells", "arm * f", formula="y ~ arm * f + z + (1 | g)", back=ordered)
spelled("cells", "f / arm", formula="y ~ f / arm + z + (1 | g)", only=MEAN, columns=True)
spelled("cells", "a coefficient a cell", formula="y ~ 0 + f:arm + z + (1 | g)", only=MEAN, columns=True)
spelled(
    "cells",
    "sums to zero",
    formula="y ~ C(f, contr.sum) * C(arm, contr.sum) + z + (1 | g)",
    only=(*MEAN, "F ", "df satt, F", "df kr, F"),
    back=names(**{"C(f, contr.sum)": "f", "C(arm, contr.sum)": "arm"}),
    columns=True,
)
spelled(
    "intercepts", "no intercept, a level each", formula="y ~ 0 + f + x + (1 | g)", only=MEAN, columns=True
)
spelled(
    "slopes", "a scaled covariate", formula="y ~ scale(x) + arm + (scale(x) | g)", only=MEAN, columns=True
)
spelled(
    "crossed",
    "polynomials of degree 1",
    formula="y ~ poly(x, 1) + z + (1 | g) + (1 | h)",
    only=MEAN,
    columns=True,
    apart=True,
)
spelled(
    "weights",
    "an offset that is a coefficient",
    formula="y ~ x + f + offset(2 * x) + (1 | g)",
    back=lambda t: plus(t, "x", 2.0),
    lost="F .*: x|marginal|conditional",
)
spelled(
    "offset",
    "all offsets in the formula",
    formula="y ~ x + arm + offset(v) + offset(w) + (1 | g)",
    offset=None,
)
spelled("offset", "one offset", formula="y ~ x + arm + (1 | g)", offset="v + w")


def plus(table: pd.DataFrame, name: str, amount: float) -> pd.DataFrame:
    """A coefficient plus a known amount. F is of another hypothesis; R² leaves offsets out."""
    out = table.copy()
    for quantity in ("beta", "lower of beta", "upper of beta"):
        out.loc[(quantity, name), "value"] += amount
    return out


# --- residuals ----------------------------------------------------------------------------------------

RHO = ("criterion", "flags", *MARGINAL[2:], "fitted", "residuals", "predicted, kriging", "shares")
spelled(
    "CompoundSymmetry", "a random intercept", formula="y ~ x + arm + (1 | g)", residual=None, only=MARGINAL
)
spelled(
    "CompoundSymmetry",
    "one correlation of levels",
    formula="y ~ x + arm + us(1 | g)",
    residual=None,
    only=MARGINAL,
    apart=True,
)
# limits of a correlation are on the scale of its range, which is all or half of −1 … 1
spelled("AR1", "CAR1", residual=lambda t: lj.CAR1(t, group="g"), lost="(lower|upper), vcov: Phi")
spelled(
    "AR1",
    "ARMA(1, 0)",
    residual=lambda t: lj.ARMA(t, p=1, q=0, group="g"),
    back=names(phi1="Phi", Phi1="Phi"),
    lost="(lower|upper), vcov: Phi",
    apart=True,
)
spelled("AR1", "Exponential", residual=lambda t: lj.Exponential(t, group="g"), only=RHO)
spelled("CAR1", "Exponential of times", residual=lambda t: lj.Exponential(t, group="g"), only=RHO, apart=True)
spelled(
    "Unstructured",
    "correlations and variances",
    residual=lj.Symmetric("t", group="g") * lj.VarIdent("t"),
    only=(*MARGINAL, "residuals", "fitted"),
    apart=True,
)
spelled(
    "VarIdent",
    "levels in another order",
    residual=lj.VarIdent("arm"),
    data=lambda d: d.assign(arm=pd.Categorical(d["arm"], ["B", "A"])),
    only=MARGINAL,
)
spelled(
    "VarExp",
    "by the logarithm's base",
    residual=lj.VarPower("ez"),
    data=lambda d: d.assign(ez=np.exp(d["z"])),
    back=names(power="expon", delta="delta"),
    only=(*MARGINAL, "fitted", "residuals", "shares", "modes"),
)
spelled("AR1", "a group of two columns", residual=lambda t: lj.AR1(t, group="s:k"))

# --- arguments ----------------------------------------------------------------------------------------

spelled("weights", "weights as an expression", weights="1 / (1 / w)")
spelled("weights", "weights as an array", weights=MODELS["weights"].data["w"].to_numpy())
spelled(
    "weights, crossed",
    "weights as a product of two",
    weights="w2 * (w / w2)",
    data=lambda d: d.assign(w2=d["v"]),
)
spelled(
    "weights",
    "weights as a labelled column",
    weights=MODELS["weights"].data["w"].sample(frac=1, random_state=1),
)
spelled(
    "known variances",
    "an expression",
    residual=lj.KnownVariance("v2"),
    data=lambda d: d.assign(v2=2 * d["v"] / 2.0),
)

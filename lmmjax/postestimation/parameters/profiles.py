"""Profile likelihood of the parameters of a fit by name: intervals, curves, contours."""

from __future__ import annotations

import dataclasses
import warnings

import jax
import numpy as np
import pandas as pd
from scipy.special import chdtri, ndtr, ndtri

from lmmjax.arrays.caller import stack_level
from lmmjax.fitted import (
    Fitted,
    by_criterion,
    component_names,
    require_count,
    require_estimates,
    require_level,
    sd_scale,
    unidentified_names,
)
from lmmjax.fitted.mean_variance import by_mean
from lmmjax.formula import nearest
from lmmjax.inference.profile.axes import Target
from lmmjax.inference.profile.constrained import anchored
from lmmjax.inference.profile.surface import LOWER, Surface, endpoint

MOST_POINTS = 1000
"""Of a profile, and on each axis of a contour: each is a fit."""


def targets(fitted: Fitted) -> dict[str, Target]:
    """Every parameter by name, in the order of `conf_int(which="all")`."""
    out = {}
    for k, (name, row) in enumerate(
        zip(component_names(fitted.data.components), fitted.data.components, strict=True)
    ):
        if row.kind == "sigma":
            out[name] = Target("sigma", -1)
        elif row.parameter is not None:
            out[name] = Target("parameter", -1, k, unit=row.unit)
        else:
            kind = {"variance": "sd", "covariance": "cor"}[row.kind]
            out[name] = Target(kind, row.term, row.i, row.j)
    return out | {name: Target("beta", -1, i) for i, name in enumerate(fitted.data.x_names)}


def surface(fitted: Fitted, names: list[str], criterion: str | None) -> Surface:
    """The criterion as a function of parameters: ML, or REML if asked for and none is a coefficient."""
    if criterion not in (None, "ml", "reml"):
        raise ValueError(f"unknown criterion {criterion!r}; choose one of: ml, reml")
    known = targets(fitted)
    for name in names:
        if name not in known:
            raise ValueError(f"unknown parameter {name!r}: {nearest(str(name), list(known))}")
    wanted = [known[name] for name in names]
    reml = criterion == "reml" and all(target.kind != "beta" for target in wanted)
    require_estimates(fitted)
    if by_mean(fitted.data):
        raise ValueError(
            "the residual variance is a function of the fitted values, which change along a profile, so that "
            "its points have no common likelihood: take a covariate of the data, or "
            "conf_int(method='boot')"
        )
    design = fitted.data.design
    if design.known is not None and anchored(design.structure):
        raise ValueError(
            "a free covariance matrix beside known variances has no profiles: its first variance is held at "
            "1; use conf_int(method='wald'), or Symmetric in place of Unstructured"
        )
    best = by_criterion(fitted, reml)
    for name in names:
        if why := without(best, name):
            raise ValueError(f"{name!r} {why}: it has no profile")
    with jax.enable_x64(True):
        problem = best.data.problem(best.y, best.reml)
        return Surface(problem, best.estimate.psi, best.estimate.beta, wanted)


def without(fitted: Fitted, name: str) -> str:
    """Why a parameter has no profile; empty where it has one."""
    if targets(fitted)[name].kind == "sigma" and fitted.data.design.known is not None:
        return "is known"
    return "is not identified by these data" if name in unidentified_names(fitted) else ""


@dataclasses.dataclass(frozen=True)
class Limits:
    """The ends of a profile interval, and which of them, "lower" or "upper", are on a boundary."""

    lower: float
    upper: float
    boundary: tuple[str, ...]


def limits(name: str, surface: Surface, level: float) -> Limits:
    """Profile interval of the one parameter of a surface; missing, with a warning, where it has none."""
    target = float(ndtri(0.5 + level / 2))
    if not np.isfinite(surface.best[0]):
        return Limits(np.nan, np.nan, ())
    ends = {word: endpoint(surface, side, target) for word, side in (("lower", -1), ("upper", 1))}
    fell = surface.minimum - surface.lowest
    if fell > LOWER * max(1.0, 1e-4 * abs(surface.minimum)):
        warnings.warn(
            f"the profile of {name!r} found a fit whose criterion is lower by {fell:.3g}: the model's is not "
            "the best, and the interval is NaN; see allfit(), or fit with another start=",
            stacklevel=stack_level(),
        )
        return Limits(np.nan, np.nan, ())
    lost = [word for word, end in ends.items() if np.isnan(end.value)]
    if lost:
        warnings.warn(
            f"the profile of {name!r} could not be followed to its {' and '.join(lost)} limit, which is NaN: "
            "the criterion has no certified minimum there; use conf_int(method='boot')",
            stacklevel=stack_level(),
        )
    boundary = tuple(word for word, end in ends.items() if end.boundary)
    return Limits(ends["lower"].value, ends["upper"].value, boundary)


def profile_frame(fitted: Fitted, name: str, surface: Surface, level: float, points: int) -> pd.DataFrame:
    """The profile of one parameter; see `Fit.profile`."""
    target, best = float(ndtri(0.5 + level / 2)), float(surface.best[0])
    ends = [endpoint(surface, side, target).at for side in (-1, 1)]
    half = points // 2 + 1
    grid = np.unique(np.concatenate([np.linspace(end, best, half) for end in ends]))
    rows: dict[float, list[float]] = {}
    for side in (grid[grid >= best], grid[grid <= best][::-1]):
        x = surface.x
        for at in side:
            found, _ = surface.locate(np.array([at]), x)
            zeta = surface.zeta(found)
            if not np.isfinite(zeta):
                rows[at] = [surface.value(0, at), *[np.nan] * (2 + len(targets(fitted)))]
                continue
            x = found.x
            psi, beta = surface.parameters(found)
            sdcor, _ = sd_scale(psi, fitted.data.components)
            zeta = np.sign(at - best) * zeta
            rows[at] = [surface.value(0, at), zeta, float(found.f), *sdcor, *beta]
    columns = ["value", "zeta", "deviance", *targets(fitted)]
    frame = pd.DataFrame([rows[at] for at in sorted(rows)], columns=columns)
    frame.insert(0, "parameter", name)
    frame.insert(4, "criterion", _criterion(surface))
    return frame


def _criterion(surface: Surface) -> str:
    return "REML" if surface.problem.reml else "ML"


def profile_limits(fitted: Fitted, names: list[str], level: float, criterion: str | None) -> pd.DataFrame:
    """Profile intervals of parameters by name, columns lower and upper.

    `attrs["boundary"]` says by name which ends are those of a parameter's range. Parameters that are known or
    not identified have none.
    """
    frame = pd.DataFrame(np.nan, index=names, columns=["lower", "upper"])
    frame.attrs |= {"criterion": {}, "boundary": {}}
    for name in names:
        if without(fitted, name):
            continue
        own = surface(fitted, [name], criterion)
        found = limits(name, own, level)
        frame.loc[name] = found.lower, found.upper
        frame.attrs["criterion"][name] = _criterion(own)
        if found.boundary:
            frame.attrs["boundary"][name] = found.boundary
    return frame


def profile(
    fitted: Fitted, parameters: str | list[str] | None, level: float, points: int, criterion: str | None
) -> pd.DataFrame:
    """See `Fit.profile`."""
    require_level(level)
    points = require_count("points", points, 2, MOST_POINTS)
    wanted = [parameters] if isinstance(parameters, str) else parameters
    wanted = [name for name in targets(fitted) if not without(fitted, name)] if wanted is None else wanted
    pieces = [
        profile_frame(fitted, name, surface(fitted, [name], criterion), level, points) for name in wanted
    ]
    return pd.concat(pieces, ignore_index=True)


def _grid_ends(surface: Surface, level: float) -> list[float]:
    """Values of the one parameter of a surface between which a grid lies."""
    target = float(ndtri(0.5 + level / 2))
    return [surface.value(0, endpoint(surface, side, target).at) for side in (-1, 1)]


def contour(
    fitted: Fitted, first: str, second: str, level: float, points: int, criterion: str | None
) -> pd.DataFrame:
    """See `Fit.contour`."""
    require_level(level)
    points = require_count("points", points, 2, MOST_POINTS)
    if first == second:
        raise ValueError(f"a contour needs two parameters, not {first!r} twice")
    # of one parameter: the level whose interval is the shadow of the joint region
    region = 1.0 - 2.0 * float(ndtr(-np.sqrt(chdtri(2, 1.0 - level))))
    joint = surface(fitted, [first, second], criterion)
    # both profiles on the criterion of the joint one
    same = "reml" if joint.problem.reml else "ml"
    values = [
        np.linspace(low, high, points)
        for low, high in (_grid_ends(surface(fitted, [name], same), region) for name in (first, second))
    ]
    rise, x = np.empty((points, points)), joint.x
    for i, a in enumerate(values[0]):
        # back and forth, so that every optimum starts from its neighbour's
        for j in range(points)[:: 1 if i % 2 == 0 else -1]:
            at = np.array([joint.coordinate(0, a), joint.coordinate(1, values[1][j])])
            found, _ = joint.locate(at, x)
            rise[i, j] = joint.zeta(found) ** 2
            x = found.x if np.isfinite(rise[i, j]) else x
    frame = pd.DataFrame(
        rise, index=pd.Index(values[0], name=first), columns=pd.Index(values[1], name=second)
    )
    frame.attrs["criterion"] = _criterion(joint)
    return frame

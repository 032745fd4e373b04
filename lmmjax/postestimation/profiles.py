"""Profile likelihood of the parameters of a fit by name: intervals, curves, contours."""

from __future__ import annotations

import jax
import numpy as np
import pandas as pd
from scipy.special import chdtri, ndtr, ndtri

from lmmjax.fitted import (
    Fitted,
    by_criterion,
    component_names,
    require_count,
    require_estimates,
    require_level,
    sd_scale,
)
from lmmjax.formula import nearest
from lmmjax.inference.surface import Surface, Target, endpoint


def targets(fitted: Fitted) -> dict[str, Target]:
    """Every parameter by name, in the order of `conf_int(which="all")`."""
    rows = fitted.data.components
    out = {}
    for name, row in zip(component_names(rows), rows, strict=True):
        kind = {"variance": "sd", "covariance": "cor"}.get(row.kind, row.kind)
        out[name] = Target(kind, row.term, row.i, row.j) if kind != "sigma" else Target("sigma", -1)
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
    structure = fitted.data.design.structure
    if structure.residual is not None or not structure.linear or fitted.data.design.known is not None:
        raise ValueError(
            "profiles are for unstructured and diagonal random effects with independent residuals: use "
            "conf_int(method='wald') or method='boot'"
        )
    best = by_criterion(fitted, reml)
    with jax.enable_x64(True):
        problem = best.data.problem(best.y, best.reml)
        return Surface(problem, best.estimate.psi, best.estimate.beta, wanted)


def limits(surface: Surface, level: float) -> tuple[float, float]:
    """Profile interval of the one parameter of a surface."""
    target = float(ndtri(0.5 + level / 2))
    if not np.isfinite(surface.best[0]):
        return np.nan, np.nan
    low, high = (surface.value(0, endpoint(surface, side, target)[0]) for side in (-1, 1))
    return low, high


def profile_frame(fitted: Fitted, name: str, surface: Surface, level: float, points: int) -> pd.DataFrame:
    """The profile of one parameter; see `Fit.profile`."""
    target, best = float(ndtri(0.5 + level / 2)), float(surface.best[0])
    ends = [endpoint(surface, side, target)[0] for side in (-1, 1)]
    half = points // 2 + 1
    grid = np.unique(np.concatenate([np.linspace(end, best, half) for end in ends]))
    rows: dict[float, list[float]] = {}
    for side in (grid[grid >= best], grid[grid <= best][::-1]):
        x = surface.x
        for at in side:
            found, _ = surface.locate(np.array([at]), x)
            x, rise = found.x, max(float(found.f) - surface.minimum, 0.0)
            psi, beta = surface.parameters(found)
            sdcor, _ = sd_scale(psi, fitted.data.components)
            zeta = np.sign(at - best) * np.sqrt(rise)
            rows[at] = [surface.value(0, at), zeta, float(found.f), *sdcor, *beta]
    columns = ["value", "zeta", "deviance", *targets(fitted)]
    frame = pd.DataFrame([rows[at] for at in sorted(rows)], columns=columns)
    frame.insert(0, "parameter", name)
    frame.insert(4, "criterion", _criterion(surface))
    return frame


def _criterion(surface: Surface) -> str:
    return "REML" if surface.problem.reml else "ML"


def profile_limits(fitted: Fitted, names: list[str], level: float, criterion: str | None) -> pd.DataFrame:
    """Profile intervals of parameters by name, columns lower and upper."""
    surfaces = {name: surface(fitted, [name], criterion) for name in names}
    ends = [limits(own, level) for own in surfaces.values()]
    frame = pd.DataFrame(ends, index=list(surfaces), columns=["lower", "upper"])
    frame.attrs["criterion"] = {name: _criterion(own) for name, own in surfaces.items()}
    return frame


def profile(
    fitted: Fitted, parameters: str | list[str] | None, level: float, points: int, criterion: str | None
) -> pd.DataFrame:
    """See `Fit.profile`."""
    require_level(level)
    points = require_count("points", points, 2)
    wanted = [parameters] if isinstance(parameters, str) else parameters
    wanted = list(targets(fitted)) if wanted is None else wanted
    pieces = [
        profile_frame(fitted, name, surface(fitted, [name], criterion), level, points) for name in wanted
    ]
    return pd.concat(pieces, ignore_index=True)


def contour(
    fitted: Fitted, first: str, second: str, level: float, points: int, criterion: str | None
) -> pd.DataFrame:
    """See `Fit.contour`."""
    require_level(level)
    points = require_count("points", points, 2)
    if first == second:
        raise ValueError(f"a contour needs two parameters, not {first!r} twice")
    # of one parameter: the level whose interval is the shadow of the joint region
    region = 1.0 - 2.0 * float(ndtr(-np.sqrt(chdtri(2, 1.0 - level))))
    joint = surface(fitted, [first, second], criterion)
    # both profiles on the criterion of the joint one
    same = "reml" if joint.problem.reml else "ml"
    values = [
        np.linspace(low, high, points)
        for low, high in (limits(surface(fitted, [name], same), region) for name in (first, second))
    ]
    rise, x = np.empty((points, points)), joint.x
    for i, a in enumerate(values[0]):
        # back and forth, so that every optimum starts from its neighbour's
        for j in range(points)[:: 1 if i % 2 == 0 else -1]:
            at = np.array([joint.coordinate(0, a), joint.coordinate(1, values[1][j])])
            found, _ = joint.locate(at, x)
            rise[i, j], x = float(found.f) - joint.minimum, found.x
    frame = pd.DataFrame(
        rise, index=pd.Index(values[0], name=first), columns=pd.Index(values[1], name=second)
    )
    frame.attrs["criterion"] = _criterion(joint)
    return frame

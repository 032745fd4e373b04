"""Natural cubic splines, the `ns` of formulas: the basis of R's `splines::ns`.

Of the cubic B-splines b_1 … b_K with the given knots, b_1 is left out (its part is the intercept's) and
the rest is rotated by the orthogonal complement of the two rows of second derivatives at the boundary:
what is left has f'' = 0 there and is continued as a straight line outside.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np


def natural_knots(x: np.ndarray, df: int | None, knots: Sequence[float] | None) -> dict[str, Any]:
    """Inner knots (given, or df − 1 of them at equally spaced quantiles of x) and boundary knots.

    Raises ValueError if df is not a whole number of at least 1, if both are given, or if x has fewer
    than two values.
    """
    x = x[np.isfinite(x)]
    if df is not None and (knots is not None or df < 1 or df != int(df)):
        raise ValueError(
            f"ns: give df, a whole number of at least 1, or knots, not df={df} and knots={knots}"
        )
    if x.size == 0 or x.min() == x.max():
        raise ValueError("ns: a spline needs at least two different values")
    inner = np.quantile(x, np.linspace(0, 1, int(df or 1) + 1)[1:-1]) if knots is None else np.sort(knots)
    return {"inner": np.asarray(inner, float), "boundary": (float(x.min()), float(x.max()))}


def natural_basis(x: np.ndarray, inner: np.ndarray, boundary: tuple[float, float]) -> np.ndarray:
    """(n, len(inner) + 1) basis at x; rows where x is not a number are NaN."""
    from scipy.interpolate import BSpline

    low, high = boundary
    knots = np.concatenate([[low] * 4, inner, [high] * 4])
    spline = BSpline(knots, np.eye(len(knots) - 4), 3)
    edge = np.clip(x, low, high)
    values = spline(edge) + (x - edge)[:, None] * spline.derivative(1)(edge)
    curvature = spline.derivative(2)(np.array(boundary))
    rotation = np.linalg.qr(curvature[:, 1:].T, mode="complete")[0]
    return values[:, 1:] @ rotation[:, 2:]

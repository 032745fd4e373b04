"""A smooth curve through a scatter."""

from __future__ import annotations

import numpy as np

SPAN, PLACES = 2.0 / 3.0, 40


def local_linear(x: np.ndarray, y: np.ndarray, span: float = SPAN) -> tuple[np.ndarray, np.ndarray]:
    """Places (k,) and values (k,) of a local linear fit to y (n,) over x (n,), tricube weights.

    At a place t the nearest share `span` of the points has weights (1 − (|x − t|/h)³)³, h the distance of the
    farthest of them. Nothing where x has fewer than three values.

    Source: Cleveland (1979), doi:10.1080/01621459.1979.10481038, without the robust iterations.
    """
    good = np.isfinite(x) & np.isfinite(y)
    x, y = x[good], y[good]
    values = np.unique(x)
    if len(values) < 3:
        return np.zeros(0), np.zeros(0)
    at = values if len(values) <= PLACES else np.linspace(values[0], values[-1], PLACES)
    nearest = min(len(x), max(3, int(np.ceil(span * len(x))))) - 1
    out = np.empty(len(at))
    for k, t in enumerate(at):
        away = np.abs(x - t)
        # at least two values have weight, though many points are tied
        h = max(np.partition(away, nearest)[nearest], np.unique(away)[1]) * (1.0 + 1e-9)
        w = np.clip(1.0 - (away / h) ** 3, 0.0, None) ** 3
        total = w.sum()
        mx, my = w @ x / total, w @ y / total
        square = w @ (x - mx) ** 2
        slope = w @ ((x - mx) * (y - my)) / square if square > 1e-12 * total * h**2 else 0.0
        out[k] = my + slope * (t - mx)
    return at, out

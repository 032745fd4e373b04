"""Robust locally linear regression (lowess), with interpolation between points that are close.

Source: Cleveland (1979), doi:10.1080/01621459.1979.10481038; (1981), doi:10.2307/2683591.
"""

from __future__ import annotations

import numpy as np


def lowess(
    x: np.ndarray, y: np.ndarray, span: float = 2 / 3, iterations: int = 3, delta: float | None = None
) -> np.ndarray:
    """Fitted values (n,) of y at x (n,), in any order.

    A line is fitted to the `span` n nearest points, with tricube weights of their distances, and then with
    bisquare weights of the residuals in units of six times their median. Points closer than `delta` to the
    last one that was fitted are interpolated.

    Parameters
    ----------
    span : share of the points. iterations : how often residuals give new weights.
    delta : by default 1 % of the range of x.
    """
    order = np.argsort(x, kind="stable")
    x, y = np.asarray(x, float)[order], np.asarray(y, float)[order]
    n = len(x)
    if n < 2:
        return y.copy()
    near = 0.01 * (x[-1] - x[0]) if delta is None else float(delta)
    width = max(2, min(n, int(span * n + 1e-7)))
    robust, fit = np.ones(n), np.empty(n)
    for step in range(iterations + 1):
        fit = _pass(x, y, robust, width, near)
        residual = np.abs(y - fit)
        six = 6.0 * np.median(residual)
        if step == iterations or six <= 1e-7 * residual.mean():
            break
        robust = np.where(residual <= 0.001 * six, 1.0, (1.0 - (residual / six) ** 2) ** 2)
        robust[residual > 0.999 * six] = 0.0
    out = np.empty(n)
    out[order] = fit
    return out


def _pass(x: np.ndarray, y: np.ndarray, robust: np.ndarray, width: int, delta: float) -> np.ndarray:
    n, fit = len(x), np.empty(len(x))
    left, last, i = 0, -1, 0
    while True:
        # the window of the nearest points
        while left + width < n and x[i] - x[left] > x[left + width] - x[i]:
            left += 1
        fit[i] = _at(x, y, robust, i, left, left + width - 1)
        if last >= 0 and last < i - 1:
            share = (x[last + 1 : i] - x[last]) / (x[i] - x[last])
            fit[last + 1 : i] = share * fit[i] + (1.0 - share) * fit[last]
        tied = int(np.searchsorted(x, x[i], "right")) - 1
        fit[i : tied + 1] = fit[i]
        last = tied
        if last >= n - 1:
            return fit
        i = max(last + 1, int(np.searchsorted(x, x[last] + delta, "right")) - 1)


def _at(x: np.ndarray, y: np.ndarray, robust: np.ndarray, i: int, left: int, right: int) -> float:
    """The line at x_i; y_i where all weights are zero."""
    n, h = len(x), max(x[i] - x[left], x[right] - x[i])
    # ties of the last point belong to the window
    end = max(right + 1, int(np.searchsorted(x, x[i] + h, "right")))
    near, value = x[left : min(end, n)], y[left : min(end, n)]
    distance = np.abs(near - x[i])
    w = np.where(distance <= 0.001 * h, 1.0, (1.0 - (distance / (h or 1.0)) ** 3) ** 3)
    w = np.where(distance <= 0.999 * h, w * robust[left : min(end, n)], 0.0)
    total = w.sum()
    if total <= 0.0:
        return float(y[i])
    w = w / total
    centre = w @ near
    spread = w @ (near - centre) ** 2
    if h > 0.0 and np.sqrt(spread) > 0.001 * (x[-1] - x[0]):
        w = w * ((x[i] - centre) / spread * (near - centre) + 1.0)
    return float(w @ value)

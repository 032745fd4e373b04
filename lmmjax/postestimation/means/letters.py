"""Which means differ, at a glance: letters that means have in common, and arrows that overlap, where they do
not."""

from __future__ import annotations

import numpy as np

ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def letters(values: np.ndarray, different: np.ndarray) -> list[str]:
    """Letters of k means, of which two share one if and only if they are not different.

    The insert-and-absorb algorithm, with letters swept away that do nothing.

    Parameters
    ----------
    values : (k,) by which they are ordered, the smallest has an "a"; NaN gets no letter.
    different : (k, k) symmetric, bool.

    Source: Piepho (2004), doi:10.1198/1061860043515.
    """
    order = [int(k) for k in np.argsort(values, kind="stable") if np.isfinite(values[k])]
    groups = [frozenset(order)] if order else []
    for a, i in enumerate(order):
        for j in order[a + 1 :]:
            if different[i, j]:
                groups = _split(groups, i, j)
    groups = _swept(groups)
    place = {k: n for n, k in enumerate(order)}
    groups.sort(key=lambda group: sorted(place[k] for k in group))
    out = [""] * len(values)
    for n, group in enumerate(groups):
        # beyond the alphabet two characters a group
        letter = ALPHABET[n] if n < len(ALPHABET) else f".{n}"
        for k in range(len(values)):
            out[k] += letter if k in group else ""
    return out


def _split(groups: list[frozenset[int]], i: int, j: int) -> list[frozenset[int]]:
    """Groups none of which has both i and j, without those that are part of another."""
    apart = [g for group in groups for g in ((group - {i}, group - {j}) if {i, j} <= group else (group,))]
    found: list[frozenset[int]] = []
    for group in sorted(dict.fromkeys(apart), key=len, reverse=True):
        if not any(group <= other for other in found):
            found.append(group)
    return found


def _swept(groups: list[frozenset[int]]) -> list[frozenset[int]]:
    """Without groups whose pairs are all together in others as well."""
    left = sorted(groups, key=len)
    for group in list(left):
        others = [other for other in left if other != group]
        pairs = [(i, j) for i in group for j in group if i <= j]
        if all(any(i in other and j in other for other in others) for i, j in pairs):
            left = others
    return left


def arrows(values: np.ndarray, margins: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Half-lengths r (k,) of arrows that overlap, r_i + r_j > |difference|, if means do not differ.

    Least squares of r_i + r_j − margin_ij, weighted so that the closest decisions count most.

    Parameters
    ----------
    values : (k,); margins : (k, k) least significant differences, NaN where there is none.

    Returns
    -------
    r, and the pairs for which no such lengths were found.
    """
    from scipy.optimize import nnls

    k = len(values)
    pairs = [
        (i, j)
        for i in range(k)
        for j in range(i + 1, k)
        if np.isfinite(margins[i, j] + values[i] - values[j])
    ]
    if not pairs:
        return np.zeros(k), []
    first, second = np.array(pairs).T
    margin, gap = margins[first, second], np.abs(values[first] - values[second])
    weight = 1.0 / (0.01 * margin.max() + np.abs(gap - margin))
    design = np.zeros((len(pairs), k))
    design[np.arange(len(pairs)), first] = design[np.arange(len(pairs)), second] = weight
    r = nnls(design, weight * margin)[0]
    wrong = (r[first] + r[second] > gap) != (margin > gap)
    return r, [pair for pair, bad in zip(pairs, wrong, strict=True) if bad]

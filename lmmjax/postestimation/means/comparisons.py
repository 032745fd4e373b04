"""All pairwise comparisons of marginal means as letters and as arrows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from lmmjax.fitted import Fitted, FittedMany
from lmmjax.postestimation.means.batch_means import contrasts_of_many, means_of_many
from lmmjax.postestimation.means.letters import arrows, letters
from lmmjax.postestimation.means.linear import Functions, View, estimates
from lmmjax.postestimation.means.tables import (
    Contrasted,
    contrast_table,
    means_table,
    on_response,
    simultaneous,
)


def letter_table(
    fitted: Fitted, functions: Functions, pairs: Contrasted, how: View, alpha: float
) -> pd.DataFrame:
    """The table of means by increasing estimate in each family, with a column `group` of letters."""
    compared = contrast_table(fitted, pairs, how)
    table, p, parts = means_table(fitted, functions, how), compared["p"].to_numpy(), []
    values = table["estimate"].to_numpy()
    different = square(functions, np.where(np.isnan(p), 1.0, p)) < alpha
    for _, at in functions.families():
        own = table.iloc[at].assign(group=letters(values[at], different[np.ix_(at, at)]))
        parts.append(own.sort_values("estimate", kind="stable"))
    out = pd.concat(parts, ignore_index=True)
    out.attrs.update(table.attrs | {"alpha": alpha, "adjust": compared.attrs["adjust"]})
    return out


def letters_of_many(
    fits: FittedMany, functions: Functions, pairs: Contrasted, how: View, alpha: float
) -> pd.DataFrame:
    """The table of means of every response, with a column `group` of letters."""
    table = means_of_many(fits, functions, how)
    count, k = len(fits.names), len(functions.labels)
    values = table["estimate"].to_numpy().reshape(count, k)
    p = contrasts_of_many(fits, pairs, how)["p"].to_numpy().reshape(count, -1)
    groups = np.full((count, k), "", dtype=object)
    for j in range(count):
        different = square(functions, np.where(np.isnan(p[j]), 1.0, p[j])) < alpha
        for _, at in functions.families():
            groups[j, at] = letters(values[j, at], different[np.ix_(at, at)])
    return table.assign(group=groups.ravel())


def comparison_arrows(
    fitted: Fitted, functions: Functions, pairs: Contrasted, how: View
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Ends (k, 2) of arrows on the scale that is reported, and the pairs for which they mislead.

    Two arrows of a family overlap where their means do not differ at the level of the limits.
    """
    linear = dataclasses.replace(how, back=None, sigma=None)
    table, margin = simultaneous(fitted, pairs, linear)
    margins = square(functions, margin * table["se"])
    own = estimates(fitted, functions, how)
    length, wrong = np.zeros(len(margins)), []
    for _, at in functions.families():
        length[at], misled = arrows(own["estimate"][at], margins[np.ix_(at, at)])
        wrong += [(int(at[i]), int(at[j])) for i, j in misled]
    ends = {"lower": own["estimate"] - length, "upper": own["estimate"] + length}
    if how.back is not None:
        ends = on_response(how.back, how.sigma, own | ends)
    return np.column_stack([ends["lower"], ends["upper"]]), wrong


def square(functions: Functions, values: np.ndarray) -> np.ndarray:
    """Values of the pairs of all families as a symmetric matrix (k, k), NaN elsewhere."""
    k, start = len(functions.labels), 0
    out = np.full((k, k), np.nan)
    for _, at in functions.families():
        first, second = (at[own] for own in np.triu_indices(len(at), 1))
        out[first, second] = out[second, first] = values[start : start + len(first)]
        start += len(first)
    return out

"""Which random term has which kernel, and the levels of the data among those of a kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.formula.columns import nearest
from lmmjax.formula.levels import Levels
from lmmjax.formula.relationships.kernels import Kernel
from lmmjax.formula.text.bars import Bar


def as_kernel(value: Any, factor: str) -> Kernel | None:
    """What was passed as a kernel of a factor."""
    if value is None or isinstance(value, Kernel):
        return value
    if hasattr(value, "kernel") and isinstance(value.kernel, Kernel):
        return value.kernel
    try:
        return Kernel(value)
    except ValueError as error:
        raise ValueError(f"the kernel of {factor!r}: {error}") from None


def kernel_terms(
    bars: Sequence[Bar], kernels: Mapping[str, Any] | None
) -> list[tuple[Bar, Kernel | None, str]]:
    """Every random term with its kernel and the name of its group.

    A term of a factor with several kernels is one for each. Kernels of a term, "1 | id", go before those of
    its factor.

    Raises
    ------
    ValueError : a kernel for what is no factor right of a bar, nor a term.
    """
    if not kernels:
        return [(bar, None, ":".join(bar.group)) for bar in bars]
    if not isinstance(kernels, Mapping):
        raise ValueError('kernels is a dict, the factor right of a bar before its kernel: {"id": K}')
    homes = {key: ":".join(bar.group) for bar in bars for key in (bar.text, ":".join(bar.group))}
    chosen: dict[str, list[tuple[Kernel | None, str]]] = {}
    for key, given in kernels.items():
        text = " ".join(str(key).strip().removeprefix("(").removesuffix(")").split())
        if text not in homes:
            raise ValueError(f"kernels: no random term of {key!r}: {nearest(str(key), dict.fromkeys(homes))}")
        if any(len(bar.group) > 1 and ":".join(bar.group) == homes[text] for bar in bars):
            raise ValueError(
                f"kernels: {homes[text]!r} is an interaction: make one column of it, of labels of the kernel"
            )
        chosen[text] = _several(homes[text], given)
    out = []
    for bar in bars:
        factor = ":".join(bar.group)
        own = chosen.get(bar.text) or chosen.get(factor) or [(None, factor)]
        out += [(bar, kernel, label) for kernel, label in own]
    return out


def _several(factor: str, given: Any) -> list[tuple[Kernel | None, str]]:
    """The kernels of a factor, each with the name of its group."""
    if isinstance(given, Mapping):
        named = [(as_kernel(value, factor), str(name)) for name, value in given.items()]
        out = [(kernel, factor if kernel is None else f"{factor}[{name}]") for kernel, name in named]
    elif isinstance(given, list | tuple) and (not given or not _numbers(given)):
        found = [as_kernel(value, factor) for value in given]
        out = []
        for k, kernel in enumerate(found, 1):
            label = str(k) if kernel is None or kernel.name is None else kernel.name
            out.append((kernel, factor if kernel is None else f"{factor}[{label}]"))
    else:
        return [(as_kernel(given, factor), factor)]
    if not out:
        raise ValueError(f"kernels: {factor!r} has an empty list: leave it out")
    labels = [label for _, label in out]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise ValueError(f"kernels: two of {factor!r} are {twice[0]!r}: give the kernels different names")
    return out


def _numbers(given: Sequence[Any]) -> bool:
    """Whether a list is the rows of one matrix."""
    return all(isinstance(row, list | tuple) and row and np.isscalar(row[0]) for row in given)


def kernel_levels(kernel: Kernel, group: str, name: str, column: pd.Series) -> tuple[np.ndarray, Levels]:
    """(n,) int32 codes of the rows, and the levels of the kernel; ValueError for labels that it lacks."""
    levels = Levels((name,), (kernel.ids,), (), kernel.ids)
    codes = levels.codes([column])
    absent = np.flatnonzero(codes < 0)
    if len(absent):
        found = list(dict.fromkeys(column.iloc[absent].tolist()))
        shown = ", ".join(repr(label) for label in found[:3]) + (", …" if len(found) > 3 else "")
        texts = set(map(str, kernel.ids))
        hint = (
            "they read like labels of the kernel and are of another type: give both the same type"
            if all(str(label) in texts for label in found)
            else "give the kernel all levels of the data, or drop these rows"
        )
        raise ValueError(f"the kernel of {group!r} has no level {shown} ({len(found)} of the data): {hint}")
    return codes, levels


def same_kernel(one: Kernel | None, two: Kernel | None) -> bool:
    """Whether two terms have the same covariances of levels."""
    if one is two:
        return True
    if one is None or two is None or not one.ids.equals(two.ids):
        return False
    return one.levels.same(two.levels)


def kernels_of(random: Sequence[Any]) -> dict[str, Any] | None:
    """The kernels of random terms of a frame, as `lmm` takes them."""
    out: dict[str, Any] = {}
    for term in random:
        own = out.setdefault(term.text, {})
        own[term.group[len(term.factor) + 1 : -1]] = term.kernel
    return {text: own[""] if list(own) == [""] else own for text, own in out.items()} or None


def kernels_left(kernels: Mapping[str, Any] | None, bars: Sequence[Bar]) -> dict[str, Any] | None:
    """The kernels of factors and terms that are still there."""
    if kernels is None:
        return None
    known = {key for bar in bars for key in (bar.text, ":".join(bar.group))}
    return {key: given for key, given in kernels.items() if key in known} or None

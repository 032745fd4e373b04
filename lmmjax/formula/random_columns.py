"""The columns of random terms: what is left of the bar, codes and levels of what is right of it."""

from __future__ import annotations

import numpy as np

from lmmjax.covariance import family
from lmmjax.formula.columns import Table
from lmmjax.formula.frame import RandomColumns
from lmmjax.formula.levels import group_levels
from lmmjax.formula.occasions import column_places, require_columns
from lmmjax.formula.parts import Part
from lmmjax.formula.relationships.kernels import Kernel
from lmmjax.formula.relationships.terms import kernel_levels
from lmmjax.formula.text.bars import Bar


def random_columns(
    terms: list[tuple[Bar, Kernel | None, str]],
    parts: dict[str, Part],
    matrices: dict[str, np.ndarray],
    table: Table,
    rows: np.ndarray,
    kinds: dict[str, str],
) -> tuple[RandomColumns, ...]:
    """The random terms with their kernels, or None, and the names of their groups, evaluated on `rows`."""
    coded, out = {}, []
    for bar, kernel, group in terms:
        part = parts[bar.text]
        for name in part.bare & set(bar.group):
            if bar.structure == "us" and (len(bar.group) == 1 or kinds[name] in ("category", "bool")):
                raise ValueError(
                    f"{name!r} is on both sides of the bar in ({bar.text}): take it off the left"
                )
        if not part.names:
            raise ValueError(f"({bar.text}) has no columns left of the bar: write 1 for an intercept")
        if kernel is not None:
            codes, levels = kernel_levels(kernel, group, bar.group[0], table.take(bar.group[0], rows))
        else:
            if bar.group not in coded:
                coded[bar.group] = group_levels(bar.group, [table.take(name, rows) for name in bar.group])
            codes, levels = coded[bar.group]
        own = family(bar.structure, *bar.args)
        require_columns(bar.text, own, matrices[bar.text], part)
        places = column_places(bar.text, own, part, table, table.index[rows])
        out.append(
            RandomColumns(
                z=matrices[bar.text],
                names=tuple("(Intercept)" if name == "Intercept" else name for name in part.names),
                group=group,
                codes=codes,
                levels=levels.labels,
                structure=bar.structure,
                args=bar.args,
                text=bar.text,
                _levels=levels,
                places=places,
                kernel=kernel,
            )
        )
    return tuple(out)

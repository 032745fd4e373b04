"""Numbers and tables as text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, its cells padded; a column whose name ends in `:` is aligned right."""
    right = [name.endswith(":") for name in columns]
    lines = [[name.removesuffix(":") for name in columns]]
    lines += [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]

    def joined(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    padded = [
        joined(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True))
        for line in lines
    ]
    rule = joined("-" * (w - r) + ":" * r for w, r in zip(widths, right, strict=True))
    return "\n".join([padded[0], rule, *padded[1:]])


def duration(seconds: float | None) -> str:
    """Three significant digits with a unit: `232 ns`, `4.31 ms`, `1.20 h`."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(seconds) >= size * (2 if unit in ("h", "min") else 1):
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def count(number: float | None) -> str:
    """A whole number with separators; nothing of None."""
    return "" if number is None else f"{number:,.0f}"


def ratio(numerator: float | None, denominator: float | None) -> str:
    """How many times as much; nothing where one is unknown."""
    if not numerator or not denominator:
        return ""
    times = numerator / denominator
    return f"{times:,.1f}" if times < 100 else f"{times:,.0f}"


def small_number(value: float | None) -> str:
    """Two significant digits of a gap or an error; nothing of None."""
    return "" if value is None else "failed" if math.isnan(value) else f"{value:.1e}"

"""Tables of text as plain text, HTML, LaTeX and Markdown, by the standard library alone."""

from __future__ import annotations

import abc
import dataclasses
import shutil
import textwrap
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any

from lmmjax.reports.escapes import latex_text, markdown_text

NARROWEST = 80
"""Characters of a line below which nothing is broken."""


LABEL = 30
"""Characters that a label may have beside numbers that fill a line."""

WHOLE: Any = {"break_on_hyphens": False}
"""How lines are broken: names that have a hyphen stay whole."""


def line_width() -> int:
    """Characters of a line of the terminal."""
    return max(shutil.get_terminal_size().columns, NARROWEST)


def wrapped(lines: Iterable[str], indent: str = "  ", first: str = "") -> list[str]:
    """Lines broken at the width of the terminal, with what they and their continuations begin with."""
    options = {"initial_indent": first, "subsequent_indent": indent, **WHOLE}
    broken = [textwrap.wrap(line, line_width(), **options) or [line] for line in lines]
    return [part for line in broken for part in line]


@dataclasses.dataclass(frozen=True)
class Grid:
    """A table of text.

    Attributes
    ----------
    header : names of the k columns; rows : of k cells each. Spaces at the end of a cell stand for stars that
        others of its column have.
    title : what it is of, or "".
    left : the columns that are aligned at the left; others are at the right.
    labels : how many columns are repeated where others go below.
    rules : positions of rows before which there is a line.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    left: frozenset[int] = frozenset({0})
    labels: int = 1
    rules: frozenset[int] = frozenset()

    def text(self, width: int | None = None, rule: str = "") -> str:
        """Lines of at most `width` characters, those of the terminal if None; other columns go below.

        Parameters
        ----------
        rule : the character of lines, "" for none of them.
        """
        lines, width = (self.header, *self.rows), width or line_width()
        widths = [max(len(line[k]) for line in lines) for k in range(len(self.header))]
        if self.labels and sum(w + 1 for w in widths) > width:
            # a long label has a line of its own
            last, others = self.labels - 1, sum(w + 1 for w in widths) - widths[self.labels - 1]
            most = width - others if width - others >= LABEL else LABEL
            widths[last] = max([len(line[last]) for line in lines if len(line[last]) <= most], default=0)
        blocks = []
        for chosen in _fitting(widths, width, self.labels):
            line = " " + rule * (sum(widths[k] + 1 for k in chosen) - 1)
            block = self._lines(self.header, widths, chosen, width) * any(self.header)
            block += [line] * bool(rule)
            for at, row in enumerate(self.rows):
                block += [line] * bool(rule and at in self.rules)
                block += self._lines(row, widths, chosen, width)
            blocks.append("\n".join(block))
        return "\n\n".join(blocks)

    def _lines(self, cells: Sequence[str], widths: list[int], chosen: list[int], width: int) -> list[str]:
        label, out = " ".join(cells[: self.labels]).strip(), []
        if self.labels and len(cells[self.labels - 1]) > widths[self.labels - 1]:
            out = textwrap.wrap(label, width, initial_indent=" ", subsequent_indent="   ", **WHOLE)
            cells = (*[""] * self.labels, *cells[self.labels :])
        parts = [cells[k].ljust(widths[k]) if k in self.left else cells[k].rjust(widths[k]) for k in chosen]
        return [*out, (" " + " ".join(parts)).rstrip()]

    def html(self) -> str:
        """A table of lines above and below, as in books, its numbers at the right."""
        parts = [f'<table style="{_TABLE}">']
        if self.title:
            parts.append(f'<caption style="{_CAPTION}">{escape(self.title)}</caption>')
        if any(self.header):
            cells = "".join(self._cell("th", k, name) for k, name in enumerate(self.header))
            parts.append(f"<thead><tr>{cells}</tr></thead>")
        parts.append("<tbody>")
        for at, row in enumerate(self.rows):
            ruled = at == 0 or at in self.rules
            parts.append(
                "<tr>" + "".join(self._cell("td", k, cell, ruled) for k, cell in enumerate(row)) + "</tr>"
            )
        return "".join([*parts, "</tbody></table>"])

    def _cell(self, tag: str, k: int, text: str, ruled: bool = False) -> str:
        side = "left" if k in self.left else "right"
        line = f"; {_RULE}" if ruled else ""
        stars = len(text) - len(text.rstrip())
        hidden = f'<span style="visibility: hidden">{"*" * stars}</span>' if stars else ""
        return f'<{tag} style="{_CELL}; text-align: {side}{line}">{escape(text.rstrip())}{hidden}</{tag}>'

    def latex(self, caption: str = "", label: str = "") -> str:
        """A `tabular` with the rules of booktabs, in a `table` where it has a caption or a label."""
        columns = "".join("l" if k in self.left else "r" for k in range(len(self.header)))
        lines = [f"\\begin{{tabular}}{{{columns}}}", "\\toprule"]
        if any(self.header):
            lines += [_latex_row(self.header), "\\midrule"]
        for at, row in enumerate(self.rows):
            lines += ["\\midrule"] * (at in self.rules and at > 0)
            lines.append(_latex_row(row))
        lines += ["\\bottomrule", "\\end{tabular}"]
        if not caption and not label:
            return "\n".join(lines)
        head = ["\\begin{table}", "\\centering"]
        head += [f"\\caption{{{latex_text(caption)}}}"] * bool(caption) + [f"\\label{{{label}}}"] * bool(
            label
        )
        return "\n".join([*head, *lines, "\\end{table}"])

    def markdown(self) -> str:
        """A pipe table, as GitHub, Pandoc and Jupyter read it."""
        lines = [[markdown_text(cell.rstrip()) for cell in line] for line in (self.header, *self.rows)]
        widths = [max(3, *(len(line[k]) for line in lines)) for k in range(len(self.header))]
        rule = ["-" * w if k in self.left else "-" * (w - 1) + ":" for k, w in enumerate(widths)]
        lines.insert(1, rule)
        return "\n".join(
            "| "
            + " | ".join(
                cell.ljust(w) if k in self.left else cell.rjust(w)
                for k, (cell, w) in enumerate(zip(line, widths, strict=True))
            )
            + " |"
            for line in lines
        )


_RULE = "border-top: 1px solid"
_TABLE = f"border-collapse: collapse; border: none; {_RULE}; border-bottom: 1px solid; margin: 0.5em 0"
_CAPTION = "text-align: left; caption-side: top; white-space: nowrap"
_CELL = "border: none; padding: 0.15em 0.6em; background: none"


class Markup(abc.ABC):
    """Text and tables that are written in several markup languages; a notebook shows the HTML."""

    @abc.abstractmethod
    def _pieces(self) -> Sequence[str | Grid]:
        """Lines of text and tables, in order."""

    def to_html(self) -> str:
        """The whole as HTML: numbers at the right, no colours, styles in the elements themselves."""
        parts = [
            piece.html() if isinstance(piece, Grid) else f"<div>{escape(piece)}</div>"
            for piece in self._pieces()
            if piece
        ]
        return "<div>" + "".join(parts) + "</div>"

    def to_latex(self) -> str:
        r"""The whole as LaTeX, special characters escaped; tables are a `tabular`, with rules of booktabs.

        The document needs `\usepackage{booktabs}`.
        """
        return _paragraphs(self._pieces(), latex_text, Grid.latex, "\\textbf{{{}}}".format)

    def to_markdown(self) -> str:
        """The whole as Markdown: pipe tables, what Markdown would read as markup escaped."""
        return _paragraphs(self._pieces(), markdown_text, Grid.markdown, "**{}**".format)

    def _repr_html_(self) -> str:
        return self.to_html()


def _paragraphs(
    pieces: Sequence[str | Grid],
    text: Callable[[str], str],
    table: Callable[[Grid], str],
    title: Callable[[str], str],
) -> str:
    """Pieces as paragraphs, every line one of its own."""
    out: list[str] = []
    for piece in pieces:
        if not isinstance(piece, Grid):
            out += [text(piece)] * bool(piece)
            continue
        out += [title(text(piece.title))] * bool(piece.title)
        out.append(table(piece))
    return "\n\n".join(out)


def _fitting(widths: list[int], width: int, labels: int) -> list[list[int]]:
    """Columns of blocks that are at most `width` wide, each beginning with the first `labels`."""
    first = list(range(min(labels, len(widths))))
    start = sum(1 + widths[k] for k in first)
    blocks: list[list[int]] = [list(first)]
    used = start
    for k in range(len(first), len(widths)):
        if used + 1 + widths[k] > width and len(blocks[-1]) > len(first):
            blocks.append(list(first))
            used = start
        blocks[-1].append(k)
        used += 1 + widths[k]
    return blocks


def _latex_row(cells: Sequence[str]) -> str:
    out = []
    for cell in cells:
        stars = len(cell) - len(cell.rstrip())
        out.append(latex_text(cell.rstrip()) + (f"\\phantom{{{'*' * stars}}}" if stars else ""))
    # LaTeX would read a bracket or a star after the end of a row as its argument
    if out and out[0].startswith(("[", "*")):
        out[0] = f"{{}}{out[0]}"
    return " & ".join(out) + r" \\"

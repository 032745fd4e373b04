"""Tables in HTML, LaTeX and Markdown have the cells that they have in print, whatever these are called."""

import html
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

import lmmjax as lj
from lmmjax.reports.cells import grid_of
from lmmjax.reports.escapes import latex_text, markdown_text
from lmmjax.reports.markup import Grid
from lmmjax.reports.table import as_table

ODD = r'a_b|c*d <e> & 5% #1 {x} ~z^2 \n "q" [l](u) `k` $m$'


class Cells(HTMLParser):
    """Rows of the text of cells, and how many are at the right."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.right, self.inside, self.hidden = [], 0, False, False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        style = dict(attrs).get("style", "")
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside, self.right = True, self.right + ("text-align: right" in style)
        self.hidden = "visibility: hidden" in style

    def handle_endtag(self, tag):
        self.inside, self.hidden = self.inside and tag not in ("td", "th"), False

    def handle_data(self, data):
        if self.inside and not self.hidden:
            self.rows[-1][-1] += data


def from_markdown(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert all(set(cell) <= {"-", ":"} for cell in cells.pop(1))
    return [[re.sub(r"\\([^a-z\s])", r"\1", cell) for cell in row] for row in cells]


def from_latex(text):
    rows = [line for line in text.splitlines() if line.endswith(r" \\")]
    return [re.split(r"(?<!\\) & ", f" {row[:-3]} ") for row in rows]


def stripped(grid):
    return [[cell.rstrip() for cell in line] for line in (grid.header, *grid.rows)]


@pytest.fixture(scope="module")
def grids(fit):
    means = fit.emmeans("Days", at={"Days": [0, 5]})
    tables = [*fit.summary(correlation=True).tables, *(p for p in means._pieces() if isinstance(p, Grid))]
    tables += [grid_of(fit.tidy()), grid_of(fit.predict(se=True).head(3), index=True)]
    tables += [p for p in lj.modeltable([fit, fit])._pieces() if isinstance(p, Grid)]
    return [*tables, Grid((ODD, "n"), ((ODD, "-1.5e-16"), ("[x]", "2**")))]


def test_cells_are_the_same_everywhere(grids):
    for grid in grids:
        read = Cells(grid.html())
        assert read.rows == stripped(grid)
        count = len(read.rows) * (len(grid.header) - len(grid.left))
        assert read.right == count
        assert from_markdown(grid.markdown()) == stripped(grid)
        wanted = [[latex_text(cell) for cell in line] for line in stripped(grid)]
        found = [
            [re.sub(r"\\phantom{\**}|^{}", "", c.strip()) for c in row] for row in from_latex(grid.latex())
        ]
        assert found == wanted
        lines = grid.text(width=200).splitlines()
        assert [line.split() for line in lines] == [" ".join(row).split() for row in stripped(grid)]


def test_text_that_means_something():
    assert html.unescape(Grid((ODD,), ()).html()).count(ODD) == 1
    assert re.sub(r"\\([^a-z\s])", r"\1", markdown_text(ODD)) == ODD
    assert "\n" not in markdown_text("a\nb") + latex_text("a\nb")
    # no character that LaTeX would act upon is left bare
    assert re.sub(r"\\[a-z]+{}|\\[&%$#_{}]|\$[<>]\$", "", latex_text(ODD)).isascii()
    assert not set(re.sub(r"\\[a-z]+({})?|\\[&%$#_{}]|\$[<>]\$", "", latex_text(ODD))) & set("\\&%$#_{}~^<>|")
    assert latex_text("-1.5, 2e-16 x-1 1e+05") == r"$-$1.5, 2$\times 10^{-16}$ x-1 1$\times 10^{5}$"
    assert latex_text("σ² ≤ 3") == r"$\sigma$\textsuperscript{2} $\leq$ 3"


def test_columns_that_do_not_fit_go_below():
    grid = Grid(("name", *(f"column {k}" for k in range(20))), (("row", *map(str, range(20))),))
    text = grid.text(width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert all(f"column {k}" in text for k in range(20))
    assert len(re.findall("row", text)) == text.count("\n\n") + 1


@pytest.mark.parametrize("digits", [3, 5])
def test_numbers_of_a_column_share_their_digits(digits):
    frame = pd.DataFrame(
        {
            "estimate": [251.40512, 10.46731],
            "se": [6.82456, 1.54579],
            "df": [17.0, 161.0],
            "p": [1e-20, 0.01234],
            "whole": [3.0, 5.0],
            "wide": [12345.678, 0.01234],
            "tiny": [1e-12, 3e5],
            "none": [np.nan, np.nan],
            "text": ["a\nb", None],
            "day": pd.to_datetime(["2024-01-01", None]),
        }
    )
    cells = dict(zip(frame.columns, zip(*grid_of(frame, digits).rows, strict=True), strict=True))
    assert [len(cell.partition(".")[2]) for cell in cells["estimate"] + cells["se"]] == [digits - 2] * 4
    assert cells["p"] == ("<2e-16", "0.0123")
    assert (cells["whole"], cells["df"]) == (("3", "5"), ("17", "161"))
    assert (cells["none"], cells["text"]) == (("NaN", "NaN"), ("a b", ""))
    assert cells["day"] == ("2024-01-01", "")
    # two digits at least of every number
    for name in ("wide", "tiny"):
        found = np.array(list(map(float, cells[name])))
        np.testing.assert_allclose(found, frame[name], rtol=0.05)


def test_tables_write_themselves(fit, tmp_path):
    table = fit.coef_table()
    assert from_markdown(table.to_markdown())[1][:2] == ["Intercept", "251.405"]
    assert r"\caption{A \& B}" in table.to_latex(caption="A & B", label="tab:ab")
    assert r"\label{tab:ab}" in table.to_latex(caption="A & B", label="tab:ab")
    assert table.to_html(tmp_path / "table.html") is None
    assert Cells((tmp_path / "table.html").read_text()).rows[0][1:] == list(table.columns)
    # options of pandas go to pandas
    assert "dataframe" in table.to_html(border=1)
    assert "visibility" not in table._repr_html_()
    levels = as_table(
        pd.DataFrame({"a": [1, 2, 3]}, index=pd.MultiIndex.from_tuples([("p", 1), ("p", 2), ("q", 1)]))
    )
    assert [row[:2] for row in Cells(levels._repr_html_()).rows[1:]] == [["p", "1"], ["", "2"], ["q", "1"]]
    long = as_table(pd.DataFrame({"a": np.arange(1000.0)}))
    shown = long._repr_html_()
    assert "1,000 rows" in shown
    assert 'border="1"' not in shown
    labels = [row[0] for row in Cells(shown).rows[1:]]
    assert labels == [*map(str, range(5)), "⋮", *map(str, range(995, 1000))]


def test_correlation_of_fixed_effects(fit):
    table = fit.summary(correlation=True).tables[-1]
    cov = fit.cov_params().to_numpy()
    assert table.rows == (("Days", f"{cov[1, 0] / np.sqrt(cov[0, 0] * cov[1, 1]):.3f}"),)
    assert len(fit.summary().tables) == len(fit.update("~ . - Days").summary(correlation=True).tables) == 3
    # lme4's documentation of sleepstudy has -0.138
    assert table.rows[0][1] == "-0.138"

"""Pictures of the page on plots: what its blocks draw, under the names that the page links to."""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt

PAGE = Path(__file__).parent / "plots.md"
BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n.*?^```\n)?(?:\n!\[[^\]]*\]\(_plots/(?P<name>\w+)\.png\))?",
    re.MULTILINE | re.DOTALL,
)


def draw_all(folder: Path) -> None:
    """All pictures, as PNG files in a folder."""
    matplotlib.use("Agg")
    folder, known = folder.resolve(), {}
    said = contextlib.redirect_stdout(io.StringIO())
    with tempfile.TemporaryDirectory() as aside, contextlib.chdir(aside), said:
        for block in BLOCK.finditer(PAGE.read_text()):
            exec(compile(block["code"], PAGE.name, "exec"), known)
            if block["name"]:
                plt.gcf().savefig(folder / f"{block['name']}.png", dpi=160)
            plt.close("all")

"""The Python of a page, run as one script, beside what the page says it prints.

`python tests/doc_pages.py docs/means.md …` writes the outputs of pages anew, without arguments of all.
"""

import contextlib
import io
import os
import re
import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).parents[1]
# the same call is made by tests/selfcheck; it takes long
ELSEWHERE = {"docs/self_check.md"}
VARIES = "<!-- varies -->"
"""Stands before an output whose numbers differ from run to run: times, chains."""

BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n"
    rf"(?:\n*(?P<varies>{re.escape(VARIES)}\n+)?^```(?:text)?\n(?P<output>.*?)^```\n)?",
    re.MULTILINE | re.DOTALL,
)
NUMBER = re.compile(r"(?<![\w.])[-+−]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[-+]?\d+)?(?!\w)|\b(?i:nan|inf)\b")


def pages() -> dict[str, str]:
    """The texts of README and of all pages of the documentation that have Python, by path."""
    files = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    texts = {str(file.relative_to(ROOT)): file.read_text() for file in files}
    return {
        name: text
        for name, text in texts.items()
        if name not in ELSEWHERE and not name.startswith("docs/_") and BLOCK.search(text)
    }


def printed(text: str, name: str, change=lambda code: code) -> list[str]:
    """What each block of a page prints, the blocks run in order in one namespace."""
    known, out = {"__name__": "__main__"}, []
    with warnings.catch_warnings():
        # what a page warns of is for its reader to judge
        warnings.simplefilter("ignore")
        for number, block in enumerate(BLOCK.finditer(text), 1):
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                exec(compile(change(block["code"]), f"{name}, block {number}", "exec"), known)
            out.append(said.getvalue())
    return out


def differences(shown: str, said: str, varies: bool = False) -> list[str]:
    """Where two outputs differ in words, or in a number by more than two units of its last digit.

    Blank lines and the widths of columns do not count, and no number where the output varies.
    """
    a, b = ([line.split() for line in text.splitlines() if line.strip()] for text in (shown, said))
    a, b = ([" ".join(line) for line in lines if not set("".join(line)) <= set("-─ ")] for lines in (a, b))
    if len(a) != len(b):
        return [f"{len(a)} lines are shown, {len(b)} printed:", *b]
    out = []
    for left, right in zip(a, b, strict=True):
        same = NUMBER.sub("#", left) == NUMBER.sub("#", right)
        numbers = zip(NUMBER.findall(left), NUMBER.findall(right), strict=False)
        if not same or not (varies or all(_close(x, y) for x, y in numbers)):
            out += [f"shown   {left}", f"printed {right}"]
    return out


def _close(shown: str, said: str) -> bool:
    """Whether two numbers agree to two units of the last digit shown, or to 1e-4 of their size."""
    texts = [text.replace(",", "").replace("−", "-") for text in (shown, said)]
    x, y = map(float, texts)
    if x != x or y != y:
        return x != x and y != y
    mantissa, _, power = texts[0].partition("e")
    unit = 10.0 ** (int(power or 0) - len(mantissa.partition(".")[2]))
    return x == y or abs(x - y) <= max(2.0 * unit * (1 + 1e-9) if "." in mantissa else 0.0, 1e-4 * abs(x))


def written(text: str, outputs: list[str]) -> str:
    """The page with these outputs below its blocks."""
    new = iter(outputs)

    def block(match: re.Match) -> str:
        said = "\n".join(line.rstrip() for line in next(new).strip("\n").split("\n"))
        code = f"```python\n{match['code']}```\n"
        return f"{code}\n{match['varies'] or ''}```text\n{said}\n```\n" if said else code

    return BLOCK.sub(block, text)


if __name__ == "__main__":
    chosen = {str(Path(path).resolve().relative_to(ROOT)) for path in sys.argv[1:]}
    for name, text in pages().items():
        if not chosen or name in chosen:
            with tempfile.TemporaryDirectory() as folder:
                os.chdir(folder)
                (ROOT / name).write_text(written(text, printed(text, name)))

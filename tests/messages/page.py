"""docs/messages.md from `cases`: `python tests/messages/page.py` writes it again."""

import re
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from cases import CASES
from setting import setting

PAGE = Path(__file__).parents[2] / "docs" / "messages.md"

HEAD = """# Messages

What is said about bad input, by kind; `tests/messages` makes this page and checks it. `d` is a data frame of
40 rows with columns y, x, t, w (numbers), g, h (groups), f, visit (text), day (dates) and one (constant);
`labelled` is the same with labelled rows, `fit` the model y ~ x + (1 | g), `model` that without its response,
`fits` a batch of `Y`, 40 × 3, `other` the same with other labels, `row` a new row, `problem(codes)` a call of
`problem_from_arrays`, `run` a command. Positions in formulas are shown with a caret, which is left out here.
"""


def said(code: str, names: dict[str, Any]) -> BaseException | None:
    """What the input raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            eval(code, dict(names))
        except Exception as error:
            return error
    return None


def line(code: str, error: BaseException | None, folder: Path) -> str:
    """The input with its message, in one line."""
    text = str(error.args[0] if isinstance(error, KeyError) else error)
    text = re.sub(r"\n[^\n]*\n *\^", "", text).replace(f"{folder}/", "")
    text = re.sub(r"[\d.,e+]+ GiB of memory, [\d.,e+]+ GiB are free", "… GiB of memory, … GiB are free", text)
    quote = "``" if "`" in code else "`"
    return f"- {quote}{code}{quote}\\\n  {type(error).__name__}: {' '.join(text.split())}"


def page(errors: dict[str, BaseException | None], folder: Path) -> str:
    """The page of the inputs' errors."""
    parts = [HEAD]
    for kind, cases in CASES.items():
        parts += [f"## {kind}\n", *(line(code, errors[code], folder) for code, *_ in cases), ""]
    return "\n".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        known = setting(place)
        PAGE.write_text(
            page({code: said(code, known) for cases in CASES.values() for code, *_ in cases}, place)
        )

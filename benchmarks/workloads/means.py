"""Marginal means of InstEval with Kenward-Roger: 28 means of 73,421 ratings, their 182 comparisons in two
families."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.harness.isolated import isolated
from benchmarks.harness.real import insteval
from benchmarks.harness.text import count, duration, markdown
from benchmarks.harness.timing import timed
from benchmarks.harness.workload import Options, Record, Workload, register

FORMULA = "y ~ dept * service + (1 | s) + (1 | d)"


def measure(ddf: str, small: bool, repeats: int | None) -> Record:
    """Means and all comparisons of departments by service of a model that is fitted."""
    import lmmjax as lj

    data = insteval(small=small)
    fit = lj.lmm(
        FORMULA,
        data.assign(dept=data["dept"].astype(str)),
    ).fit()

    def call() -> Any:
        fit.fitted.cache.clear()
        means = fit.emmeans("dept", by="service", ddf=ddf)
        return means.table, means.pairs().table

    found = timed(call, repeats or 5)
    means, pairs = found.result
    return {
        "rows": len(data),
        "means": len(means),
        "pairs": len(pairs),
        "cpu": min(found.processor),
    } | found.seconds


def run(options: Options) -> Iterator[Record]:
    for ddf in ("satterthwaite", "kenward-roger"):
        options.say(f"means: {ddf}")
        more = {"small": options.small, "repeats": options.repeats}
        yield {"ddf": ddf} | isolated(measure, timeout=options.timeout, ddf=ddf, **more)


def table(records: list[Record]) -> str:
    """A row a kind of degrees of freedom."""
    columns = ("df", "rows:", "means:", "pairs:", "first:", "warm:", "peak MiB:")

    def cells(got: Record) -> list[str]:
        sizes = [count(got[name]) for name in ("rows", "means", "pairs")]
        return [got["ddf"], *sizes, duration(got["first"]), duration(got["warm"]), count(got["peak_mib"])]

    return markdown(columns, map(cells, records))


register(
    Workload(
        id="means",
        title="Marginal means of InstEval and all their comparisons, after the fit; first and warm",
        goal="Kenward-Roger in seconds and under 2 GB; emmeans stops at 45,861 rows on 48 GB",
        run=run,
        table=table,
    )
)

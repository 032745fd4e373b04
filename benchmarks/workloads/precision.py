"""What float32 descents cost: batches by `dtype="float32"` beside the same in float64."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.harness.isolated import isolated
from benchmarks.harness.simulate import BALANCED, UNBALANCED, grouped_design, grouped_responses
from benchmarks.harness.text import count, duration, markdown, small_number
from benchmarks.harness.timing import timed
from benchmarks.harness.workload import Options, Record, Workload, register

MODELS = {
    "(1 | g)": ((101, 102), UNBALANCED, False, False, 20_000),
    "(1 + t | g), balanced t": ((211, 212), BALANCED, True, True, 20_000),
    "(1 + t | g), irregular t": ((201, 202), UNBALANCED, False, True, 5_000),
}
"""Seeds of design and responses, group sizes, whether times are balanced and slopes vary, responses."""


def measure(model: str, responses: int, repeats: int) -> Record:
    """Largest differences from float64, of responses that both certify, and warm times of both."""
    import lmmjax as lj

    seeds, sizes, balanced, slopes, _ = MODELS[model]
    design = grouped_design(seeds[0], sizes, balanced_time=balanced)
    y = np.ascontiguousarray(grouped_responses(seeds[1], design, responses, slopes=slopes).T)
    of = lj.lmm(f"~ t + x1 + x2 + {model.partition(',')[0]}", design)
    double = timed(lambda: of.fit_batch(y), repeats, 30.0)
    single = timed(lambda: of.fit_batch(y, dtype="float32"), repeats, 30.0)
    one, two = double.result, single.result
    both = one.converged & two.converged
    a, b = one.estimate, two.estimate
    se, other = (np.sqrt(np.diagonal(e.cov_beta, axis1=1, axis2=2)) for e in (a, b))
    largest = {
        "criterion": np.abs(a.deviance - b.deviance),
        "beta": np.abs(a.beta - b.beta) / se,
        "se": np.abs(se - other) / se,
        "psi": np.abs(a.psi - b.psi) / a.psi[:, -1:],
    }
    return {
        "both": int(both.sum()),
        "double": double.best,
        "single": single.best,
        **{name: float(np.max(value[both], initial=0.0)) for name, value in largest.items()},
    }


def run(options: Options) -> Iterator[Record]:
    for model, (*_, usual) in MODELS.items():
        responses = options.size(usual, 700)
        options.say(f"precision: {model}, {responses:,} responses")
        facts = {"model": model, "responses": responses}
        yield facts | isolated(measure, timeout=options.timeout, **facts, repeats=options.repeats or 5)


def table(records: list[Record]) -> str:
    """A row a model."""
    columns = ("model", "responses:", "certified by both:", "Δ criterion:", "Δβ̂/se:", "Δse/se:", "Δψ/σ²:")

    def cells(got: Record) -> list[str]:
        front = [f"`{got['model']}`", count(got["responses"]), count(got["both"])]
        apart = [small_number(got[name]) for name in ("criterion", "beta", "se", "psi")]
        return [*front, *apart, duration(got["double"]), duration(got["single"])]

    return markdown((*columns, "float64:", "float32:"), map(cells, records))


register(
    Workload(
        id="precision",
        title="Descents in float32 beside float64, 800 rows in 100 groups",
        goal="criteria within 1e-5, standard errors within 1e-3",
        run=run,
        table=table,
        counted="responses",
    )
)

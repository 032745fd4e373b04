"""W1: random intercepts, 20,000 responses on one unbalanced design."""

from benchmarks.simulate import UNBALANCED, grouped
from benchmarks.spec import Model, Term, Workload, register

W1 = register(
    Workload(
        id="W1",
        title="20,000 responses, n = 800, 100 groups of 6, 8 and 10, (1 | g), 4 fixed effects",
        varied="intraclass correlation (a fifth are zero), scale, fixed effects",
        goal="two cores, warm: ≥ 10,000 × lmer; one H100: ≤ 3 ms",
        kind="batch",
        model=Model(fixed="t + x1 + x2", terms=(Term("1", "g"),)),
        generate=grouped(101, 102, UNBALANCED, balanced_time=False, slopes=False),
        responses=20_000,
        small=200,
        checked=100,
    )
)

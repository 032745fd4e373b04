"""W1: random intercepts, 20,000 responses on one unbalanced design."""

from benchmarks.harness.runner import beside_peers
from benchmarks.harness.simulate import UNBALANCED, grouped
from benchmarks.harness.spec import Comparison, Model, Term
from benchmarks.harness.workload import register

MODEL = Model(fixed="t + x1 + x2", terms=(Term("1", "g"),))
DESIGN_SEED, SEED = 101, 102

register(
    beside_peers(
        Comparison(
            id="W1",
            title="20,000 responses, n = 800, 100 groups of 6, 8 and 10, (1 | g), 4 fixed effects",
            varied="intraclass correlation (a fifth are zero), scale, fixed effects",
            goal="two cores, warm: ≥ 10,000 × lmer; one H100: ≤ 3 ms",
            kind="batch",
            model=MODEL,
            generate=grouped(DESIGN_SEED, SEED, UNBALANCED, balanced_time=False, slopes=False),
            responses=20_000,
            small=200,
            checked=100,
        )
    )
)

"""W2: random intercepts and slopes, 20,000 responses; times irregular, or the same in every group."""

from benchmarks.harness.runner import beside_peers
from benchmarks.harness.simulate import BALANCED, UNBALANCED, grouped
from benchmarks.harness.spec import Comparison, Model, Term
from benchmarks.harness.workload import register

MODEL = Model(fixed="t + x1 + x2", terms=(Term("1 + t", "g"),))
VARIED = "covariance of intercept and slope (zero, no slope, correlation ±1 among them), scale, fixed effects"

register(
    beside_peers(
        Comparison(
            id="W2-irregular",
            title="20,000 responses, n = 800, 100 groups of 6, 8 and 10, (1 + t | g), irregular t",
            varied=VARIED,
            goal="two cores, warm: ≥ 600 × lmer; one H100: ≤ 10 ms",
            kind="batch",
            model=MODEL,
            generate=grouped(201, 202, UNBALANCED, balanced_time=False, slopes=True),
            responses=20_000,
            small=200,
            checked=60,
        )
    )
)

register(
    beside_peers(
        Comparison(
            id="W2-balanced",
            title="20,000 responses, n = 800, 100 groups of 8, (1 + t | g), t = 0 … 7 in every group",
            varied=VARIED,
            goal="two cores, warm: ≥ 10,000 × lmer; one H100: ≤ 10 ms",
            kind="batch",
            model=MODEL,
            generate=grouped(211, 212, BALANCED, balanced_time=True, slopes=True),
            responses=20_000,
            small=200,
            checked=60,
        )
    )
)

"""W3: every value of every response has a weight of its own."""

from benchmarks.harness.runner import beside_peers
from benchmarks.harness.simulate import SMALL_GROUPS, grouped, weighted
from benchmarks.harness.spec import Comparison, Model, Term
from benchmarks.harness.workload import register

register(
    beside_peers(
        Comparison(
            id="W3",
            title="5,000 responses, n = 400, 100 groups of 4, (1 | g), 4 fixed effects, weights of their own",
            varied="weights of every value, intraclass correlation (a fifth are zero), scale, fixed effects",
            goal="two cores, warm: ≥ 200 × lmer; one H100: ≥ 2,000 ×",
            kind="batch",
            model=Model(fixed="t + x1 + x2", terms=(Term("1", "g"),)),
            generate=weighted(grouped(301, 302, SMALL_GROUPS, balanced_time=False, slopes=False), 303),
            responses=5_000,
            small=600,
            checked=60,
            weighted=True,
        )
    )
)

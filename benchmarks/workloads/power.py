"""A power curve with random slopes: five sizes, 1,000 draws of each, Kenward-Roger for every draw.

The design is sleepstudy's: ten days of each subject, 10 to 50 subjects, its estimates, an effect of four
milliseconds a day. Beside it what simr does for a draw, with the functions that it calls: a response is
simulated and the model refitted by lme4, and pbkrtest tests the coefficient. Some draws of every size are
timed, in processor seconds of one core, and scaled to all.

What simr states: a curve of five sizes and 1,000 draws of each took 11 min 35 s, of 30 to 150 rows, a Poisson
model and z tests (the printed result in Green & MacLeod 2016, doi:10.1111/2041-210X.12504, as quoted in
public notes on it).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.harness.isolated import isolated
from benchmarks.harness.processes import PeerError, numbers
from benchmarks.harness.text import count, duration, markdown, ratio
from benchmarks.harness.timing import timed
from benchmarks.harness.workload import Options, Record, Workload, register

SIZES = (10, 20, 30, 40, 50)
EFFECT = 4.0

PER_DRAW = """
suppressMessages({library(lme4); library(pbkrtest)}); set.seed(1)
a <- as.integer(commandArgs(TRUE)); n <- a[1]; draws <- a[2]
full <- lmer(Reaction ~ Days + (Days | Subject), sleepstudy)
d <- expand.grid(Days = 0:9, Subject = factor(seq_len(n)))
b <- replace(fixef(full), 2, 4)
y <- simulate(~ Days + (Days | Subject), newdata = d, nsim = draws, family = gaussian,
  newparams = list(beta = b, theta = getME(full, "theta"), sigma = sigma(full)))
one <- function(k) {
  d$y <- y[[k]]
  m <- suppressMessages(suppressWarnings(lmer(y ~ Days + (Days | Subject), d)))
  r <- suppressMessages(suppressWarnings(update(m, . ~ . - Days)))
  KRmodcomp(m, r)$test["Ftest", "p.value"] < 0.05
}
s <- system.time(p <- mean(vapply(seq_len(draws), one, NA)))
cat((s[["user.self"]] + s[["sys.self"]]) / draws, p)
"""


def measure(draws: int, repeats: int | None) -> Record:
    """Seconds of the whole curve, and the curve."""
    import jax

    import lmmjax as lj
    from lmmjax.datasets import load

    fit = lj.lmm("Reaction ~ Days + (Days | Subject)", load("sleepstudy")).fit()
    keys = iter(range(1_000))

    def call() -> Any:
        return lj.power(
            fit,
            "Days",
            n={"Subject": list(SIZES)},
            effect=EFFECT,
            ddf="kenward-roger",
            key=jax.random.key(next(keys)),
            draws=draws,
        )

    found = timed(call, repeats or 5, 120.0)
    table = found.result.table
    return {
        "draws": draws,
        "power": table["power"].tolist(),
        "failed": int(table["failed"].sum()),
        "cpu": min(found.processor),
    } | found.seconds


def run(options: Options) -> Iterator[Record]:
    draws = 100 if options.small else 1_000
    options.say(f"power: {len(SIZES)} sizes of {draws} draws")
    got = {"sizes": list(SIZES)} | isolated(
        measure, timeout=options.timeout, draws=draws, repeats=options.repeats
    )
    if options.r:
        options.say("power: lme4 and pbkrtest, draw by draw")
        try:
            timed_draws = 5 if options.small else 20
            each = [numbers([options.r, "-e", PER_DRAW], n, timed_draws) for n in SIZES]
            got |= {"r_per_draw": [e[0] for e in each], "r_power": [e[1] for e in each]}
            got["r"] = draws * sum(e[0] for e in each)
        except PeerError as error:
            got["note"] = str(error)
    yield got


def table(records: list[Record]) -> str:
    """The curve's time, and the power by size."""
    columns = (
        "sizes",
        "draws of each:",
        "first:",
        "warm:",
        "CPU:",
        "lme4 and pbkrtest, CPU:",
        "ratio of CPU:",
        "power",
    )

    def cells(got: Record) -> list[str]:
        times = [duration(got[name]) for name in ("first", "warm", "cpu")]
        theirs = [duration(got.get("r")), ratio(got.get("r"), got["cpu"])]
        shown = ", ".join(f"{p:.2f}" for p in got["power"])
        return [", ".join(map(str, got["sizes"])), count(got["draws"]), *times, *theirs, shown]

    return markdown(columns, map(cells, records))


register(
    Workload(
        id="power",
        title="a power curve of sleepstudy's model, five sizes, 1,000 draws of each with Kenward-Roger",
        goal="under ten seconds warm; lme4 and pbkrtest draw by draw, which is what simr does",
        run=run,
        table=table,
    )
)

"""What the first call of a fit, its gradient and its Hessian costs inside a program of somebody else.

A fit of the size of sleepstudy with a traced design, `jax.jit` of a number that is made of it and of that
number's derivatives in y. Processor seconds of all threads, each order in a process of its own with nothing
kept from before: tracing and lowering, compiling as JAX does by itself, compiling without XLA's optimiser.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from benchmarks.harness.isolated import isolated
from benchmarks.harness.text import count, markdown
from benchmarks.harness.workload import Options, Record, Workload, register
from benchmarks.workloads.w11 import own_design, simulated

if TYPE_CHECKING:
    import jax

QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
SHOWN = {"fit": "jax.jit(fit)", "grad": "jax.jit(jax.grad(fit))", "hessian": "jax.jit(jax.hessian(fit))"}


def equations(jaxpr: Any) -> int:
    """Equations of a jaxpr and of all that are inside it."""
    inner = [getattr(p, "jaxpr", p) for e in jaxpr.eqns for v in e.params.values() for p in _listed(v)]
    return len(jaxpr.eqns) + sum(equations(one) for one in inner if hasattr(one, "eqns"))


def _listed(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def measure(order: str) -> Record:
    """Equations, and seconds of the steps of the first call."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    t, y = (a[0] for a in simulated(1, own=True))

    def number(y: jax.Array) -> jax.Array:
        found = own_design(t, y)
        return jnp.sum(found.beta) + jnp.sum(found.psi) + jnp.sum(jnp.sqrt(jnp.diagonal(found.cov_beta)))

    function = {"fit": number, "grad": jax.grad(number), "hessian": jax.hessian(number)}[order]
    begin = time.process_time()
    traced = jax.jit(function).trace(y)
    lowered = traced.lower()
    seconds = [time.process_time() - begin]
    for options in (None, QUICK):
        begin = time.process_time()
        lowered.compile(compiler_options=options)
        seconds.append(time.process_time() - begin)
    names = ("trace", "compile", "compile_quick")
    return {"equations": equations(traced.jaxpr.jaxpr)} | dict(zip(names, seconds, strict=True))


def run(options: Options) -> Iterator[Record]:
    for order in SHOWN:
        options.say(f"derivatives: {order}")
        yield {"order": order} | isolated(measure, timeout=options.timeout, order=order)


def table(records: list[Record]) -> str:
    """Equations and processor seconds."""

    def cells(got: Record) -> list[str]:
        steps = [f"{got[name]:.1f}" for name in ("trace", "compile", "compile_quick")]
        return [f"`{SHOWN[got['order']]}`", count(got["equations"]), *steps]

    columns = ("", "equations:", "trace, lower:", "compile:", "with the options below:")
    return markdown(columns, map(cells, records))


register(
    Workload(
        id="derivatives",
        title="the first call of a fit, its gradient and its Hessian in a program of somebody else",
        goal="a Hessian in ten processor seconds without XLA's optimiser",
        run=run,
        table=table,
    )
)

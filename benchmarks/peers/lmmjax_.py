"""lmmjax: `lmm(…).fit()` and `refit` one by one, or all responses through `fit_batch`."""

import time
from contextlib import ExitStack

import exchange


def estimate(fit):
    """The estimates of a single fit in the form the judge reads."""
    from benchmarks.harness.covariances import lower_triangles

    return {
        "criterion": float(fit.deviance),
        "cov": lower_triangles(fit.varcorr()),
        "sigma2": float(fit.scale),
        "beta": [float(b) for b in fit.params],
        "converged": bool(fit.converged),
    }


def device():
    """What JAX computes on."""
    from benchmarks.harness.machine import device

    return device()["device"]


def versions():
    """lmmjax, JAX and NumPy."""
    return exchange.versions("lmmjax", "jax", "jaxlib", "numpy")


def fresh():
    """Import, fit, print the summary, in a process that has done nothing else."""
    import lmmjax as lj

    fit = lj.lmm(exchange.OPTIONS["formula"], exchange.load_design()).fit(
        reml=exchange.OPTIONS["reml"] == "true"
    )
    print(fit.summary())
    exchange.write({"estimate": estimate(fit)})


def one_by_one():
    """Every checked response by itself, compiled: from the formula, and by `refit` of one fitted model."""
    import lmmjax as lj
    from lmmjax.arrays.compile import compiled_at_once

    formula, reml = exchange.OPTIONS["formula"], exchange.OPTIONS["reml"] == "true"
    design = exchange.load_design()
    responses = exchange.load_checked()

    def full(y):
        return lj.lmm(formula, design.assign(**{exchange.OPTIONS["response"]: y})).fit(reml=reml)

    fitted = full(responses[-1])
    with compiled_at_once():
        full(responses[-1])
        methods = {
            "lmm().fit": exchange.each(full, estimate, responses),
            "refit": exchange.each(fitted.refit, estimate, responses),
        }
    exchange.write({"methods": methods, "versions": versions(), "device": device()})


def batch():
    """All responses by `fit_batch`: a first call, then `repeats` more, fewer if `budget` seconds are spent.

    The formula is parsed in each. The first may be played by NumPy; the later ones are compiled.
    """
    begun = time.perf_counter()
    import numpy as np

    import lmmjax as lj
    from lmmjax.arrays.compile import compiled_at_once

    imported = time.perf_counter() - begun
    design = exchange.load_design()
    y = np.load(exchange.DATA / "responses.npy").T
    more = {}
    if exchange.OPTIONS["weighted"] == "true":
        more["weights"] = np.load(exchange.DATA / "weights.npy").T
    formula = exchange.OPTIONS["formula"].removeprefix("y ")
    reml = exchange.OPTIONS["reml"] == "true"

    def call(y):
        start = time.perf_counter()
        model = lj.lmm(formula, design)
        built = time.perf_counter()
        fits = model.fit_batch(y, reml=reml, **more)
        _ = fits.deviance, fits.params, fits.converged
        end = time.perf_counter()
        return fits, {"total": end - start, "build": built - start}

    fits, first = call(y)
    result = {"import": imported, "first": first["total"], "device": device(), "versions": versions()}
    result["calls"] = []
    stack = ExitStack()
    stack.enter_context(compiled_at_once())
    call(y)
    again = time.perf_counter()
    while len(result["calls"]) < int(exchange.OPTIONS["repeats"]):
        result["calls"].append(call(y)[1])
        if time.perf_counter() - again > float(exchange.OPTIONS["budget"]):
            break
    result["peak_mib"] = exchange.peak_mib()
    if exchange.OPTIONS["estimates"] == "true":
        checked = [int(i) for i in exchange.OPTIONS["checked"].split(",")]
        names = list(fits.params.index)
        result["estimates"] = [estimate(fits[names[i]]) for i in checked]
        result["converged"] = int(np.sum(fits.converged))
        result["singular"] = int(np.sum(fits.is_singular))
        for got, i in zip(result["estimates"], checked, strict=True):
            got["criterion"] = float(np.asarray(fits.deviance)[i])
        row_major = np.ascontiguousarray(y)
        result["row_major"] = min(call(row_major)[1]["total"] for _ in range(2))
    exchange.write(result)


def main():
    try:
        import jax  # noqa: F401
    except ImportError as error:
        exchange.write_missing(error)
    {"fresh": fresh, "each": one_by_one, "batch": batch}[exchange.OPTIONS["mode"]]()


main()

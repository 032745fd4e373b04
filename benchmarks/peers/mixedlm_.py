"""mixedlm: `lmer` from the formula for every response, and `refit` of one fitted model."""

import exchange


def estimate(fit):
    """The estimates of a fit in the form the judge reads."""
    groups = exchange.OPTIONS["groups"].split(",")
    blocks = [exchange.lower_triangle(fit.VarCorr().get_cov(group)) for group in groups]
    return {
        "criterion": float(fit.deviance),
        "cov": [value for block in blocks for value in block],
        "sigma2": float(fit.sigma) ** 2,
        "beta": [float(b) for b in fit.beta],
        "converged": bool(fit.converged),
    }


def main():
    try:
        import mixedlm
    except ImportError as error:
        exchange.write_missing(error)
    formula, reml = exchange.OPTIONS["formula"], exchange.OPTIONS["reml"] == "true"
    design = exchange.load_design()

    def full(y):
        return mixedlm.lmer(formula, design.assign(**{exchange.OPTIONS["response"]: y}), REML=reml)

    if exchange.OPTIONS["mode"] == "fresh":
        fit = mixedlm.lmer(formula, design, REML=reml)
        print(fit.summary(ddf_method=None))
        exchange.write({"estimate": estimate(fit)})
        return
    responses = exchange.load_checked()
    fitted = full(responses[-1])
    methods = {
        "lmer": exchange.each(full, estimate, responses),
        "refit": exchange.each(fitted.refit, estimate, responses),
    }
    exchange.write({"methods": methods, "versions": exchange.versions("mixedlm", "numpy", "scipy")})


main()

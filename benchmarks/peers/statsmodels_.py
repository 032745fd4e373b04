"""statsmodels: `mixedlm` from the formula for every response; it has no refit with a new response."""

import exchange


def estimate(fit):
    """The estimates of a fit in the form the judge reads."""
    return {
        "criterion": -2.0 * float(fit.llf),
        "cov": exchange.lower_triangle(fit.cov_re.to_numpy()),
        "sigma2": float(fit.scale),
        "beta": [float(b) for b in fit.fe_params],
        "converged": bool(fit.converged),
    }


def main():
    try:
        import statsmodels.formula.api as smf
    except ImportError as error:
        exchange.write_missing(error)
    options = exchange.OPTIONS
    reml = options["reml"] == "true"
    design = exchange.load_design()

    def fit_frame(data):
        formula = f"{options['response']} ~ {options['fixed']}"
        model = smf.mixedlm(formula, data, groups=options["groups"], re_formula=f"~{options['effects']}")
        return model.fit(reml=reml)

    if options["mode"] == "fresh":
        fit = fit_frame(design)
        print(fit.summary())
        exchange.write({"estimate": estimate(fit)})
        return

    def full(y):
        return fit_frame(design.assign(**{options["response"]: y}))

    methods = {"mixedlm": exchange.each(full, estimate, exchange.load_checked())}
    exchange.write({"methods": methods, "versions": exchange.versions("statsmodels", "numpy", "scipy")})


main()

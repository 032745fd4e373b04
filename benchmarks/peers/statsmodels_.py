"""statsmodels: `mixedlm` from the formula for every response; it has no refit with a new response."""

import exchange


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
        exchange.write({"estimate": exchange.mixedlm_estimate(fit)})
        return

    def full(y):
        return fit_frame(design.assign(**{options["response"]: y}))

    methods = {"mixedlm": exchange.each(full, exchange.mixedlm_estimate, exchange.load_checked())}
    exchange.write({"methods": methods, "versions": exchange.versions("statsmodels", "numpy", "scipy")})


main()

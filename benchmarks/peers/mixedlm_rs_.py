"""mixedlm-rs: `mixedlm` from the formula for every response, and `with_endog` on a prepared model."""

import exchange


def main():
    try:
        import mixedlm_rs
    except ImportError as error:
        exchange.write_missing(error)
    options = exchange.OPTIONS
    reml = options["reml"] == "true"
    design = exchange.load_design()

    def model(data):
        formula = f"{options['response']} ~ {options['fixed']}"
        return mixedlm_rs.mixedlm(
            formula, data, groups=options["groups"], re_formula=f"~{options['effects']}"
        )

    if options["mode"] == "fresh":
        fit = model(design).fit(reml=reml)
        print(fit.summary())
        exchange.write({"estimate": exchange.mixedlm_estimate(fit)})
        return

    def full(y):
        return model(design.assign(**{options["response"]: y})).fit(reml=reml)

    responses = exchange.load_checked()
    prepared = model(design.assign(**{options["response"]: responses[-1]}))
    prepared.fit(reml=reml)

    def refit(y):
        return prepared.with_endog(y).fit(reml=reml)

    methods = {
        "mixedlm": exchange.each(full, exchange.mixedlm_estimate, responses),
        "with_endog": exchange.each(refit, exchange.mixedlm_estimate, responses),
    }
    exchange.write({"methods": methods, "versions": exchange.versions("mixedlm-rs", "numpy", "scipy")})


main()

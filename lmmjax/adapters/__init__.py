"""Models under the conventions of other packages, which are imported with the file that needs them.

`formula_regressor` and `matrix_regressor`: scikit-learn's. `pertpy_method`: pertpy's. `multitrait`: several
columns of responses, as in ASReml, sommer and MCMCglmm.
"""

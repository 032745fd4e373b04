"""Models under the conventions of other packages, which are imported with the file that needs them.

`regressors`: scikit-learn's estimators.
"""

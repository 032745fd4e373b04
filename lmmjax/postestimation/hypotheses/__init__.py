"""Hypotheses about fixed effects: rows of weights, robust covariances, t and F tests, families of tests."""

"""Responses drawn from a fit or a plan, fitted again: bootstrap, permutation, power."""

"""Structured residuals: correlated within groups that lie within those of the random effects."""

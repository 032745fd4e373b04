"""Priors by name, draws from the posterior of a fit, and what is made of them."""

"""Robust covariances of the fixed effects, by independent clusters, and their degrees of freedom."""

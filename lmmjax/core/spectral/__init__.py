"""Fits of one kernel once it is decomposed: a criterion of one ratio, and its global minimum."""

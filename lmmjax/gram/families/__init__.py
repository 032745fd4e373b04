"""Kernels beside other terms, or of slopes, whose rows fall into small sets: matrices of each of these."""

"""Crossed factors: the largest is eliminated, the others share a dense matrix."""

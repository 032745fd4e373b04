"""Crossed factors of which the largest is nested in others: nested elimination, then the dense rest."""

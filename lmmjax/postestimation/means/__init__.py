"""Marginal means and slopes on a reference grid, their contrasts, letters and joint tests."""

"""The text of formulas and of the expressions in them: what it names, and what of it is allowed."""

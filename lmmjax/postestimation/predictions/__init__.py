"""Conditional modes, and predictions for new rows with their limits, of one fit or of many."""

"""Nested factors: every level is eliminated into the next."""

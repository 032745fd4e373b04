"""Inference: tests and intervals from derivatives of the likelihood and from refits."""

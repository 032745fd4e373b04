"""Residual variances of many responses with a prior in common, as limma has them."""

"""Relationships between levels, with their labels: kernels, pedigrees and genotypes."""

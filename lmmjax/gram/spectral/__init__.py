"""One term with a kernel and independent residuals: an eigendecomposition, after which everything is sums."""

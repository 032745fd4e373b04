"""What single rows and groups do to a fit, and how far residuals and columns are as they should be."""

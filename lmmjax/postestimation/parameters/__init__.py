"""Parameters by name: tables of them, covariance matrices of residuals, intervals, functions, profiles."""

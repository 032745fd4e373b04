"""What is worth worrying about: influence, leverage, collinearity, sensitivity, errors of prediction."""

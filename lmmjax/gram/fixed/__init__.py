"""No random terms and independent residuals: H = R, and the products of the rows are all there is."""

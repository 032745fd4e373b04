"""Profile likelihoods: the criterion minimised over all other parameters, and where it has risen."""

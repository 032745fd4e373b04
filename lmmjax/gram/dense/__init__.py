"""The explicit n × n matrix H: covers any design, and is the oracle of the other backends."""

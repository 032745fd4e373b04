"""Benchmarks of lmmjax beside its peers: same machine, same data, the accuracy gate in the row of the time."""

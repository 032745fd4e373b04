"""Benchmarks of lmmjax beside its peers: same machine, same data, the accuracy gate beside the time."""

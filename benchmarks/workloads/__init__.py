"""The workloads, one file each; importing the file registers it."""

from benchmarks.workloads import w1, w2, w3, w9

__all__ = ["w1", "w2", "w3", "w9"]

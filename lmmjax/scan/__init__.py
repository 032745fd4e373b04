"""Scans: every marker against every response, held at the null fits or refitted, with sinks of any size."""

from lmmjax.scan.keep import Above, Best, Top
from lmmjax.scan.sink import Scanned
from lmmjax.scan.thresholds import scan_threshold
from lmmjax.scan.whole import scan

__all__ = ["Above", "Best", "Scanned", "Top", "scan", "scan_threshold"]

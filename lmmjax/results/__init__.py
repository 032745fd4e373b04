"""What users hold: fits, batches, posteriors, bootstraps. Methods call functions of records and label."""

from lmmjax.results.batch import BatchFit
from lmmjax.results.chunked import chunked
from lmmjax.results.compare import compare
from lmmjax.results.fit import Fit
from lmmjax.results.moments import Moments
from lmmjax.results.power import power
from lmmjax.results.tables import modeltable

__all__ = ["BatchFit", "Fit", "Moments", "chunked", "compare", "modeltable", "power"]

"""The method that writes a fit, or fits of many responses, to a file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmmjax.fitted import Fitted, FittedMany


class Saving:
    """Fits as files."""

    fitted: Fitted | FittedMany

    def save(self, path: str | Path, columns: str | Iterable[str] = ()) -> None:
        """Write the fit to a file, which `lmmjax.load` reads; nothing is fitted again then.

        The file keeps the formula and its options, the columns that they read, the response and the
        estimates, as JSON and arrays in a zip archive: plain data without code. Reading evaluates the formula
        again, so that predictions, means, tests, updates and refits are as before; data come back as a frame
        of pandas or, if they were one, of polars.

        Parameters
        ----------
        path : of the file, which is written whole or not at all; one of that name is replaced.
        columns : names of further columns of the data to keep, as for clusters or updates, or "all".

        Raises
        ------
        ValueError : a column holds objects that are neither text, numbers nor times; a residual structure is
            not one of the package's; the data were changed after the model was made, so that the formula
            gives other numbers. OSError : the file cannot be written.

        Examples
        --------
        >>> import lmmjax as lj
        >>> from lmmjax.datasets import load
        >>> fit = lj.lmm("Reaction ~ Days + (Days | Subject)", load("sleepstudy")).fit()
        >>> fit.save("sleepstudy.lmm")
        >>> lj.load("sleepstudy.lmm").predict({"Days": [10], "Subject": [308]}).round(2).tolist()
        [450.33]
        """
        from lmmjax.saving import save_record

        save_record(self.fitted, path, columns)

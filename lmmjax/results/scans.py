"""Methods of fits that scan markers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from lmmjax.fitted import Fitted, FittedMany


class Scans:
    """Candidate covariates against the fits, one after the other."""

    fitted: Fitted | FittedMany

    def scan(
        self,
        markers: Any,
        *,
        ratio: str = "null",
        test: str | None = None,
        names: Any = None,
        ids: Any = None,
        group: str | None = None,
        interaction: Any = None,
        maf: float = 0.0,
        max_missing: float = 1.0,
        progress: Callable[[int, int], None] | None = None,
    ) -> pd.DataFrame:
        """Every marker against every response: a row a marker and response."""
        from lmmjax.scan import scan

        return scan(
            self.fitted,
            markers,
            ratio=ratio,
            test=test,
            names=names,
            ids=ids,
            group=group,
            interaction=interaction,
            maf=maf,
            max_missing=max_missing,
            progress=progress,
        )

"""Pictures of a batch as users ask for them: `fits.plot.volcano("x")`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from lmmjax import plot
from lmmjax.arrays.other_arguments import answered
from lmmjax.fitted import FittedMany
from lmmjax.postestimation.parameters.functions import shares_table
from lmmjax.results.plots import Pictures


@answered
class BatchPlots(Pictures):
    """Pictures of a batch, of one coefficient or contrast of all responses; Axes as in `FitPlots`.

    Parameters
    ----------
    fitted : the fits.
    top : the method whose table is drawn, `BatchFit.top` or `Moderated.top`. `term`, `contrast` and other
        options of the pictures, such as `ddf`, `robust` and `moderated`, are its.
    """

    def __init__(self, fitted: FittedMany, top: Callable[..., pd.DataFrame]):
        self._fitted, self._top = fitted, top

    def _of(self, term: str | None, contrast: Any, options: dict[str, Any]) -> tuple[pd.DataFrame, str]:
        """The table of all responses, and what it is of."""
        table = self._top(term, None, contrast=contrast, **options)
        if "t" not in table:
            raise ValueError("a picture is of one coefficient or contrast: give one of them")
        return table, term if term is not None else contrast if isinstance(contrast, str) else "the contrast"

    def volcano(
        self,
        term: str | None = None,
        ax: Any = None,
        *,
        contrast: Any = None,
        q: float = 0.05,
        effect: float = 0.0,
        labels: int | Sequence[Any] = 10,
        **options: Any,
    ) -> Any:
        """Estimates by −log₁₀ p, coloured where q is at most `q` and the estimate at least `effect` in size.

        Parameters
        ----------
        labels : how many of the coloured ones to name, the smallest p first, or names of responses; those for
            which there is no room go without.
        term, contrast, options : what is tested, as of `top`; one coefficient or contrast.
        q, effect : what is coloured.

        Responses without a p-value are not drawn.

        Raises
        ------
        ValueError : an unknown coefficient, several of them, or an unknown response in labels.
        """
        table, name = self._of(term, contrast, options)
        return plot.plot_volcano(table, ax, q=q, effect=effect, labels=labels, term=name)

    def ma(
        self,
        term: str | None = None,
        ax: Any = None,
        *,
        contrast: Any = None,
        q: float = 0.05,
        effect: float = 0.0,
        labels: int | Sequence[Any] = 10,
        **options: Any,
    ) -> Any:
        """Estimates by the mean of the response; other arguments as of `volcano`.

        Raises
        ------
        ValueError : as of `volcano`.
        """
        table, name = self._of(term, contrast, options)
        return plot.plot_ma(table, table["average"], ax, q=q, effect=effect, labels=labels, term=name)

    def pvalues(
        self,
        term: str | None = None,
        ax: Any = None,
        *,
        contrast: Any = None,
        bins: int = 20,
        **options: Any,
    ) -> Any:
        """A histogram of the p-values, with the height of uniform ones, and of an estimate of the null ones.

        Flat with a peak at 0 is what a good test gives; a slope upwards, or a peak at 1, is no good sign.

        Parameters
        ----------
        term, contrast, options : as of `volcano`. bins : of equal width from 0 to 1.

        Raises
        ------
        ValueError : as of `volcano`; fewer than two bins.
        """
        table, name = self._of(term, contrast, options)
        return plot.plot_pvalues(table["p"], ax, bins=bins, term=name)

    def qq(
        self,
        term: str | None = None,
        ax: Any = None,
        *,
        contrast: Any = None,
        level: float = 0.95,
        **options: Any,
    ) -> Any:
        """−log₁₀ p by what is expected of uniform ones, with limits, and the inflation factor λ.

        Limits are of every order statistic by itself, of independent p-values.

        Parameters
        ----------
        term, contrast, options : as of `volcano`. level : of the limits.

        Raises
        ------
        ValueError : as of `volcano`; a level outside of (0, 1).
        """
        table, name = self._of(term, contrast, options)
        return plot.plot_qq(table["p"], ax, level=level, term=name)

    def shares(self, ax: Any = None, *, order: str = "median") -> Any:
        """A violin of the share that every term has in the variance, over the responses.

        Parameters
        ----------
        order : "median", terms with the largest first; "model", as they come. The residual is the last.
        """
        return plot.plot_shares(shares_table(self._fitted), ax, order=order)

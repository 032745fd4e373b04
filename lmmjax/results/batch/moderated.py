"""Moderated statistics of many responses, as users hold them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lmmjax.postestimation.hypotheses.batch_moderated import (
    ModeratedMany,
    moderated_contrasts,
    moderated_hypothesis,
    treat_table,
)
from lmmjax.reports import batch_tables, top_tables
from lmmjax.reports.table import prints_whole

if TYPE_CHECKING:
    from lmmjax.results.batch.plots import BatchPlots


@prints_whole
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Moderated:
    """Tests of many responses whose residual variances share a prior; made by `BatchFit.moderate`.

    s²_g ~ σ²_g χ²(d_g)/d_g and 1/σ²_g ~ χ²(d₀)/(d₀s₀²): σ̂² becomes (d₀s₀² + d_g s²_g)/(d₀ + d_g), and
    standard errors follow as far as they depend on it.
    """

    moderated: ModeratedMany

    @property
    def df_prior(self) -> Any:
        """d₀: a number; a Series over the responses if robust. Infinite where variances do not differ."""
        return self._number_or_series(self.moderated.prior.df, "df_prior")

    @property
    def var_prior(self) -> Any:
        """s₀²: a number; a Series over the responses if it has a trend."""
        return self._number_or_series(self.moderated.prior.variance, "var_prior")

    @property
    def table(self) -> pd.DataFrame:
        """A row a response × coefficient: response, coefficient, estimate, s2, df, s2_post, df_total, t, p,
        q.

        s2 is σ̂², df its degrees of freedom 2σ̂⁴/Var(σ̂²), s2_post their posterior; t, p and q (over the
        responses, coefficient by coefficient) are moderated, with df_total degrees of freedom. Where the
        variance of a coefficient is a multiple of σ̂², as in models without random terms and for effects
        within balanced groups, t is multiplied by √(s2/s2_post) and df_total is df + d₀. An effect between
        groups, whose variance depends on other components, gains as much as σ̂² tells of it: nothing if the
        groups are balanced.
        """
        of, tests = self.moderated, self.moderated.fixed
        names = of.fits.data.x_names
        p = len(names)
        return pd.DataFrame(
            {
                "response": np.repeat(of.fits.names.to_numpy(), p),
                "coefficient": np.tile(np.array(names, dtype=object), len(of.fits.names)),
                "estimate": tests["estimate"].ravel(),
                "s2": np.repeat(of.s2, p),
                "df": np.repeat(of.df, p),
                "s2_post": np.repeat(of.s2_post, p),
                "df_total": tests["df"].ravel(),
                **{name: tests[name].ravel() for name in ("t", "p", "q")},
            }
        )

    def contrast(
        self, contrasts: Any, names: list[str] | None = None, *, level: float = 0.95
    ) -> pd.DataFrame:
        """Moderated t tests of linear contrasts; see `BatchFit.contrast`."""
        return batch_tables.contrast_frame(self._tested, self.moderated.fits, contrasts, names, level)

    def test(self, l: Any, rhs: Any = None) -> pd.DataFrame:
        """Moderated F test of Lβ = rhs for every response: F, num_df, den_df, p, q; see `BatchFit.test`."""
        return moderated_hypothesis(self.moderated, l, rhs)

    def top(
        self,
        term: Any = None,
        n: int | None = 20,
        by: str = "p",
        *,
        contrast: Any = None,
        level: float = 0.95,
    ) -> pd.DataFrame:
        """The n foremost responses by moderated t or F tests; see `BatchFit.top`."""
        return top_tables.top_frame(self._tests, self.moderated.fits, term, n, by, contrast, level)

    def statistics(
        self, contrasts: Any = None, what: str = "t", *, drop_missing: bool = True
    ) -> pd.DataFrame:
        """One moderated statistic, contrasts × responses; see `BatchFit.statistics`."""
        fits = self.moderated.fits
        return batch_tables.statistics(self._tested, fits, contrasts, what, drop_missing)

    def treat(
        self, term: str | None = None, lfc: float = float(np.log2(1.2)), *, contrast: Any = None
    ) -> pd.DataFrame:
        """Tests that a coefficient or contrast is beyond ± `lfc`; see `BatchFit.treat`."""
        table = top_tables.one_contrast(self._tests, self.moderated.fits, term, contrast, "treat")
        return treat_table(self.moderated, table, lfc)

    @property
    def plot(self) -> BatchPlots:
        """Pictures of moderated tests, such as `fits.moderate().plot.volcano("x")`; see `BatchPlots`."""
        from lmmjax.results.batch.plots import BatchPlots

        return BatchPlots(self.moderated.fits, self.top)

    @property
    def _tests(self) -> top_tables.Tests:
        of = self.moderated
        return top_tables.Tests(
            lambda: of.fixed, self._tested, lambda rows: moderated_hypothesis(of, rows, None)
        )

    def _tested(self, rows: np.ndarray, labels: list[str]) -> dict[str, np.ndarray]:
        return moderated_contrasts(self.moderated, rows, labels)

    def _number_or_series(self, values: np.ndarray, name: str) -> Any:
        if values.ndim == 0:
            return float(values)
        return pd.Series(values, index=self.moderated.fits.names, name=name)

    def __repr__(self) -> str:
        d0, s02 = (np.median(a) for a in (self.moderated.prior.df, self.moderated.prior.variance))
        many = self.moderated.prior.df.ndim + self.moderated.prior.variance.ndim > 0
        return (
            f"Moderated({len(self.moderated.fits.names)} responses, df_prior {d0:.4g}, var_prior {s02:.4g}"
            f"{' (medians)' if many else ''})"
        )

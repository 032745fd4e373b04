"""Methods of `Fit` that test random terms."""

from __future__ import annotations

from typing import Any

import pandas as pd

from lmmjax.fitted import Fitted, by_criterion
from lmmjax.postestimation.comparison import random_tests
from lmmjax.postestimation.comparison.simulated_tests import RandomTest, simulated_test


class RandomTests:
    """Deletion table and simulated likelihood ratio tests of random terms."""

    fitted: Fitted

    def ranova(self) -> pd.DataFrame:
        """Likelihood ratio tests of each random term, by deletion, on the criterion that was fitted.

        As lmerTest's `ranova`: a slope is taken out of its term, together with its covariances, and a term
        without slopes is taken out whole. Columns npar, llf, aic, chisq, df, p, p_boundary; the first row is
        the model itself.

        p refers chisq to χ², which is conservative where a variance is tested; p_boundary to a mixture of χ²
        (see `lmmjax.inference.chisq.boundary_weights`).
        """
        return random_tests.ranova(self.fitted)

    def rlrt(
        self, term: str | None = None, *, n: int | None = None, key: Any = None, method: str | None = None
    ) -> RandomTest:
        """Restricted likelihood ratio test of a random term, by its finite-sample distribution.

        With independent residuals and a term of one variance (an intercept, a slope, `homdiag`) the
        distribution is known, and exact where the term is the only random one; σ² may be known. With other
        random terms it is that of the model with the fixed effects and the tested term alone (Greven et al.
        2008), as RLRsim does. For other terms and with residual structures there is none: these have a
        parametric bootstrap, n responses simulated from the model without the term and fitted by both.
        A model fitted by maximum likelihood is refitted by REML.

        Parameters
        ----------
        term : text ("1 | g") or grouping factor of a term; may be left out if there is one.
        n : draws; 100,000 if None, 1,000 of the bootstrap.
        key : `jax.random` key; `jax.random.key(0)` if None, so that the p-value is reproducible.
        method : "spectrum" or "bootstrap"; the first where there is one if None.

        Raises
        ------
        ValueError : method="spectrum" where there is none, with the reason; an unknown term.

        Source: Crainiceanu & Ruppert (2004), doi:10.1111/j.1467-9868.2004.00438.x; Greven et al. (2008),
        doi:10.1198/106186008X386599.
        """
        return simulated_test(by_criterion(self.fitted, True), term, n, key, method)

    def lrt(
        self, term: str | None = None, *, n: int | None = None, key: Any = None, method: str | None = None
    ) -> RandomTest:
        """The same test on the likelihood; a model fitted by REML is refitted by maximum likelihood.

        Parameters
        ----------
        term, n, key, method : as of `rlrt`.

        Raises
        ------
        ValueError : as of `rlrt`.
        """
        return simulated_test(by_criterion(self.fitted, False), term, n, key, method)

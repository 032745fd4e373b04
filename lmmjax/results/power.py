"""`power`: how often a test finds an effect, by simulation, for designs that there are not yet."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.arrays.other_arguments import answered
from lmmjax.fitted import Fitted, ModelData, require_estimates
from lmmjax.reports.cells import grid_of
from lmmjax.reports.markup import Grid, Markup
from lmmjax.reports.table import as_table


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Power(Markup):
    """Power of a test at sizes and effects; made by `lmmjax.power`, prints its table.

    Attributes
    ----------
    table : a row a size and effect: `n`, `effect`, `power`, its Monte Carlo standard error `se` and Clopper
        and Pearson's limits `lower` and `upper`, `draws`, and of these `failed`, without a certified fit,
        which count as no finding, and `singular`, fits with a variance of 0 or a correlation of ±1, which
        count as they are. `n` and `effect` are those named first; others have columns of their names.
    hypothesis : what is tested; test : by which test.
    alpha : level of the test; level : of the limits.
    """

    table: pd.DataFrame
    hypothesis: str
    test: str
    alpha: float
    level: float

    def plot(self, ax: Any = None, *, target: float | None = 0.8) -> Any:
        """Power by size with its limits, a curve an effect; by effect where there is one size.

        Parameters
        ----------
        ax : Axes to draw on; new ones if None. target : power that a line is drawn at, or None.

        Returns
        -------
        the Axes. ImportError without matplotlib.
        """
        from lmmjax.plot import plot_power

        return plot_power(self.table, ax, target)

    def _around(self) -> tuple[list[str], list[str]]:
        """Lines before the table and after it."""
        attrs, most = self.table.attrs, self.table[["failed", "singular"]].to_numpy().max(axis=0)
        head = [
            f"Power of the test of {self.hypothesis} at alpha = {self.alpha:g}",
            f"{self.test}; {self.level:.0%} limits",
        ]
        notes = [f"n: {attrs['n']}; effect: {attrs['effect']}"]
        if most[0]:
            notes.append(f"failed: up to {most[0]} fits of a row, which count as no finding")
        if most[1]:
            notes.append(f"singular: up to {most[1]} fits of a row, which count as they are")
        return head, notes

    def _pieces(self) -> list[str | Grid]:
        head, notes = self._around()
        return [*head, grid_of(self.table, index=False), *notes]

    def __repr__(self) -> str:
        head, notes = self._around()
        text = self.table.to_string(index=False, float_format="{:.4g}".format)
        return "\n".join([*head, "", text, "", *notes])


@answered
def power(
    model: Any,
    test: Any = None,
    n: Any = None,
    effect: Any = None,
    *,
    key: Any = None,
    draws: int = 1000,
    beta: dict[str, float] | None = None,
    sdcor: dict[str, float] | None = None,
    method: str = "wald",
    ddf: str = "satterthwaite",
    alpha: float = 0.05,
    level: float = 0.95,
) -> Power:
    """Power of a test of fixed effects, by simulation, for several sizes and effects at once.

    Responses are drawn from the model at each size, fitted as a batch, and tested one by one. All effects of
    a size are tested on the same draws, so that they differ by the effect alone.

    Parameters
    ----------
    model : a fit, or a model without data of its response: `lmm("~ x + (x | g)", design)` with `sdcor`.
    test : a coefficient, a term (all its columns are 0), an equation or several, or contrasts, as in
        `Fit.test`; None, the coefficients named in `effect`.
    n : how many levels of a grouping factor, `{"subject": [20, 40]}`, made by repeating whole groups, with
        all that is nested in them, at equal steps through their arms and strata; how many rows in each level,
        `{"observation|subject": [5, 10]}`, its own ones in order, from the first again; lists go together,
        value by value. None: the design as it is. A number or list: of the only grouping factor.
    effect : coefficients of the fixed effects, `{"x": [0.1, 0.2]}`; lists go together. Every effect is
        combined with every size. A number or list: of the coefficient that is tested. None: those of the fit.
    key : `jax.random` key; one key gives one answer, at each size whatever other sizes are asked for.
    draws : simulated responses of every size.
    beta : other coefficients, which matter where a contrast has them; by default of the fit, or 0.
    sdcor : standard deviations, correlations and residual parameters by the names of `conf_int`, such as
        `{"sd_(Intercept)|subject": 1.0, "sigma": 2.0}`; by default those of the fit; without one all have to
        be given, but for correlations of random effects, which are 0 then.
    method : "wald", t and F tests; "lrt", likelihood ratio tests of fits by maximum likelihood.
    ddf : degrees of freedom of Wald tests: "satterthwaite", "kenward-roger" ("kr"), "normal".
    alpha : level of the test; level : of the Monte Carlo limits.

    Raises
    ------
    ValueError : an unknown name, a size that does not determine the fixed effects, missing parameters, or no
        key.

    Source: Green & MacLeod (2016), doi:10.1111/2041-210X.12504 (simr).
    """
    from lmmjax.postestimation.simulation.planned import planned_beta, planned_psi
    from lmmjax.postestimation.simulation.power import grid, only_group, plan, power_table

    fitted = getattr(model, "fitted", None)
    data = fitted.data if isinstance(fitted, Fitted) else getattr(model, "data", None)
    if not isinstance(data, ModelData):
        raise ValueError(f"power takes a fit or a model, not {type(model).__name__}")
    start, known, reml = np.zeros(data.design.p), None, True
    if isinstance(fitted, Fitted):
        require_estimates(fitted)
        start, known, reml = fitted.estimate.beta, fitted.estimate.psi, fitted.reml
    alone = test if isinstance(test, str) and test in data.x_names else None
    effects = grid(effect, "effect", alone, counts=False)
    if known is None and not effects[0] and beta is None:
        raise ValueError("a model has no effects of its own: pass effect=, such as {coefficient: 0.5}")
    psi = planned_psi(data, known, sdcor)
    made = plan(data, planned_beta(data, start, beta), psi, test, effects, method, ddf, reml)
    sizes = grid(n, "n", only_group(data), counts=True)
    table = power_table(made, sizes, effects, key, draws, alpha, level)
    return as_table(Power(table, made.text, made.words, alpha, level))

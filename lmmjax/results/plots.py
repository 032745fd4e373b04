"""Pictures of a fit as users ask for them: `fit.plot.residuals()`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmmjax import plot
from lmmjax.arrays.other_arguments import answered
from lmmjax.fitted import Fitted, require_estimates, require_switch
from lmmjax.fitted.streamed import ROWS
from lmmjax.formula.many_rows import counts_of
from lmmjax.plot import covariance, effects, profiles, residual_panel, shrinkage, spaghetti
from lmmjax.postestimation.diagnostics.semivariogram import expected_variogram, variogram
from lmmjax.postestimation.parameters.profiles import contour, profile
from lmmjax.postestimation.parameters.residual_cov import residual_cov
from lmmjax.postestimation.predictions import modes
from lmmjax.reports.markup import wrapped
from lmmjax.reports.other_names import OtherNames


class Pictures(OtherNames):
    """Prints the pictures there are."""

    def __repr__(self) -> str:
        return self._listed([name for name in vars(type(self)) if not name.startswith("_")])

    def _listed(self, names: list[str]) -> str:
        return "\n".join(wrapped([f"{type(self).__name__}: " + ", ".join(names)]))


@answered
class FitPlots(Pictures):
    """Pictures of a fit; `fit.plot()` is `fit.plot.residuals()`. They need `pip install 'lmmjax[plot]'`.

    An object of which there is one picture draws it by `plot()` (marginal means, power curves, posteriors);
    fits, of which there are many, have a method a picture, whose arguments are those of the table behind it,
    so that an editor lists and explains them, which it could not for one `plot(kind)`. What is drawn is a
    frame that the methods of the fit return too, and the functions in `lmmjax.plot` draw such frames.

    `ax` is matplotlib's Axes to draw on, where there are several panels an array or list of as many; None
    makes a figure that is 85 mm wide, with text of 8 points. Axes are returned, for titles, limits, other
    lines and `ax.figure.savefig`. Without matplotlib there is an ImportError.
    """

    def __init__(self, fitted: Fitted):
        self._fitted = fitted

    def __call__(self, ax: Any = None, **options: Any) -> Any:
        """`residuals`, as R's `plot` of a fitted model."""
        return self.residuals(ax, **options)

    def residuals(self, ax: Any = None, *, panels: str | Sequence[str] | None = None) -> Any:
        """Residuals by fitted value, against normal quantiles, their scale, and by leverage.

        Curves are local linear fits. The three largest studentized residuals have the labels of their rows;
        a dotted line is at the mean leverage.

        Parameters
        ----------
        panels : of "fitted", "qq", "scale", "leverage", one or several; all if None.

        Returns
        -------
        Axes: an array (2, 2), of some panels (k,), or one.

        Raises
        ------
        ValueError : an unknown panel, Axes of another number.
        """
        table = residual_panel.residual_table(self._fitted)
        return plot.plot_residuals(table, ax, panels_shown=panels)

    def ranef(
        self,
        group: str | None = None,
        ax: Any = None,
        *,
        level: float = 0.95,
        spread: str = "cond_sd",
        order: str | None = None,
    ) -> Any:
        """Conditional modes with intervals, levels in order: a caterpillar a grouping factor and term.

        Parameters
        ----------
        group : one grouping factor; all if None.
        level : of the intervals mode ± z·sd.
        spread : "cond_sd" or "pred_se", columns of `Fit.ranef`.
        order : the term whose modes sort the levels, by default the first; "level", as they come.

        Returns
        -------
        Axes, an array (k,) if there are several terms.

        Raises
        ------
        ValueError : an unknown factor or term, a model without random effects.
        """
        require_estimates(self._fitted)
        table: Any = modes.ranef(self._fitted, True)
        if group is not None:
            known = list(dict.fromkeys(term.group for term in self._fitted.data.frame.random))
            table = table[table["group"] == modes.only_group(known, group)]
        return plot.plot_ranef(table, ax, level=level, spread=spread, order=order)

    def shrinkage(
        self, group: str | None = None, ax: Any = None, *, columns: str | Sequence[str] | None = None
    ) -> Any:
        """Coefficients of every level by its own rows alone, and where partial pooling moves them.

        Parameters
        ----------
        group : the grouping factor; may be left out if there is one.
        columns : coefficients; of several every pair has a panel, the first four if None.

        "Own rows" are generalised least squares of what the other fixed effects and random terms leave, which
        stay as the model has them; without these, the regression of the level alone. Levels whose rows do not
        determine it are drawn where the model has them only.

        Returns
        -------
        Axes, an array (k,) if there are several pairs.

        Raises
        ------
        ValueError : an unknown factor or coefficient.
        """
        return plot.plot_shrinkage(shrinkage.pooling(self._fitted, group), ax, columns=columns)

    def effects(
        self,
        x: str,
        by: str | Sequence[str] | None = None,
        ax: Any = None,
        *,
        at: Mapping[str, Any] | None = None,
        residuals: bool = False,
        rug: bool = True,
        weights: str = "equal",
        ddf: str = "satterthwaite",
        level: float = 0.95,
        type: str = "link",
        robust: str | None = None,
        cluster: Any = None,
    ) -> Any:
        """Marginal means over a predictor: lines with bands over a covariate, points over a factor.

        Parameters
        ----------
        x : the predictor along the axis.
        by : another, whose levels have colours, or two, the second with a panel a level. A covariate has its
            mean and the values a standard deviation from it, or those in `at`.
        at, weights, ddf, level, type, robust, cluster : as in `Fit.emmeans`; `at` may have values of x, too.
        residuals : whether to add partial residuals: the line at a row's x plus its residual.
        rug : whether to mark the values of x in the data.

        Limits hold at each value by itself.

        Returns
        -------
        Axes, an array (k,) with two `by`.

        Raises
        ------
        ValueError : an unknown predictor, a model that was built from matrices, partial residuals on the
            scale of the response.
        """
        table = effects.effects_table(
            self._fitted,
            x,
            by,
            at,
            weights=weights,
            ddf=ddf,
            level=level,
            type=type,
            robust=robust,
            cluster=cluster,
        )
        if require_switch("residuals", residuals) and type != "link":
            raise ValueError("residuals are on the scale of the model: leave out type= or residuals=")
        data = effects.partial_residuals(self._fitted, table) if residuals else None
        frame = self._fitted.data.frame
        columns = frame.columns if counts_of(frame) is None else None
        marks = columns[x] if require_switch("rug", rug) and columns is not None else None
        return plot.plot_effects(table, ax, data=data, rug=marks)

    def spaghetti(
        self,
        x: Any,
        group: str | None = None,
        ax: Any = None,
        *,
        by: str | None = None,
        levels: Sequence[Any] | None = None,
        each: bool = False,
    ) -> Any:
        """Data and fitted values of every group over a covariate.

        Parameters
        ----------
        x : a column of the data, or values (n,) of the rows of the fit.
        group : a grouping factor of random effects or residuals; may be left out if there is one.
        by : a column of the data whose levels have colours.
        levels : which groups to draw; all if None.
        each : a panel a group, with the population's line Xβ̂ dashed; of more than 24 as many at equal steps.

        Lines join the fitted values at the rows of the fit; rows of a group at the same x are averaged.

        Returns
        -------
        Axes; with `each` an array (k,).

        Raises
        ------
        ValueError : an unknown column, factor or level; x of another length than the rows.
        """
        table = spaghetti.trajectories(self._fitted, x, group, by)
        return plot.plot_spaghetti(table, ax, levels=levels, each=require_switch("each", each))

    def profile(
        self,
        parameters: str | Sequence[str] | None = None,
        ax: Any = None,
        *,
        level: float = 0.99,
        points: int = 21,
        criterion: str | None = None,
    ) -> Any:
        """ζ by value, a panel a parameter, with the profile intervals at 50, 80, 95 and 99 %.

        Parameters
        ----------
        parameters, level, points, criterion : as in `Fit.profile`.

        Straight lines are parameters for which Wald's intervals will do.

        Returns
        -------
        Axes, an array (k,) if there are several parameters.

        Raises
        ------
        ValueError : as of `Fit.profile`.
        """
        names = parameters if isinstance(parameters, str | None) else list(parameters)
        return plot.plot_profile(profile(self._fitted, names, level, points, criterion), ax)

    def contour(
        self,
        first: str,
        second: str,
        ax: Any = None,
        *,
        level: float = 0.99,
        points: int = 25,
        criterion: str | None = None,
    ) -> Any:
        """Borders of joint confidence regions of two parameters at 50, 80, 95 and 99 %, and the estimates.

        Parameters
        ----------
        first, second, level, points, criterion : as in `Fit.contour`.

        Raises
        ------
        ValueError : as of `Fit.contour`.
        """
        table = contour(self._fitted, first, second, level, points, criterion)
        return plot.plot_contour(table, ax, centre=profiles.contour_centre(self._fitted, table))

    def residual_cov(self, group: Any = None, ax: Any = None, *, cor: bool | None = None) -> Any:
        """Covariances and correlations of the residuals of one group, visits by visits, with their numbers.

        Parameters
        ----------
        group : as in `Fit.residual_cov`.
        cor : True for correlations, False for covariances, None for both.

        Returns
        -------
        Axes, an array (k,) if there are several: of both, or of every level of the structure's `by`.

        Raises
        ------
        ValueError : as of `Fit.residual_cov`.
        """
        given = covariance.matrices_of(residual_cov(self._fitted, group, False))
        return plot.plot_covariance(given, ax, cor=cor)

    def semivariogram(
        self,
        ax: Any = None,
        *,
        kind: str = "pearson",
        robust: bool = False,
        time: Any = None,
        group: str | None = None,
        bins: int = 20,
        max_distance: float | None = None,
    ) -> Any:
        """Semivariances of residuals by distance, and those of the model's errors as a line.

        Parameters
        ----------
        kind, robust, time, group, bins, max_distance : as in `Fit.semivariogram`.

        Residuals vary somewhat less than errors, because random effects and coefficients follow them.
        """
        where = time, group, bins, max_distance
        table = variogram(self._fitted, kind, robust, *where)
        return plot.plot_semivariogram(table, ax, expected=expected_variogram(self._fitted, kind, *where))


PICTURES = frozenset(("ranef", "effects", "profile", "contour"))
"""Pictures that need no rows."""


class ChunkedPlots(FitPlots):
    """Pictures of a fit of data that are read by the chunk: `ranef`, `effects`, `profile`, `contour`."""

    def __getattribute__(self, name: str) -> Any:
        if name in vars(FitPlots) and not name.startswith("_") and name not in PICTURES:
            raise AttributeError(f"plot.{name} {ROWS}")
        return super().__getattribute__(name)

    def __call__(self, ax: Any = None, **options: Any) -> Any:
        """Refused: a picture of residuals needs all rows."""
        raise ValueError(f"plot() {ROWS}")

    def __repr__(self) -> str:
        return self._listed(sorted(PICTURES))

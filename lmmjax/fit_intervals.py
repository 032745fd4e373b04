"""Intervals of a fit (Wald, profile likelihood, bootstrap) and functions of its parameters."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pandas as pd
from scipy.special import chdtri, ndtr, ndtri, stdtrit

from lmmjax import functions, varcomp
from lmmjax.formula.columns import nearest
from lmmjax.functions import require_level
from lmmjax.inference.surface import Surface, Target, endpoint
from lmmjax.influence import require_estimates

if TYPE_CHECKING:
    from lmmjax.results import Fit

METHODS = ("wald", "profile", "boot")


class Intervals:
    """Methods of `Fit` about intervals."""

    @cached_property
    def _by_other_criterion(self: Any) -> Fit:
        return self.refit(reml=not self.reml)

    def conf_int(
        self: Any,
        method: str = "wald",
        level: float = 0.95,
        which: str = "fixed",
        *,
        ddf: str = "normal",
        criterion: str | None = None,
        key: Any = None,
        n: int = 1000,
        kind: str = "percentile",
    ) -> pd.DataFrame:
        """Confidence intervals, columns lower and upper.

        Parameters
        ----------
        method : "wald": standard deviations on the log scale, correlations on Fisher's z scale; "profile":
            the values at which twice the log-likelihood, maximised over the other parameters, is within χ²₁'s
            quantile of its maximum; "boot": from `bootstrap`.
        which : "fixed", or "all" for sds, correlations, sigma and then the fixed effects.
        ddf : of Wald intervals of fixed effects: "normal" as in lme4, or "satterthwaite" or "kenward-roger"
            for t quantiles with the degrees of freedom and standard errors of `coef_table`.
        criterion : of profiles: None or "ml" for the likelihood, whatever criterion the model was fitted by,
            as lme4 does; "reml" for the restricted likelihood, which knows only variance components: fixed
            effects are profiled by maximum likelihood all the same.
        key, n, kind : of the bootstrap: `jax.random` key (key 0 if None), replicates, and "percentile",
            "basic", "normal" or "bca" (see `Bootstrap.conf_int`).
        """
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}; choose one of: {', '.join(METHODS)}")
        if which not in ("fixed", "all"):
            raise ValueError(f"unknown which {which!r}; choose one of: fixed, all")
        require_level(level)
        if method == "wald":
            table = self.coef_table(ddf)
            quantile = ndtri(0.5 + level / 2) if ddf == "normal" else stdtrit(table["df"], 0.5 + level / 2)
            half = quantile * table["se"]
            fixed = pd.DataFrame({"lower": self.params - half, "upper": self.params + half})
            if which == "fixed":
                return fixed
            rows = self.model.components
            return pd.concat(
                [varcomp.sd_intervals(rows, self.estimate.psi, self.estimate.cov_psi, level), fixed]
            )
        names = list(targets(self)) if which == "all" else list(self.params.index)
        if method == "profile":
            ends = {name: limits(surface(self, [name], criterion), level) for name in names}
            return pd.DataFrame(list(ends.values()), index=list(ends), columns=["lower", "upper"])
        boot = self.bootstrap(jax.random.key(0) if key is None else key, n)
        without = leave_out(self, list(boot.original.index)) if kind == "bca" else None
        return boot.conf_int(level, kind, without).loc[names]

    def profile(
        self: Any,
        parameters: str | list[str] | None = None,
        *,
        level: float = 0.99,
        points: int = 21,
        criterion: str | None = None,
    ) -> pd.DataFrame:
        """Profiles for plotting: one row a point, from one end of the interval of `level` to the other.

        Columns parameter, value, zeta (signed root of the rise), deviance, then every parameter of the model
        at the constrained optimum.

        Parameters
        ----------
        parameters : names as in `conf_int`; all if None.
        points : per parameter, the estimate in the middle; on either side equally spaced in sds, log σ,
            asin of correlations, coefficients.
        criterion : as for `conf_int`.
        """
        require_level(level)
        wanted = [parameters] if isinstance(parameters, str) else parameters
        wanted = list(targets(self)) if wanted is None else wanted
        pieces = [
            profile_frame(self, name, surface(self, [name], criterion), level, points) for name in wanted
        ]
        return pd.concat(pieces, ignore_index=True)

    def contour(
        self: Any,
        first: str,
        second: str,
        *,
        level: float = 0.99,
        points: int = 25,
        criterion: str | None = None,
    ) -> pd.DataFrame:
        """Joint profile of two parameters: rise of the deviance on a grid, values of `first` × of `second`.

        The grid covers the joint confidence region of `level`, on whose border the rise is χ²₂'s quantile.
        """
        require_level(level)
        if first == second:
            raise ValueError(f"a contour needs two parameters, not {first!r} twice")
        # of one parameter: the level whose interval is the shadow of the joint region
        region = 1.0 - 2.0 * float(ndtr(-np.sqrt(chdtri(2, 1.0 - level))))
        joint = surface(self, [first, second], criterion)
        # both profiles on the criterion of the joint one
        same = "reml" if joint.problem.reml else "ml"
        values = [
            np.linspace(low, high, points)
            for low, high in (limits(surface(self, [name], same), region) for name in (first, second))
        ]
        rise, x = np.empty((points, points)), joint.x
        for i, a in enumerate(values[0]):
            # back and forth, so that every optimum starts from its neighbour's
            for j in range(points)[:: 1 if i % 2 == 0 else -1]:
                at = np.array([joint.coordinate(0, a), joint.coordinate(1, values[1][j])])
                found, _ = joint.locate(at, x)
                rise[i, j], x = float(found.f) - joint.minimum, found.x
        return pd.DataFrame(
            rise, index=pd.Index(values[0], name=first), columns=pd.Index(values[1], name=second)
        )

    def delta(self: Any, fun: Callable, level: float = 0.95) -> pd.DataFrame:
        """Any smooth function of the parameters: columns estimate, se, lower, upper, by the delta method.

        Parameters
        ----------
        fun : takes a dict of all parameters by name, as in `conf_int(which="all")`, and returns a scalar, a
            vector or a dict of scalars. JAX differentiates it: take log and the like from `jax.numpy`.

        Fixed effects and variance components are taken as independent. Values that depend on a variance
        component on the boundary have no standard error.
        """
        require_level(level)
        return functions.table(self, *functions.named(self.model, fun), level)

    def icc(self: Any, by_group: bool = False, *, se: bool = False, level: float = 0.95) -> Any:
        """Share of the variance that is between groups, averaged over the rows where slopes vary.

        For one random intercept τ²/(τ² + σ²). With by_group=True a Series by grouping factor. With se=True a
        frame: estimate, se, lower, upper, by the delta method, limits on the logit scale.

        Source: Johnson (2014), doi:10.1111/2041-210X.12225.
        """
        fun, names = functions.icc(self.model, by_group)
        if se:
            return functions.table(self, fun, names, require_level(level), "logit")
        values = functions.at_estimate(fun, self.estimate)
        return pd.Series(values, index=names, dtype=float) if by_group else float(values[0])

    def r2(self: Any, *, se: bool = False, level: float = 0.95) -> Any:
        """Marginal and conditional R²: shares of the fixed part, and of both parts, in the variance.

        A Series; with se=True a frame: estimate, se, lower, upper, by the delta method, limits on the logit
        scale. X is taken as given, so that se is that of β̂ and the variance components only.

        Source: Nakagawa & Schielzeth (2013), doi:10.1111/j.2041-210x.2012.00261.x; random slopes
        Johnson (2014), doi:10.1111/2041-210X.12225.
        """
        fun, names = functions.r2(self.model)
        if se:
            return functions.table(self, fun, names, require_level(level), "logit")
        return pd.Series(functions.at_estimate(fun, self.estimate), index=names, name="r2")


def targets(fit: Fit) -> dict[str, Target]:
    """Every parameter by name, in the order of `conf_int(which="all")`."""
    rows = fit.model.components
    out = {}
    for name, row in zip(varcomp.names(rows), rows, strict=True):
        kind = {"variance": "sd", "covariance": "cor"}.get(row.kind, row.kind)
        out[name] = Target(kind, row.term, row.i, row.j) if kind != "sigma" else Target("sigma", -1)
    return out | {name: Target("beta", -1, i) for i, name in enumerate(fit.params.index)}


def surface(fit: Fit, names: list[str], criterion: str | None) -> Surface:
    """The criterion as a function of parameters: ML, or REML if asked for and none is a coefficient."""
    if criterion not in (None, "ml", "reml"):
        raise ValueError(f"unknown criterion {criterion!r}; choose one of: ml, reml")
    known = targets(fit)
    for name in names:
        if name not in known:
            raise ValueError(f"unknown parameter {name!r}: {nearest(str(name), list(known))}")
    wanted = [known[name] for name in names]
    reml = criterion == "reml" and all(target.kind != "beta" for target in wanted)
    require_estimates(fit)
    structure = fit.model.design.structure
    if structure.residual is not None or not structure.linear or fit.model.design.known is not None:
        raise ValueError(
            "profiles are for unstructured and diagonal random effects with independent residuals: use "
            "conf_int(method='wald') or method='boot'"
        )
    best = fit if fit.reml == reml else fit._by_other_criterion
    with jax.enable_x64(True):
        problem = best.model.problem(best.y, best.reml)
        return Surface(problem, best.estimate.psi, best.estimate.beta, wanted)


def limits(surface: Surface, level: float) -> tuple[float, float]:
    """Profile interval of the one parameter of a surface."""
    target = float(ndtri(0.5 + level / 2))
    if not np.isfinite(surface.best[0]):
        return np.nan, np.nan
    low, high = (surface.value(0, endpoint(surface, side, target)[0]) for side in (-1, 1))
    return low, high


def profile_frame(fit: Fit, name: str, surface: Surface, level: float, points: int) -> pd.DataFrame:
    """The profile of one parameter; see `Intervals.profile`."""
    target, best = float(ndtri(0.5 + level / 2)), float(surface.best[0])
    ends = [endpoint(surface, side, target)[0] for side in (-1, 1)]
    half = points // 2 + 1
    grid = np.unique(np.concatenate([np.linspace(end, best, half) for end in ends]))
    rows: dict[float, list[float]] = {}
    for side in (grid[grid >= best], grid[grid <= best][::-1]):
        x = surface.x
        for at in side:
            found, _ = surface.locate(np.array([at]), x)
            x, rise = found.x, max(float(found.f) - surface.minimum, 0.0)
            psi, beta = surface.parameters(found)
            sdcor, _ = varcomp.sd_scale(psi, fit.model.components)
            zeta = np.sign(at - best) * np.sqrt(rise)
            rows[at] = [surface.value(0, at), zeta, float(found.f), *sdcor, *beta]
    columns = ["value", "zeta", "deviance", *targets(fit)]
    frame = pd.DataFrame([rows[at] for at in sorted(rows)], columns=columns)
    frame.insert(0, "parameter", name)
    return frame


def leave_out(fit: Fit, names: list[str]) -> np.ndarray | None:
    """Parameters (G, k) without each independent group; None where a factor crosses the others."""
    random = fit.model.frame.random
    for term in random:
        pairs = [np.unique(np.stack([term.codes, other.codes]), axis=1).shape[1] for other in random]
        if pairs == [len(np.unique(other.codes)) for other in random]:
            influence = fit.influence(term.group)
            return pd.concat([influence.params, influence.sdcor], axis=1)[names].to_numpy()
    return None

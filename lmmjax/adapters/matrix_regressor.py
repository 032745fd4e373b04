"""A linear mixed model of matrices with groups, as a regressor of scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.arrays.other_arguments import answered
from lmmjax.fitted import require_known, require_switch
from lmmjax.formula import NewFrame, new_array_frame
from lmmjax.formula.matching import own_index, positions
from lmmjax.inference.delta import t_quantile
from lmmjax.model import Model
from lmmjax.postestimation.hypotheses.estimability import warn_of_rows
from lmmjax.postestimation.predictions.predict import Request, predicted
from lmmjax.results import Fit

try:
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.metrics import r2_score
    from sklearn.utils import _safe_indexing, check_array, check_X_y
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError:
    raise ImportError("regressors need scikit-learn: pip install 'lmmjax[sklearn]'") from None


@answered
class MixedEffectsRegressor(RegressorMixin, BaseEstimator):
    """A linear mixed model of matrices, as a regressor of scikit-learn (`pip install 'lmmjax[sklearn]'`).

    Every column of X has a fixed effect; groups have random intercepts, and random slopes of some columns.
    The groups are columns of X, so that cross-validation and pipelines carry them along, or are passed to
    `fit` and `predict`, as cross-validation does with metadata routing (`set_fit_request(groups=True)`).

    Parameters
    ----------
    slopes : columns of X with random slopes, by position or name, or "all"; None for none.
    groups : columns of X that hold labels of groups, by position or name, one or several; None where they are
        passed.
    covariance : of the random effects of a group, by its name in formulas: "us" for any, "diag", ….
    fit_intercept : whether there is a fixed intercept; random_intercept : one for every group.
    reml : REML, or maximum likelihood.

    Attributes
    ----------
    result_ : the `Fit`.
    coef_ : (p,) fixed effects of the columns that are no groups, NaN of those that depend on others;
        intercept_ : the fixed intercept, 0 without one.
    n_features_in_ : number of columns of X; `feature_names_in_` their names, where X has some.

    Examples
    --------
    >>> import lmmjax as lj
    >>> from lmmjax.datasets import load
    >>> sleep = load("sleepstudy")
    >>> regressor = lj.MixedEffectsRegressor(slopes="all", groups="Subject")
    >>> regressor.fit(sleep[["Days", "Subject"]], sleep["Reaction"]).coef_.round(3).tolist()
    [10.467]
    """

    n_features_in_: int

    def __init__(
        self,
        slopes: Any = None,
        *,
        groups: Any = None,
        covariance: str = "us",
        fit_intercept: bool = True,
        random_intercept: bool = True,
        reml: bool = True,
    ):
        self.slopes, self.groups, self.covariance = slopes, groups, covariance
        self.fit_intercept, self.random_intercept, self.reml = fit_intercept, random_intercept, reml

    def fit(self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None) -> MixedEffectsRegressor:
        """Fit the model.

        Parameters
        ----------
        X : (n, k) array or frame; y : (n,).
        groups : (n,) labels, or (n, f) of several factors; a frame names them. Rows go by their labels
            where X and another have some.
        sample_weight : (n,) prior weights w, Var(ε) = σ²/w; a row of weight zero is left out.

        Raises
        ------
        ValueError : missing or infinite values, no groups, a column that there is none of.
        """
        for name in ("fit_intercept", "random_intercept", "reml"):
            require_switch(name, getattr(self, name))
        place = positions(own_index(y), own_index(X), "y", "X")
        x, labels, values = self._read(X, groups, y, fitting=True)
        values = values if place is None else values[place]
        if not labels:
            raise ValueError("groups is None: pass groups to fit, or name columns of X as groups")
        if self.fit_intercept and "Intercept" in self._names()[1:]:
            raise ValueError("X has a column Intercept: rename it, or take it out, or fit_intercept=False")
        design, effects = self._matrices(x)
        weights, keep = None, np.ones(len(values), bool)
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, x, dtype=np.float64, ensure_non_negative=True)
            keep = weights > 0
            weights = weights[keep]
        labels = {name: np.asarray(own)[keep] for name, own in labels.items()}
        model = Model.from_arrays(
            values[keep],
            design[keep],
            labels,
            {name: effects[keep].reset_index(drop=True) for name in labels},
            x_names=self._names(),
            weights=weights,
            structure=self.covariance,
        )
        self.result_: Fit = model.fit(self.reml)
        beta = self.result_.params.reindex(self._names()).to_numpy()
        self.intercept_ = float(beta[0]) if self.fit_intercept else 0.0
        self.coef_ = beta[1:] if self.fit_intercept else beta
        return self

    def predict(self, X: Any, groups: Any = None, return_std: bool = False) -> Any:
        """x'β̂ + z'b̂ (m,); b is 0 of groups that the fit has not seen, and where there are no groups.

        With return_std also the standard deviation (m,) of a new response at each row: of its residual, of
        random effects that are not known, and of the estimates.

        Parameters
        ----------
        X : rows with the columns that `fit` had. groups : (m,) labels, if `fit` was given some.

        Raises
        ------
        ValueError : X has other columns than in `fit`. NotFittedError : `fit` was not called.
        """
        check_is_fitted(self)
        x, labels, _ = self._read(X, groups)
        fitted = self.result_.fitted
        new = self._new_rows(x, labels)
        warn_of_rows(fitted.data, new)
        if not return_std:
            return predicted(fitted, new, Request(), "normal")[0]
        values, _, half = predicted(fitted, new, Request(interval="prediction"), "normal")
        return values, half / t_quantile(np.array(np.inf), 0.95)

    def score(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> float:
        """R² of the predictions of y.

        Parameters
        ----------
        X, groups : as of `predict`. y : (m,), sample_weight : (m,) of the rows.
        """
        place = positions(own_index(y), own_index(X), "y", "X")
        true = np.asarray(y) if place is None else np.asarray(y)[place]
        return float(r2_score(true, self.predict(X, groups), sample_weight=sample_weight))

    def _new_rows(self, x: np.ndarray, labels: Mapping[str, Any]) -> NewFrame:
        design, effects = self._matrices(x)
        frame = self.result_.fitted.data.frame
        known = [term.group for term in frame.random]
        require_known("group", labels, known)
        return new_array_frame(frame, design, labels, {name: effects.to_numpy() for name in known})

    def _read(
        self, X: Any, groups: Any, y: Any = None, fitting: bool = False
    ) -> tuple[np.ndarray, dict[str, Any], Any]:
        """Features (n, p) that are no groups, labels by factor, y (n,)."""
        options: dict[str, Any] = {"dtype": np.float64, "ensure_min_samples": 2 if fitting else 1}
        target: dict[str, Any] = {"y": y} if fitting else {}
        if self.groups is None:
            numeric = {"y_numeric": True} if fitting else {}
            found: Any = validate_data(self, X, **target, reset=fitting, **numeric, **options)
            x, values = found if fitting else (found, None)
            return x, _labels(groups, X, len(x)), values
        if groups is not None:
            raise ValueError(f"groups are passed, and X has them ({self.groups!r}): one of the two")
        X = np.asarray(X, dtype=object) if isinstance(X, list | tuple) else X
        validate_data(self, X, **target, reset=fitting, skip_check_array=True)
        labels = {name: _safe_indexing(X, j, axis=1) for name, j in self._own_groups().items()}
        free = self._free()
        features = _safe_indexing(X, free, axis=1) if free else np.empty((len(X), 0))
        options["ensure_min_features"] = 0
        if not fitting:
            return check_array(features, **options), labels, None
        x, values = check_X_y(features, y, y_numeric=True, **options)
        return x, labels, values

    def _own_groups(self) -> dict[str, int]:
        """Positions in X of the columns that hold labels, by their names."""
        wanted = [self.groups] if isinstance(self.groups, str | int | np.integer) else list(self.groups)
        names = self._features()
        return {names[j]: j for j in self._places(wanted, "groups")}

    def _features(self) -> list[str]:
        """Names of the columns of X."""
        own = getattr(self, "feature_names_in_", None)
        return [f"x{j}" for j in range(self.n_features_in_)] if own is None else list(own)

    def _places(self, wanted: Sequence[Any], what: str) -> list[int]:
        """Positions in X of columns by position or name."""
        names, k = self._features(), self.n_features_in_
        found = []
        for one in wanted:
            if isinstance(one, str):
                require_known(f"column in {what}", [one], names)
                found.append(names.index(one))
            elif isinstance(one, int | np.integer) and not isinstance(one, bool) and -k <= one < k:
                found.append(int(one) % k)
            else:
                raise ValueError(f"{what} has {one!r}: name columns of X, or give positions below {k}")
        return list(dict.fromkeys(found))

    def _free(self) -> list[int]:
        """Positions in X of the columns that are no groups."""
        taken = set() if self.groups is None else set(self._own_groups().values())
        return [j for j in range(self.n_features_in_) if j not in taken]

    def _names(self) -> list[str]:
        """Names of the fixed effects."""
        names = self._features()
        return ["Intercept"] * self.fit_intercept + [names[j] for j in self._free()]

    def _matrices(self, x: np.ndarray) -> tuple[np.ndarray, pd.DataFrame]:
        """Columns of the fixed effects (n, p) and of the random ones (n, q) with their names."""
        one, free = np.ones((len(x), 1)), self._free()
        if self.slopes is None:
            slopes: list[int] = []
        elif isinstance(self.slopes, str) and self.slopes == "all":
            slopes = free
        else:
            wanted = self.slopes
            single = isinstance(wanted, str | int | np.integer)
            slopes = self._places([wanted] if single else list(wanted), "slopes")
        if wrong := [j for j in slopes if j not in free]:
            raise ValueError(f"slopes has {self._features()[wrong[0]]!r}, a column of groups: take it out")
        if not slopes and not self.random_intercept:
            raise ValueError("there are no random effects: give slopes, or random_intercept=True")
        names = self._features()
        columns = {"(Intercept)": one[:, 0]} if self.random_intercept else {}
        columns |= {names[j]: x[:, free.index(j)] for j in slopes}
        return np.hstack([one, x]) if self.fit_intercept else x, pd.DataFrame(columns)


def _labels(groups: Any, X: Any, n: int) -> dict[str, Any]:
    """Labels (n,) by the name of their factor, in the order of the rows of X."""
    if groups is None:
        return {}
    place = positions(own_index(groups), own_index(X), "groups", "X")
    if hasattr(groups, "columns") or isinstance(groups, Mapping):
        found = {str(name): groups[name] for name in getattr(groups, "columns", groups)}
    elif np.ndim(groups) == 2:
        found = {f"group{j}": column for j, column in enumerate(np.asarray(groups).T)}
    else:
        found = {str(getattr(groups, "name", None) or "group"): groups}
    for name, own in found.items():
        if np.ndim(own) != 1 or len(own) != n:
            raise ValueError(f"{name} has shape {np.shape(own)}: give one label for each row of X, {n}")
    return {name: np.asarray(own) if place is None else np.asarray(own)[place] for name, own in found.items()}

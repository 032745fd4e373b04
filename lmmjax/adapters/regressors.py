"""Linear mixed models as regressors of scikit-learn: by a formula, or of matrices with groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.fitted import require_known, require_switch
from lmmjax.formula import NewFrame, Table, new_array_frame, new_frame, quoted, split_bars
from lmmjax.formula.frame import row_vector
from lmmjax.formula.matching import own_index, positions
from lmmjax.inference.delta import t_quantile
from lmmjax.model import Model, lmm
from lmmjax.postestimation.estimability import warn_of_rows
from lmmjax.postestimation.predict import Request, predict_new, predicted
from lmmjax.results import Fit

try:
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.metrics import r2_score
    from sklearn.utils import _safe_indexing, check_array, check_X_y
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError:
    raise ImportError("regressors need scikit-learn: pip install 'lmmjax[sklearn]'") from None


class LMMRegressor(RegressorMixin, BaseEstimator):
    """A linear mixed model by its formula, as a regressor of scikit-learn (`pip install 'lmmjax[sklearn]'`).

    X is a frame with all columns of the formula, grouping factors among them; those of an array are called
    x0, x1, …. So cross-validation, pipelines and searches split and pass on everything. A fold by groups,
    `GroupKFold`, predicts groups that the fit has not seen, at the level of the population.

    Parameters
    ----------
    formula : "y ~ x + (x | g)" or "~ x + (x | g)". `fit(X, y)` takes y as the response, whatever is called
        so in X; `fit(X)` takes the formula's, of X.
    reml, residual, weights, offset, backend, safe : as for `lmm` and `Model.fit`; weights and offset are names
        or expressions of columns.
    re, new_levels : which random terms predictions have, and what is done about levels that the fit has not
        seen, as for `Fit.predict`.

    Attributes
    ----------
    result_ : the `Fit`.
    n_features_in_ : number of columns of X; `feature_names_in_` their names, where X has some.

    Examples
    --------
    >>> import lmmjax as lj
    >>> from lmmjax.datasets import load
    >>> from sklearn.model_selection import GroupKFold, cross_val_score
    >>> sleep = load("sleepstudy")
    >>> regressor = lj.LMMRegressor("~ Days + (Days | Subject)")
    >>> folds = {"groups": sleep["Subject"], "cv": GroupKFold(3)}
    >>> cross_val_score(regressor, sleep, sleep["Reaction"], **folds).shape
    (3,)
    """

    def __init__(
        self,
        formula: str,
        *,
        reml: bool = True,
        residual: Any = None,
        weights: str | None = None,
        offset: str | None = None,
        backend: str | None = None,
        safe: bool = False,
        re: Any = "all",
        new_levels: str = "population",
    ):
        self.formula, self.reml, self.residual = formula, reml, residual
        self.weights, self.offset, self.backend, self.safe = weights, offset, backend, safe
        self.re, self.new_levels = re, new_levels

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> LMMRegressor:
        """Fit the model to the rows of X that are complete.

        Parameters
        ----------
        X : (n, k) frame or array; y : (n,), matched by the labels of rows where both have some, or None.
        sample_weight : (n,) prior weights w, Var(ε) = σ²/w; a row of weight zero is left out.

        Raises
        ------
        ValueError : as for `lmm`; y that is missing, or given beside a formula that transforms its response.
        """
        require_switch("reml", self.reml)
        x, names = _frame(X)
        table = Table(x)
        formula, columns = self._with_response(table, y)
        weights = self.weights
        if sample_weight is not None:
            if weights is not None:
                raise ValueError("sample_weight is given beside weights: multiply them, and pass one")
            weights = row_vector(sample_weight, "sample_weight", table.n, table.index)
            # a missing one leaves its row out
            weights = np.where(weights == 0, np.nan, weights)
        options = {"offset": self.offset, "residual": self.residual, "backend": self.backend}
        model = lmm(formula, columns, weights=weights, safe=self.safe, **options)
        self.result_: Fit = model.fit(self.reml)
        self.n_features_in_ = len(table.keys)
        if names is not None:
            self.feature_names_in_ = names
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        return self

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """x'β̂ + z'b̂ (m,) for the rows of X, NaN where one of their values is missing.

        With return_std also the standard deviation (m,) of a new response at each row: of its residual, of
        random effects that are not known, and of the estimates.
        """
        check_is_fitted(self)
        x, _ = _frame(X)
        fitted, request = self.result_.fitted, Request(re=self.re, new_levels=self.new_levels)
        if not return_std:
            return predict_new(fitted, x, request).to_numpy()
        request = replace(request, interval="prediction", ddf="normal")
        table = pd.DataFrame(predict_new(fitted, x, request))
        half = table["upper"].to_numpy() - table["fit"].to_numpy()
        return table["fit"].to_numpy(), half / t_quantile(np.array(np.inf), 0.95)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """R² of the predictions of y, or of the formula's response in X."""
        check_is_fitted(self)
        x, _ = _frame(X)
        if y is None:
            true = new_frame(self.result_.fitted.data.frame, x, groups=(), require_response=True).y
        else:
            self._response_name()
            table = Table(x)
            true = row_vector(y, "y", table.n, table.index)
        return float(r2_score(true, self.predict(x), sample_weight=sample_weight))

    def _response_name(self) -> str | None:
        """The column that y is; None where the formula has no response."""
        response = split_bars(self.formula, dot=True).response
        if response is None:
            return None
        name = response.strip("`")
        if "`" in name or response not in (f"`{name}`", quoted(name)):
            raise ValueError(
                f"the formula has the response {response}, so y cannot take its place: pass X alone, or write "
                "the name of y there, and use TransformedTargetRegressor"
            )
        return name

    def _with_response(self, table: Table, y: Any) -> tuple[str, Any]:
        """The formula with a response, and data that have it."""
        if y is None:
            if split_bars(self.formula, dot=True).response is None:
                raise ValueError(f"the formula {self.formula!r} has no response: pass y")
            return self.formula, table.data
        formula, name = self.formula, self._response_name()
        if name is None:
            own = getattr(y, "name", None)
            name = own if isinstance(own, str) and own.isidentifier() else "y"
            while name in table.keys:
                name += "_"
            formula = f"{name} {formula}"
        columns = {own: table.data[key] for own, key in table.keys.items() if own != name}
        values = row_vector(y, "y", table.n, table.index)
        if np.isnan(values).any():
            raise ValueError("y has missing values: leave these rows out")
        return formula, columns | {name: pd.Series(values, index=table.index)}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.string = tags.input_tags.categorical = True
        tags.target_tags.required = False
        return tags


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
        groups : (n,) labels, or (n, f) of several factors; a frame names them. Rows go by their labels where X
            and another have some.
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
        """R² of the predictions of y."""
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
            found = validate_data(self, X, **target, reset=fitting, **numeric, **options)
            x, values = found if fitting else (found, None)
            return x, _labels(groups, X, len(x)), values
        if groups is not None:
            raise ValueError(f"groups are passed, and X has them ({self.groups!r}): one of the two")
        validate_data(self, X, **target, reset=fitting, skip_check_array=True)
        features = _safe_indexing(X, self._free(), axis=1)
        labels = {name: _safe_indexing(X, j, axis=1) for name, j in self._own_groups().items()}
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


def _frame(X: Any) -> tuple[Any, np.ndarray | None]:
    """X with names of its columns, and these where it came with some."""
    if hasattr(X, "toarray"):
        raise ValueError("X is sparse: pass a frame with the columns of the formula")
    if isinstance(X, np.ndarray | list | tuple):
        array = check_array(X, dtype=None, ensure_all_finite=False)
        names = [f"x{j}" for j in range(array.shape[1])]
        return pd.DataFrame(array, columns=names).infer_objects(), None
    return X, np.asarray(list(Table(X).keys), dtype=object)


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
            raise ValueError(f"{name} has shape {np.shape(own)}: give one label for each of the {n} rows of X")
    return {
        name: np.asarray(own) if place is None else np.asarray(own)[place] for name, own in found.items()
    }

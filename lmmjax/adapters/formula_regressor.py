"""A linear mixed model by its formula, as a regressor of scikit-learn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.arrays.other_arguments import answered
from lmmjax.fitted import require_switch
from lmmjax.formula import Table, new_frame, quoted, split_bars
from lmmjax.formula.frame import row_vector
from lmmjax.formula.matching import own_index
from lmmjax.inference.delta import t_quantile
from lmmjax.model import lmm
from lmmjax.postestimation.predictions.predict import Request, predict_new
from lmmjax.results import Fit

try:
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.metrics import r2_score
    from sklearn.utils import check_array, column_or_1d
    from sklearn.utils.validation import check_is_fitted
except ImportError:
    raise ImportError("regressors need scikit-learn: pip install 'lmmjax[sklearn]'") from None


@answered
class LMMRegressor(RegressorMixin, BaseEstimator):
    """A linear mixed model by its formula, as a regressor of scikit-learn (`pip install 'lmmjax[sklearn]'`).

    X is a frame with all columns of the formula, grouping factors among them; those of an array are called
    x0, x1, …. So cross-validation, pipelines and searches split and pass on everything. A fold by groups,
    `GroupKFold`, predicts groups that the fit has not seen, at the level of the population.

    Parameters
    ----------
    formula : "y ~ x + (x | g)" or "~ x + (x | g)". `fit(X, y)` takes y as the response, whatever is called
        so in X; `fit(X)` takes the formula's, of X.
    reml, residual, weights, offset, backend, safe : as for `lmm` and `Model.fit`; weights and offset are
        names or expressions of columns.
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

        Parameters
        ----------
        X : rows with the columns that `fit` had. return_std : see above.

        Raises
        ------
        ValueError : a column is missing; NotFittedError : `fit` was not called.
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
        """R² of the predictions of y, or of the formula's response in X.

        Parameters
        ----------
        X, y : as of `fit`. sample_weight : (m,) of the rows.
        """
        check_is_fitted(self)
        x, _ = _frame(X)
        if y is None:
            true = new_frame(self.result_.fitted.data.frame, x, groups=(), require_response=True).y
        else:
            self._response_name()
            table = Table(x)
            true = _response(y, table)
        return float(r2_score(true, self.predict(x), sample_weight=sample_weight))

    def _response_name(self) -> str | None:
        """The column that y is; None where the formula has no response."""
        response = split_bars(self.formula, dot=True).response
        if response is None:
            return None
        name = response.strip("`")
        if "`" in name or response not in (f"`{name}`", quoted(name)):
            raise ValueError(
                f"the formula has the response {response}, so y cannot take its place: pass X alone, or "
                "write the name of y there, and use TransformedTargetRegressor"
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
        values = _response(y, table)
        if np.isnan(values).any():
            raise ValueError("y has missing values: leave these rows out")
        return formula, columns | {name: pd.Series(values, index=table.index)}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.string = tags.input_tags.categorical = True
        tags.target_tags.required = False
        return tags


def _response(y: Any, table: Table) -> np.ndarray:
    """y (n,) in the order of the rows of a table; a column (n, 1) is one, with scikit-learn's warning."""
    if np.ndim(y) == 2:
        y = pd.Series(column_or_1d(y, warn=True), index=own_index(y))
    return row_vector(y, "y", table.n, table.index)


_ANYTHING: dict[str, Any] = {"dtype": None, "ensure_all_finite": False}


def _frame(X: Any) -> tuple[Any, np.ndarray | None]:
    """X with names of its columns, and these where it came with some."""
    if hasattr(X, "toarray"):
        raise ValueError("X is sparse: pass a frame with the columns of the formula")
    if isinstance(X, np.ndarray | list | tuple):
        array = check_array(X, **_ANYTHING)
        names = [f"x{j}" for j in range(array.shape[1])]
        return pd.DataFrame(array, columns=names).infer_objects(), None
    return X, np.asarray(list(Table(X).keys), dtype=object)

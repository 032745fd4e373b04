"""What other packages call arguments: one that a function does not have is answered with the one it has."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

Made = TypeVar("Made", bound=Callable)

HERE: dict[str, tuple[tuple[str, str], ...]] = {
    # lme4, lmerTest, emmeans, nlme
    "re_form": (("re", "use re='all', or re='none' for lme4's NA and ~0"),),
    "allow_new_levels": (("new_levels", "use new_levels='population', which has b = 0 there"),),
    "se_fit": (("se", "use se=True"),),
    "REML": (("reml", "use reml="), ("formula", "it is one of fit: lmm(formula, data).fit(reml=False)")),
    "control": (("max_iter", "use method= and max_iter="), ("formula", "fit has method= and max_iter=")),
    "na_action": (("data", "rows with missing values are left out, and counted"),),
    "subset": (("data", "select rows of the data: lmm(formula, data[rows])"),),
    "contrasts": (("formula", "write them in the formula: C(f, contr.sum)"),),
    "family": (("formula", "responses are normal (docs/limitations.md)"),),
    "random": (("formula", "write it in the formula: y ~ x + (x | g)"),),
    "repeated": (("residual", "use residual=, such as lj.Unstructured('visit', group='id')"),),
    "correlation": (("residual", "use residual=, such as lj.AR1('week', group='id')"),),
    "nsim": (("n", "use n="), ("draws", "use draws=")),
    "lmer_df": (("ddf", "use ddf="),),
    "df": (("ddf", "use ddf="),),
    "method": (("reml", "use reml="), ("ddf", "use ddf=")),
    # statsmodels
    "exog": (("newdata", "new rows are newdata, the first argument"),),
    "alpha": (("level", "use level=, which is 1 − alpha"),),
    "groups": (("formula", "write them in the formula: y ~ x + (1 | g)"),),
    "re_formula": (("formula", "write it in the formula: y ~ x + (x | g)"),),
    "vc_formula": (("formula", "write it in the formula: y ~ x + (1 | a) + (1 | b)"),),
    "missing": (("data", "rows with missing values are left out, and counted"),),
    "cov_type": (("robust", "use robust='CR2' with cluster="),),
    "seed": (("key", "use key=jax.random.key(1)"),),
    # limma
    "coef": (("term", "use term="),),
    "number": (("n", "use n="),),
}
"""Names of arguments of other packages: (an argument of a function, what to say), the first that it has."""


def answered(function: Made) -> Made:
    """A function that names the argument to use where it is given one that it does not have (TypeError)."""

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except TypeError:
            said = answer(function, options)
            if not said:
                raise
        raise TypeError(said)

    return call  # type: ignore[return-value]


def answer(function: Callable, options: Iterable[str]) -> str:
    """What to say of the first of the options that the function does not have; "" if it has all."""
    known = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return ""
    wrong = next((name for name in options if name not in known), None)
    if wrong is None:
        return ""
    own = [name for name in known if name != "self"]
    said = next((words for name, words in HERE.get(wrong, ()) if name in known), "")
    if not said:
        close = difflib.get_close_matches(wrong, own, n=1)
        said = f"did you mean {close[0]}=?" if close else f"it has {', '.join(own)}"
    return f"{function.__name__} has no argument {wrong!r}: {said}"

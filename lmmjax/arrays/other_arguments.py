"""What other packages call arguments: one that a function does not have is answered with the one it has."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, Self, TypeVar

Made = TypeVar("Made", bound=Callable)

HERE: dict[str, tuple[tuple[str, str], ...]] = {
    # lme4, lmerTest, emmeans, nlme, mmrm, SAS
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
    "subject": (("group", "use group="),),
    "id": (("ids", "use ids="), ("group", "use group=")),
    "visit": (("time", "use time="),),
    "form": (("group by", "name the columns: AR1('week', group='id') is corAR1(form = ~ week | id)"),),
    "value": (("group by", "starting values are those of fit(start=)"),),
    "nsim": (("n", "use n="), ("draws", "use draws=")),
    "lmer_df": (("ddf", "use ddf="),),
    "df": (("ddf", "use ddf="),),
    "method": (("reml", "use reml="), ("ddf", "use ddf=")),
    # statsmodels
    "exog": (("newdata", "new rows are newdata, the first argument"),),
    "alpha": (("level", "use level=, which is 1 − alpha"),),
    "groups": (
        ("group", "use group="),
        ("formula", "write them in the formula: y ~ x + (1 | g)"),
    ),
    "re_formula": (("formula", "write it in the formula: y ~ x + (x | g)"),),
    "vc_formula": (("formula", "write it in the formula: y ~ x + (1 | a) + (1 | b)"),),
    "missing": (("data", "rows with missing values are left out, and counted"),),
    "cov_type": (("robust", "use robust='CR2' with cluster="),),
    "seed": (("key", "use key=jax.random.key(1)"),),
    # scikit-learn, JAX
    "X": (("x", "use x="), ("newdata", "new rows are newdata, the first argument")),
    "random_state": (("key", "use key=jax.random.key(1)"),),
    "n_jobs": (
        ("executor", "use executor=, of concurrent.futures"),
        ("responses", "threads are those of JAX"),
    ),
    # kernels and scans
    "K": (("kernels", "use kernels={'id': K}"), ("matrix", "use matrix=, the first argument")),
    "kinship": (
        ("kernels", "use kernels={'id': K}"),
        ("markers group", "it is an argument of lmm: kernels={'id': K}"),
    ),
    "labels": (("ids", "use ids="),),
    "levels": (("ids", "use ids="),),
    "genotypes": (("markers", "use markers=, the first argument"),),
    "snps": (("markers", "use markers=, the first argument"),),
    "covariates": (("markers group", "they are in the formula of the model"),),
    # limma
    "block": (
        ("formula", "write it in the formula: ~ x + (1 | block)"),
        ("responses", "write it in the formula of lmm: ~ x + (1 | block)"),
    ),
    "design": (("responses", "it is the formula of lmm: lmm('~ x', samples).fit_batch(responses)"),),
    "coef": (("term", "use term="),),
    "number": (("n", "use n="),),
}
"""Names of arguments of other packages: (arguments of a function, what to say), the first that it has."""

MOST = 8
"""Arguments that are listed beside the one that is near."""


def answered(made: Made, name: str = "") -> Made:
    """A function that names the argument to use where it is given one that it does not have (TypeError).

    Of a class its constructor and its public methods, those that it inherits too. `name` is what users call,
    where that is another function, which hands its options down.
    """
    if not isinstance(made, type):
        return _answering(made, name)
    members = {name: member for one in reversed(made.__mro__[:-1]) for name, member in vars(one).items()}
    for name, member in members.items():
        if name.startswith("_") and name != "__init__":
            continue
        if isinstance(member, classmethod | staticmethod):
            setattr(made, name, type(member)(_answering(member.__func__)))
        elif inspect.isfunction(member):
            setattr(made, name, _answering(member))
    return made  # type: ignore[return-value]


class Answering:
    """A base of dataclasses: their constructors answer as `answered` functions do."""

    def __new__(cls, *args: Any, **options: Any) -> Self:
        if options and (said := answer(cls, options)):
            raise TypeError(said)
        return super().__new__(cls)


def _answering(function: Any, name: str = "") -> Any:
    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except TypeError:
            said = answer(function, options, name)
            if not said:
                raise
        raise TypeError(said)

    return call


def answer(function: Callable, options: Iterable[str], name: str = "") -> str:
    """What to say of the first of the options that the function does not have; "" if it has all."""
    known = _arguments(function)
    wrong = None if known is None else next((one for one in options if one not in known), None)
    if known is None or wrong is None:
        return ""
    said = next((words for one, words in HERE.get(wrong, ()) if {*one.split()} <= {*known}), "")
    if not said:
        close = difflib.get_close_matches(wrong, known, n=1)
        said = f"did you mean {close[0]}=? " if close else ""
        said += f"it has {', '.join(known) or 'none'}" if len(known) <= MOST or not close else ""
    name = name or function.__qualname__.removesuffix(".__init__").rpartition(".")[2]
    return f"{name} has no argument {wrong!r}: {said.strip()}"


@functools.lru_cache(1024)
def _arguments(function: Callable) -> tuple[str, ...] | None:
    """Names of what it takes by name; None where it takes any."""
    known = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return None
    return tuple(one for one in known if one not in ("self", "cls", "fitted"))

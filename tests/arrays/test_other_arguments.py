"""A wrong name of an argument is answered with the right one, wherever users give one."""

import inspect
import pickle

import jax
import numpy as np
import pytest

import lmmjax as lj
from lmmjax import bayes
from lmmjax.arrays.other_arguments import HERE, answer, answered
from lmmjax.datasets import load

MADE_BY_OTHERS = {"BatchFit", "Estimate", "Fit", "Moments", "Problem", "Status"}
NOT_CALLED = {"EstimabilityWarning", "FitWarning", "Model", "__version__"}
CALLED = [getattr(lj, name) for name in lj.__all__ if name not in MADE_BY_OTHERS | NOT_CALLED]
CALLED += [getattr(bayes, name) for name in bayes.__all__]
HOLDERS = (lj.Fit, lj.BatchFit, lj.Model, lj.Kernel, lj.Pedigree)


def test_arguments_that_a_function_has_are_let_through():
    """A TypeError of the function itself stays what it was; so do names, signatures and pickles."""

    @answered
    def total(a, *, ddf="kr", level=0.95):
        return a + None

    with pytest.raises(TypeError, match="unsupported operand"):
        total(1)
    with pytest.raises(TypeError, match=r"total has no argument 'lvel': did you mean level=\?"):
        total(1, lvel=3)
    with pytest.raises(TypeError, match="missing 1 required"):
        total()
    assert total.__name__ == "total"
    assert [*inspect.signature(lj.lmm).parameters][:2] == ["formula", "data"]
    assert pickle.loads(pickle.dumps(lj.lmm)) is lj.lmm


@pytest.mark.parametrize("called", [load, *CALLED], ids=lambda called: called.__name__)
def test_what_users_call_answers(called):
    if all(p.kind is not p.VAR_KEYWORD for p in inspect.signature(called).parameters.values()):
        with pytest.raises(TypeError, match=f"{called.__name__} has no argument 'nothing': it has"):
            called(nothing=1)


@pytest.mark.parametrize("holder", HOLDERS, ids=lambda holder: holder.__name__)
def test_methods_answer(holder):
    for name, method in inspect.getmembers(holder, callable):
        parameters = [] if name.startswith("_") else inspect.signature(method).parameters.values()
        if parameters and all(p.kind is not p.VAR_KEYWORD for p in parameters):
            with pytest.raises(TypeError, match="has no argument 'nothing'"):
                method(*([] if inspect.ismethod(method) else [None]), nothing=1)


def test_options_that_are_handed_down():
    fit = lj.lmm("Reaction ~ Days + (1 | Subject)", load("sleepstudy")).fit()
    with pytest.raises(TypeError, match=r"posterior has no argument 'seed': use key="):
        fit.posterior(jax.random.key(0), seed=1)
    with pytest.raises(TypeError, match="stream_batch has no argument 'foo'"):
        fit.model.stream_batch("y.parquet", "out.parquet", foo=1)
    with pytest.raises(TypeError, match=r"grm has no argument 'metod': did you mean method=\? it has"):
        lj.Kernel.from_markers(np.zeros((3, 3)), metod="x")


def test_constructors_stay_what_they_are():
    made = lj.AR1("week", group="id")
    assert pickle.loads(pickle.dumps(made)) == made
    assert [*inspect.signature(lj.AR1).parameters] == ["time", "group", "by", "nugget"]
    assert [*inspect.signature(lj.Kernel).parameters][:2] == ["matrix", "ids"]


def test_words_name_arguments_that_are_there():
    def one(a, b):
        return a

    assert answer(one, ["a", "b"]) == ""
    assert answer(one, ["c"]) == "one has no argument 'c': it has a, b"
    assert all(said for words in HERE.values() for _, said in words)


@pytest.mark.parametrize(
    ("called", "wrong", "said", "other"),
    [
        (lj.Fit.scan, "id", "use ids=", "group="),
        (lj.Fit.scan, "value", "it has", "start"),
        (lj.Fit.scan, "form", "it has", "AR1"),
        (lj.Fit.scan, "kinship", "argument of lmm", "it has"),
        (lj.grm, "covariates", "it has", "formula"),
        (lj.grm, "kinship", "it has", "kernels"),
        (lj.AR1, "value", "starting values", "it has"),
    ],
)
def test_a_remedy_is_one_of_the_function(called, wrong, said, other):
    words = answer(called, [wrong]).partition(": ")[2]
    assert said in words or (said == "it has" and "did you mean" in words)
    assert other not in words

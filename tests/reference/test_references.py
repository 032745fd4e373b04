"""Results of lme4 and nlme in ../shared/reference: every model with iid residuals."""

import functools

import pytest
from r_models import ASPECTS
from reference_data import FORMULAS, PRESENT, STORED, read

import lmmjax as lj

if not PRESENT:
    pytest.skip("../shared/reference is not beside the repository", allow_module_level=True)


def covered(ref) -> bool:
    return ref["id"] in FORMULAS or "lmer" in ref["engine"]


MODELS = {ref["id"]: ref for ref in STORED["models"].values() if covered(ref)}


@functools.cache
def fitted_model(name):
    ref = MODELS[name]
    formula = FORMULAS.get(name) or ref["formula"]
    return lj.lmm(formula, read(ref), weights=ref["weights"]).fit(reml=ref["method"] == "REML")


@pytest.mark.parametrize("aspect", ASPECTS)
@pytest.mark.parametrize("name", MODELS)
def test_equals_r(name, aspect):
    ASPECTS[aspect](fitted_model(name), MODELS[name])

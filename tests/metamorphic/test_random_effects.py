"""Models with random effects and independent residuals: no transformation changes what they report."""

import meta_pairs
from meta_models import MODELS

OWN = [model for model, case in MODELS.items() if case.residual is None]


def pytest_generate_tests(metafunc):
    if "move" in metafunc.fixturenames:
        metafunc.parametrize(("move", "model"), meta_pairs.parameters(metafunc.config, OWN))


def test_nothing_changes(move, model):
    meta_pairs.check(move, model)

"""Models whose residuals have a structure: no transformation changes what they report."""

import meta_pairs
from meta_models import MODELS

OWN = [model for model, case in MODELS.items() if case.residual is not None]


def pytest_generate_tests(metafunc):
    if "move" in metafunc.fixturenames:
        metafunc.parametrize(("move", "model"), meta_pairs.parameters(metafunc.config, OWN))


def test_nothing_changes(move, model):
    meta_pairs.check(move, model)

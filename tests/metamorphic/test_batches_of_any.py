"""A response is fitted alike alone, in small and large batches, and beside some that cannot be fitted."""

import meta_pairs
from meta_models import MODELS


def pytest_generate_tests(metafunc):
    if "move" in metafunc.fixturenames:
        pairs = meta_pairs.parameters(metafunc.config, list(MODELS), batches=True)
        metafunc.parametrize(("move", "model"), pairs)


def test_nothing_changes(move, model):
    meta_pairs.check(move, model)

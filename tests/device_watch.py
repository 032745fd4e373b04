"""What batches on devices bring to the host, and who asks for it."""

import contextlib
import sys

import jax
import numpy as np
import pytest

MAY = {
    "most": "between stages, the number of lanes of each device that go on",
    "unpacked": "at the end of a block, its records",
    "ready": "before a block descends, which responses are finite, and which the host forms again",
}
"""Functions that may bring arrays to the host, and what."""


def callers(depth: int = 24) -> set[str]:
    """Names of the functions that are running, from the inside."""
    names, frame = set(), sys._getframe(2)
    while frame is not None and len(names) < depth:
        names.add(frame.f_code.co_name)
        frame = frame.f_back
    return names


@contextlib.contextmanager
def watched(brought):
    """Calls `brought` with (names of who asked, shape) for every array that comes to the host."""
    patch = pytest.MonkeyPatch()

    def through(make):
        def call(a, *args, **kwargs):
            if isinstance(a, jax.Array) and not isinstance(a, jax.core.Tracer):
                brought(callers(), a.shape)
            return make(a, *args, **kwargs)

        return call

    kind = type(jax.numpy.zeros(1))
    numbers = ("__array__", "__int__", "__bool__", "__float__", "__index__", "item", "tolist")
    for place, name in [(np, "asarray"), (np, "array"), *((kind, name) for name in numbers)]:
        patch.setattr(place, name, through(getattr(place, name)))
    try:
        yield
    finally:
        patch.undo()


def refuse_others(names, shape):
    """Fails where anything else of a batch on devices comes to the host than `MAY` says."""
    if names & {"fit_on_devices", "through_blocks"} and not names & MAY.keys():
        raise AssertionError(f"an array {shape} came to the host: {sorted(names)}")

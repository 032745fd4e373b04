"""A program: played while it is new and small, compiled when it has been played for long, kept on disk."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any

import jax
import numpy as np

from lmmjax.arrays import store
from lmmjax.arrays.announce import announced
from lmmjax.arrays.interpret import TooLong, Unsupported, player, record_tape
from lmmjax.arrays.waiting import SHARED_OUT, in_turn, waits

ENOUGH = 200
"""Steps played, in units of those on the tape, after which a program is compiled: one takes NumPy about two
microseconds (some hundred elements each), and the compiler half a millisecond."""

counts: Counter[str] = Counter()
"""Programs that this process has "compiled" and "loaded", and "traced" and "read" to be played (of which some
"failed"); not those that JAX compiles by itself."""


_always_compiles: ContextVar[bool] = ContextVar("always_compiles", default=False)


@contextlib.contextmanager
def compiled_at_once() -> Iterator[None]:
    """Within it nothing is played: results do not depend, to the last bit, on what was called before."""
    token = _always_compiles.set(True)
    try:
        yield
    finally:
        _always_compiles.reset(token)


def plays_now() -> bool:
    """Whether programs are played while they are new: not within `compiled_at_once`."""
    return not _always_compiles.get()


class Program:
    """A function of arrays: played until it has been played for long, then compiled or loaded."""

    def __init__(
        self,
        whole: Callable,
        name: str,
        tree: Any,
        fixed: tuple,
        leaves: list,
        level: int,
    ) -> None:
        self.whole, self.level = whole, level
        self.elsewhere, self.platform = _elsewhere(leaves), platform_of(leaves)
        self.digests = {
            kind: _digest(name, tree, fixed, leaves, more) if not self.elsewhere else ""
            for kind, more in (("compiled", (level, _options(level))), ("tape", ("tape",)))
        }
        # a function of arrays beside the structure of what it returns
        self.play: tuple[Callable, Any] | None = None
        self.compiled: tuple[Callable, Any] | None = None
        self.traced: tuple[Any, list] | None = None
        self.played, self.longest, self.enough = 0, 0, 0.0
        self.lock = threading.Lock()

    def __call__(self, leaves: list) -> Any:
        playing = self.play
        if self.compiled is None and playing is not None and self.lasts() and plays_now():
            play, structure = playing
            try:
                values, steps = play(leaves, self.enough - self.played)
            except TooLong:
                self.play = None
            except Exception:
                # a rule that fails must not fail a fit: the compiler has its own
                self.play = None
                counts["failed"] += 1
            else:
                self.played, self.longest = self.played + steps, max(self.longest, steps)
                return jax.tree.unflatten(structure, jax.device_put(values))
        with self.lock if self.compiled is None else contextlib.nullcontext():
            values = None
            if self.compiled is None:
                self.compiled, values = self.compile(leaves)
            compiled, structure = self.compiled
        return jax.tree.unflatten(structure, compiled(*leaves) if values is None else values)

    def ready(self, leaves: list) -> None:
        """Compile it, or load it, unless it is."""
        with self.lock:
            if self.compiled is None:
                self.compiled, _ = self.compile(leaves)

    def lasts(self) -> bool:
        """Whether a call as long as the longest one may still be played."""
        return self.played + self.longest <= self.enough

    def prepare(self, leaves: list, shorter: Callable | None = None) -> None:
        """Have it played, or always a shorter function, where it can be: from the store, or traced."""
        if self.elsewhere:
            return
        digest = self.digests["tape"]
        found = store.read(digest) if digest else None
        if found is not None:
            tape, skeleton = found
            counts["read"] += 1
        else:
            returned: list[Any] = []
            traced = self.trace(shorter or self.whole, returned, leaves)
            try:
                tape, skeleton = record_tape(traced.jaxpr), _skeleton(returned[0])
            except Unsupported:
                self.traced = None if shorter else (traced, returned)
                tape = skeleton = None
            else:
                counts["traced"] += 1
            if digest:
                store.write(digest, (tape, skeleton))
        if tape is None:
            return
        self.enough = float("inf") if shorter else ENOUGH * tape.length
        if tape.least <= self.enough:
            self.play = player(tape), jax.tree.structure(skeleton)

    def trace(self, whole: Callable, returned: list, leaves: list) -> Any:
        """A function as JAX traces it."""
        return self.named(partial(whole, returned)).trace(*leaves)

    def named(self, function: Any) -> Any:
        """Its `jax.jit`."""
        # what is kept here has a name of its own, so that it never comes from JAX's persistent cache: an
        # executable that was loaded serialises without its kernels
        if self.digests["compiled"]:
            function.__name__ = f"lmmjax_{uuid.uuid4().hex}"
        return jax.jit(function)

    def compile(self, leaves: list) -> tuple[tuple[Callable, Any], list[Any] | None]:
        """The compiled program with the structure of what it returns; its values if it was loaded and ran."""
        digest = self.digests["compiled"]
        found = store.load(digest) if digest else None
        if found is not None:
            compiled, skeleton = found
            try:
                values = jax.block_until_ready(compiled(*leaves))
            except jax.errors.JaxRuntimeError:
                # a file that was written whole, of code that is not all there
                store.drop(digest)
            else:
                counts["loaded"] += 1
                return (compiled, jax.tree.structure(skeleton)), values
        with announced(kept=bool(digest)):
            if self.traced is None:
                returned: list[Any] = []
                self.traced = self.trace(self.whole, returned, leaves), returned
            traced, returned = self.traced
            if self.platform == "cpu" and SHARED_OUT and waits(traced.jaxpr):
                traced = self.named(in_turn(traced.jaxpr)).trace(*leaves)
            lowered = traced.lower()
            # levels and options are those of LLVM on a CPU
            compiled = _compiled(lowered, self.level) if self.platform == "cpu" else lowered.compile()
            self.traced = None
        counts["compiled"] += 1
        if digest:
            arguments = (digest, compiled, len(leaves), _skeleton(returned[0]))
            threading.Thread(target=store.save, name="lmmjax store", args=arguments).start()
        return (compiled, returned[0]), None


def _skeleton(structure: Any) -> Any:
    """What a structure describes, with zeros for arrays: structures of records do not pickle, they do."""
    return jax.tree.unflatten(structure, [0] * structure.num_leaves)


def _options(level: int) -> list[dict[str, Any] | None]:
    """Options of XLA that compile a small program several times faster, from the best to none."""
    baseline = {"xla_backend_optimization_level": level}
    return [{"xla_cpu_use_fusion_emitters": False, **baseline}, baseline, None]


_refused: set[int] = set()
"""Places in `_options` that this jaxlib does not know, found by the first program that asked."""


def _compiled(lowered: Any, level: int) -> Any:
    *tries, _ = enumerate(_options(level))
    # threads may be here at the same time: what one learns, the others may learn again
    for k, options in tries:
        if k in _refused:
            continue
        try:
            return lowered.compile(compiler_options=options)
        except jax.errors.JaxRuntimeError as error:
            if "compile option" not in str(error):
                raise
            _refused.add(k)
    return lowered.compile()


def _elsewhere(leaves: list) -> bool:
    """Whether a program is not for the first CPU of the process."""
    return (
        any(isinstance(leaf, jax.Array) and leaf.committed for leaf in leaves)
        or setting("default_device") is not None
        or jax.local_devices()[0].platform != "cpu"
    )


def platform_of(leaves: list) -> str:
    """The kind of device that a program runs on: of what was put there, else the one that JAX would use."""
    for leaf in leaves:
        if isinstance(leaf, jax.Array) and leaf.committed:
            return next(iter(leaf.devices())).platform
    chosen = setting("default_device")
    if isinstance(chosen, str):
        return chosen
    return (jax.local_devices()[0] if chosen is None else chosen).platform


def _digest(name: str, tree: Any, fixed: tuple, leaves: list, more: tuple) -> str:
    """The name in the store; empty for what is not kept there: functions without a name, many devices."""
    kinds = tuple((shape, str(dtype), weak) for shape, dtype, weak, _ in map(kind, leaves))
    # of all processes: a program is for the numbers of its devices
    if not name or not store.enabled() or jax.device_count() != 1:
        return ""
    try:
        return store.digest(name, tree, kinds, fixed, *more)
    except store.Unnamed:
        return ""


def kind(leaf: Any) -> tuple:
    """What a program is compiled for: shape, dtype, and where an array lies that was put there."""
    if type(leaf) is np.ndarray or isinstance(leaf, np.generic):
        return leaf.shape, leaf.dtype, False, None
    if isinstance(leaf, jax.Array):
        return (
            leaf.shape,
            leaf.dtype,
            getattr(leaf, "weak_type", False),
            leaf.sharding if leaf.committed else None,
        )
    return (), type(leaf).__name__, True, None


def setting(name: str) -> Any:
    """One of JAX's settings, as this thread has it."""
    return getattr(jax.config, f"jax_{name}", None)


SETTINGS = (*store.SETTINGS, "default_device")

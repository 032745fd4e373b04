"""Compilation: quick for a single fit, optimised for many; from the store of programs where it has one."""

from __future__ import annotations

import inspect
import os
import threading
import uuid
import weakref
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from lmmjax.arrays import store
from lmmjax.arrays.announce import announced

SHORT = 10_000
"""Elements of the largest argument below which LLVM's level 0 is chosen: it halves compilation, and the loops
of longer vectors take two to four times as long."""

counts: Counter[str] = Counter()
"""Programs that this process has "compiled" and "loaded"; those that JAX compiles by itself are not in it."""


def _options(level: int) -> list[dict[str, Any] | None]:
    """Options of XLA that compile a small program several times faster, from the best to none."""
    baseline = {"xla_backend_optimization_level": level}
    return [{"xla_cpu_use_fusion_emitters": False, **baseline}, baseline, None]


_refused: set[int] = set()
"""Places in `_options` that this jaxlib does not know, found by the first program that asked."""

_tables: weakref.WeakSet[_Table] = weakref.WeakSet()


class _Table(dict):
    """Programs of one function by what they were compiled for."""

    __hash__ = object.__hash__  # type: ignore[assignment]


def forget_programs() -> None:
    """Let go of all compiled programs, as `jax.clear_caches` does of JAX's own."""
    for table in _tables:
        table.clear()


def quick_jit(function: Callable, *, short: float = SHORT, name: str = "", **jit_arguments: Any) -> Callable:
    """`jax.jit` with options for short compilation, of which those that a jaxlib does not know are left out.

    Arguments whose arrays have fewer than `short` elements take a program that is not optimised at all. On
    one CPU the programs of functions of the package are kept on disk (`arrays.store`); of a closure too, if
    `name` says all that it depends on.
    """
    traced = jax.jit(function, **jit_arguments)
    split = _splitter(function, **jit_arguments)
    named = name or _named(function)
    table = _Table()
    _tables.add(table)
    lock, locks = threading.Lock(), {}

    def call(*args: Any, **kwargs: Any) -> Any:
        fixed, free = split(args, kwargs)
        leaves, tree = jax.tree.flatten(free)
        if any(isinstance(leaf, Tracer) for leaf in leaves) or _setting("disable_jit"):
            return traced(*args, **kwargs)
        key = (tree, fixed, *map(_setting, SETTINGS), *map(_kind, leaves))
        program, values = table.get(key), None
        if program is None:
            with lock:
                own = locks.setdefault(key, threading.Lock())
            with own:
                program = table.get(key)
                if program is None:
                    level = int(max((np.size(leaf) for leaf in leaves), default=1) >= short)
                    whole = partial(_flat, function, fixed, tree)
                    program, values = _program(whole, named, tree, fixed, leaves, level)
                    table[key] = program
        compiled, structure = program
        return jax.tree.unflatten(structure, compiled(*leaves) if values is None else values)

    call.cache_size = lambda: len(table) + traced._cache_size()  # type: ignore[attr-defined]
    return call


def _flat(function: Callable, fixed: tuple, tree: Any, returned: list, *leaves: Any) -> list[Any]:
    """A function of arrays that returns arrays; their structure is put into `returned`."""
    args, kwargs = jax.tree.unflatten(tree, leaves)
    out, structure = jax.tree.flatten(function(*args, **dict(fixed), **kwargs))
    returned[:] = [structure]
    return out


def _program(
    whole: Callable, name: str, tree: Any, fixed: tuple, leaves: list, level: int
) -> tuple[tuple[Any, Any], list[Any] | None]:
    """A program with the structure of what it returns, and its values if it was loaded and has run."""
    digest = _digest(name, tree, fixed, leaves, level)
    found = store.load(digest) if digest else None
    if found is not None:
        compiled, skeleton = found
        try:
            values = jax.block_until_ready(compiled(*leaves))
        except jax.errors.JaxRuntimeError:
            # a file that was written whole and does not run: code of another process that is not all there
            store.drop(digest)
        else:
            counts["loaded"] += 1
            return (compiled, jax.tree.structure(skeleton)), values
    returned: list[Any] = []
    whole = partial(whole, returned)
    if digest:
        # a name of its own, so that it never comes from JAX's persistent cache: an executable that was
        # loaded serialises without its kernels
        whole.__name__ = f"lmmjax_{uuid.uuid4().hex}"  # type: ignore[attr-defined]
    with announced(kept=bool(digest)):
        compiled = _compiled(jax.jit(whole).lower(*leaves), level)
    counts["compiled"] += 1
    (structure,) = returned
    if digest:
        skeleton = jax.tree.unflatten(structure, [0] * structure.num_leaves)
        threading.Thread(target=store.save, args=(digest, compiled, len(leaves), skeleton)).start()
    return (compiled, structure), None


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


def _digest(name: str, tree: Any, fixed: tuple, leaves: list, level: int) -> str:
    """The name in the store; empty for what is not kept there: other devices, functions without a name."""
    kinds = tuple((shape, str(dtype), weak) for shape, dtype, weak, _ in map(_kind, leaves))
    elsewhere = (
        any(isinstance(leaf, jax.Array) and leaf.committed for leaf in leaves)
        or _setting("default_device") is not None
    )
    # of all processes: a program is for the numbers of its devices
    alone = jax.device_count() == 1 and jax.local_devices()[0].platform == "cpu"
    if not name or not store.enabled() or elsewhere or not alone:
        return ""
    try:
        return store.digest(name, tree, kinds, fixed, level, _options(level))
    except store.Unnamed:
        return ""


def _named(function: Callable) -> str:
    try:
        return store.name_of(function)
    except store.Unnamed:
        return ""


def _splitter(function: Callable, static_argnums: Any = (), static_argnames: Any = ()) -> Callable:
    """What separates static arguments, by name, from the others: (names with values), (args, kwargs)."""
    if static_argnums == () and static_argnames == ():
        return lambda args, kwargs: ((), (args, kwargs))
    parameters = inspect.signature(function).parameters
    names = list(parameters)
    numbers = (static_argnums,) if isinstance(static_argnums, int) else static_argnums
    texts = (static_argnames,) if isinstance(static_argnames, str) else static_argnames
    fixed = sorted({*texts, *(names[k] for k in numbers)})
    usual = {n: p.default for n, p in parameters.items() if n in fixed and p.default is not p.empty}

    def split(args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, tuple]:
        given = {**usual, **dict(zip(names, args, strict=False)), **kwargs}
        return tuple([(n, given.pop(n)) for n in fixed if n in given]), ((), given)

    return split


def _kind(leaf: Any) -> tuple:
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


def _setting(name: str) -> Any:
    """One of JAX's settings, as this thread has it."""
    return getattr(jax.config, f"jax_{name}", None)


SETTINGS = (*store.SETTINGS, "default_device")


def enable_compilation_cache(directory: str | os.PathLike | None = None) -> Path:
    """Keep what JAX compiles on disk, in its own persistent cache: for programs that you compile yourself.

    What the package compiles is kept anyway, so that the next process starts without it. This changes JAX's
    global configuration, which is why nothing in the package calls it. The default directory is `lmmjax` in
    the user's cache directory.

    Returns
    -------
    The directory, created if it was not there.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(directory) if directory is not None else Path(base) / "lmmjax"
    path.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return path

"""Programs: played while they are new and small, compiled when they are long or often used, kept on disk."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.core import Tracer

from lmmjax.arrays import store
from lmmjax.arrays.other_arguments import answered
from lmmjax.arrays.program import (
    SETTINGS,
    Program,
    compiled_at_once,
    counts,
    kind,
    plays_now,
    setting,
)

__all__ = [
    "compiled_at_once",
    "counts",
    "eager_jit",
    "enable_compilation_cache",
    "forget_programs",
    "plays_now",
    "quick_jit",
]

SHORT = 10_000
"""Elements of the largest argument below which LLVM's level 0 is chosen: it halves compilation, and the loops
of longer vectors take two to four times as long."""

PLAYED = 1_000_000
"""Elements of the largest argument below which a program is played by NumPy before it is compiled."""

Function = TypeVar("Function", bound=Callable)

_tables: weakref.WeakSet[_Table] = weakref.WeakSet()


class _Table(dict):
    """Programs of one function by what they were compiled for."""

    __hash__ = object.__hash__  # type: ignore[assignment]


def forget_programs() -> None:
    """Let go of all compiled programs, as `jax.clear_caches` does of JAX's own."""
    for table in _tables:
        table.clear()


def quick_jit(
    function: Callable,
    *,
    short: float = SHORT,
    name: str = "",
    plays: bool | Callable = True,
    **jit_arguments: Any,
) -> Callable:
    """`jax.jit` for programs that are used a few times: the first results come without a compiler.

    On a CPU a program is played by NumPy (`arrays.interpret`) until that has taken as long as compiling
    takes; which call compiles depends on the calls before it alone, on no clock. Results of both differ by
    rounding. It is compiled with options for short compilation, of which those that a jaxlib does not know
    are left out. Arguments whose arrays have fewer than `short` elements take a program that is not
    optimised at all.

    On one CPU the programs of functions of the package are kept on disk (`arrays.store`); of a closure too,
    if `name` says all that it depends on. `plays` is False for functions that are called often, or another
    function of the same arguments with the same results, which is shorter to write down and played always.

    `.ahead(...)` compiles what a call with these arguments will need, on another core, where it is so large
    that it is not played.
    """
    traced = jax.jit(function, **jit_arguments)
    split = _splitter(function, **jit_arguments)
    named = name or _named(function)
    table = _Table()
    _tables.add(table)
    lock, locks = threading.Lock(), {}

    def found(leaves: list, tree: Any, fixed: tuple) -> Program:
        key = (tree, fixed, *map(setting, SETTINGS), *map(kind, leaves))
        program = table.get(key)
        if program is None:
            with lock:
                own = locks.setdefault(key, threading.Lock())
            with own:
                program = table.get(key)
                if program is None:
                    largest = int(max((np.size(leaf) for leaf in leaves), default=1))
                    whole = functools.partial(_flat, function, fixed, tree)
                    program = Program(whole, named, tree, fixed, leaves, int(largest >= short))
                    if plays and largest < PLAYED and plays_now():
                        shorter = None if plays is True else functools.partial(_flat, plays, fixed, tree)
                        program.prepare(leaves, shorter)
                    table[key] = program
        return program

    def call(*args: Any, **kwargs: Any) -> Any:
        fixed, free = split(args, kwargs)
        leaves, tree = jax.tree.flatten(free)
        if any(isinstance(leaf, Tracer) for leaf in leaves) or setting("disable_jit"):
            return traced(*args, **kwargs)
        return found(leaves, tree, fixed)(leaves)

    def ahead(*args: Any, **kwargs: Any) -> None:
        fixed, free = split(args, kwargs)
        leaves, tree = jax.tree.flatten(free)
        largest = max(map(np.size, leaves), default=0)
        if largest < PLAYED or (os.cpu_count() or 1) < 2 or setting("disable_jit"):
            return
        wide = bool(setting("enable_x64"))

        def ready() -> None:
            # settings are a thread's own; what fails here fails where it is called for
            with contextlib.suppress(Exception), jax.enable_x64(wide):
                found(leaves, tree, fixed).ready(leaves)

        threading.Thread(target=ready, name="lmmjax ahead").start()

    call.ahead = ahead  # type: ignore[attr-defined]
    call.cache_size = lambda: len(table) + traced._cache_size()  # type: ignore[attr-defined]
    return call


def eager_jit(function: Function, **options: Any) -> Function:
    """The function itself where an argument is traced, its `quick_jit` (attribute `alone`) elsewhere.

    For functions that are called in programs of others and alone, where every operation of its own would be
    a program to compile. Arrays of NumPy beside traced ones have the precision that JAX has there.
    """
    alone = quick_jit(function, **options)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((args, kwargs))):
            return alone(*args, **kwargs)
        args, kwargs = jax.tree.map(_in_precision, (args, kwargs))
        return function(*args, **kwargs)

    found = answered(call)
    found.alone = alone  # type: ignore[attr-defined]
    return found  # type: ignore[return-value]


def _in_precision(leaf: Any) -> Any:
    """An array of NumPy as JAX would take it: float64 is float32 unless `jax_enable_x64`."""
    if not isinstance(leaf, np.ndarray):
        return leaf
    return leaf.astype(jax.dtypes.canonicalize_dtype(leaf.dtype), copy=False)


def _flat(function: Callable, fixed: tuple, tree: Any, returned: list, *leaves: Any) -> list[Any]:
    """A function of arrays that returns arrays; their structure is put into `returned`."""
    args, kwargs = jax.tree.unflatten(tree, leaves)
    out, structure = jax.tree.flatten(function(*args, **dict(fixed), **kwargs))
    returned[:] = [structure]
    return out


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


@answered
def enable_compilation_cache(directory: str | os.PathLike | None = None) -> Path:
    """Keep what JAX compiles on disk, in its own persistent cache: for programs that you compile yourself.

    What the package compiles is kept anyway, so that the next process starts without it. This changes JAX's
    global configuration, which is why nothing in the package calls it. The default directory is `lmmjax` in
    the user's cache directory.

    Returns
    -------
    The directory, created if it was not there.

    Raises
    ------
    OSError : it cannot be made.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(directory) if directory is not None else Path(base) / "lmmjax"
    path.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return path

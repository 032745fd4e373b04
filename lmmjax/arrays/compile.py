"""Compilation: quick for a single fit, optimised for many; the persistent cache."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

SHORT = 10_000
"""Elements of the largest argument below which LLVM's level 0 is chosen: it halves compilation, and the loops
of longer vectors take two to four times as long."""


def _options(level: int) -> list[dict[str, Any] | None]:
    """Options of XLA that compile a small program several times faster, from the best to none."""
    baseline = {"xla_backend_optimization_level": level}
    return [{"xla_cpu_use_fusion_emitters": False, **baseline}, baseline, None]


_refused: set[int] = set()
"""Places in `_options` that this jaxlib does not know, found by the first program that asked."""


def quick_jit(function: Callable, *, short: float = SHORT, **jit_arguments: Any) -> Callable:
    """`jax.jit` with options for short compilation, of which those that a jaxlib does not know are left out.

    Arguments whose arrays have fewer than `short` elements take a program that is not optimised at all.
    """
    levels = [
        [jax.jit(function, compiler_options=options, **jit_arguments) for options in _options(level)]
        for level in (0, 1)
    ]

    def call(*args: Any, **kwargs: Any) -> Any:
        longest = max((getattr(leaf, "size", 1) for leaf in jax.tree.leaves((args, kwargs))), default=1)
        *tries, plain = enumerate(levels[longest >= short])
        # threads may be here at the same time: what one learns, the others may learn again
        for k, compiled in tries:
            if k in _refused:
                continue
            try:
                return compiled(*args, **kwargs)
            except jax.errors.JaxRuntimeError as error:
                if "compile option" not in str(error):
                    raise
                _refused.add(k)
        return plain[1](*args, **kwargs)

    call.cache_size = lambda: sum(each._cache_size() for level in levels for each in level)  # type: ignore[attr-defined]
    return call


def enable_compilation_cache(directory: str | os.PathLike | None = None) -> Path:
    """Keep compiled programs on disk, so that the next process starts without compiling.

    Changes JAX's global configuration, which is why nothing in the package calls it on import; the
    command line does. The default directory is `lmmjax` in the user's cache directory.

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

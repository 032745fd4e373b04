"""Compilation: quick for a single fit, optimised for many; the persistent cache."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

QUICK_OPTIONS = {"xla_cpu_use_fusion_emitters": False, "xla_backend_optimization_level": 1}
"""XLA options that compile a small program several times faster and run it about as fast on a CPU."""

_BASELINE_OPTIONS = {"xla_backend_optimization_level": 1}


def quick_jit(function: Callable, **jit_arguments: Any) -> Callable:
    """`jax.jit` with options for short compilation; falls back where a jaxlib does not know an option."""
    choices = [QUICK_OPTIONS, _BASELINE_OPTIONS, None]
    compiled = [jax.jit(function, compiler_options=options, **jit_arguments) for options in choices]

    def call(*args: Any, **kwargs: Any) -> Any:
        while True:
            try:
                return compiled[0](*args, **kwargs)
            except jax.errors.JaxRuntimeError as error:
                if "compile option" not in str(error) or len(compiled) == 1:
                    raise
                compiled.pop(0)

    call.cache_size = lambda: compiled[0]._cache_size()  # type: ignore[attr-defined]
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

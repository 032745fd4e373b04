"""What a compiled program depends on, as text: the function, what is static in its arguments, the machine."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import os
import platform
import sys
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np

PACKAGES = ("jax", "jaxlib", "optax", "numpy", "scipy", "blackjax")
"""Those whose code is traced, or whose numbers are constants of a program."""

OURS = Path(__file__).parents[2]

SETTINGS = (
    "enable_x64",
    "default_matmul_precision",
    "default_prng_impl",
    "threefry_partitionable",
    "numpy_dtype_promotion",
    "numpy_rank_promotion",
)
"""JAX's settings that a trace depends on."""


class Unnamed(Exception):
    """A value has no text that says all there is to it."""


def canonical(value: Any) -> str:
    """Text that is equal in every process for equal values, and differs otherwise.

    Raises
    ------
    Unnamed
        for what the text of could be the same for two that differ: closures, objects of other packages.
    """
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind != "O":
        content = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return f"array({value.dtype.str},{value.shape},{content})"
    if value is None or isinstance(value, (bool, int, str, bytes)):
        return repr(value)
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__}({','.join(map(canonical, value))})"
    if isinstance(value, (set, frozenset)):
        return f"{type(value).__name__}({','.join(sorted(map(canonical, value)))})"
    if isinstance(value, dict):
        return "{" + ",".join(f"{canonical(k)}:{canonical(v)}" for k, v in value.items()) + "}"
    if isinstance(value, np.dtype):
        return f"dtype({value.str})"
    if isinstance(value, (type, types.FunctionType, functools.partial)):
        return name_of(value)
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return name_of(type(value)) + canonical(fields)
    raise Unnamed(f"{type(value).__qualname__} has no text of its own")


def name_of(thing: Any) -> str:
    """The name of a class or function of the package or of Python's, or of a partial one with its arguments.

    Raises
    ------
    Unnamed
        for closures, lambdas, and what other packages define, whose code may change with no sign of it.
    """
    if isinstance(thing, functools.partial):
        return f"partial({name_of(thing.func)},{canonical(thing.args)},{canonical(thing.keywords)})"
    module, name = getattr(thing, "__module__", ""), getattr(thing, "__qualname__", "<")
    if "<" in name or module.split(".")[0] not in ("lmmjax", "builtins", "jax", "numpy"):
        raise Unnamed(f"{name} of {module} can change without its name")
    return f"{module}:{name}"


def treedef(tree: Any) -> str:
    """The text of a `PyTreeDef` with all that is static in it."""
    data = tree.node_data()
    if data is None:
        return "*" if tree.num_leaves else "-"
    kind, static = data
    return f"{name_of(kind)}[{canonical(static)}]({','.join(map(treedef, tree.children()))})"


def digest(name: str, tree: Any, signature: tuple, *more: Any) -> str:
    """The name of a program's file: of everything that its code depends on."""
    settings = tuple(str(getattr(jax.config, f"jax_{s}", None)) for s in SETTINGS)
    parts = (environment(), settings, name, treedef(tree), signature, *more)
    return hashlib.sha256(canonical(parts).encode()).hexdigest()


@functools.cache
def environment() -> str:
    """Versions, sources, compiler flags and the processor."""
    flags = {name: os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")}
    client = jax.local_devices()[0].client
    return canonical((versions(), sources(), flags, client.platform_version, sys.version, processor()))


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = ""
    return found


def sources() -> str:
    """A digest of the files of the package: a change of any of them makes other programs."""
    total = hashlib.sha256()
    for path in sorted(OURS.rglob("*.py")):
        total.update(path.relative_to(OURS).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()


def processor() -> str:
    """The model and the instructions of the processor: code is compiled for them."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return "/".join((platform.system(), platform.machine(), platform.processor(), platform.version()))
    wanted = ("vendor_id", "cpu family", "model", "model name", "flags", "Features", "CPU part")
    first = {
        line.split(":")[0].strip(): line for line in reversed(lines) if line.split(":")[0].strip() in wanted
    }
    return "\n".join([platform.machine(), *sorted(first.values())])

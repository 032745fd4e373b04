"""The command `lmmjax info`: versions, devices, settings, known faults, a check of the arithmetic."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import jax
import pandas as pd
import typer

import lmmjax
from lmmjax.arrays import store
from lmmjax.cli.common import FAILED, JsonFile, one_line_errors, waiting, write_json
from lmmjax.selfcheck import JAXLIB, known_fault, self_check

EXAMPLES = """Examples

lmmjax info

lmmjax info --no-check --json info.json

lmmjax info --clear-programs"""

PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "pandas", "formulaic", "optax")
"""Those whose version is always told."""

PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin", "jax-rocm7-plugin", "libtpu", "pyarrow", "polars")
"""Those told if they are installed."""


def info(
    check: Annotated[bool, typer.Option(help="Compare what the device computes with NumPy.")] = True,
    clear: Annotated[
        bool, typer.Option("--clear-programs", help="Delete the programs that are kept, and do nothing else.")
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """Print versions, devices and settings, and check the arithmetic of the device.

    The exit code is 1 if a check failed: then results on this device cannot be trusted.
    """
    if clear:
        folder = store.place()
        typer.echo(f"{store.clear():,} programs deleted from {folder or 'nowhere: the store is off'}")
        return
    found = environment()
    for title, lines in found.items():
        typer.echo(title)
        for name, value in lines.items():
            typer.echo(f"  {name:28}{value}")
    passed = True
    if check:
        typer.echo("Self-check, beside NumPy")
        with waiting("checking"):
            table = self_check()
        typer.echo(check_text(table))
        passed = bool(table["passed"].all())
        found["Self-check"] = json.loads(str(table.to_json(orient="records")))
    if json_file is not None:
        with one_line_errors():
            write_json(json_file, found)
    if not passed:
        typer.echo(
            "lmmjax: the device computes wrong. Install another version of jax, or see if another device "
            "is right: JAX_PLATFORMS=cpu lmmjax info",
            err=True,
        )
        raise typer.Exit(FAILED)


def environment() -> dict[str, Any]:
    """What a report of a fault should say, by title."""
    backend = jax.default_backend()
    devices = {f"{d.platform} {d.id}": d.device_kind for d in jax.local_devices()}
    default = _setting("default_device") or jax.local_devices()[0]
    known = known_fault(JAXLIB, backend) or known_fault(JAXLIB, "cpu")
    versions = {"lmmjax": lmmjax.__version__, "python": platform.python_version()}
    versions |= {name: _version(name) or "not installed" for name in PACKAGES}
    versions |= {name: found for name in PLUGINS if (found := _version(name))}
    return {
        "Versions": versions | {"system": platform.platform(terse=True)},
        "Devices": devices | {"computes on": str(default)},
        "Programs kept": _programs(),
        "JAX's own cache": _cache(),
        "Known faults": {f"jaxlib {JAXLIB}": known or f"none known on {backend}"},
    }


def check_text(table: pd.DataFrame) -> str:
    """The table of checks as text of 80 columns, failures spelled out."""
    lines = [f"  {'':45}{'dtype':8}{'size':>6}{'error':>9}{'limit':>9}"]
    failed = 0
    for row in table.to_dict("records"):
        numbers = f"{row['size']:6}{row['error']:9.1e}{row['tolerance']:9.1e}"
        lines.append(f"  {row['check']:45}{row['dtype']:8}{numbers}{'' if row['passed'] else '  WRONG'}")
        if row["detail"]:
            lines.append(f"    {row['detail']}")
        failed += not row["passed"]
    lines.append(f"  {failed} of {len(table)} checks failed" if failed else f"  all {len(table)} passed")
    return "\n".join(lines)


def _programs() -> dict[str, Any]:
    """The store of programs that the package compiles."""
    if not store.enabled():
        return {"folder": "none: LMMJAX_CACHE turns it off"}
    sizes = [found.st_size for found in store.contents().values()]
    said = {"folder": str(store.place() or "none: there is no home folder")}
    if store.place() and store.place().exists() and store.directory() is None:  # type: ignore[union-attr]
        return said | {"not used": "it is not this user's, or others can write in it"}
    return said | {
        "holds": f"{len(sizes):,} programs, {sum(sizes) / 2**20:,.0f} MiB of at most {store.LARGEST >> 20}"
    }


def _cache() -> dict[str, Any]:
    """JAX's persistent cache, which the package leaves alone."""
    folder = _setting("compilation_cache_dir")
    if not folder:
        return {"folder": "none"}
    files = [path.stat().st_size for path in Path(folder).glob("*") if path.is_file()]
    least = _setting("persistent_cache_min_compile_time_secs")
    return {
        "folder": folder,
        "holds": f"{len(files):,} files, {sum(files) / 2**20:,.0f} MiB",
        "keeps programs compiled in": f"{least:g} s or more",
    }


def _setting(name: str) -> Any:
    """One of JAX's settings; they are attributes that it makes as it is imported."""
    return getattr(jax.config, f"jax_{name}")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

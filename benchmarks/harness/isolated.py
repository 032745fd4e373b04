"""A function in a Python of its own, so that its programs, its threads and its peak memory are its own."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from benchmarks.harness.processes import ROOT, run
from benchmarks.peers import exchange


def isolated(
    function: Callable[..., dict[str, Any]],
    *,
    timeout: float,
    environment: Mapping[str, str] | None = None,
    **arguments: Any,
) -> dict[str, Any]:
    """What a function of a module returns for arguments that JSON can hold; programs are not stored.

    With the `load` of the machine before, the `peak_mib` of the process unless the function tells its own,
    and the `error` that ended it, empty if none did.
    """
    call = f"call={function.__module__}:{function.__name__}"
    command = [
        sys.executable,
        "-m",
        "benchmarks.harness.isolated",
        call,
        f"arguments={json.dumps(arguments)}",
    ]
    load = os.getloadavg()[0]
    outcome = run(
        command, environment={"PYTHONPATH": ROOT, "LMMJAX_CACHE": "0", **(environment or {})}, timeout=timeout
    )
    return {"load": load, "error": outcome.error} | (outcome.result or {})


def main() -> None:
    module, _, name = exchange.OPTIONS["call"].partition(":")
    function = getattr(import_module(module), name)
    exchange.write(function(**json.loads(exchange.OPTIONS["arguments"])))


if __name__ == "__main__":
    main()

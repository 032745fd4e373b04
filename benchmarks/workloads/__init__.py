"""The workloads, one file each; importing a file registers what is in it."""

from importlib import import_module
from pkgutil import iter_modules


def discover() -> None:
    """Import every workload here. They import lmmjax and optional packages only when they run."""
    for module in iter_modules(__path__, f"{__name__}."):
        import_module(module.name)

"""Optional packages, imported when a file needs them."""

from __future__ import annotations

import importlib
from typing import Any


def needed(module: str, what: str, extra: str) -> Any:
    """The optional module, or an ImportError that names the extra."""
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.split(".")[0]
        raise ImportError(
            f"{what} need {package}: pip install 'lmmjax[{extra}]' (or pip install {package})"
        ) from None


def pyarrow(part: str) -> Any:
    """`pyarrow.part`, or an ImportError that names the extra."""
    return needed(f"pyarrow.{part}", "Parquet files", "parquet")

"""The Axes that a picture is drawn on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def axes_or_new(ax: Axes | None, **size: Any) -> Axes:
    """`ax`, or Axes of a new figure; ImportError says how to get matplotlib."""
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'lmmjax[plot]'") from error
    return plt.subplots(layout="constrained", **size)[1]

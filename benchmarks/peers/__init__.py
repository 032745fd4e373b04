"""The packages timed: how each is started, and which of its calls it offers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.spec import Comparison

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Peer:
    """A package and the script beside this file that drives it; `one_group` if it knows one factor only.

    `weights` if it fits a response with weights of its own.
    """

    name: str
    script: str
    language: str = "python"
    one_group: bool = False
    weights: bool = False

    def can_fit(self, comparison: Comparison) -> bool:
        """Whether the package has this model at all."""
        return not self.cannot(comparison)

    def cannot(self, comparison: Comparison) -> str:
        """What of the model it lacks, if anything."""
        if self.one_group and len(comparison.model.terms) > 1:
            return "one grouping factor only"
        return "" if self.weights or not comparison.weighted else "no weights by response"

    def command(
        self, interpreter: str, mode: str, comparison: Comparison, folder: Path, **more: object
    ) -> list[str]:
        """The command line of one measurement: `script mode=… data=… formula=…`, all `key=value`."""
        model = comparison.model
        options: dict[str, object] = {
            "mode": mode,
            "data": folder,
            "formula": model.formula if model.response else f"y {model.formula}",
            "fixed": model.fixed,
            "response": model.response or "y",
            "reml": str(model.reml).lower(),
            "groups": ",".join(term.group for term in model.terms),
            "weighted": str(comparison.weighted).lower(),
            "effects": ";".join(term.effects for term in model.terms),
            **more,
        }
        return [interpreter, str(HERE / self.script), *(f"{key}={value}" for key, value in options.items())]


LMMJAX = Peer("lmmjax", "lmmjax_.py", weights=True)

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("lme4", "lme4.R", language="R", weights=True),
        Peer("mixedlm", "mixedlm_.py"),
        Peer("mixedlm-rs", "mixedlm_rs_.py", one_group=True),
        Peer("statsmodels", "statsmodels_.py", one_group=True),
    )
}

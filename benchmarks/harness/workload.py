"""What the command line knows of a workload, and which there are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Record = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """How to run: sizes, interpreters, cores, repeats and limits (seconds); `extra` by the workload's names.

    lme4 among the `peers` stands for R, and so for pbkrtest and nlme. `say` reports progress.
    """

    small: bool = False
    responses: int | None = None
    peers: tuple[str, ...] = ()
    peer_python: str = ""
    rscript: str = "Rscript"
    repeats: int | None = None
    budget: float = 60.0
    timeout: float = 1800.0
    extra: Mapping[str, Any] = field(default_factory=dict)
    say: Callable[[str], None] = lambda text: None

    @property
    def r(self) -> str:
        """The Rscript to run, empty if R is not asked for."""
        return self.rscript if "lme4" in self.peers else ""

    def size(self, full: int, small: int) -> int:
        """The number asked for, else the full or the small one."""
        return self.responses or (small if self.small else full)


@dataclass(frozen=True)
class Workload:
    """What is run under an id, and what it is compared with or held to.

    `run` yields records, plain data, as they are measured; a record with an `error` has no results. `table`
    prints those without. `counted` is what `--responses` counts, if anything. `extras` are options of this
    workload only, by name the keywords of `ArgumentParser.add_argument`; `about` goes to the JSON file.
    """

    id: str
    title: str
    goal: str
    run: Callable[[Options], Iterator[Record]]
    table: Callable[[list[Record]], str]
    counted: str = ""
    extras: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """`W2` of `W2-balanced`."""
        return self.id.split("-")[0]


_REGISTRY: dict[str, Workload] = {}


def register(workload: Workload) -> Workload:
    """Make a workload known to the command line; called where the workload is defined."""
    if workload.id in _REGISTRY:
        raise ValueError(f"workload {workload.id} is registered twice")
    _REGISTRY[workload.id] = workload
    return workload


def workloads() -> tuple[Workload, ...]:
    """All workloads that have been imported: W1, W2, …, then those with names."""

    def order(workload: Workload) -> tuple[bool, int, str]:
        number = re.match(r"W(\d+)", workload.id)
        return number is None, int(number[1]) if number else 0, workload.id

    return tuple(sorted(_REGISTRY.values(), key=order))


def select(names: Iterable[str]) -> tuple[Workload, ...]:
    """Workloads by id; `W2` selects W2-balanced and W2-irregular, `all` everything."""
    known, chosen = workloads(), []
    for name in names:
        found = [w for w in known if name.lower() in ("all", w.id.lower(), w.family.lower())]
        if not found:
            raise ValueError(f"no workload {name!r}; there are {', '.join(w.id for w in known)}")
        chosen += [w for w in found if w not in chosen]
    return tuple(chosen)

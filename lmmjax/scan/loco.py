"""One chromosome left out: markers beside null fits whose kernel knows nothing of their chromosome.

With S_c the sum over the markers of chromosome c and w_c its weight, K = ΣS_c/Σw_c, and without c

    K₋c = (S − S_c)/(w − w_c).

Source: Yang et al. (2014), doi:10.1038/ng.2876; Listgarten et al. (2012), doi:10.1038/nmeth.2037.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from lmmjax.batch import estimate_many
from lmmjax.fitted import Fitted, FittedMany, ModelData, fit_one, require_choice
from lmmjax.fitted.fit_many import record_of
from lmmjax.formula import Genotypes, Kernel, nearest
from lmmjax.formula.relationships.terms import as_kernel
from lmmjax.kinship import METHODS, genomic_sums
from lmmjax.scan.chromosomes import chromosomes
from lmmjax.scan.engines import Part, parts_of
from lmmjax.scan.markers import Markers
from lmmjax.scan.nulls import Nulls, portable_fits, responses
from lmmjax.scan.shelf import keep_kernel, kept_kernel, shelf_path
from lmmjax.stream.digests import digest

KEPT = 1 << 26
"""Numbers of the engines of chromosomes that are kept beside the last."""


class Kernels(Protocol):
    """Kernels without a chromosome, for the individuals of a model in their order."""

    def without(self, c: int) -> np.ndarray:
        """K₋c (G, G)."""
        ...

    def portable(self, source: Genotypes) -> Kernels:
        """The same as it pickles."""
        ...

    def known(self) -> dict[str, np.ndarray]:
        """As of `Nulls`."""
        ...

    def knowing(self, known: Mapping[str, np.ndarray]) -> Kernels:
        """As of `Nulls`."""
        ...

    def described(self) -> str:
        """What they are, or a digest."""
        ...

    def digests(self) -> dict[str, str]:
        """As of `Nulls`."""
        ...

    def digest_without(self, c: int) -> str:
        """Of what K₋c is made from."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class GivenKernels:
    """Kernels (G, G) that were given, in the order of the chromosomes."""

    matrices: tuple[np.ndarray, ...]

    def without(self, c: int) -> np.ndarray:
        return self.matrices[c]

    def portable(self, source: Genotypes) -> GivenKernels:
        return self

    def known(self) -> dict[str, np.ndarray]:
        return {}

    def knowing(self, known: Mapping[str, np.ndarray]) -> GivenKernels:
        return self

    def described(self) -> str:
        return digest(self.matrices)

    def digests(self) -> dict[str, str]:
        return {}

    def digest_without(self, c: int) -> str:
        return digest(self.matrices[c])


@dataclasses.dataclass(frozen=True, eq=False)
class MarkerKernels:
    """Kernels of all markers but those of a chromosome.

    Attributes
    ----------
    source : the markers; rows : (G,) places of the individuals; chromosome : (M,) codes; method : of `grm`.
    sums : (S, w) of all markers, once they are known.
    """

    source: Genotypes
    rows: np.ndarray
    chromosome: np.ndarray
    method: str
    sums: list[tuple[np.ndarray, float]] = dataclasses.field(default_factory=list)

    def without(self, c: int) -> np.ndarray:
        own, weight = self._sums(c)
        whole, total = self._all()
        if not total - weight > 1e-12 * total:
            raise ValueError("loco: all markers that vary are of one chromosome, so that no kernel is left")
        out = (whole - own) / (total - weight)
        return 0.5 * (out + out.T)

    def _all(self) -> tuple[np.ndarray, float]:
        if not self.sums:
            self.sums.append(self._sums(None))
        return self.sums[0]

    def _sums(self, c: int | None) -> tuple[np.ndarray, float]:
        """(S, w) of a chromosome, or of all markers."""
        found = genomic_sums(self._blocks(c), self.source.shape[0], self.method, rows=self.rows)
        return found.matrix, found.weight

    def _blocks(self, c: int | None) -> Iterator[np.ndarray]:
        if c is None:
            yield from (g for _, g in self.source.blocks())
            return
        size = max(1, (1 << 22) // max(1, self.source.shape[0]))
        for first in range(0, len(self.chromosome), size):
            own = np.flatnonzero(self.chromosome[first : first + size] == c)
            if len(own):
                start, stop = first + own[0], first + own[-1] + 1
                yield self.source.read(start, stop)[:, own - own[0]]

    def portable(self, source: Genotypes) -> MarkerKernels:
        self._all()
        return dataclasses.replace(self, source=source)

    def known(self) -> dict[str, np.ndarray]:
        matrix, weight = self._all()
        return {"sums": matrix, "weight": np.array(weight)}

    def knowing(self, known: Mapping[str, np.ndarray]) -> MarkerKernels:
        return dataclasses.replace(self, sums=[(known["sums"], float(known["weight"]))])

    def described(self) -> str:
        return self.method

    def digests(self) -> dict[str, str]:
        """Of the sums, to digits that do not depend on the order of additions."""
        matrix, weight = self._all()
        v = np.cos(np.arange(len(matrix)))
        return {"kernels": digest([f"{x:.8e}" for x in (weight, np.trace(matrix), v @ matrix @ v)])}

    def digest_without(self, c: int) -> str:
        return digest(self.method, *self._all(), self.chromosome == c)


class PerChromosome(Nulls):
    """A null fit for each chromosome.

    Parameters
    ----------
    fits : of all responses with any kernel; ddf : as of `Nulls`.
    chromosome : (M,) codes of the markers into `names`; kernels : without each; term : whose kernel they are.
    shelf : where decomposed kernels lie, for the shards of a chromosome, or None.
    """

    def __init__(
        self,
        fits: Fitted | FittedMany,
        ddf: str | None,
        chromosome: np.ndarray,
        names: list[str],
        kernels: Kernels,
        term: int,
        shelf: Path | None = None,
    ):
        super().__init__(fits, ddf)
        self.shelf = shelf
        self.chromosome, self.names, self.kernels, self.term = chromosome, names, kernels, term
        self._engines: dict[int, list[Part]] = {}

    @property
    def first(self) -> list[Part]:
        return self.without(int(self.chromosome[0]))

    def of(self, places: np.ndarray) -> Iterator[tuple[Any, list[Part]]]:
        own = self.chromosome[places]
        for c in np.unique(own):
            yield np.flatnonzero(own == c), self.without(int(c))

    def without(self, c: int) -> list[Part]:
        """The engines of the fits without a chromosome."""
        if c not in self._engines:
            n, total = self.fits.data.design.n, len(responses(self.fits))
            if (len(self._engines) + 1) * n * (n + 3 * total) > KEPT:
                self._engines.clear()
            self._engines[c] = parts_of(self.null(c), self.ddf)
        return self._engines[c]

    def null(self, c: int) -> Fitted | FittedMany:
        """The fits without a chromosome."""
        data, fits = self._data(c), self.fits
        if isinstance(fits, Fitted):
            return dataclasses.replace(fit_one(data, fits.y, fits.reml), response=fits.response)
        found = estimate_many(data.maker, fits.y, fits.reml, weights=fits.weights)
        return record_of(data, fits.names, fits.y, fits.reml, fits.weights, found)

    def _data(self, c: int) -> ModelData:
        """The model without a chromosome: its kernel is decomposed by the first who needs it."""
        data = self.fits.data
        if self.shelf is None:
            return with_kernel(data, self.term, self.kernels.without(c))
        ids = occurring(data, self.term)[0]
        path = shelf_path(self.shelf, self.names[c], self.kernels.digest_without(c))
        kernel = kept_kernel(path, ids)
        made = with_kernel(data, self.term, kernel or Kernel(self.kernels.without(c), ids))
        own = made.frame.random[self.term].kernel
        if kernel is None and own is not None:
            keep_kernel(path, own)
        return made

    def kept_in(self, folder: Path) -> Nulls:
        return PerChromosome(
            self.fits, self.ddf, self.chromosome, self.names, self.kernels, self.term, folder
        )

    def _with(self, fits: Any, kernels: Kernels) -> PerChromosome:
        return PerChromosome(fits, self.ddf, self.chromosome, self.names, kernels, self.term, self.shelf)

    def portable(self, source: Genotypes) -> Nulls:
        return self._with(portable_fits(self.fits), self.kernels.portable(source))

    def fresh(self) -> Nulls:
        return self._with(dataclasses.replace(self.fits, cache={}), self.kernels)

    def known(self) -> dict[str, np.ndarray]:
        return self.kernels.known()

    def knowing(self, known: Mapping[str, np.ndarray]) -> Nulls:
        return self._with(self.fits, self.kernels.knowing(known))

    def described(self) -> dict[str, Any]:
        own = {"loco": self.kernels.described(), "chromosomes": self.names}
        return super().described() | own | {"chromosomes of the markers": digest(self.chromosome)}

    def digests(self) -> dict[str, str]:
        return self.kernels.digests()


def occurring(data: ModelData, term: int) -> tuple[pd.Index, np.ndarray]:
    """The levels of a term that occur, and the codes (n,) of the rows into these."""
    own = data.frame.random[term]
    present, codes = np.unique(own.codes, return_inverse=True)
    return own.levels[present], codes.ravel().astype(np.int32)


def with_kernel(data: ModelData, term: int, kernel: Kernel | np.ndarray) -> ModelData:
    """The model with another kernel of a term, of the levels that occur."""
    ids, codes = occurring(data, term)
    random, own = list(data.frame.random), kernel if isinstance(kernel, Kernel) else Kernel(kernel, ids)
    random[term] = dataclasses.replace(random[term], kernel=own, codes=codes, levels=ids)
    return data.with_frame(dataclasses.replace(data.frame, random=tuple(random)))


def nulls_of(
    fits: Fitted | FittedMany,
    ddf: str | None,
    markers: Markers,
    given: Any,
    loco: Any,
    chromosome: Any,
    group: str | None,
) -> Nulls:
    """The null fits that `loco` asks for: one for all markers if it is None or False.

    Parameters
    ----------
    given : what the markers were given as.

    Raises
    ------
    ValueError : not one kernel in the model, chromosomes that are missing or do not match, an unknown method.
    """
    if loco is None or loco is False:
        if chromosome is not None:
            raise ValueError('chromosome= is for loco=: pass loco="vanraden", or kernels by chromosome')
        return Nulls(fits, ddf)
    term = _kernel_term(fits.data, group)
    codes, labels = chromosomes(markers, given, chromosome)
    own = fits.data.frame.random[term]
    present, first = np.unique(own.codes, return_index=True)
    ids, names = own.levels[present], [str(label) for label in labels]
    kernels: Kernels
    if isinstance(loco, Mapping):
        kernels = GivenKernels(tuple(_given(loco, label, ids, own.factor) for label in labels))
    else:
        method = "vanraden" if loco is True else loco
        require_choice("loco", method, METHODS)
        # the first row of every level says which individual of the markers it is
        kernels = MarkerKernels(markers.source, markers.rows[markers.codes[first]], codes, method)
    return PerChromosome(fits, ddf, codes, names, kernels, term)


def _kernel_term(data: ModelData, group: str | None) -> int:
    own = [
        k
        for k, term in enumerate(data.frame.random)
        if term.kernel is not None and (group is None or group in (term.group, term.factor))
    ]
    if len(own) != 1:
        raise ValueError(
            f"loco= leaves a chromosome out of one kernel, and the model has {len(own)}: "
            + ("pass group=, the term whose kernel it is" if own else 'fit it with kernels={"id": K}')
        )
    return own[0]


def _given(kernels: Mapping[Any, Any], label: Any, ids: pd.Index, factor: str) -> np.ndarray:
    """The kernel without a chromosome, of the individuals `ids` (G,)."""
    texts = {str(name): value for name, value in kernels.items()}
    if str(label) not in texts:
        raise ValueError(f"loco has no kernel without chromosome {label!r}: {nearest(str(label), texts)}")
    kernel = as_kernel(texts[str(label)], factor)
    if kernel is None:
        raise ValueError(f"loco: the kernel without chromosome {label!r} is None")
    at = kernel.ids.get_indexer(ids)
    if np.any(at < 0):
        raise ValueError(
            f"loco: the kernel without chromosome {label!r} has no level {ids[int(np.argmax(at < 0))]!r}"
        )
    return np.asarray(kernel.levels.between(at, at))

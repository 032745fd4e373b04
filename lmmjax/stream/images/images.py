"""`Images`: scans as responses, a voxel each."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.arrays.other_arguments import answered
from lmmjax.fitted import ModelData, require_count, require_switch
from lmmjax.formula.matching import own_index
from lmmjax.stream.images.base import Space, loaded, name_of, reading_of
from lmmjax.stream.images.maskers import Masked
from lmmjax.stream.images.spaces import is_image, space_for


@answered
class Images:
    """Scans as responses of `fit_batch` and `stream_batch`: n scans × V voxels, vertices or regions.

    Nothing but headers is read before the values are asked for, except where there is no mask. `fit_batch`
    reads all scans into memory; `stream_batch` reads each once, into a temporary file of 4 or 8 bytes a
    value (in the folder `TMPDIR`), from which it takes a range of voxels at a time.

    Parameters
    ----------
    images : a path or image with all scans (NIfTI of four dimensions, CIFTI-2 .dscalar, .dtseries, .pscalar
        or .ptseries, GIFTI, MGH, whatever nibabel reads), or one for each scan: a list, or a column of the
        data or a dict, whose labels are matched with those of the rows. A missing entry is a missing scan.
    mask : where to fit: an image or path, whose voxels are not zero; a masker of nilearn, fitted or not; an
        array of bools. None: everywhere, in volumes where some scan is neither zero nor missing.
    masks : masks of the single scans, likewise; outside of its mask a scan is missing.
    zeros_missing : zeros are missing values, as outside of a brain that was stripped.
    min_scans : voxels with fewer scans are not fitted.

    NaN is missing, in a voxel of a scan. A masker that does more than to take voxels (smooths, averages
    regions) would make zeros of NaN: such images are refused.

    Attributes
    ----------
    space : the voxels, and the way back to images.
    index : labels of the scans, or None. shape : (n, V).

    Raises
    ------
    ValueError : a file that is no image, is of other voxels than the mask, or has several scans where it
        should have one; an empty mask. ImportError : nibabel is missing (`pip install 'lmmjax[neuro]'`).

    Examples
    --------
    >>> import nibabel as nib
    >>> import numpy as np
    >>> import lmmjax as lj
    >>> scans = nib.Nifti1Image(np.random.default_rng(0).normal(size=(2, 2, 2, 10)), np.eye(4))
    >>> lj.Images(scans)
    Images(10 scans, 8 voxels)
    """

    def __init__(
        self,
        images: Any,
        mask: Any = None,
        *,
        masks: Any = None,
        zeros_missing: bool = False,
        min_scans: int = 1,
    ):
        images = pd.Series(images, dtype=object) if isinstance(images, dict) else images
        self.index = own_index(images)
        self._zeros = require_switch("zeros_missing", zeros_missing)
        self._least = require_count("min_scans", min_scans)
        given = _listed(images)
        there = [image for image in given if image is not None]
        if not there:
            raise ValueError("there are no images: all entries are missing")
        opened = {id(image): loaded(image) for image in there}
        self.space: Space = space_for(list(opened.values()), mask)
        self._scans = _scans(given, opened, self.space, isinstance(images, _ONE) or is_image(images))
        self._masks = None if masks is None else _masks(masks, self.space, len(self._scans))
        self.shape = (len(self._scans), self.space.size)

    @property
    def names(self) -> pd.Index:
        """Labels of the V voxels: their positions among those of the mask, or names of regions."""
        return self.space.names

    @property
    def obs_names(self) -> pd.Index:
        """Labels of the scans, 0, 1, … where there are none."""
        return pd.RangeIndex(self.shape[0]) if self.index is None else self.index

    @property
    def var_names(self) -> pd.Index:
        """`names`, as AnnData calls them."""
        return self.names

    @property
    def X(self) -> np.ndarray:
        """All values (n, V), NaN where missing."""
        out = np.empty(self.shape)
        for k, values in self._rows():
            out[k] = values
        return self._whole(out)

    def read(self, start: int, stop: int) -> np.ndarray:
        """The values (n, stop − start) of a range of voxels."""
        return self._whole(np.array(self._spooled[:, start:stop], dtype=float))

    def to_img(self, values: Any, names: Sequence[str] | None = None) -> Any:
        """Values of the voxels as an image, zero outside of the mask.

        Parameters
        ----------
        values : (V,), or a Series or frame (a map a column) with the labels of some of the voxels, such as
            columns of a table that `stream_batch` wrote: those of its column `response` count.
        names : of the maps.

        Raises
        ------
        ValueError : values of another length, or labels that are no voxels.
        """
        return map_image(self.space, values, names)

    def _whole(self, values: np.ndarray) -> np.ndarray:
        """Voxels that have too few scans are missing altogether."""
        if self._least > 1:
            values[:, np.isfinite(values).sum(axis=0) < self._least] = np.nan
        return values

    def _rows(self) -> Iterator[tuple[int, np.ndarray]]:
        """(number, values (V,)) of each scan."""
        space, found = self.space, None
        images = [scan[0] for scan in self._scans if scan is not None]
        several = len({id(image) for image in images}) == 1 < len(images)
        if isinstance(space, Masked) and (space.together or several):
            found = iter(space.all(images[:1] if several else images))
        for k, scan in enumerate(self._scans):
            if scan is None:
                yield k, np.full(space.size, np.nan)
                continue
            image, part = scan
            with reading_of(image):
                values = space.values(image, part) if found is None else next(found)
            if self._zeros:
                values = np.where(values == 0, np.nan, values)
            if self._masks is not None:
                values = np.where(self._inside(k), values, np.nan)
            yield k, values

    def _inside(self, k: int) -> np.ndarray:
        """Where the mask of scan k is."""
        scan = self._masks[k] if self._masks else None
        if scan is None:
            return np.ones(self.space.size, bool)
        with reading_of(scan[0]):
            values = self.space.values(*scan)
        return (values != 0) & np.isfinite(values)

    @cached_property
    def _spooled(self) -> np.ndarray:
        """All values in a file that goes with this object."""
        images = {id(scan[0]): scan[0] for scan in self._scans if scan is not None}
        dtype = np.result_type(*(self.space.dtype(image) for image in images.values()))
        # the memmap keeps the file
        with tempfile.TemporaryFile(prefix="lmmjax-images-") as file:
            out = np.memmap(file, dtype=dtype, mode="w+", shape=self.shape)
        for k, values in self._rows():
            out[k] = values
        return out

    def __repr__(self) -> str:
        n, count = self.shape
        plural = {"vertex": "vertices"}.get(self.space.kind, f"{self.space.kind}s")
        return f"Images({n:,} scans, {count:,} {plural})"


_ONE = str | Path
Scan = tuple[Any, int] | None


def _listed(images: Any) -> list[Any]:
    """One image, or one for each scan, None where it is missing."""
    if is_image(images) or isinstance(images, _ONE):
        return [images]
    if hasattr(images, "to_list"):
        images = images.to_list()
    try:
        found = list(images)
    except TypeError:
        raise ValueError(
            f"images of type {type(images).__name__} are not known: pass a path, an image, or one for each "
            "scan"
        ) from None
    return [None if _missing(image) else image for image in found]


def _missing(image: Any) -> bool:
    if isinstance(image, str):
        return not image.strip()
    return image is None or image is pd.NA or (isinstance(image, float) and np.isnan(image))


def _scans(given: list[Any], opened: dict[int, Any], space: Space, one: bool) -> list[Scan]:
    """(image, which of its scans) of each scan; ValueError unless every entry of a list has one."""
    if one:
        image = next(iter(opened.values()))
        return [(image, k) for k in range(space.count(image, name_of(image) or "the image"))]
    out: list[Scan] = []
    for k, entry in enumerate(given):
        if entry is None:
            out.append(None)
            continue
        image = opened[id(entry)]
        what = name_of(image) or f"image {k}"
        count = space.count(image, what)
        if count != 1:
            raise ValueError(f"{what} has {count} scans: in a list, or a column, every image is of one scan")
        out.append((image, 0))
    return out


def _masks(masks: Any, space: Space, n: int) -> list[Scan]:
    """Masks of the scans; ValueError unless they are as many."""
    if isinstance(space, Masked):
        raise ValueError("masks of single scans are for voxels and vertices: leave them to the masker")
    given = _listed(masks)
    opened = {id(mask): loaded(mask) for mask in given if mask is not None}
    found = _scans(given, opened, space, isinstance(masks, _ONE) or is_image(masks))
    if len(found) != n:
        raise ValueError(f"there are {len(found)} masks for {n} scans: pass one for each")
    return found


def map_image(space: Space, values: Any, names: Sequence[str] | None = None) -> Any:
    """See `Images.to_img`."""
    if isinstance(values, pd.Series | pd.DataFrame):
        table = values.to_frame() if isinstance(values, pd.Series) else values
        if "response" in table:
            table = table.set_index("response")
        shown = [str(column) for column in table.columns] if names is None else list(names)
        data, labels = table.to_numpy(dtype=float).T, table.index
    else:
        data = np.atleast_2d(np.asarray(values, dtype=float))
        labels = space.names if data.shape[1] == space.size else pd.RangeIndex(data.shape[1])
        shown = [f"map {k}" for k in range(len(data))] if names is None else list(names)
        if data.ndim != 2 or data.shape[1] != space.size:
            raise ValueError(f"values have shape {np.shape(values)}: there are {space.size} {space.kind}s")
    if len(shown) != len(data):
        raise ValueError(f"there are {len(shown)} names for {len(data)} maps: give one each")
    return space.image(space.spread(data, labels, "the values"), shown)


def are_images(responses: Any) -> bool:
    """Whether responses are images, or names of some: then they go through `images_of`."""
    if isinstance(responses, pd.Series):
        responses = responses.to_list()
    if isinstance(responses, dict):
        responses = list(responses.values())
    if isinstance(responses, list | tuple):
        return any(is_image(one) for one in responses[:50])
    return is_image(responses)


def images_of(data: ModelData, responses: Any, mask: Any = None) -> Images:
    """Responses of a model that are images, or the name of a column of its data that has their paths.

    ValueError if it is neither.
    """
    if isinstance(responses, Images):
        if mask is not None:
            raise ValueError("these images have their mask: leave out mask=")
        return responses
    if isinstance(responses, str) and not is_image(responses):
        column = _column(data, responses)
        return Images(pd.Series(list(column), index=data.frame.data_index, dtype=object), mask)
    return Images(responses, mask)


def _column(data: ModelData, name: str) -> Any:
    source = data.frame.source
    there = getattr(source, "data", None)
    if there is None or name not in (there.columns if hasattr(there, "columns") else there):
        raise ValueError(
            f"{name!r} is neither an image (a name that ends in .nii.gz, .nii, .gii, .mgz, …) nor a column "
            "of the data with the paths of images"
        )
    return there[name]

"""Values of the vertices of a surface (GIFTI), and of grayordinates and parcels (CIFTI-2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lmmjax.stream.images.base import Space, inside, name_of, nibabel, numeric

MESHES = ("NIFTI_INTENT_POINTSET", "NIFTI_INTENT_TRIANGLE")


class Vertices(Space):
    """The vertices of one surface at which a mask is not zero; all without one.

    Attributes
    ----------
    mask : (vertices,) bool. template : the image whose metadata maps have.
    """

    kind = "vertex"

    def __init__(self, mask: np.ndarray, template: Any):
        self.mask, self.template, self.size = mask, template, int(mask.sum())

    def count(self, image: Any, what: str) -> int:
        arrays = _arrays(image, what)
        for array in arrays:
            if len(array) != len(self.mask):
                raise ValueError(f"{what} has {len(array)} vertices, others have {len(self.mask)}")
        _same_anatomy(image, self.template, what)
        return len(arrays)

    def values(self, image: Any, k: int) -> np.ndarray:
        return _arrays(image, name_of(image))[k][self.mask].astype(float)

    def dtype(self, image: Any) -> np.dtype:
        single = all(array.dtype == np.float32 for array in _arrays(image, name_of(image)))
        return np.dtype(np.float32 if single else np.float64)

    def image(self, values: np.ndarray, names: Sequence[str]) -> Any:
        gifti = nibabel().gifti
        out = np.zeros((len(values), len(self.mask)), np.float32)
        out[:, self.mask] = values
        arrays = [
            gifti.GiftiDataArray(row, "NIFTI_INTENT_NONE", meta=gifti.GiftiMetaData(Name=name))
            for row, name in zip(out, names, strict=True)
        ]
        return gifti.GiftiImage(meta=gifti.GiftiMetaData(_anatomy(self.template)), darrays=arrays)


class Grayordinates(Space):
    """The columns of CIFTI-2 files, brain models or parcels, at which a mask is not zero; all without one.

    Attributes
    ----------
    mask : (columns,) bool. axis : what the columns are, of nibabel.
    """

    def __init__(self, mask: np.ndarray, axis: Any):
        self.mask, self.axis, self.size = mask, axis, int(mask.sum())
        self.kind = "parcel" if hasattr(axis, "nvertices") and hasattr(axis, "voxels") else "grayordinate"

    def count(self, image: Any, what: str) -> int:
        axis = axis_of(image, what)
        if axis != self.axis:
            raise ValueError(
                f"{what} has other columns ({len(axis)}) than the others ({len(self.axis)}): resample them "
                "to the same grayordinates (wb_command -cifti-resample)"
            )
        return int(image.shape[0])

    def values(self, image: Any, k: int) -> np.ndarray:
        return numeric(image.dataobj[k], name_of(image))[self.mask].astype(float)

    def image(self, values: np.ndarray, names: Sequence[str]) -> Any:
        nib = nibabel()
        out = np.zeros((len(values), len(self.mask)))
        out[:, self.mask] = values
        header = nib.Cifti2Header.from_axes((nib.cifti2.ScalarAxis(list(names)), self.axis))
        made = nib.Cifti2Image(out, header)
        kind = "PARCELLATED" if self.kind == "parcel" else "DENSE"
        made.nifti_header.set_intent(f"NIFTI_INTENT_CONNECTIVITY_{kind}_SCALARS")
        return made


def _arrays(image: Any, what: str) -> list[np.ndarray]:
    """The values of each scan of a GIFTI image; ValueError if it is a mesh."""
    intents = {nibabel().nifti1.intent_codes.niistring[array.intent] for array in image.darrays}
    if intents & set(MESHES) or not image.darrays:
        raise ValueError(f"{what} is a mesh and no values of its vertices: pass .func.gii or .shape.gii")
    found = [numeric(array.data, what) for array in image.darrays]
    # one array may have a scan a column
    return [row for array in found for row in (array.T if array.ndim == 2 else [array])]


def _anatomy(image: Any) -> dict[str, str]:
    """Which surface it is, as viewers ask for it."""
    name = "AnatomicalStructurePrimary"
    metas = [image.meta, *(array.meta for array in image.darrays)]
    return next(({name: meta[name]} for meta in metas if meta and name in meta), {})


def _same_anatomy(image: Any, other: Any, what: str) -> None:
    """ValueError if two images say that they are of different surfaces, such as the two hemispheres."""
    own, theirs = ({**_anatomy(one)}.values() for one in (image, other))
    if own and theirs and list(own) != list(theirs):
        raise ValueError(
            f"{what} is of {next(iter(own))}, others are of {next(iter(theirs))}: fit one surface at a time, "
            "or both by a SurfaceMasker of nilearn"
        )


def axis_of(image: Any, what: str) -> Any:
    """The axis of columns of a CIFTI-2 image; ValueError unless its rows are maps or points in time."""
    axes = [image.header.get_axis(k) for k in range(len(image.shape))]
    if len(axes) != 2 or hasattr(axes[0], "nvertices"):
        raise ValueError(
            f"{what} is a matrix of connections: pass .dscalar, .dtseries, .pscalar or .ptseries"
        )
    return axes[1]


def surface_of(image: Any, mask: Any = None) -> Vertices:
    """The space of the vertices of an image, or of those of a mask: an image, or (vertices,) bool."""
    first = _arrays(image, name_of(image) or "an image")[0]
    if mask is None:
        return Vertices(np.ones(len(first), bool), image)
    if hasattr(mask, "darrays"):
        _same_anatomy(mask, image, name_of(mask) or "the mask")
    return Vertices(_mask(mask, len(first), "vertices"), image)


def grayordinates_of(image: Any, mask: Any = None) -> Grayordinates:
    """The space of the columns of a CIFTI-2 image, or of those of a mask: an image, or (columns,) bool."""
    axis = axis_of(image, name_of(image) or "an image")
    if mask is None:
        return Grayordinates(np.ones(len(axis), bool), axis)
    if hasattr(mask, "header"):
        Grayordinates(np.ones(len(axis), bool), axis).count(mask, name_of(mask) or "the mask")
    return Grayordinates(_mask(mask, len(axis), "columns"), axis)


def _only(maps: Sequence[np.ndarray], what: str) -> np.ndarray:
    if len(maps) != 1:
        raise ValueError(f"{what} is no mask: it has {len(maps)} maps, and a mask is one")
    return maps[0]


def _mask(mask: Any, size: int, kind: str) -> np.ndarray:
    what = name_of(mask) or "the mask"
    if hasattr(mask, "darrays"):
        mask = _only(_arrays(mask, what), what)
    elif hasattr(mask, "dataobj"):
        mask = _only(np.asanyarray(mask.dataobj), what)
    values = numeric(mask, what)
    if values.shape != (size,):
        raise ValueError(f"{what} has shape {values.shape}, and there are {size} {kind}")
    return inside(values, what)

"""Images on a grid, NIfTI and others: the voxels of a mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lmmjax.stream.images.base import Space, inside, name_of, nibabel, numeric

APART = 1e-3
"""Largest difference of two affine matrices that is rounding, in mm."""


class Volumes(Space):
    """The voxels of a mask (x, y, z), in the order of nilearn: the last axis first.

    Attributes
    ----------
    mask : (x, y, z) bool. affine : (4, 4) from voxels to mm, or None where nothing is known of it.
    template : the image whose type and header maps have.
    """

    kind = "voxel"

    def __init__(self, mask: np.ndarray, affine: np.ndarray | None, template: Any):
        self.mask, self.affine, self.template = mask, affine, template
        self.size = int(mask.sum())

    def count(self, image: Any, what: str) -> int:
        shape = getattr(image, "shape", ())
        if len(shape) < 3 or not hasattr(image, "affine"):
            raise ValueError(f"{what} is no image of voxels: its shape is {tuple(shape)}")
        if tuple(shape[:3]) != self.mask.shape:
            raise ValueError(
                f"{what} has {_grid(shape)} voxels, the mask {_grid(self.mask.shape)}: resample one to the "
                "other (nilearn.image.resample_to_img)"
            )
        if not np.isfinite(image.affine).all():
            raise ValueError(
                f"{what} has no place: its affine has values that are not finite: mend its header"
            )
        if self.affine is not None and not np.allclose(image.affine, self.affine, atol=APART):
            raise ValueError(
                f"{what} has the voxels of the mask, but at other places (affine): resample one to the other "
                "(nilearn.image.resample_to_img)"
            )
        return int(np.prod(shape[3:], dtype=int))

    def values(self, image: Any, k: int) -> np.ndarray:
        return volume(image, k)[self.mask].astype(float, copy=False)

    def image(self, values: np.ndarray, names: Sequence[str]) -> Any:
        out = np.zeros((*self.mask.shape, len(values)))
        out[self.mask] = values.T
        out = out[..., 0] if len(values) == 1 else out
        return like(self.template, out, self.affine, names)


def _grid(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape[:3]))


def volume(image: Any, k: int) -> np.ndarray:
    """Scan k (x, y, z) of an image with any number of further axes, read alone where it lies alone."""
    shape = image.shape
    at = np.unravel_index(k, shape[3:], order="F") if len(shape) > 3 else ()
    return numeric(image.dataobj[(..., *map(int, at))], name_of(image) or "an image")


def like(template: Any, data: np.ndarray, affine: np.ndarray | None, names: Sequence[str]) -> Any:
    """An image of the type of a template: MGH, NIfTI-2 (which large grids need as well), else NIfTI-1."""
    nib = nibabel()
    affine = np.eye(4) if affine is None else affine
    if isinstance(template, nib.freesurfer.MGHImage):
        return nib.freesurfer.MGHImage(data.astype(np.float32), affine)
    large = max(data.shape) > np.iinfo(np.int16).max or isinstance(template, nib.Nifti2Image)
    made = (nib.Nifti2Image if large else nib.Nifti1Image)(data, affine)
    if hasattr(template, "header") and hasattr(template.header, "get_xyzt_units"):
        made.header.set_xyzt_units(*_spatial(template.header.get_xyzt_units()))
        # the header has single precision, which the image need not have
        made.set_sform(affine, int(template.header["sform_code"]) or 1, update_affine=False)
        made.set_qform(affine, int(template.header["qform_code"]), update_affine=False)
    made.header["descrip"] = ", ".join(names)[:79].encode("ascii", "replace")
    return made


def _spatial(units: tuple[str, str]) -> tuple[str, str]:
    return (units[0] if units[0] != "unknown" else "mm", "unknown")


def mask_of(image: Any) -> Volumes:
    """The space of a mask: where it is not zero."""
    what = name_of(image) or "the mask"
    if len(image.shape) < 3 or np.prod(image.shape[3:], dtype=int) != 1:
        raise ValueError(f"{what} is no mask: its shape is {tuple(image.shape)}, and a mask is one volume")
    return Volumes(inside(volume(image, 0), what), image.affine, image)


def anywhere(images: Sequence[Any], counts: Sequence[int]) -> Volumes:
    """The space of all voxels at which some scan is neither zero nor missing; reads all of them."""
    first = images[0]
    mask = np.zeros(first.shape[:3], bool)
    for image, count in zip(images, counts, strict=True):
        for k in range(count):
            found = volume(image, k)
            mask |= (found != 0) & np.isfinite(found)
    return Volumes(inside(mask, "what all images have beside zeros"), first.affine, first)

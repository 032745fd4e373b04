"""Which space a mask, a masker or images are of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmmjax.stream.images.base import Space, inside, loaded, name_of, nibabel, numeric
from lmmjax.stream.images.maskers import masker_space
from lmmjax.stream.images.surfaces import grayordinates_of, surface_of
from lmmjax.stream.images.volumes import Volumes, anywhere, mask_of


def space_of(given: Any) -> Space:
    """The space of what maps are to be made with: a mask, a masker of nilearn, or `Images`.

    ValueError if it is none.
    """
    if isinstance(given, Space):
        return given
    own = getattr(given, "space", None)
    if isinstance(own, Space):
        return own
    if hasattr(given, "inverse_transform"):
        return masker_space(given)
    image = loaded(given)
    if not hasattr(image, "header") and not hasattr(image, "darrays"):
        raise ValueError(
            f"maps are made with a mask (a path or an image), a masker of nilearn or an lj.Images object, "
            f"not with {type(given).__name__}"
        )
    return _space(image, image)


def space_for(images: Sequence[Any], mask: Any) -> Space:
    """The space of images, loaded ones, that are masked by an image, a path, a masker or an array; or not.

    Volumes without a mask have all voxels at which some scan is neither zero nor missing.
    """
    if hasattr(mask, "inverse_transform"):
        return masker_space(mask, images)
    first, mask = images[0], loaded(mask)
    if hasattr(first, "mesh") and hasattr(first, "data"):
        raise ValueError("images of surfaces of nilearn are read by a masker: mask=SurfaceMasker()")
    if not any(hasattr(first, name) for name in ("dataobj", "darrays")):
        raise ValueError(
            f"images of type {type(first).__name__} are not known: pass paths, or images of nibabel"
        )
    return _space(first, mask, images)


def _space(first: Any, mask: Any, images: Sequence[Any] = ()) -> Space:
    """The space of an image and a mask; without one all of it, or what `images` cover."""
    if hasattr(first, "darrays"):
        return surface_of(first, mask)
    if isinstance(first, nibabel().Cifti2Image):
        return grayordinates_of(first, mask)
    if mask is None:
        return _covered(images)
    if isinstance(mask, np.ndarray):
        if mask.shape != first.shape[:3]:
            raise ValueError(f"the mask has shape {mask.shape}, the images {tuple(first.shape[:3])}")
        return Volumes(inside(numeric(mask, "the mask")), first.affine, first)
    if not hasattr(mask, "affine"):
        raise ValueError(f"a mask of type {type(mask).__name__} is none of volumes: pass an image of voxels")
    return mask_of(mask)


def _covered(images: Sequence[Any]) -> Space:
    first = images[0]
    if len(getattr(first, "shape", ())) < 3:
        raise ValueError(f"{name_of(first) or 'an image'} is no image of voxels")
    grid = Volumes(np.ones(first.shape[:3], bool), first.affine, first)
    counts = [grid.count(image, name_of(image) or f"image {k}") for k, image in enumerate(images)]
    return anywhere(images, counts)


SUFFIXES = (
    *(".nii", ".nii.gz", ".gii", ".gii.gz", ".mgh", ".mgz", ".img", ".hdr", ".mnc"),
    *(".head", ".brik", ".brik.gz"),
)
"""Endings of the names of images."""


def is_image(given: Any) -> bool:
    """Whether it is an image, or the name of one."""
    if isinstance(given, str | Path):
        return str(given).lower().endswith(SUFFIXES)
    surface = hasattr(given, "mesh") and hasattr(given, "data")
    return surface or any(hasattr(given, name) for name in ("dataobj", "darrays"))

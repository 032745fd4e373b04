"""Values that a masker of nilearn makes of images: smoothed voxels, means of regions, both hemispheres."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.stream.images.base import Space, loaded, name_of
from lmmjax.stream.images.volumes import mask_of

ACROSS = ("standardize", "detrend", "high_variance_confounds", "low_pass", "high_pass")
"""Options of maskers that are functions of all scans together."""

ALONE = ("smoothing_fwhm", "target_affine", "target_shape", "runs")
"""Options that change the values of a scan."""

GIVEN = ("mask_img", "labels_img", "maps_img", "seeds")
"""What tells a masker where to look without images."""


class Masked(Space):
    """The columns of `masker.transform`.

    Attributes
    ----------
    masker : fitted.
    """

    def __init__(self, masker: Any):
        self.masker, self.size = masker, int(masker.n_elements_)
        found = getattr(masker, "region_names_", None)
        regions = [str(name) for name in found.values()] if isinstance(found, dict) else []
        clear = len(regions) == self.size and len(set(regions)) == self.size
        self._regions = pd.Index(regions, dtype=object, name="region") if clear else None
        self.kind = "vertex" if type(masker).__name__.endswith("SurfaceMasker") else "region"
        self.kind = "voxel" if hasattr(masker, "mask_strategy") else self.kind

    @property
    def names(self) -> pd.Index:
        """Names of the regions, or positions."""
        return super().names if self._regions is None else self._regions

    def count(self, image: Any, what: str) -> int:
        shape = getattr(image, "shape", None)
        if shape is None:
            raise ValueError(f"{what} is no image, and a masker takes images")
        return int(np.prod(shape[1 if hasattr(image, "mesh") else 3 :], dtype=int))

    def values(self, image: Any, k: int) -> np.ndarray:
        return self.all([image])[k]

    def all(self, images: Sequence[Any]) -> np.ndarray:
        """All scans (n, V) of some images, made together."""
        smooth = _any_of(self.masker, ("smoothing_fwhm",))
        for image in images:
            _require_finite(image, smooth)
        with warnings.catch_warnings():
            # of what its next versions will do
            warnings.simplefilter("ignore", FutureWarning)
            found = self.masker.transform(images[0] if len(images) == 1 else list(images))
        return np.atleast_2d(np.asarray(found, dtype=float))

    @property
    def together(self) -> bool:
        """Whether the values of a scan depend on the other scans."""
        return _any_of(self.masker, ACROSS)

    def dtype(self, image: Any) -> np.dtype:
        return np.dtype(np.float64)

    def image(self, values: np.ndarray, names: Sequence[str]) -> Any:
        return self.masker.inverse_transform(values[0] if len(values) == 1 else values)


def masker_space(masker: Any, images: Sequence[Any] = ()) -> Space:
    """The space of a masker; that of its mask where it does nothing but take voxels: NaN stays NaN there."""
    masker = _fitted(masker, images)
    if type(masker).__name__ == "NiftiMasker" and not _any_of(masker, (*ACROSS, *ALONE)):
        return mask_of(loaded(masker.mask_img_))
    return Masked(masker)


def _any_of(masker: Any, options: Sequence[str]) -> bool:
    chosen = (getattr(masker, name, None) for name in options)
    return any(option is not None and option is not False for option in chosen)


def _fitted(masker: Any, images: Sequence[Any]) -> Any:
    """The masker, or a copy that is fitted to the images if it was not; ValueError where there are none."""
    from sklearn.base import clone
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(masker)
    except NotFittedError:
        own: Any = clone(masker)
        known = any(getattr(masker, name, None) is not None for name in GIVEN)
        if not known and not len(images):
            raise ValueError("the masker is not fitted: call masker.fit(images)") from None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            # a list of one is not what a masker of surfaces takes for many scans
            return own.fit() if known else own.fit(images[0] if len(images) == 1 else list(images))
    return masker


def _require_finite(image: Any, smooth: bool) -> None:
    """ValueError for missing values, of which maskers make numbers unasked; of surfaces if they `smooth`."""
    data = getattr(image, "dataobj", None)
    if data is not None:
        lost = np.dtype(data.dtype).kind == "f" and not np.isfinite(np.asanyarray(data)).all()
    else:
        parts = getattr(getattr(image, "data", None), "parts", {})
        lost = smooth and not all(np.isfinite(part).all() for part in parts.values())
    if lost:
        raise ValueError(
            f"{name_of(image) or 'an image'} has missing values, of which this masker makes zeros: pass its "
            "mask (mask=masker.mask_img_), which leaves them missing, or fill them first"
        )

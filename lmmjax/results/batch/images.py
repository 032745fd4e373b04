"""Images in and out: responses of `fit_batch`, and the methods of `BatchFit` that make maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri_exp

from lmmjax.arrays.sparse_columns import missing
from lmmjax.fitted import FittedMany, ModelData, require_known
from lmmjax.formula import nearest
from lmmjax.inference.tails import log_t_tail

OF_ONE = ("estimate", "se", "df", "lower", "upper", "t", "z", "signed_logp")
OF_SEVERAL = ("F", "num_df", "den_df")
TESTED = (*OF_ONE, *OF_SEVERAL, "p", "q", "logp")
"""What there is of a coefficient or contrast, or of several."""


def image_responses(data: ModelData, responses: Any, mask: Any) -> Any:
    """Responses that are images, or have a mask, as `Images`; others as they are."""
    kinds = str | Path | list | tuple | dict | pd.Series
    shown = any(hasattr(responses, name) for name in ("dataobj", "darrays"))
    if mask is None and not isinstance(responses, kinds) and not shown:
        return responses
    from lmmjax.stream.images import are_images, images_of

    return images_of(data, responses, mask) if mask is not None or are_images(responses) else responses


class Maps:
    """Results of many voxels as images."""

    fitted: FittedMany
    top: Callable[..., pd.DataFrame]
    sdcor: pd.DataFrame
    icc: Callable[..., Any]
    r2: Callable[..., pd.DataFrame]

    def to_img(
        self,
        masker: Any,
        of: Any = None,
        what: str | Sequence[str] = "t",
        *,
        contrast: Any = None,
        **options: Any,
    ) -> Any:
        """A map of the results: an image of the voxels, vertices or regions that are the responses.

        Parameters
        ----------
        masker : what the images were masked with: a path, an image, a masker of nilearn or `lmmjax.Images`.
        of : a coefficient; a fixed term, of which all coefficients are tested (F); a standard deviation or
            correlation by its name in `sdcor`, such as
            "sd_(Intercept)|id" or "sigma"; "icc"; "marginal" or "conditional" (R²); "n", the scans of each
            voxel; "converged" or "is_singular", 1 where so; or numbers: a Series over the responses, such as
            `fits.anova().loc["arm"]["F"]`, or an array of one for each.
        what : of a coefficient or contrast: "estimate", "se", "df", "lower", "upper", "t", "z" (the normal
            quantile with the p of t), "p", "q", "logp" (−log₁₀ p) or "signed_logp"; of several "F", "num_df",
            "den_df", "p", "q", "logp". A list of them makes an image of several maps.
        contrast : in place of a coefficient one contrast, or several that are tested together (F).
        options : of the test: `ddf`, `robust`, `cluster`, `level`, `moderated`, as in `top`.

        Returns
        -------
        An image of nibabel or nilearn, in the space of the mask: NIfTI, MGH, CIFTI-2 (.dscalar), GIFTI
        (.func) or what `masker.inverse_transform` gives. Outside of the mask it is 0, and NaN where a voxel
        has no result.

        Raises
        ------
        ValueError : an unknown coefficient or statistic; the responses are not those of the mask.
        ImportError : nibabel or nilearn is missing (`pip install 'lmmjax[neuro]'`).

        Examples
        --------
        >>> import nibabel as nib
        >>> import numpy as np
        >>> import pandas as pd
        >>> import lmmjax as lj
        >>> visits = pd.DataFrame({"week": [0, 1, 2] * 8, "id": np.repeat(np.arange(8), 3)})
        >>> scans = nib.Nifti1Image(np.random.default_rng(0).normal(size=(3, 3, 3, 24)), np.eye(4))
        >>> mask = nib.Nifti1Image(np.ones((3, 3, 3), np.uint8), np.eye(4))
        >>> fits = lj.lmm("~ week + (1 | id)", visits).fit_batch(scans, mask=mask)
        >>> fits.to_img(mask, "week", ["t", "logp"]).shape
        (3, 3, 3, 2)
        """
        from lmmjax.stream.images import space_of

        kinds = [what] if isinstance(what, str) else list(what)
        require_known("statistic", kinds, TESTED)
        data = self.fitted.data
        space = space_of(masker)
        if of is not None and not isinstance(of, str):
            found = self._numbers(of)
        elif isinstance(of, str) and not (of in data.x_names or of in data.frame.term_slices):
            found = {of: self._quantity(of)}
        else:
            found = self._tested(of, kinds, contrast, options)
        maps = space.spread(np.stack(list(found.values())), self.fitted.names)
        return space.image(maps, list(found))

    def _tested(
        self, term: str | None, kinds: list[str], contrast: Any, options: Any
    ) -> dict[str, np.ndarray]:
        """Statistics (T,) of a coefficient or contrast, by what maps are called."""
        table = self.top(term, len(self.fitted.names), contrast=contrast, **options)
        table = table.loc[self.fitted.names] if self.fitted.names.is_unique else table.sort_index()
        label = term if term is not None else contrast if isinstance(contrast, str) else "contrast"
        columns = {name: table[name].to_numpy() for name in table}
        return {f"{label} {kind}": _statistic(kind, columns) for kind in kinds}

    def _quantity(self, name: str) -> np.ndarray:
        """A quantity (T,) of the fits by its name; ValueError if there is none such."""
        sds, fits = self.sdcor, self.fitted
        if name in sds:
            return sds[name].to_numpy()
        if name == "icc":
            return self.icc().to_numpy()
        if name in ("marginal", "conditional"):
            return self.r2()[name].to_numpy()
        if name == "n":
            there = ~missing(fits.y)
            return (there if fits.weights is None else there & (fits.weights > 0)).sum(axis=0).astype(float)
        if name in ("converged", "is_singular"):
            return np.asarray(fits.converged if name == "converged" else fits.estimate.singular, dtype=float)
        known = [*fits.data.x_names, *sds.columns, "icc", "marginal", "conditional", "n", "converged"]
        raise ValueError(f"there is no {name!r} to be mapped: {nearest(name, [*known, 'is_singular'])}")

    def _numbers(self, given: Any) -> dict[str, np.ndarray]:
        """Numbers (T,) of the responses, matched by label where they have some."""
        names = self.fitted.names
        values = np.asarray(given, dtype=float)
        if values.shape != (len(names),):
            raise ValueError(
                f"numbers for a map have shape {values.shape}: give one for each of {len(names)} responses"
            )
        label = "values"
        if isinstance(given, pd.Series):
            label = "values" if given.name is None else str(given.name)
            if not given.index.equals(names):
                if not given.index.is_unique or not given.index.isin(names).all():
                    raise ValueError("the labels of the numbers for a map are not those of the responses")
                values = given.reindex(names).to_numpy(dtype=float)
        return {label: values}


def _statistic(kind: str, table: dict[str, np.ndarray]) -> np.ndarray:
    if kind in table:
        return table[kind]
    if "t" not in table:
        if kind != "logp":
            there = ", ".join(name for name in TESTED if name in table)
            raise ValueError(f"several coefficients are tested by F: there is no {kind}, but {there}, logp")
        with np.errstate(divide="ignore"):
            return -np.log10(table["p"])
    if kind in OF_SEVERAL:
        raise ValueError(f"a single coefficient is tested by t: there is no {kind}, whose F is t squared")
    t = table["t"]
    # of one side; that of both may be no double
    tail = log_t_tail(t, table["df"])
    if kind == "z":
        return -np.sign(t) * ndtri_exp(tail)
    height = -(tail + np.log(2.0)) / np.log(10.0)
    return height if kind == "logp" else np.sign(t) * height

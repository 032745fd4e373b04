"""Methods of `Model` that fit many responses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmjax.fitted import Fitted, ModelData, announce_many, fit_many
from lmmjax.omics.voom import Voom
from lmmjax.results.batch import BatchFit
from lmmjax.results.batch.images import image_responses
from lmmjax.stream.whole import whole_responses

if TYPE_CHECKING:
    from lmmjax.stream import Streamed


class Batches:
    """Fits of one model to many responses, in memory or from files."""

    data: ModelData

    if TYPE_CHECKING:

        def update(self, formula: str | None = None, **changes: Any) -> Any: ...

        def _wrap(self, fitted: Fitted) -> Any: ...

    def fit_batch(
        self,
        responses: Any,
        reml: bool = True,
        *,
        weights: Any = None,
        offset: Any = None,
        max_iter: int = 100,
        dtype: str = "float64",
        starts: Any = None,
        mask: Any = None,
        layer: str | None = None,
        use_raw: bool = False,
        mod: str | None = None,
    ) -> BatchFit:
        """Fit the model to every column of `responses`, or voxel of images.

        Responses are an n × T array, a frame of pandas, polars (lazy too) or Arrow, a sparse matrix of SciPy,
        AnnData or MuData, whose variables are the responses, or the path of a file of `stream_batch` (CSV,
        TSV, Parquet, .npy, .h5ad, …), which is read whole; or what `lmmjax.voom` returned, which has weights.
        Sparse ones stay sparse: products are those of the entries, and what needs values row by row makes a
        few responses dense at a time; with `weights` or `offset` all of them are made dense.

        Rows match those of the data the model was made from; rows that were dropped there are dropped
        here. A missing value leaves its row out of the fit of its response only, which gets what `lmm`
        gives on its rows: fixed effects that they do not determine are missing, and named in `reasons`. A
        response that cannot be fitted gets a status, a reason and missing results.

        Parameters
        ----------
        weights : n × T, a weight w ≥ 0 for every value, Var(ε) = σ²/w (precision weights, as of voom);
            they multiply the model's own. A weight of zero leaves the value out.
        offset : n × T, a known part of the mean of every value, beside the model's own.
        dtype : "float32" lets more than 512 responses descend in single precision. Cross-products, and all
            that is reported at the optimum found, stay in float64: criteria agree to 1e-5, fixed effects
            to 1e-3 of their standard errors. For devices that are slow in float64; on a CPU it gains nothing.
        starts : how many descents to make of each response, from moment estimates, near zero, zero and far
            from it (at most 4; patterned covariances have 3 to 9 of their own), of which the best optimum
            is kept; or θ (k, m) as `fit.theta` reports it, to begin there. By default one, and all where
            several optima are known to occur: a factor has fewer than 50 groups, which differ in size,
            weights, missing values or columns of Z, or a covariance has a pattern. `n_optima` says how many
            there were.
        layer, use_raw : the layer of AnnData to take in place of X, or `raw`. mod : the modality of MuData;
            observations that it lacks are missing.
        reml : the criterion. max_iter : most evaluations a response.
        mask : of images: a path, an image, a masker or an array of bools; see `Images`.

        Raises
        ------
        ValueError : responses that are of another shape, not numeric or whose labels do not match; weights
            below zero; an unknown dtype or start. One that cannot be fitted raises nothing.

        Examples
        --------
        >>> import numpy as np
        >>> import lmmjax as lj
        >>> from lmmjax.datasets import load
        >>> sleep = load("sleepstudy")
        >>> y = sleep["Reaction"].to_numpy()
        >>> model = lj.lmm("~ Days + (Days | Subject)", sleep)
        >>> model.fit_batch(np.column_stack([y, 2 * y])).params["Days"].round(3).tolist()
        [10.467, 20.935]
        """
        options = {"weights": weights, "offset": offset, "max_iter": max_iter, "dtype": dtype}
        options["starts"] = starts
        if isinstance(responses, Voom):
            responses, weights = responses.logcpm, responses.weights if weights is None else weights
            options["weights"] = weights
        given = image_responses(self.data, responses, mask)
        given = whole_responses(given, layer, use_raw, mod)
        fits = fit_many(self.data, given, reml, **options)
        announce_many(fits)
        return BatchFit(self, fits)

    def stream_batch(self, source: Any, out: str | Path, **options: Any) -> Streamed:
        """`fit_batch` in bounded memory, from a file or array to the Parquet file `out`.

        Sources, columns and options are those of `lmmjax.stream.stream_batch`.

        Parameters
        ----------
        source : responses, as a file of any of those kinds, an array, or images (with mask=).

        Raises
        ------
        ValueError : as of `lmmjax.stream.stream_batch`. OSError : a file cannot be read or written; names it.
        """
        from lmmjax.stream import stream_batch

        source = image_responses(self.data, source, options.pop("mask", None))
        return stream_batch(self.data, source, out, **options)

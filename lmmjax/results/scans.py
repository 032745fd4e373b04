"""Methods of fits that scan markers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import pandas as pd

from lmmjax.fitted import Fitted, FittedMany

if TYPE_CHECKING:
    from lmmjax.scan import Scanned


class Scans:
    """Candidate covariates against the fits, one after the other."""

    fitted: Fitted | FittedMany

    @overload
    def scan(self, markers: Any = None, *, sink: None = None, **options: Any) -> pd.DataFrame: ...

    @overload
    def scan(self, markers: Any = None, *, sink: str | Path, **options: Any) -> Scanned: ...

    def scan(  # pyright: ignore[reportInconsistentOverload]
        self,
        markers: Any = None,
        *,
        ratio: str = "null",
        test: str | None = None,
        names: Any = None,
        ids: Any = None,
        group: str | None = None,
        interaction: Any = None,
        maf: float = 0.0,
        max_missing: float = 1.0,
        ddf: str | None = None,
        own: Any = None,
        loco: Any = None,
        chromosome: Any = None,
        keep: Any = None,
        sink: str | Path | None = None,
        resume: bool = False,
        chunk: int | None = None,
        executor: Any = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> pd.DataFrame | Scanned:
        """Every marker, beside the fixed effects of the model, against every response: a table.

        A missing value of a marker is its mean, and nothing is left out unless asked. Memory holds a block of
        markers at a time beside the table.

        Parameters
        ----------
        markers : individuals × markers: an array (NumPy, memmap, SciPy sparse, h5py, zarr, dask), a frame of
            any library, AnnData; the path of a PLINK .bed or .pgen, .npy, Parquet, HDF5, zarr or text file;
            what `lmmjax.stream.open_source` returns; or a function of (start, stop) that returns the markers
            in that range, with `names`. Candidates of any kind, not only genotypes.
        ratio : "null", the variance parameters of the fit without the marker up to σ², or "refit", an exact
            fit of every pair of a marker and a response.
        test : "wald", "lrt", "score" or "f" for the columns of one test; None: of all.
        names : of the markers; by default those of the frame or file, else 0, 1, ….
        ids : labels of the individuals, by default those of the frame or file: levels of the grouping factor
            `group`, or labels of rows of the data. Without, a row for every row of the data.
        group : the factor whose levels are the individuals; by default that of a kernel, or the only one.
        interaction : name of a fixed effect or of a term, or values for every row; or several: a list of
            these, a dict or frame of values by name. Markers then have a column more for each, their product
            with it, a row each, and `p_joint` is that of all columns together (F).
        maf, max_missing : leave out markers whose rarer allele is less frequent, or of which a larger share
            is missing.
        ddf : of Wald, F and score tests: "satterthwaite", "residual" (n − p − columns of the marker) or
            "normal". By default "satterthwaite", as everywhere; with one kernel and nothing beside it
            "residual", as GEMMA. At the ratio of the null they are those of the model with the marker at the
            null's variance parameters and their covariance.
        own : in place of markers, a covariate of its own for every response, n × T, matched with the
            responses by name, in memory or a path; or several by name, {"csf": …}.
        loco : leave one chromosome out: a marker is scanned beside a null fit whose kernel is made without
            its chromosome. True or a method of `lmmjax.grm`: the kernel in place of the model's is that of
            all other markers ("vanraden"). Or {chromosome: kernel without it}, kernels or labelled matrices.
        chromosome : of every marker, for `loco`: (M,) labels, a Series or dict by the names of the markers;
            by default those of a PLINK .bim or .pvar.
        keep : which pairs stay, `lmmjax.scan.Top(n)` of each response, `Above(lod=…)` or `Above(p=…)`,
            `Best()` of each marker, or a list of them. With `interaction` all columns of a marker count
            together. With one kernel all pairs are swept in float32, and
            what is reported is float64. With ratio="refit" pairs up to 2 LOD behind at the null are
            refitted; a refit that gains more would be missed.
        sink : file that the table is written to, Parquet, in parts of some markers each, whatever its size;
            or a folder, whose parts are the table (a name without an ending). With `keep` only what is kept.
        resume : continue what a killed call with the same arguments left; digests check that fits and markers
            are the same, and what is done is not done again.
        chunk : most markers a part; by default half a million rows.
        executor : whatever has `submit`: a `dask.distributed.Client`, a process pool that does not fork. Its
            workers make the parts, with the same bytes. `sink` and markers that are paths lie where all
            workers find them; markers that are in memory are written beside the parts first.
        progress : called with the numbers of markers done and in all.

        Returns
        -------
        With `sink` a `lmmjax.scan.Scanned`, which says how much there is and can `read` it. Else a DataFrame,
        a row a marker and response: `marker response effect se t p_wald p_lrt p_score lod ratio
        loglik`, with `interaction` also `term` and `p_joint`. `ratio` is σ²g/σ²e where the model has these
        two variances, else NaN; `loglik` is restricted where the fit is by REML (`attrs`); likelihood
        ratios, LOD and score tests are by maximum likelihood.

        Raises
        ------
        ValueError : individuals without markers, labels that do not match, `ratio="refit"` where the residual
            variance depends on the fitted values.

        Sources: Zhou & Stephens (2012), doi:10.1038/ng.2310; Kang et al. (2010), doi:10.1038/ng.548.

        Examples
        --------
        >>> import lmmjax as lj
        >>> from lmmjax.datasets import load
        >>> data = load("sleepstudy")
        >>> fit = lj.lmm("Reaction ~ Days + (Days | Subject)", data).fit()
        >>> age = [[float(k % 5)] for k in range(18)]
        >>> table = fit.scan(age, ids=data["Subject"].unique(), names=["age"], interaction="Days")
        >>> table[["term", "effect", "se"]].round(2).to_numpy().tolist()
        [['marker', 12.1, 4.86], ['marker:Days', -1.43, 1.1]]
        """
        from lmmjax.scan import scan

        return scan(
            self.fitted,
            markers,
            ratio=ratio,
            test=test,
            names=names,
            ids=ids,
            group=group,
            interaction=interaction,
            maf=maf,
            max_missing=max_missing,
            ddf=ddf,
            own=own,
            loco=loco,
            chromosome=chromosome,
            keep=keep,
            sink=sink,
            resume=resume,
            chunk=chunk,
            executor=executor,
            progress=progress,
        )

    def scan_threshold(
        self, markers: Any, key: Any, n: int = 1000, *, level: float = 0.05, **matching: Any
    ) -> pd.DataFrame:
        """The LOD of the strongest marker that chance exceeds in a share `level` of scans: a row a response.

        The response is permuted n times where rotation by the kernel has made its entries independent, the
        variance ratio held at the fit's; all permutations are one batch.

        Parameters
        ----------
        markers : as of `scan`; key : of `jax.random`, the same key gives the same thresholds.
        n : permutations; level : of significance, over all markers.
        matching : `ids`, `names`, `group`, `maf` and `max_missing` as of `scan`.

        Returns
        -------
        DataFrame `response lod`.

        Raises
        ------
        ValueError : the model is not one of one kernel and nothing beside it.

        Sources: Churchill & Doerge (1994), doi:10.1093/genetics/138.3.963; Abney (2015),
        doi:10.1002/gepi.21893.
        """
        from lmmjax.scan import scan_threshold

        return scan_threshold(self.fitted, markers, key, n, level=level, **matching)

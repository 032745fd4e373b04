"""A brain of 2 mm: 200,000 voxels × 400 scans, from image files to maps, with scans that lack voxels.

`~ age + week + (1 | id)`: 100 people, four scans each, as files on the disk; every scan lacks a slab of
random thickness at the top or bottom of the brain (NaN), and one voxel in a thousand anywhere. `stream_batch`
reads the images once into a temporary file and writes a table, of which t of `week` becomes an image;
`fit_batch` has all in memory and makes maps of t, p, q and the ICC. `measure(..., out=FOLDER)` keeps the
maps, whose effects are two blobs. Needs the `neuro` extra.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.harness.isolated import isolated
from benchmarks.harness.text import count, duration, markdown
from benchmarks.harness.workload import Options, Record, Workload, register

FORMULA = "~ age + week + (1 | id)"
WAYS = {"stream_batch": "files → table → map", "fit_batch": "files → fits → maps"}


def brain(millimetres: float) -> tuple[np.ndarray, np.ndarray]:
    """A mask (x, y, z), an ellipsoid in the box of MNI templates, and the affine of voxels of that size."""
    shape = tuple(round(side / millimetres) for side in (182.0, 218.0, 182.0))
    affine = np.diag([millimetres, millimetres, millimetres, 1.0])
    affine[:3, 3] = -90.0, -126.0, -72.0
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    return np.sum((grid / np.array([0.77, 0.80, 0.77])[:, None, None, None]) ** 2, axis=0) <= 1.0, affine


def blob(mask: np.ndarray, centre: tuple[float, float, float], width: float) -> np.ndarray:
    """A bump in the box (x, y, z), 1 at its centre."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in mask.shape), indexing="ij"))
    return np.exp(-0.5 * np.sum(((grid.T - centre) / width).T ** 2, axis=0))


def design(scans: int) -> pd.DataFrame:
    """Four scans of each person."""
    rng = np.random.default_rng(1)
    people = scans // 4
    table = pd.DataFrame({"id": np.repeat(np.arange(people), 4), "week": np.tile(np.arange(4.0), people)})
    return table.assign(age=rng.normal(size=people)[table["id"]])


def write(folder: Path, scans: int, millimetres: float) -> tuple[list[str], Any]:
    """Paths of the scans, and the mask as an image."""
    import nibabel as nib

    mask, affine = brain(millimetres)
    table, rng = design(scans), np.random.default_rng(2)
    by_week, by_age = blob(mask, (0.35, -0.2, 0.1), 0.15), blob(mask, (-0.4, 0.3, 0.0), 0.2)
    paths, own = [], np.zeros(mask.shape, np.float32)
    for k, row in enumerate(table.itertuples()):
        if k % 4 == 0:
            own = rng.normal(size=mask.shape).astype(np.float32)
        noise = rng.normal(size=mask.shape).astype(np.float32)
        values = (own + noise + 0.3 * row.week * by_week + 0.5 * row.age * by_age).astype(np.float32)
        edge = int(rng.integers(0, max(2, mask.shape[2] // 8)))
        values[:, :, :edge] = np.nan if k % 2 else values[:, :, :edge]
        values[:, :, mask.shape[2] - edge :] = np.nan
        values[rng.random(mask.shape) < 1e-3] = np.nan
        paths.append(str(folder / f"scan{k}.nii"))
        nib.save(nib.Nifti1Image(values, affine), paths[-1])
    image = nib.Nifti1Image(mask.astype(np.uint8), affine)
    nib.save(image, folder / "mask.nii.gz")
    return paths, image


def measure(way: str, scans: int, millimetres: float, out: str = "") -> Record:
    """Seconds of the parts, voxels, and how many voxels of the blob are found at q < 0.05."""
    import lmmjax as lj

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begin = time.perf_counter()
        paths, mask = write(folder, scans, millimetres)
        written = time.perf_counter() - begin
        model = lj.lmm(FORMULA, design(scans).assign(scan=paths))
        begin = time.perf_counter()
        images = lj.Images(pd.Series(paths), mask)
        if way == "fit_batch":
            fits = model.fit_batch(images)
            fitted = time.perf_counter() - begin
            maps = {kind: fits.to_img(mask, "week", kind) for kind in ("t", "logp", "q")}
            maps["icc"] = fits.to_img(mask, "icc")
            failed, q = int((~fits.converged).sum()), fits.t_tests()["q"][:, 2]
        else:
            done = model.stream_batch(images, folder / "out.parquet")
            fitted = time.perf_counter() - begin
            table = pd.read_parquet(done.path)
            maps = {"t": images.to_img(table[["response", "t:week"]])}
            failed, q = done.n_failed, q_values(table["p:week"].to_numpy())
        seconds = time.perf_counter() - begin
        inside = brain(millimetres)[0]
        effect = blob(inside, (0.35, -0.2, 0.1), 0.15)[inside]
        if out:
            for kind, image in maps.items():
                image.to_filename(Path(out) / f"brain_{kind}.nii.gz")
        return {
            "voxels": int(inside.sum()),
            "scans": scans,
            "write_seconds": written,
            "fit_seconds": fitted,
            "seconds": seconds,
            "failed": failed,
            "found_in_blob": float(np.mean(q[effect > 0.5] < 0.05)),
            "found_outside": float(np.mean(q[effect < 0.01] < 0.05)),
        }


def q_values(p: np.ndarray) -> np.ndarray:
    """q-values over all voxels."""
    from lmmjax.postestimation.hypotheses.batch_tests import adjust

    return adjust(p)


def run(options: Options) -> Iterator[Record]:
    for way in WAYS:
        options.say(f"brain: {way}")
        facts = {"way": way, "scans": options.size(400, 40), "millimetres": 12.0 if options.small else 2.0}
        yield facts | isolated(measure, timeout=options.timeout, **facts)


def table(records: list[Record]) -> str:
    """A row a way."""
    rows = [
        [
            f"`{got['way']}`: {WAYS[got['way']]}",
            f"{count(got['voxels'])} × {got['scans']}",
            duration(got["fit_seconds"]),
            duration(got["seconds"]),
            f"{got['peak_mib'] / 1024:.1f}",
            f"{100 * got['found_in_blob']:.0f}",
            f"{100 * got['found_outside']:.2f}",
        ]
        for got in records
    ]
    columns = [
        "",
        "voxels × scans:",
        "fitted:",
        "with maps:",
        "peak GiB:",
        "found in the blob, %:",
        "outside, %:",
    ]
    return markdown(columns, rows)


register(
    Workload(
        id="brain",
        title="a brain of 2 mm: 200,000 voxels × 400 scans with missing voxels, from files to maps",
        goal="minutes, in bounded memory",
        run=run,
        table=table,
        counted="voxels",
    )
)

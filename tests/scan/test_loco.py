"""Scans that leave one chromosome out, beside explicit fits with each kernel."""

import errno
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

import lmmjax as lj
from lmmjax.scan import Top, shelf, work

N, M = 36, 24
RNG = np.random.default_rng(4)
IDS = [f"i{k:02d}" for k in range(N)]
G = RNG.integers(0, 3, (N + 4, M)).astype(float)
G[RNG.random(G.shape) < 0.03] = np.nan
# more individuals than the data have, in another order; markers of three chromosomes, not sorted
MARKERS = pd.DataFrame(G, index=[*IDS[::-1], "z1", "z2", "z3", "z4"], columns=[f"m{k}" for k in range(M)])
CHROMOSOME = pd.Series(np.array(["1", "2", "X"])[np.arange(M) * 5 // M % 3], index=MARKERS.columns)
DATA = pd.DataFrame({"id": IDS, "x": RNG.normal(size=N)})
Y = pd.DataFrame(RNG.normal(size=(N, 2)), columns=["a", "b"])
Y += 0.3 * np.nan_to_num(G[N - 1 :: -1, :8]).sum(axis=1)[:N, None]
ROWS = DATA.iloc[np.repeat(np.arange(N), 2)].reset_index(drop=True)
TWICE = pd.Series(np.repeat(Y["a"].to_numpy(), 2) + RNG.normal(size=2 * N), name="y")


def kernel(c, method="vanraden"):
    return lj.Kernel(lj.grm(MARKERS.loc[:, c != CHROMOSOME], method=method))


def expected(model, method="vanraden", **options):
    """Fits with each kernel, and their scans of the markers that it lacks, in the order of the markers."""
    tables = []
    for c in CHROMOSOME.unique():
        fit = model(kernel(c, method))
        tables.append(fit.scan(MARKERS.loc[:, c == CHROMOSOME], **options))
    table = pd.concat(tables, ignore_index=True)
    return table.iloc[np.argsort(MARKERS.columns.get_indexer(table["marker"]), kind="stable")].reset_index(
        drop=True
    )


def batch(k):
    return lj.lmm("~ x + (1 | id)", DATA, kernels={"id": k}).fit_batch(Y)


def beside(k):
    """A kernel beside another term, rows that repeat individuals."""
    data = ROWS.assign(y=TWICE, h=np.tile(["u", "v", "w"], 24))
    return lj.lmm("y ~ x + (1 | id) + (1 | h)", data, kernels={"id": k}).fit()


ALL = lj.Kernel(lj.grm(MARKERS))


@pytest.mark.parametrize("method", ["vanraden", "gcta", "gemma-standardized"])
def test_each_chromosome_has_the_fit_with_its_kernel(method):
    table = batch(ALL).scan(MARKERS, loco=method, chromosome=CHROMOSOME)
    # the kernel is a difference of sums; ratios of variances are where criteria are flat
    pd.testing.assert_frame_equal(table, expected(batch, method), rtol=1e-6)


def test_kernels_that_are_given_and_exact_refits():
    given = {c: kernel(c) for c in ("2", "X", "1")}
    asked = {"ratio": "refit", "test": "wald"}
    table = batch(ALL).scan(MARKERS, loco=given, chromosome=CHROMOSOME.to_dict(), **asked)
    pd.testing.assert_frame_equal(table, expected(batch, **asked), rtol=1e-6)


def test_a_kernel_beside_another_term():
    table = beside(ALL).scan(MARKERS, loco=True, chromosome=CHROMOSOME, test="wald", group="id")
    pd.testing.assert_frame_equal(table, expected(beside, test="wald", group="id"), rtol=1e-5)


def test_parts_by_workers_and_what_is_kept(tmp_path):
    asked = {"loco": True, "chromosome": CHROMOSOME, "keep": Top(3)}
    fits = batch(ALL)
    whole = fits.scan(MARKERS, loco=True, chromosome=CHROMOSOME)
    most = whole.groupby("response")["lod"].rank(ascending=False) <= 3
    with ThreadPoolExecutor(1) as pool:
        for name, options in (("one.parquet", {}), ("two.parquet", {"executor": pool})):
            done = fits.scan(MARKERS, sink=tmp_path / name, chunk=7, **asked, **options)
            pd.testing.assert_frame_equal(done.read(), whole[most].reset_index(drop=True), rtol=1e-7)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


# the first marker and all names stay
CORRECTED = MARKERS.assign(m12=2.0 - MARKERS["m12"].to_numpy()[::-1])


def test_a_resumed_scan_takes_kernels_of_its_own_markers(tmp_path, monkeypatch):
    asked = {"loco": True, "chromosome": CHROMOSOME}
    fits = batch(ALL)

    def killed(*_):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(work, "table_columns", killed)
        with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="killed"):
            fits.scan(MARKERS, sink=tmp_path / "r.parquet", executor=pool, **asked)
    parts = tmp_path / "r.parquet.parts"
    there = {*parts.glob("_without-*.npz")}
    assert there
    with ThreadPoolExecutor(1) as pool:
        done = fits.scan(CORRECTED, sink=tmp_path / "r.parquet", executor=pool, resume=True, **asked)
    pd.testing.assert_frame_equal(done.read(), fits.scan(CORRECTED, **asked), rtol=1e-9)


def test_parts_with_kernels_of_other_markers_are_refused(tmp_path):
    asked = {"loco": True, "chromosome": CHROMOSOME, "sink": tmp_path / "parts", "chunk": 5}
    fits = batch(ALL)
    fits.scan(MARKERS, **asked)
    assert fits.scan(MARKERS, resume=True, **asked).n_resumed == M
    # the markers of the first part are as they were, and those of its kernel are not
    with pytest.raises(ValueError, match=r"markers 0 to 3.*differs in the values of the kernels"):
        fits.scan(CORRECTED, resume=True, **asked)


def test_a_full_disk_does_not_end_a_scan(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    k = kernel("1")
    with monkeypatch.context() as patch:
        patch.setattr(shelf, "write_kernel", full)
        with pytest.warns(UserWarning, match=r"are not kept in .* for other shards.*No space left"):
            shelf.keep_kernel(tmp_path / "_without-1.0.npz", k)
    assert not list(tmp_path.iterdir())
    shelf.keep_kernel(tmp_path / "_without-1.0.npz", k)
    kept = shelf.kept_kernel(tmp_path / "_without-1.0.npz", k.ids)
    np.testing.assert_array_equal(kept.levels.matrix, k.levels.matrix)
    # what a killed writer leaves is swept away with the kernels
    (tmp_path / "._without-1.0.npz.ab.tmp").touch()
    assert len(list(tmp_path.glob(shelf.FILES))) == 2


def test_labels_that_read_the_same_are_one_chromosome():
    mixed = pd.Series([1, "1", 2, "X", 1, "2"] * 4, index=MARKERS.columns, dtype=object)
    table = batch(ALL).scan(MARKERS, loco=True, chromosome=mixed)
    plain = batch(ALL).scan(MARKERS, loco=True, chromosome=mixed.astype(str))
    pd.testing.assert_frame_equal(table, plain, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loco": True}, "needs chromosome="),
        ({"chromosome": CHROMOSOME}, "chromosome= is for loco="),
        ({"loco": "vanradn", "chromosome": CHROMOSOME}, "unknown loco 'vanradn'"),
        ({"loco": True, "chromosome": CHROMOSOME[1:]}, "has no marker 'm0'"),
        ({"loco": True, "chromosome": ["1"] * 3}, r"shape \(3,\) for 24 markers"),
        ({"loco": True, "chromosome": ["1"] * 23 + [None]}, "of marker 'm23' is missing"),
        ({"loco": True, "chromosome": ["1"] * 24}, "all markers that vary are of one chromosome"),
        ({"loco": {"1": ALL}, "chromosome": CHROMOSOME}, "no kernel without chromosome '2'"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        batch(ALL).scan(MARKERS, **options)


def test_a_model_without_kernel_has_nothing_to_leave_out():
    fit = lj.lmm("y ~ x + (1 | id)", ROWS.assign(y=TWICE)).fit()
    with pytest.raises(ValueError, match="the model has 0: fit it with kernels="):
        fit.scan(MARKERS, loco=True, chromosome=CHROMOSOME)

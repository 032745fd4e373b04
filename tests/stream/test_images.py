"""Images read as the values of their voxels, missing ones exactly, and results come back to their places."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import lmmjax as lj
from lmmjax.fitted.responses import beside
from lmmjax.results.batch.images import image_responses
from lmmjax.stream import open_source
from lmmjax.stream.inputs import open_inputs

nib = pytest.importorskip("nibabel")

N, GRID = 12, (4, 3, 2)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


@pytest.fixture(scope="module")
def visits():
    return pd.DataFrame({"week": [0.0, 1.0, 2.0] * 4, "id": np.repeat(np.arange(4), 3)})


@pytest.fixture(scope="module")
def model(visits):
    return lj.lmm("~ week + (1 | id)", visits)


@pytest.fixture(scope="module")
def inside():
    mask = np.ones(GRID, bool)
    mask[0, 0] = False
    return mask


@pytest.fixture(scope="module")
def mask(inside):
    return nib.Nifti1Image(inside.astype(np.uint8), AFFINE)


@pytest.fixture(scope="module")
def data():
    values = np.random.default_rng(0).normal(size=(*GRID, N)).astype(np.float32)
    values[1, 1, 1, :3] = np.nan
    values[2, 2, 0, 5] = 0.0
    values[0, 0] = 0.0
    return values


@pytest.fixture(scope="module")
def paths(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    out = []
    for k in range(N):
        nib.save(nib.Nifti1Image(data[..., k], AFFINE), folder / f"s{k}.nii.gz")
        out.append(str(folder / f"s{k}.nii.gz"))
    nib.save(nib.Nifti1Image(data, AFFINE), folder / "all.nii.gz")
    return out


def whole(paths):
    return paths[0].replace("s0.nii", "all.nii")


def test_all_ways_to_give_scans_are_the_same_values(data, paths, mask, inside, visits):
    expected = data[inside].T
    ways = {
        "image": nib.Nifti1Image(data, AFFINE),
        "file": whole(paths),
        "files": paths,
        "images": [nib.Nifti1Image(data[..., k], AFFINE) for k in range(N)],
        "column": pd.Series(paths),
        "trailing axis": [nib.Nifti1Image(data[..., [k]], AFFINE) for k in range(N)],
        "MGH": nib.freesurfer.MGHImage(data, AFFINE),
    }
    for way, given in ways.items():
        images = lj.Images(given, mask)
        np.testing.assert_array_equal(images.X, expected, way)
        source = open_source(images)
        assert (source.n_rows, source.n_responses) == expected.shape
        np.testing.assert_array_equal(source.read(3, 7), expected[:, 3:7], way)
        # a temporary file of the precision that the images have
        assert images._spooled.dtype == np.float32
    # without a mask where some scan is neither zero nor missing
    assert lj.Images(paths).shape == (N, inside.sum())
    assert repr(lj.Images(paths, inside)) == "Images(12 scans, 22 voxels)"


def test_scaled_integers_keep_their_precision(inside, mask, tmp_path):
    scan = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(GRID), AFFINE)
    scan.header.set_slope_inter(0.1, 3.0)
    nib.save(scan, tmp_path / "scaled.nii")
    images = lj.Images([tmp_path / "scaled.nii"], mask)
    stored = nib.load(tmp_path / "scaled.nii").get_fdata()
    np.testing.assert_array_equal(images.X[0], stored[inside])
    np.testing.assert_array_equal(images.read(0, 22), images.X)


def test_missing_values_are_those_that_were_asked_for(data, paths, mask, inside):
    expected = data[inside].T.astype(float)
    lost = [*paths[:4], None, float("nan"), *paths[6:]]
    found = lj.Images(lost, mask).X
    assert np.isnan(found[4:6]).all()
    np.testing.assert_array_equal(np.delete(found, [4, 5], 0), np.delete(expected, [4, 5], 0))

    found = lj.Images(paths, mask, zeros_missing=True).X
    np.testing.assert_array_equal(found, np.where(expected == 0, np.nan, expected))

    own = np.ones((*GRID, N), np.uint8)
    own[3, :, :, 2] = 0
    found = lj.Images(paths, mask, masks=nib.Nifti1Image(own, AFFINE)).X
    np.testing.assert_array_equal(found, np.where(own[inside].T == 0, np.nan, expected))

    images = lj.Images(paths, mask, min_scans=10)
    few = np.isnan(images.X).all(axis=0)
    np.testing.assert_array_equal(few, np.isfinite(expected).sum(axis=0) < 10)
    np.testing.assert_array_equal(np.isnan(images.read(0, 22)).all(axis=0), few)


def test_fits_of_images_are_those_of_their_values(model, data, paths, mask, inside, visits):
    values = data[inside].T.astype(float)
    expected = model.fit_batch(values)
    fits = model.fit_batch(nib.Nifti1Image(data, AFFINE), mask=mask)
    pd.testing.assert_frame_equal(fits.params, expected.params, check_names=False)
    # the voxel with missing scans is the fit of the rows that it has
    k = int(np.flatnonzero(np.isnan(values).any(axis=0))[0])
    there = np.isfinite(values[:, k])
    alone = lj.lmm("y ~ week + (1 | id)", visits[there].assign(y=values[there, k])).fit()
    np.testing.assert_allclose(fits.params.loc[k], alone.params, rtol=1e-6)

    # a column of the data, in another order than it
    column = lj.lmm("~ week + (1 | id)", visits.assign(scan=paths))
    pd.testing.assert_frame_equal(column.fit_batch("scan", mask=mask).params, fits.params)
    turned = lj.lmm("~ week + (1 | id)", visits.iloc[::-1])
    labelled = lj.Images(pd.Series(paths, index=visits.index), mask)
    np.testing.assert_allclose(turned.fit_batch(labelled).params, fits.params, rtol=1e-8)

    # weights are images too
    unit = nib.Nifti1Image(np.ones((*GRID, N), np.float32), AFFINE)
    np.testing.assert_array_equal(beside(turned.data, lj.Images(unit, mask), fits.names, "weights"), 1.0)

    # what a streamed batch reads, and maps of the table that it writes
    inputs = open_inputs(column.data, image_responses(column.data, "scan", mask))
    np.testing.assert_array_equal(inputs.read(0, 22)[0], values)
    table = pd.DataFrame(
        {"response": fits.names, "t:week": fits.tvalues["week"], "se:week": fits.bse["week"]}
    )
    maps = labelled.to_img(table.iloc[::-1])
    np.testing.assert_array_equal(maps.get_fdata()[inside], table[["t:week", "se:week"]])


def test_maps_have_the_results_at_their_voxels(model, paths, mask, inside):
    fits = model.fit_batch(paths, mask=mask)
    kinds = ["estimate", "se", "df", "t", "p", "q", "logp", "signed_logp", "z"]
    made = fits.to_img(mask, "week", kinds)
    assert made.shape == (*GRID, len(kinds))
    np.testing.assert_array_equal(made.affine, AFFINE)
    assert not made.get_fdata()[~inside].any()
    maps = dict(zip(kinds, made.get_fdata()[inside].T, strict=True))
    table = fits.top("week", 100).loc[fits.names]
    for kind in kinds[:6]:
        np.testing.assert_array_equal(maps[kind], table[kind])
    np.testing.assert_allclose(maps["logp"], -np.log10(table["p"]), rtol=1e-12)
    np.testing.assert_array_equal(maps["signed_logp"], np.sign(table["t"]) * maps["logp"])
    np.testing.assert_allclose(stats.norm.sf(np.abs(maps["z"])), table["p"] / 2, rtol=1e-10)
    assert (np.sign(maps["z"]) == np.sign(table["t"])).all()

    for name, values in {
        "icc": fits.icc(),
        "sd_(Intercept)|id": fits.sdcor["sd_(Intercept)|id"],
        "sigma": fits.sigma,
        "marginal": fits.r2()["marginal"],
        "n": np.isfinite(fits.fitted.y).sum(axis=0),
        "converged": fits.converged,
    }.items():
        np.testing.assert_array_equal(fits.to_img(mask, name).get_fdata()[inside], values, name)
    numbers = fits.anova().loc["week"]["F"].sample(frac=1, random_state=0)
    np.testing.assert_array_equal(fits.to_img(mask, numbers).get_fdata()[inside], numbers.sort_index())
    contrast = fits.to_img(mask, contrast="Intercept + week", what="estimate").get_fdata()[inside]
    np.testing.assert_allclose(contrast, fits.params.sum(axis=1), rtol=1e-12)

    together = fits.to_img(mask, contrast=["Intercept", "week"], what=["F", "p", "logp"]).get_fdata()[inside]
    table = fits.test(["Intercept", "week"])
    np.testing.assert_allclose(together.T[:2], table[["F", "p"]].T, rtol=1e-10)
    np.testing.assert_allclose(together.T[2], -np.log10(table["p"]), rtol=1e-10)

    # some of the voxels; fits of an array of the same columns
    some = fits[[3, 5]].to_img(mask, "week").get_fdata()[inside]
    assert np.flatnonzero(np.isfinite(some)).tolist() == [3, 5]
    named = pd.DataFrame(lj.Images(paths, mask).X).add_prefix("v")
    again = model.fit_batch(named).to_img(mask, "week").get_fdata()
    np.testing.assert_array_equal(again, made.get_fdata()[..., 3])


def test_surfaces_and_grayordinates_come_back_as_such(model, tmp_path):
    rng = np.random.default_rng(1)
    values = rng.normal(size=(N, 9)).astype(np.float32)

    meta = nib.gifti.GiftiMetaData(AnatomicalStructurePrimary="CortexLeft")
    arrays = [nib.gifti.GiftiDataArray(row, "NIFTI_INTENT_NONE") for row in values]
    gifti = [nib.gifti.GiftiImage(meta=meta, darrays=[array]) for array in arrays]
    np.testing.assert_array_equal(lj.Images(gifti).X, values)
    np.testing.assert_array_equal(lj.Images(nib.gifti.GiftiImage(darrays=arrays)).X, values)
    keep = np.arange(9) != 4
    images = lj.Images(gifti, keep)
    fits = model.fit_batch(images)
    assert fits.names.name == "vertex"
    made = fits.to_img(images, "week", ["t", "p"])
    assert made.meta["AnatomicalStructurePrimary"] == "CortexLeft"
    assert [array.meta["Name"] for array in made.darrays] == ["week t", "week p"]
    assert made.darrays[0].data[4] == 0
    # GIFTI has single precision
    np.testing.assert_allclose(made.darrays[0].data[keep], fits.tvalues["week"], rtol=1e-6)
    nib.save(made, tmp_path / "t.func.gii")
    assert len(nib.load(tmp_path / "t.func.gii").darrays) == 2

    axis = nib.cifti2.BrainModelAxis.from_mask(keep, name="cortex_left")
    rows = nib.cifti2.ScalarAxis([f"s{k}" for k in range(N)])
    cifti = nib.Cifti2Image(values[:, keep], nib.Cifti2Header.from_axes((rows, axis)))
    nib.save(cifti, tmp_path / "all.dscalar.nii")
    images = lj.Images(tmp_path / "all.dscalar.nii")
    np.testing.assert_array_equal(images.X, values[:, keep])
    again = model.fit_batch(str(tmp_path / "all.dscalar.nii"))
    assert again.names.name == "grayordinate"
    np.testing.assert_array_equal(again.params, fits.params)
    made = again.to_img(images, "week", ["t", "p"])
    nib.save(made, tmp_path / "maps.dscalar.nii")
    made = nib.load(tmp_path / "maps.dscalar.nii")
    assert made.header.get_axis(1) == axis
    assert made.header.get_axis(0).name.tolist() == ["week t", "week p"]
    np.testing.assert_array_equal(made.get_fdata()[0], again.tvalues["week"])


def test_labels_and_places_are_kept(model, data, paths, mask, inside):
    """Scans by the labels of a dict, of bytes in the other order, affines that single precision rounds."""
    exact = np.array([[-2.3, 0.1, 0, 90], [0, 2.1, 0, -126], [0.05, 0, 2, -72], [0, 0, 0, 1.0]])
    own = nib.Nifti1Image(inside.astype(np.uint8) * 255, exact)
    swapped = nib.Nifti1Image(data.astype(">f4"), exact, nib.Nifti1Header(endianness=">"))
    fits = model.fit_batch(swapped, mask=own)
    by_label = {k: paths[k] for k in reversed(range(N))}
    np.testing.assert_array_equal(fits.params, model.fit_batch(by_label, mask=mask).params)
    np.testing.assert_array_equal(fits.to_img(own, "week").affine, exact)
    assert model.fit_batch(pd.Series(paths).sample(frac=1, random_state=0)).params.shape == (22, 2)


def test_masks_are_single_maps_of_the_same_surface():
    def surface(side, maps):
        meta = nib.gifti.GiftiMetaData(AnatomicalStructurePrimary=side)
        arrays = [nib.gifti.GiftiDataArray(np.ones(5, np.float32), "NIFTI_INTENT_NONE")] * maps
        return nib.gifti.GiftiImage(meta=meta, darrays=arrays)

    left, right = surface("CortexLeft", 1), surface("CortexRight", 1)
    with pytest.raises(ValueError, match="the mask is no mask: it has 2 maps"):
        lj.Images([left] * N, surface("CortexLeft", 2))
    with pytest.raises(ValueError, match="the mask is of CortexRight, others are of CortexLeft"):
        lj.Images([left] * N, right)
    with pytest.raises(ValueError, match="image 1 is of CortexRight"):
        lj.Images([left, right])
    axes = nib.cifti2.ScalarAxis(["a", "b"]), nib.cifti2.BrainModelAxis.from_mask(np.ones(5, bool))
    cifti = nib.Cifti2Image(np.ones((2, 5), np.float32), nib.Cifti2Header.from_axes(axes))
    with pytest.raises(ValueError, match="it has 2 maps"):
        lj.Images(cifti, cifti)
    nowhere = nib.Nifti1Image(np.ones(GRID), AFFINE)
    nowhere.affine[0, 0] = np.nan
    with pytest.raises(ValueError, match="its affine has values that are not finite"):
        lj.Images([nowhere])


def test_both_hemispheres_by_a_masker(model):
    """Many scans in one image of surfaces; a vertex that misses a scan does so in the fits."""
    surface = pytest.importorskip("nilearn.surface")
    maskers = pytest.importorskip("nilearn.maskers")
    rng = np.random.default_rng(2)

    def mesh(n):
        return surface.InMemoryMesh(rng.normal(size=(n, 3)).astype(np.float32), np.array([[0, 1, 2]]))

    both = surface.PolyMesh(left=mesh(5), right=mesh(4))
    values = {"left": rng.normal(size=(5, N)), "right": rng.normal(size=(4, N))}
    scans = surface.SurfaceImage(both, values)
    expected = model.fit_batch(np.concatenate(list(values.values())).T)
    masker = maskers.SurfaceMasker(standardize=None)
    np.testing.assert_allclose(model.fit_batch(scans, mask=masker).params, expected.params, rtol=1e-10)
    values["left"] = np.where(np.arange(5 * N).reshape(5, N) == 2 * N + 3, np.nan, values["left"])
    holes = surface.SurfaceImage(both, values)
    fitted = maskers.SurfaceMasker(standardize=None).fit(scans)
    assert np.argwhere(np.isnan(lj.Images(holes, fitted).X)).tolist() == [[3, 2]]
    smooth = maskers.SurfaceMasker(standardize=None, smoothing_fwhm=2.0).fit(scans)
    with pytest.raises(ValueError, match="missing values, of which this masker makes zeros"):
        lj.Images(holes, smooth).X  # noqa: B018


def test_maskers_of_nilearn(model, data, mask, inside):
    maskers = pytest.importorskip("nilearn.maskers")
    scans = nib.Nifti1Image(data, AFFINE)
    # what only takes voxels leaves missing values missing, fitted or not
    plain = lj.Images(scans, maskers.NiftiMasker(mask))
    np.testing.assert_array_equal(plain.X, data[inside].T)
    smooth = maskers.NiftiMasker(mask, smoothing_fwhm=4.0, standardize=None)
    with pytest.raises(ValueError, match="missing values, of which this masker makes zeros"):
        model.fit_batch(scans, mask=smooth)

    filled = nib.Nifti1Image(np.nan_to_num(data), AFFINE)
    smooth.fit()
    expected = smooth.transform(filled)
    for given in (filled, [nib.Nifti1Image(np.nan_to_num(data)[..., k], AFFINE) for k in range(N)]):
        images = lj.Images(given, smooth)
        np.testing.assert_allclose(images.X, expected, rtol=1e-6)
        np.testing.assert_allclose(images.read(2, 5), expected[:, 2:5], rtol=1e-6)
    across = maskers.NiftiMasker(mask, standardize="zscore_sample")
    found = lj.Images([nib.Nifti1Image(np.nan_to_num(data)[..., k], AFFINE) for k in range(N)], across).X
    np.testing.assert_allclose(found.std(axis=0, ddof=1)[0], 1.0, rtol=1e-6)

    regions = np.zeros(GRID, np.int16)
    regions[1:3], regions[3] = 1, 2
    labels = maskers.NiftiLabelsMasker(
        nib.Nifti1Image(regions, AFFINE), labels=["Background", "front", "back"], standardize=None
    ).fit()
    fits = model.fit_batch(filled, mask=labels)
    assert fits.names.tolist() == ["front", "back"]
    made = fits.to_img(labels, "week").get_fdata()
    np.testing.assert_allclose(made[3], fits.tvalues.loc["back", "week"], rtol=1e-6)


def test_logarithms_of_tails_beyond_doubles():
    from lmmjax.inference.tails import log_t_tail

    np.testing.assert_allclose(
        log_t_tail(np.array([3.0, -5.0]), 7.0), stats.t.logsf([3.0, 5.0], 7), rtol=1e-12
    )
    np.testing.assert_allclose(log_t_tail(np.array([50.0]), np.inf), stats.norm.logsf([50.0]), rtol=1e-12)
    # by integration, where the tail is no double; Laplace's method is right to 3/t²
    t, df = 60.0, 1000.0
    grid = np.linspace(t, 3 * t, 200_001)
    density = stats.t.logpdf(grid, df)
    area = np.trapezoid(np.exp(density - density[0]), grid)
    np.testing.assert_allclose(log_t_tail(np.array([t]), df), density[0] + np.log(area), atol=3 / t**2)
    assert np.isnan(log_t_tail(np.array([np.nan]), 3.0)).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda p, m: lj.Images(p, nib.Nifti1Image(np.ones((4, 3, 3)), AFFINE)),
            "4 × 3 × 2 voxels",
        ),
        (lambda p, m: lj.Images(p, nib.Nifti1Image(np.ones(GRID), np.eye(4))), "at other places"),
        (lambda p, m: lj.Images(p, nib.Nifti1Image(np.zeros(GRID), AFFINE)), "the mask is empty"),
        (lambda p, m: lj.Images(p, nib.Nifti1Image(np.ones((*GRID, 2)), AFFINE)), "a mask is one volume"),
        (lambda p, m: lj.Images([whole(p), *p], m), "all.nii.gz has 12 scans: in a list"),
        (lambda p, m: lj.Images([None, None], m), "all entries are missing"),
        (lambda p, m: lj.Images(p, m, masks=p[:3]), "3 masks for 12 scans"),
        (lambda p, m: lj.Images(5, m), "images of type int are not known"),
        (lambda p, m: lj.Images([np.ones(GRID)], m), "images of type ndarray are not known"),
        (lambda p, m: lj.Images(p, 5), "a mask of type int"),
        (lambda p, m: lj.Images(__file__, m), "cannot be read"),
    ],
)
def test_what_is_wrong_with_images_is_said(paths, mask, call, message):
    with pytest.raises(ValueError, match=message):
        call(paths, mask)


def test_what_is_wrong_with_maps_is_said(model, paths, mask):
    fits = model.fit_batch(lj.Images(paths, mask).X[:, :4])
    for call, message in {
        lambda: fits.to_img(mask, "weak"): "there is no 'weak' to be mapped: did you mean 'week'",
        lambda: fits.to_img(mask, "week", "tt"): "unknown statistic 'tt'",
        lambda: fits.to_img(mask, "week", "F"): "a single coefficient is tested by t",
        lambda: fits.to_img(
            mask, contrast=["Intercept", "week"]
        ): "there is no t, but F, num_df, den_df, p, q",
        lambda: fits.to_img(5, "week"): "a mask (a path or an image), a masker",
        lambda: fits.to_img(mask, np.ones(3)): "give one for each of 4",
        lambda: fits.to_img(mask): "give one of them",
        lambda: model.fit_batch("scan", mask=mask): "'scan' is neither an image",
        lambda: model.fit_batch(lj.Images(paths[:5], mask)): "responses have 5 of the 12 rows",
        lambda: lj.Images(paths, mask).to_img(np.ones(3)): "there are 22 voxels",
    }.items():
        with pytest.raises(ValueError) as error:
            call()
        assert message in str(error.value)
    small = nib.Nifti1Image((np.arange(24) < 2).reshape(GRID).astype(np.uint8), AFFINE)
    with pytest.raises(ValueError, match="none of the 2 voxels of the mask"):
        fits.to_img(small, "week")
    with pytest.raises(FileNotFoundError, match="No such file"):
        model.fit_batch(["none.nii.gz"])

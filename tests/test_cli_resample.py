# ruff: noqa: F401, F811 (fixtures are imported)
"""`nfops resample`: values and positions that stay, grids that are exact, refusals."""

import hashlib
import json

import nibabel
import numpy as np
import pytest
from cli_fixtures import OBLIQUE, corners, names, nfops, nifti, save_nifti, shade, shades
from PIL import Image as Picture

from nfops.resampling import resample

AFFINES = {
    "oblique": OBLIQUE,
    "sagittal": np.array([[0, 0, 3.0, -20], [-2.2, 0, 0, 30], [0, 1.7, 0, -25], [0, 0, 0, 1.0]]),
    "sheared": OBLIQUE @ np.array([[1, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def world(shape, affine):
    """World positions (*shape, 3) of voxel centres."""
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return voxels @ affine[:3, :3].T + affine[:3, 3]


def ramp(points):
    return points @ np.array([1.0, -0.5, 0.25]) + 300


# --- no grid option: a change of format --------------------------------------------------------------------------


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
def test_without_a_grid_no_value_and_no_position_changes(here, dtype, affine):
    values = np.random.default_rng(0).integers(0, 200, (7, 6, 5)).astype(dtype)
    values += np.array(0.3, dtype) if dtype.startswith("float") else 0
    image = nibabel.Nifti1Image(values, affine)
    image.set_sform(affine, 1)
    image.to_filename("a.nii.gz")
    ran = nfops("resample", "a.nii.gz", "--out", "b.nii")
    assert (ran.code, ran.out) == (0, "b.nii\n")
    assert ("the grid is sheared" in ran.err) == (affine is AFFINES["sheared"])
    got, place = nifti(here / "b.nii")
    assert got.dtype == values.dtype
    assert np.array_equal(got, values)
    assert np.array_equal(place, nifti(here / "a.nii.gz")[1])


def test_a_series_of_volumes_stays_one(here):
    values = np.arange(7 * 6 * 5 * 3).reshape(7, 6, 5, 3)
    save_nifti(here / "a.nii.gz", values, dtype="int16")
    assert nfops("resample", "a.nii.gz", "--out", "b.nii").code == 0
    assert np.array_equal(nifti(here / "b.nii")[0], values)


def test_scaled_integers_keep_their_values(here):
    image = nibabel.Nifti1Image(np.arange(60).reshape(5, 4, 3).astype(np.int16), OBLIQUE)
    image.header.set_slope_inter(0.25, -3)
    image.to_filename("a.nii")
    assert nfops("resample", "a.nii", "--out", "b.nii").code == 0
    assert np.allclose(nibabel.load("b.nii").get_fdata(), nibabel.load("a.nii").get_fdata())


def test_a_picture_and_back_is_the_same_picture(here):
    pixels = np.random.default_rng(1).integers(0, 255, (9, 13)).astype(np.uint8)
    Picture.fromarray(pixels).save("a.png")
    assert nfops("resample", "a.png", "--out", "b.nii.gz", "--pixel-mm", "0.5x0.8").code == 0
    assert nifti(here / "b.nii.gz")[0].shape[:2] == (13, 9)
    assert nfops("resample", "b.nii.gz", "--out", "c.tif").code == 0
    assert np.array_equal(np.asarray(Picture.open("c.tif")), pixels)
    assert nfops("info", "--json", "c.tif").document["spacing_mm"][:2] == pytest.approx([0.5, 0.8], rel=1e-3)


# --- grids (B20-B23) ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [["--shape", "13x11x9"], ["--shape", "4x5x3"], ["--spacing", "1.3x1.1x2"]])
@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_b20_a_ramp_is_where_it_was(here, affine, options):
    points = world((9, 8, 7), affine)
    save_nifti_of(here / "a.nii", ramp(points), affine)
    assert nfops("resample", "a.nii", "--out", "b.nii", "--method", "linear", *options).code == 0
    got, place = nifti(here / "b.nii")
    there = world(got.shape, place)
    old = (there - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    sizes = np.array([9, 8, 7])
    half = np.maximum(sizes / got.shape / 2, 0.6)  # an output voxel averages over its width
    inner = ((old >= half) & (old <= sizes - 1 - half)).all(axis=-1)
    assert inner.sum() >= 4
    assert np.allclose(got[inner], ramp(there)[inner], atol=1e-3)


def save_nifti_of(path, values, affine):
    image = nibabel.Nifti1Image(values.astype(np.float32), affine)
    image.set_sform(affine, 1)
    image.to_filename(path)


@pytest.mark.parametrize("shape", ["13x11x9", "4x5x3", "9x0x20", "20x5"])
def test_b20_shape_keeps_the_field_of_view(here, shape):
    save_nifti(here / "a.nii", shade(np.random.default_rng(0)))
    assert nfops("resample", "a.nii", "--out", "b.nii", "--shape", shape).code == 0
    got, place = nifti(here / "b.nii")
    sizes = [*map(int, shape.split("x")), 0][:3]
    assert got.shape == tuple(n or old for n, old in zip(sizes, (20, 18, 4), strict=True))
    assert np.allclose(corners(got.shape, place), corners((20, 18, 4), OBLIQUE), atol=1e-4)


@pytest.mark.parametrize(("text", "spacing"), [("3", (3, 3, 3)), ("1.5x2", (1.5, 2, 6)), ("1x1.1x4", (1, 1.1, 4))])
def test_b22_spacing_is_exact_and_the_centre_stays(here, text, spacing):
    save_nifti(here / "a.nii", shade(np.random.default_rng(0)))
    assert nfops("resample", "a.nii", "--out", "b.nii", "--spacing", text).code == 0
    got, place = nifti(here / "b.nii")
    assert np.allclose(nibabel.affines.voxel_sizes(place), spacing, atol=1e-5)
    assert np.allclose(corners(got.shape, place).mean(0), corners((20, 18, 4), OBLIQUE).mean(0), atol=1e-4)


def test_b22_like_takes_the_grid_and_fills_what_was_not_seen(here):
    save_nifti(here / "a.nii", np.full((9, 8, 7), 50.0))
    away = np.diag([2.0, 2, 2, 1])
    away[:3, 3] = (5, 5, 5)
    save_nifti(here / "like.nii", np.zeros((30, 20, 10)), away)
    assert nfops("resample", "a.nii", "--out", "b.nii", "--like", "like.nii", "--fill", "-7.5").code == 0
    got, place = nifti(here / "b.nii")
    assert got.shape == (30, 20, 10)
    assert np.array_equal(place, away)
    assert got.max() == pytest.approx(50, abs=1e-3)
    assert got.min() == -7.5


def test_b19_nearest_makes_no_new_label_and_keeps_the_type(here):
    labels = np.random.default_rng(0).choice([0, 3, 200], (20, 18, 4))
    save_nifti(here / "a.nii.gz", labels, dtype="uint8")
    assert nfops("resample", "a.nii.gz", "--out", "b.nii.gz", "--spacing", "1.3", "--method", "nearest").code == 0
    got, _ = nifti(here / "b.nii.gz")
    assert got.dtype == np.uint8
    assert set(np.unique(got)) == {0, 3, 200}


def test_b23_a_coarser_grid_averages(here):
    chess = np.indices((20, 18, 4)).sum(axis=0) % 2 * 100.0
    save_nifti(here / "a.nii", chess)
    assert nfops("resample", "a.nii", "--out", "b.nii", "--shape", "5x6").code == 0
    assert np.abs(nifti(here / "b.nii")[0] - 50).max() < 20


# --- through a field ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("words", "expected"), [((), 2), (("--no-antialias",), 6)])
def test_b23_without_antialiasing_coarse_voxels_are_samples(here, words, expected):
    values = np.zeros((9, 8, 3))
    values[1::3] = 6
    save_nifti(here / "a.nii", values)
    ran = nfops("resample", "a.nii", "--out", "b.nii", "--shape", "3x8", "--method", "linear", *words)
    assert ran.code == 0, ran.err
    assert np.allclose(nifti(here / "b.nii")[0], expected)


def test_b22_beyond_a_ct_scan_is_its_smallest_value(here, shared_data):
    series = shared_data / "dicom" / "ct_philips_tilt" / "dcm"
    slices = sorted(path for path in series.rglob("*") if path.is_file())
    assert nfops("resample", slices[0], "--out", "slice.nii.gz").code == 0
    slice_ = nibabel.load("slice.nii.gz")
    affine = slice_.affine.copy()
    affine[:3, 3] -= affine[:3, 0] * 40
    save_nifti("beside.nii.gz", np.zeros((60, 512, 1), np.float32), affine)
    for words, expected in (((), float(np.asarray(slice_.dataobj).min())), (("--fill", 7), 7)):
        assert nfops("resample", slices[0], "--out", "o.nii.gz", "--like", "beside.nii.gz", "-f", *words).code == 0
        assert np.asarray(nibabel.load("o.nii.gz").dataobj)[0, 0, 0] == expected


def test_c55_an_input_that_changes_while_it_is_read_gives_no_output(here, monkeypatch):
    save_nifti("a.nii.gz", np.arange(60, dtype=np.float32).reshape(5, 4, 3), np.eye(4))

    def changing(*arguments, **options):
        (here / "a.nii.gz").write_bytes(b"something else")
        return resample(*arguments, **options)

    monkeypatch.setattr("nfops.resampling.resample", changing)
    ran = nfops("resample", "a.nii.gz", "--out", "o.nii.gz", "--shape", "9x9")
    assert (ran.code, len(ran.err.splitlines())) == (3, 1)
    assert "changed while it was read" in ran.err
    assert names(here) == ["a.nii.gz"]


def test_the_field_shows_the_scan_in_its_own_units_and_the_sidecar_names_the_bundle(shades, here):
    values = shade(np.random.default_rng(9))
    save_nifti(here / "a.nii", values)
    words = ["resample", "a.nii", "--out", "b.nii", "--method", "field", "--recipe", shades.recipe]
    assert nfops(*words, "--shape", "40x36").code == 0
    got, place = nifti(here / "b.nii")
    assert got.shape == (40, 36, 4)
    assert np.allclose(corners(got.shape, place), corners((20, 18, 4), OBLIQUE), atol=1e-4)
    assert np.abs(got.reshape(20, 2, 18, 2, 4).mean(axis=(1, 3)) - values).mean() < 40
    record = json.loads((here / "b.json").read_text())
    digest = hashlib.sha256(shades.recipe.read_bytes()).hexdigest()
    assert record["Recipe"] == {"method": "field", "name": "shades", "sha256": digest}
    assert record["Seed"] == 3
    assert record["Bundle"] == hashlib.sha256((shades.bundle / "manifest.json").read_bytes()).hexdigest()


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--method", "field"], 2, "say which with --recipe"),
        (["--method", "field", "--recipe", "knee_pd2t2"], 4, "no trained bundle"),
        (["--method", "field", "--recipe", "knee_pd3t2"], 4, 'did you mean "knee_pd2t2"'),
        (["--recipe", "knee_pd2t2"], 2, "is not used by --method cubic"),
        (["--bundle", "b"], 2, "is not used by --method cubic"),
        (["--device", "cuda"], 6, "computes on the CPU only"),
        (["--method", "qubic"], 2, "'qubic' is not one of"),
        (["--fill", "nan"], 2, "expected a finite number"),
        (["--shape", "3"], 2, "2 or 3 whole numbers"),
        (["--spacing", "0"], 2, "0.001 to 1000"),
    ],
)
def test_options_that_would_be_passed_over_are_refused(here, words, code, said, dry):
    save_nifti(here / "a.nii", shade(np.random.default_rng(9)))
    ran = nfops("resample", "a.nii", "--out", "b.nii", *words, *dry)
    assert (ran.code, len(ran.err.splitlines()), ran.out) == (code, 1, "")
    assert said in ran.err
    assert names() == ["a.nii"]


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["a.nii", "--out", "a.nii", "-f"], 5, "also an input"),
        (["a.nii", "--out", "taken.nii"], 5, "exists already"),
        (["a.nii", "--out", "none/b.nii"], 5, "no such directory"),
        (["a.nii", "--out", "b.q"], 2, "unknown suffix"),
        (["none.nii", "--out", "b.nii"], 2, "no such file"),
        (["", "--out", "b.nii"], 2, "the name of a file"),
        (["a.nii"], 2, "Missing option"),
        (["a.nii", "--out", "b.nii", "--shape", "3x3", "--spacing", "2"], 2, "at most one of"),
        (["a.nii", "--out", "b.nii", "--shape", "90000x90000"], 6, "GiB"),
        (["a.nii", "--out", "b.png"], 2, "a picture holds one slice"),
        (["nan.nii", "--out", "b.nii"], 3, "NaN"),
        (["float.nii", "--out", "b.png"], 7, "a picture keeps whole numbers"),
        (["below.nii", "--out", "b.png"], 7, "the values are from -5 to -5"),
        (["cut.nii", "--out", "b.nii"], 3, "is truncated"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(here, words, code, said):
    values = shade(np.random.default_rng(9))
    save_nifti(here / "a.nii", values)
    (here / "taken.nii").write_text("mine")
    (here / "cut.nii").write_bytes((here / "a.nii").read_bytes()[:999])
    save_nifti(here / "float.nii", values[:, :, :1])
    save_nifti(here / "below.nii", np.full((6, 5, 1), -5.0))
    values[1, 2, 3] = np.nan
    save_nifti(here / "nan.nii", values)
    before = names()
    ran = nfops("resample", *words)
    assert (ran.code, len(ran.err.splitlines()), ran.out) == (code, 1, "")
    assert ran.err.startswith("nfops resample: error: ")
    assert said in ran.err
    assert names() == before
    assert (here / "taken.nii").read_text() == "mine"


def test_a_dry_run_writes_nothing(here):
    save_nifti(here / "a.nii", shade(np.random.default_rng(9)))
    ran = nfops("resample", "a.nii", "--out", "b.nii", "--spacing", "1", "--dry-run")
    assert (ran.code, ran.out) == (0, "a.nii (20x18x4) -> b.nii\n")
    assert names() == ["a.nii"]


def test_the_sidecar_says_how(here):
    save_nifti(here / "a.nii", shade(np.random.default_rng(9)))
    assert nfops("resample", here / "a.nii", "--out", here / "b.nii", "--spacing", "2").code == 0
    record = json.loads((here / "b.json").read_text())
    words = ["nfops", "resample", "INPUT[0]", "--out", "OUTPUT", "--spacing", "2"]
    assert record["GeneratedBy"][0]["Command"] == words
    assert record["Recipe"] == {"method": "cubic", "fill": 0.0, "antialias": True}
    assert str(here) not in (here / "b.json").read_text()


def test_a_sidecar_never_replaces_the_json_of_another_program(here):
    """dcm2niix and BIDS put a NAME.json beside a scan too; even --force leaves it alone."""
    save_nifti(here / "scan.nii.gz", np.zeros((4, 5, 3)))
    (here / "scan.json").write_text('{"Modality": "MR", "EchoTime": 0.01}')
    ran = nfops("resample", "scan.nii.gz", "--out", "scan.nii", "--force")
    assert ran.code == 5
    assert "scan.json" in ran.err
    assert "nfops did not write it" in ran.err
    assert names(here) == ["scan.json", "scan.nii.gz"]
    assert "EchoTime" in (here / "scan.json").read_text()


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SAL", "ILA"])
def test_a_slice_becomes_the_same_picture_however_it_is_stored(here, codes):
    """Left at the right and front at the top: a picture has no affine, so its directions are a convention."""
    values = np.arange(5 * 7, dtype=float).reshape(5, 7, 1)
    axial = nibabel.Nifti1Image(values, np.diag([2.0, 2, 4, 1]))
    towards = nibabel.orientations.ornt_transform(
        nibabel.orientations.io_orientation(axial.affine), nibabel.orientations.axcodes2ornt(codes)
    )
    nibabel.save(axial.as_reoriented(towards), here / "slice.nii.gz")
    assert nfops("resample", "slice.nii.gz", "--out", "slice.png", "-q").code == 0
    picture = np.asarray(Picture.open(here / "slice.png"))
    assert np.array_equal(picture, values[::-1, ::-1, 0].T)  # columns to the left, rows to the back


def test_a_reference_lends_its_words_about_position(here):
    bare = nibabel.Nifti1Image(np.ones((6, 6, 6), np.float32), None)
    nibabel.save(bare, here / "bare.nii")
    save_nifti(
        here / "ref.nii", np.zeros((6, 6, 6)), np.diag([1.0, 1, 1, 1]) + np.array([[0, 0, 0, -2.0]] * 3 + [[0] * 4])
    )
    ran = nfops("resample", "bare.nii", "--out", "out.nii", "--like", "ref.nii")
    assert ran.code == 0
    assert "does not say where in the body it lies" in ran.err
    out, reference = nibabel.load(here / "out.nii"), nibabel.load(here / "ref.nii")
    assert out.header["sform_code"] == reference.header["sform_code"] > 0
    assert np.allclose(out.affine, reference.affine)


def test_a_label_map_made_smooth_is_warned_about(here):
    labels = np.random.default_rng(0).integers(0, 4, (8, 8, 8))
    save_nifti(here / "labels.nii", labels, dtype="uint8")
    ran = nfops("resample", "labels.nii", "--out", "out.nii", "--shape", "16x16x16")
    assert ran.code == 0
    assert "looks like a label map" in ran.err
    assert nfops("resample", "labels.nii", "--out", "n.nii", "--shape", "16x16x16", "--method", "nearest").err == ""


def test_a_sagittal_slice_too_is_a_picture_only_if_no_value_changes(here):
    save_nifti(here / "slice.nii", np.full((1, 6, 5), 2.5), np.diag([3.0, 1, 1, 1]))
    ran = nfops("resample", "slice.nii", "--out", "slice.png")
    assert ran.code == 7
    assert "keeps whole numbers" in ran.err
    assert names(here) == ["slice.nii"]


def test_c17_one_volume_of_a_4d_scan(here):
    values = np.arange(120, dtype=np.float32).reshape(5, 4, 3, 2)
    save_nifti(here / "a.nii", values)
    assert nfops("resample", "a.nii", "--out", "b.nii", "--volume", 1).code == 0
    assert np.array_equal(nifti(here / "b.nii")[0], values[..., 1])
    for name, number, said in (("a.nii", 2, "has 2 volumes"), ("b.nii", 0, "is not 4-D")):
        ran = nfops("resample", name, "--out", "c.nii", "--volume", number)
        assert (ran.code, len(ran.err.splitlines())) == (2, 1)
        assert said in ran.err


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_b55_what_cannot_be_a_derived_series_is_refused_before_the_computing(here, shared_data, monkeypatch, dry):
    monkeypatch.setattr("nfops.resampling.resample", lambda *_, **__: pytest.fail("it was computed"))
    save_nifti(here / "a.nii", np.zeros((5, 4, 3)))
    for source, said in ((here / "a.nii", "is none"), (shared_data / "dicom" / "ge_epi_small" / "dcm", "--volume")):
        ran = nfops("resample", source, "--out", "series", "--dicom", "--shape", "8x8", *dry)
        assert (ran.code, len([line for line in ran.err.splitlines() if "error" in line])) == (2, 1)
        assert said in ran.err
    assert names(here) == ["a.nii"]


@pytest.mark.parametrize("is_there", [False, True])
def test_b55_a_failing_sidecar_takes_back_only_what_is_new(here, shared_data, monkeypatch, is_there):
    series = shared_data / "dicom" / "d2n_ge_anatomical" / "dcm"
    words = ("resample", series, "--out", "series", "--dicom", "--force")
    if is_there:
        assert nfops(*words).code == 0
        (here / "series.json").unlink()
    monkeypatch.setattr("nfops.io.sidecar.write_sidecar", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    assert nfops(*words).code == 5
    assert names(here) == (["series"] if is_there else [])

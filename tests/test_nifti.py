"""Reading NIfTI: values, positions, units. Test names carry the IDs of the reference."""

import re
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from nifti_files import OBLIQUE, PIXDIM, QFORM, QUATERN, SAMPLES, SFORM, SLOPE, UNITS, make, stored

from nfops.errors import InputError, UsageError
from nfops.grid import Grid
from nfops.image import Image
from nfops.io import Reading, SaveOptions, describe_image, load_image, save_image


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_reads_what_nibabel_reads(tmp_path, name, kind):
    image = load_image(make(tmp_path / name, kind=kind))
    assert image.values.dtype == np.float32
    assert np.array_equal(image.values[0], np.arange(60).reshape(5, 4, 3))
    assert np.allclose(image.grid.affine, OBLIQUE, atol=1e-6)
    assert image.header.warnings == ()
    assert (image.header.file_dtype, image.header.xform_code) == ("int16", 1)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample files are not here")
@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.nii.gz")), ids=lambda p: p.name)
def test_real_files_agree_with_nibabel_and_survive_a_round_trip(path, tmp_path):
    image, reference = load_image(path), nibabel.load(path)
    values = np.asarray(reference.dataobj, np.float64).reshape(*image.grid.shape, -1).transpose(3, 0, 1, 2)
    assert np.allclose(image.values, values, rtol=1e-6)
    assert np.allclose(image.grid.affine, reference.affine, atol=1e-6)
    save_image(tmp_path / "o.nii.gz", image, SaveOptions("same"))
    again = load_image(tmp_path / "o.nii.gz")
    assert np.array_equal(again.values, image.values)
    assert again.grid.same_as(image.grid)
    assert replace(again.header, warnings=()) == replace(image.header, warnings=(), is_scaled=False)
    described = describe_image(path)
    assert described["channels"] == image.channels
    assert described["intensity_range"] == [image.values.min(), image.values.max()]


def test_b1_c13_choice_of_the_affine(tmp_path):
    other = {QFORM: ("h", 2), QUATERN + 12: ("f", 50.0)}
    image = load_image(make(tmp_path / "a.nii", {**other, SFORM: ("h", 4)}))
    assert (image.header.xform_code, image.grid.affine[0, 3]) == (4, -12)
    image = load_image(make(tmp_path / "a.nii", {**other, SFORM: ("h", 0)}))
    assert (image.header.xform_code, image.grid.affine[0, 3]) == (2, 50)
    image = load_image(make(tmp_path / "a.nii", {QFORM: ("h", 0), SFORM: ("h", 0)}))
    assert (image.header.xform_code, image.header.is_oriented) == (0, False)
    assert "no orientation" in image.header.warnings[0]
    assert np.allclose(image.grid.affine, np.diag([0.9, 1.3, 2.6, 1]))


def test_b2_disagreement_is_said(tmp_path):
    image = load_image(make(tmp_path / "a.nii", {QUATERN + 12: ("f", -11.8)}))
    assert "disagree by 0.22 voxels" in image.header.warnings[0]
    assert load_image(make(tmp_path / "a.nii", {QUATERN + 12: ("f", -11.95)})).header.warnings == ()


def test_b5_bad_quaternion(tmp_path):
    bad = {QUATERN: ("3f", 0.9, 0.9, 0.9)}
    image = load_image(make(tmp_path / "a.nii", bad))
    assert "invalid qform" in image.header.warnings[0]
    with pytest.raises(InputError, match="quaternion"):
        load_image(make(tmp_path / "a.nii", {**bad, SFORM: ("h", 0)}))


@pytest.mark.parametrize(
    ("slope", "inter", "first"),
    [(2.0, -5.0, -5.0), (0.0, 9.0, 0.0), (float("nan"), 9.0, 0.0), (float("inf"), 9.0, 0.0), (1.0, 3.0, 3.0)],
)
def test_b8_slope(tmp_path, slope, inter, first):
    image = load_image(make(tmp_path / "a.nii", {SLOPE: ("2f", slope, inter)}))
    assert image.values.ravel()[0] == first
    assert image.header.is_scaled == (first != 0)
    save_image(tmp_path / "o.nii", image)
    assert load_image(tmp_path / "o.nii").header.is_scaled is False


def test_b10_four_dimensions_are_channels(tmp_path):
    path = make(tmp_path / "a.nii", {PIXDIM + 16: ("f", 2.5), UNITS: ("b", 2 | 8)}, shape=(5, 4, 3, 6))
    image = load_image(path)
    assert image.values.shape == (6, 5, 4, 3)
    assert image.values[1, 0, 0, 0] == 1
    save_image(tmp_path / "o.nii", image, SaveOptions("same"))
    again = nibabel.load(tmp_path / "o.nii")
    assert np.array_equal(again.dataobj, nibabel.load(path).dataobj)
    assert again.header["pixdim"][4] == 2.5
    assert again.header.get_xyzt_units() == ("mm", "sec")


def test_b10_a_single_time_step_is_squeezed_and_restored(tmp_path):
    image = load_image(make(tmp_path / "a.nii", shape=(5, 4, 3, 1)))
    assert image.values.shape == (1, 5, 4, 3)
    save_image(tmp_path / "o.nii", image)
    assert nibabel.load(tmp_path / "o.nii").shape == (5, 4, 3, 1)
    with pytest.raises(InputError, match="5x4x3x1x2"):
        load_image(make(tmp_path / "b.nii", shape=(5, 4, 3, 1, 2)))


def test_b11_two_dimensions_stay_two(tmp_path):
    image = load_image(make(tmp_path / "a.nii", {PIXDIM + 12: ("f", 0)}, shape=(5, 4)))
    assert image.values.shape == (1, 5, 4, 1)
    assert image.header.warnings == ()
    save_image(tmp_path / "o.nii", image)
    assert nibabel.load(tmp_path / "o.nii").shape == (5, 4)


@pytest.mark.parametrize(("code", "mm"), [(1, 1000.0), (3, 0.001)])
def test_b12_units_are_converted_and_restored(tmp_path, code, mm):
    affine = np.diag([0.9 / mm, 1.3 / mm, 2.6 / mm, 1])
    image = load_image(make(tmp_path / "a.nii", {UNITS: ("b", code)}, affine=affine))
    assert np.allclose(image.grid.spacing_mm, [0.9, 1.3, 2.6])
    save_image(tmp_path / "o.nii", image)
    again = nibabel.load(tmp_path / "o.nii")
    assert np.allclose(again.affine, affine)
    assert int(again.header["xyzt_units"]) == code
    assert load_image(tmp_path / "o.nii").grid.same_as(image.grid)


def test_b13_big_endian(tmp_path):
    image = stored()
    nibabel.Nifti1Image(image.dataobj, image.affine, image.header.as_byteswapped(">")).to_filename(tmp_path / "a.nii")
    assert (tmp_path / "a.nii").read_bytes()[:4] == b"\0\0\1\x5c"
    read = load_image(tmp_path / "a.nii")
    assert read.values.dtype.isnative
    assert read.values.max() == 59
    assert read.header.file_dtype == "int16"
    save_image(tmp_path / "o.nii", read, SaveOptions("same"))
    assert (tmp_path / "o.nii").read_bytes()[:4] == b"\x5c\1\0\0"


def test_values_stay_double_only_where_they_need_it(tmp_path):
    for dtype, extra, expected in (
        ("float64", 0.0, np.float32),
        ("float64", 0.1, np.float64),
        ("int32", 0, np.float32),
        ("int32", 2**24 + 1, np.float64),
        ("uint32", 2**31 + 1, np.float64),
    ):
        values = np.zeros((3, 3, 3), dtype)
        values[1, 1, 1] = extra
        nibabel.Nifti1Image(values, np.eye(4)).to_filename(tmp_path / "a.nii")
        image = load_image(tmp_path / "a.nii")
        assert image.values.dtype == expected
        assert image.values[0, 1, 1, 1] == values[1, 1, 1]


def test_b2_the_qform_on_demand(tmp_path):
    path = make(tmp_path / "a.nii", {QUATERN + 12: ("f", -11.8)})
    by_sform, by_qform = load_image(path), load_image(path, Reading(xform="qform"))
    expected = nibabel.load(path).header.get_qform()
    assert np.allclose(by_qform.grid.affine, expected, atol=1e-5)
    assert not np.allclose(by_sform.grid.affine, expected, atol=1e-3)
    with pytest.raises(UsageError, match="sform, qform"):
        Reading(xform="both")


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3e-7, 2e-7), (1e6, 1e6 + 3), (-5e4, 9e4), (7.5, 7.5)])
def test_b8_int16_on_demand_has_a_slope_and_says_what_is_lost(tmp_path, low, high):
    values = np.random.default_rng(0).uniform(low, high, (2, 9, 8, 7)).astype(np.float32)
    image = Image(values, Grid((9, 8, 7), np.diag([2.0, 2, 3, 1])))
    (note,) = save_image(tmp_path / "o.nii.gz", image, SaveOptions("int16"))
    stored = nibabel.load(tmp_path / "o.nii.gz")
    assert stored.get_data_dtype() == np.int16
    slope, worst = float(stored.dataobj.slope), float(re.search(r"up to (\S+)$", note)[1])
    read = np.moveaxis(np.asarray(stored.dataobj, np.float64), -1, 0)
    rounding = 1.2e-7 * max(abs(low), abs(high))  # of the intercept to float32, and of what is read
    assert np.abs(read - values).max() <= min(slope / 2, worst * 1.01) + rounding
    assert np.abs(load_image(tmp_path / "o.nii.gz").values - values).max() <= slope / 2 + 2 * rounding
    assert slope <= max(high - low, 1e-7 * abs(high)) / 65000 * 1.01 or low == high


def test_b8_whole_numbers_keep_slope_1(tmp_path):
    image = Image(np.arange(60, dtype=np.float32).reshape(1, 5, 4, 3) - 30, Grid((5, 4, 3), np.eye(4)))
    assert save_image(tmp_path / "o.nii", image, SaveOptions("int16")) == ()
    stored = nibabel.load(tmp_path / "o.nii")
    assert (stored.dataobj.slope, stored.dataobj.inter) == (1, 0)
    assert np.array_equal(np.asarray(stored.dataobj), image.values[0])

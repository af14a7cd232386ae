"""FreeSurfer's .mgh and .mgz. Test names carry the IDs of the reference."""

import gzip
import struct

import nibabel
import numpy as np
import pytest
from nibabel.freesurfer.mghformat import MGHImage
from other_formats import FLIPPED, OBLIQUE, ORIENTATIONS, by_others, sample, unzipped

from nfops.errors import InputError, MemoryLimitError, ResultError, UsageError
from nfops.grid import Grid
from nfops.image import Header, Image
from nfops.io import SaveOptions, describe_image, load_image, save_image, save_slabs

DIMS, TYPE, FLAG, DELTA, MDC = 4, 20, 28, 30, 42


def make(path, values=None, affine=OBLIQUE, dtype="int16"):
    values = np.arange(60).reshape(5, 4, 3) if values is None else values
    MGHImage(values.astype(dtype), affine).to_filename(path)
    return path


def change(path, offset, form, *values):
    data = bytearray(unzipped(path))
    struct.pack_into(f">{form}", data, offset, *values)
    path.write_bytes(gzip.compress(bytes(data)) if path.suffix == ".mgz" else bytes(data))
    return path


@pytest.mark.parametrize("name", ["a.mgh", "a.mgz", "A.MGZ"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "uint16"])
def test_b18_reads_what_nibabel_reads(tmp_path, name, dtype):
    image = load_image(make(tmp_path / name.lower(), dtype=dtype).rename(tmp_path / name))
    assert image.values.dtype == np.float32
    assert image.values.dtype.isnative
    assert np.array_equal(image.values[0], np.arange(60).reshape(5, 4, 3))
    assert np.allclose(image.grid.affine, OBLIQUE, atol=1e-5)
    assert (image.header.file_dtype, image.header.is_oriented, image.header.warnings) == (dtype, True, ())


@pytest.mark.parametrize("affine", [OBLIQUE, FLIPPED], ids=["oblique", "flipped"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32"])
@pytest.mark.parametrize("name", ["a.mgh", "a.mgz"])
def test_b18_round_trip_keeps_values_dtype_and_position(tmp_path, name, dtype, affine):
    image = sample((6, 5, 3), affine=affine, dtype=dtype)
    assert save_image(tmp_path / name, image, SaveOptions("same")) == ()
    again = load_image(tmp_path / name)
    assert np.array_equal(again.values, image.values)
    assert again.header.file_dtype == dtype
    assert again.grid.same_as(image.grid)
    values, place = by_others(tmp_path / name)
    assert np.array_equal(values, image.values)
    assert values.dtype.newbyteorder("=") == dtype
    assert np.allclose(place, affine, atol=1e-4)


@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_b18_all_48_orientations_are_at_the_same_place(tmp_path, axes):
    image = sample((5, 4, 3)).reoriented(tuple(axes))
    save_image(tmp_path / "a.mgh", image)
    again = load_image(tmp_path / "a.mgh")
    assert again.grid.orientation == axes
    assert again.grid.same_as(image.grid)
    assert np.array_equal(again.values, image.values)


def test_b10_frames_are_channels_and_keep_their_repetition_time(tmp_path):
    image = sample(channels=3, time_step=(2.5, 8))
    save_image(tmp_path / "a.mgz", image)
    again = load_image(tmp_path / "a.mgz")
    assert np.array_equal(again.values, image.values)
    assert again.header.time_step == (2500.0, 16)
    theirs = nibabel.load(tmp_path / "a.mgz")
    assert theirs.shape == (5, 4, 3, 3)
    assert theirs.header["tr"] == 2500
    save_image(tmp_path / "a.nii", again)
    assert nibabel.load(tmp_path / "a.nii").header.get_zooms()[3] == 2500


def test_b1_without_ras_only_the_spacing_is_known(tmp_path):
    image = load_image(change(make(tmp_path / "a.mgz"), FLAG, "h", 0))
    assert (image.header.xform_code, image.header.is_oriented) == (0, False)
    assert "no orientation" in image.header.warnings[0]
    assert np.allclose(image.grid.affine, np.diag([0.9, 1.3, 2.6, 1]))
    save_image(tmp_path / "b.mgz", image)
    again = load_image(tmp_path / "b.mgz")
    assert not again.header.is_oriented
    assert np.allclose(again.grid.affine, image.grid.affine)
    assert describe_image(tmp_path / "b.mgz")["orientation"] is None
    change(tmp_path / "a.mgz", DELTA, "3f", 0, 0, float("nan"))
    assert load_image(tmp_path / "a.mgz").header.warnings[0].endswith("voxels of 1 mm are assumed")


@pytest.mark.parametrize("name", ["a.mgh", "a.mgz"])
def test_c3_c4_truncation_anywhere_is_refused(tmp_path, name):
    values = np.random.default_rng(0).integers(0, 999, (12, 11, 10))
    whole = make(tmp_path / name, values).read_bytes()
    for percent in range(0, 100, 5):
        (tmp_path / f"b_{name}").write_bytes(whole[: len(whole) * percent // 100])
        with pytest.raises(InputError, match=r"truncated|ends early|ends inside|empty|not an MGH|not gzipped"):
            load_image(tmp_path / f"b_{name}")


def test_c5_bad_crc(tmp_path):
    whole = bytearray(make(tmp_path / "a.mgz").read_bytes())
    whole[-6] ^= 255
    (tmp_path / "a.mgz").write_bytes(whole)
    with pytest.raises(InputError, match="CRC mismatch"):
        load_image(tmp_path / "a.mgz")


@pytest.mark.parametrize("name", ["a.mgh", "a.mgz"])
def test_c9_huge_header_is_refused_before_allocation(tmp_path, name):
    path = change(make(tmp_path / name), DIMS, "3i", 32767, 32767, 32767)
    for look in (load_image, describe_image):
        with pytest.raises(MemoryLimitError, match="GiB"):
            look(path)


@pytest.mark.parametrize(
    ("offset", "form", "values", "what"),
    [
        (DIMS, "i", (0,), "corrupt header field dims"),
        (DIMS, "i", (-5,), "corrupt header field dims"),
        (TYPE, "i", (7,), "type 7, expected one real number"),
        (DELTA, "f", (0.0,), "spacing of 0 mm along axis i"),
        (DELTA + 4, "f", (float("nan"),), "NaN"),
        (MDC, "9f", (1, 0, 0, 1, 0, 0, 0, 0, 1), "singular"),
        (0, "i", (3,), "is not an MGH file"),
    ],
)
def test_c10_c11_c12_c17_headers_without_sense(tmp_path, offset, form, values, what):
    with pytest.raises(InputError, match=what):
        load_image(change(make(tmp_path / "a.mgh"), offset, form, *values))


def test_b16_content_decides_and_the_name_must_agree(tmp_path):
    for made, wrong, right in (
        ("a.mgh", "b.mgz", "b.mgh"),
        ("a.mgz", "b.mgh", "b.mgz"),
        ("a.mgz", "b.nii.gz", "b.mgz"),
        ("a.mgh", "b.nii", "b.mgh"),
        ("a.mgz", "b.mgh.gz", "b.mgz"),
        ("a.mgz", "b", "b.mgz"),
    ):
        make(tmp_path / made).rename(tmp_path / wrong)
        with pytest.raises(InputError, match=rf"rename it to {right}\)"):
            load_image(tmp_path / wrong)


def test_b18_dtypes_that_mgh_does_not_have(tmp_path):
    for dtype, wider in (("int8", "int16"), ("uint16", "int32"), ("int64", "int32")):
        save_image(tmp_path / "a.mgh", sample(dtype=dtype), SaveOptions("same", force=True))
        assert load_image(tmp_path / "a.mgh").header.file_dtype == wider
    for dtype in ("uint16", "float64"):
        with pytest.raises(UsageError, match=f"cannot store {dtype}.*--dtype uint8, int16, int32 or float32"):
            save_image(tmp_path / "b.mgh", sample(), SaveOptions(dtype))
    large = Image(np.full((1, 2, 2, 2), 2.0**31), Grid((2, 2, 2), OBLIQUE), Header(file_dtype="uint32"))
    with pytest.raises(ResultError, match="do not fit"):
        save_image(tmp_path / "b.mgh", large, SaveOptions("same"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.mgh"]


def test_b7_a_sheared_grid_is_refused(tmp_path):
    affine = OBLIQUE.copy()
    affine[1, 2] += 0.5
    with pytest.raises(UsageError, match=r"sheared.*write \.nii\.gz"):
        save_image(tmp_path / "a.mgz", sample(affine=affine))
    assert list(tmp_path.iterdir()) == []


def test_slabs_come_as_they_are_and_bytes_repeat(tmp_path):
    image = sample((5, 4, 7), channels=2)
    for name in ("a.mgz", "b.mgz"):
        slabs = (channel[None, :, :, k : k + 3] for channel in image.values for k in range(0, 7, 3))
        save_slabs(tmp_path / name, image.grid, Header(ndim=4), slabs, channels=2)
    assert (tmp_path / "a.mgz").read_bytes() == (tmp_path / "b.mgz").read_bytes()
    assert np.array_equal(load_image(tmp_path / "a.mgz").values, image.values)
    for bad in ([image.values[0, :, :, :3]], [image.values[0, :4]], [image.values[0]] * 3):
        with pytest.raises(ResultError):
            save_slabs(tmp_path / "c.mgz", image.grid, Header(), bad)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mgz", "b.mgz"]


def test_describe_reads_the_header(tmp_path, monkeypatch):
    path = make(tmp_path / "a.mgz")
    found = describe_image(path)
    assert (found["kind"], found["shape"], found["dtype"], found["intensity_range"]) == (
        "mgh", [5, 4, 3], "int16", [0, 59],
    )  # fmt: skip
    monkeypatch.setattr("nfops.io.mgh.DECODE_UP_TO_BYTES", 100)
    assert describe_image(path)["intensity_range"] is None

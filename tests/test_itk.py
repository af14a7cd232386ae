"""NRRD and MetaImage (.nrrd, .mha). Test names carry the IDs of the reference."""

import os
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from nifti_files import SAMPLES
from other_formats import DTYPES, FLIPPED, LPS, OBLIQUE, ORIENTATIONS, by_others, sample

from nfops.errors import InputError, MemoryLimitError, OutputError, ResultError, UsageError
from nfops.grid import Grid
from nfops.image import Header, Image
from nfops.io import SaveOptions, describe_image, load_image, save_image, save_slabs

KINDS = ("nrrd", "mha")
VALUES = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
"""As ITK has them: k, j, i."""

DATA = VALUES.tobytes()


def write(path, values=VALUES, affine=OBLIQUE, packed=False, vector=False) -> Path:
    """By SimpleITK alone."""
    image = SimpleITK.GetImageFromArray(values, isVector=vector)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if image.GetDimension() == 3:
        place = LPS @ affine
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(place[:3, 3].tolist())
        image.SetDirection((place[:3, :3] / spacing).ravel().tolist())
    SimpleITK.WriteImage(image, str(path), packed)
    return path


NRRD = {
    "type": "int16", "dimension": "3", "space": "left-posterior-superior", "sizes": "5 4 3",
    "space directions": "(1,0,0) (0,1,0) (0,0,2)", "encoding": "raw", "endian": "little", "space origin": "(1,2,3)",
}  # fmt: skip
META = {
    "ObjectType": "Image", "NDims": "3", "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "1 2 3",
    "ElementSpacing": "1 1 2", "DimSize": "5 4 3", "ElementType": "MET_SHORT", "ElementDataFile": "LOCAL",
}  # fmt: skip


def by_hand(path, data=DATA, **changes) -> Path:
    """A file whose header is written here; a change to None leaves a field out."""
    fields = {**(NRRD if path.suffix == ".nrrd" else META)} | {k.replace("_", " "): v for k, v in changes.items()}
    if path.suffix == ".mha":
        fields["ElementDataFile"] = fields.pop("ElementDataFile")
    line, start, end = ("{}: {}\n", "NRRD0005\n", "\n") if path.suffix == ".nrrd" else ("{} = {}\n", "", "")
    text = start + "".join(line.format(k, v) for k, v in fields.items() if v is not None) + end
    path.write_bytes(text.encode() + data)
    return path


# --- reading -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("affine", [OBLIQUE, FLIPPED], ids=["oblique", "flipped"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_b18_reads_what_simpleitk_reads(tmp_path, kind, packed, affine):
    for dtype in DTYPES:
        image = load_image(write(tmp_path / f"a.{kind}", VALUES.astype(dtype), affine, packed))
        assert image.values.dtype == np.float32
        assert np.array_equal(image.values[0], VALUES.T)
        assert np.allclose(image.grid.affine, affine, atol=1e-9)
        assert (image.header.file_dtype, image.header.is_oriented, image.header.warnings) == (dtype, True, ())


@pytest.mark.parametrize(("space", "signs"), [("RAS", (1, 1, 1)), ("left-anterior-superior", (-1, 1, 1))])
def test_b18_spaces_of_an_nrrd_become_ras(tmp_path, space, signs):
    image = load_image(by_hand(tmp_path / "a.nrrd", space=space))
    expected = np.array([[1, 0, 0, 1], [0, 1, 0, 2], [0, 0, 2, 3], [0, 0, 0, 1.0]])
    assert np.allclose(image.grid.affine, np.diag([*signs, 1]) @ expected)
    assert np.allclose(by_others(tmp_path / "a.nrrd")[1], image.grid.affine)


@pytest.mark.parametrize(
    "changes",
    [
        {"space": "scanner-xyz"},
        {"space": None, "space directions": None, "space origin": None, "spacings": "1 1 2"},
        {"space": "3D-right-handed"},
    ],
)
def test_b1_an_nrrd_of_no_known_space_has_its_spacing_only(tmp_path, changes):
    image = load_image(by_hand(tmp_path / "a.nrrd", **changes))
    assert (image.header.is_oriented, image.header.xform_code) == (False, 0)
    assert "no orientation" in image.header.warnings[0]
    assert np.allclose(image.grid.affine, np.diag([1, 1, 2, 1]))


def test_b1_positions_that_are_not_there(tmp_path):
    bare = {"space": None, "space directions": None, "space origin": None}
    image = load_image(by_hand(tmp_path / "a.nrrd", **bare))
    assert "1 mm is assumed" in image.header.warnings[1]
    image = load_image(by_hand(tmp_path / "a.mha", TransformMatrix=None, Offset=None))
    assert (image.header.is_oriented, list(image.grid.spacing_mm)) == (False, [1, 1, 2])
    image = load_image(by_hand(tmp_path / "a.mha", TransformMatrix=None))
    assert (image.header.is_oriented, list(image.grid.affine[:3, 3])) == (True, [-1, -2, 3])


def test_b12_units(tmp_path):
    image = load_image(by_hand(tmp_path / "a.nrrd", **{"space units": '"cm" "cm" "cm"'}))
    assert np.allclose(image.grid.spacing_mm, [10, 10, 20])
    image = load_image(by_hand(tmp_path / "a.mha", DistanceUnits="um", ElementSpacing="900 900 900"))
    assert np.allclose(image.grid.spacing_mm, 0.9)
    image = load_image(by_hand(tmp_path / "a.nrrd", **{"space units": '"inch" "inch" "inch"'}))
    assert "mm is assumed" in image.header.warnings[0]


def test_b7_a_shear_that_a_file_has_is_read(tmp_path):
    expected = LPS @ np.array([[1, 0.3, 0, 1], [0, 1, 0, 2], [0, 0, 2, 3], [0, 0, 0, 1]])
    for path in (
        by_hand(tmp_path / "a.nrrd", **{"space directions": "(1,0,0) (0.3,1,0) (0,0,2)"}),
        by_hand(tmp_path / "a.mha", TransformMatrix="1 0 0 0.3 1 0 0 0 1"),
    ):
        image = load_image(path)
        assert np.allclose(image.grid.affine, expected)
        with pytest.raises(UsageError, match=r"sheared.*write \.nii\.gz"):
            save_image(tmp_path / f"b{path.suffix}", image)


def test_b10_c17_lists_are_channels_and_vectors_are_refused(tmp_path):
    four = np.arange(120, dtype=np.int16).reshape(2, 3, 4, 5)
    image = load_image(write(tmp_path / "a.mha", four))
    assert np.array_equal(image.values, four.transpose(0, 3, 2, 1))
    axes = {"dimension": "4", "sizes": "5 4 3 2", "space directions": "(1,0,0) (0,1,0) (0,0,2) none"}
    for kinds, sizes, stored in (
        ("domain domain domain list", "5 4 3 2", four),
        ("list domain domain domain", "2 5 4 3", np.moveaxis(four, 0, -1)),
    ):
        directions = " ".join(axes["space directions"].split()[:3])
        directions = f"none {directions}" if kinds.startswith("list") else f"{directions} none"
        changes = axes | {"sizes": sizes, "space directions": directions, "kinds": kinds}
        image = load_image(by_hand(tmp_path / "a.nrrd", stored.tobytes(), **changes))
        assert np.array_equal(image.values, four.transpose(0, 3, 2, 1))
        assert image.header.is_oriented
        for kind in ("vector", "RGB-color", "complex"):
            count = {"RGB-color": 3}.get(kind, 2)
            more = {"kinds": kinds.replace("list", kind), "sizes": sizes.replace("2", str(count), 1)}
            with pytest.raises(InputError, match=r"expected one real number|Only Complex"):
                load_image(by_hand(tmp_path / "b.nrrd", bytes(count * 120), **(changes | more)))
    write(tmp_path / "c.mha", np.moveaxis(four, 0, -1), vector=True)
    with pytest.raises(InputError, match=r"stores 2 numbers .* in each voxel, expected one real number"):
        load_image(tmp_path / "c.mha")
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VALUES.astype(np.complex64)), str(tmp_path / "c.nrrd"))
    with pytest.raises(InputError, match="complex"):
        load_image(tmp_path / "c.nrrd")


def test_b11_two_dimensions_stay_two(tmp_path):
    for kind in KINDS:
        path = tmp_path / f"a.{kind}"
        write(path, VALUES[0])
        image = load_image(path)
        assert (image.values.shape, image.header.ndim, image.header.is_oriented) == ((1, 5, 4, 1), 2, False)
        save_image(tmp_path / f"b.{kind}", image, SaveOptions("same"))
        assert np.array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(tmp_path / f"b.{kind}")), VALUES[0])
        assert load_image(tmp_path / f"b.{kind}").values.shape == (1, 5, 4, 1)


def test_b13_big_endian(tmp_path):
    data = VALUES.astype(">i2").tobytes()
    for path in (
        by_hand(tmp_path / "a.nrrd", data, endian="big"),
        by_hand(tmp_path / "a.mha", data, BinaryDataByteOrderMSB="True"),
    ):
        assert np.array_equal(load_image(path).values[0], VALUES.T)


# --- files that are no use ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_c3_c4_truncation_anywhere_is_refused(tmp_path, kind, packed, capfd):
    values = np.random.default_rng(0).integers(0, 999, (10, 11, 12)).astype(np.int16)
    whole = write(tmp_path / f"a.{kind}", values, packed=packed).read_bytes()
    lengths = [len(whole) * percent // 100 for percent in range(0, 100, 5)]
    for length in (*lengths, len(whole) - 9, len(whole) - 1):
        (tmp_path / f"b.{kind}").write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"truncated|ends early|ends inside|empty|neither"):
            load_image(tmp_path / f"b.{kind}")
    assert capfd.readouterr().err == ""  # ITK's own complaints would be more than our one line


@pytest.mark.parametrize("kind", KINDS)
def test_c5_a_damaged_stream_is_refused(tmp_path, kind):
    whole = bytearray(write(tmp_path / f"a.{kind}", packed=True).read_bytes())
    whole[-3 if kind == "mha" else -6] ^= 255
    (tmp_path / f"a.{kind}").write_bytes(whole)
    with pytest.raises(InputError, match=r"CRC mismatch"):
        load_image(tmp_path / f"a.{kind}")


def test_c9_huge_headers_are_refused_before_allocation(tmp_path):
    for path in (
        by_hand(tmp_path / "a.nrrd", sizes="32767 32767 32767"),
        by_hand(tmp_path / "a.mha", DimSize="32767 32767 32767"),
    ):
        with pytest.raises(MemoryLimitError, match="GiB"):
            load_image(path)
        assert describe_image(path)["shape"] == [32767] * 3


def test_c9_values_packed_short_or_as_a_bomb(tmp_path):
    for data, what in ((bytes(50), "holds 50 of the 120 bytes"), (bytes(70 << 20), "far more")):
        packed = zlib.compress(data, 1)
        path = by_hand(tmp_path / "a.mha", packed, CompressedData="True", CompressedDataSize=str(len(packed)))
        with pytest.raises(InputError, match=what):
            load_image(path)
    packed = zlib.compress(VALUES.tobytes())
    path = by_hand(tmp_path / "a.mha", packed, CompressedData="True", CompressedDataSize=str(len(packed) - 5))
    with pytest.raises(InputError, match="CompressedDataSize"):
        load_image(path)
    with pytest.raises(InputError, match="no CompressedDataSize"):  # without it ITK reads packed values as they are
        load_image(by_hand(tmp_path / "a.mha", packed, CompressedData="True"))


@pytest.mark.parametrize(
    ("name", "changes", "what"),
    [
        ("a.nrrd", {"data file": "../../etc/passwd"}, "detached header"),
        ("a.nrrd", {"datafile": "a.raw"}, "detached header"),
        ("a.mha", {"ElementDataFile": "/etc/passwd"}, "detached header"),
        ("a.mha", {"ElementDataFile": "LIST"}, "detached header"),
        ("a.nrrd", {"encoding": "ascii"}, "encoding ascii, expected raw or gzip"),
        ("a.nrrd", {"byte skip": "4"}, "skips bytes"),
        ("a.mha", {"HeaderSize": "-1"}, "skips bytes"),
        ("a.mha", {"BinaryData": "False"}, "as text"),
        ("a.mha", {"DimSize": None}, "no DimSize"),
        ("a.mha", {"DimSize": "5 -4 3"}, "corrupt header field DimSize"),
        ("a.mha", {"DimSize": "5 4"}, "corrupt header field NDims"),
        ("a.nrrd", {"sizes": "5 0 3"}, "ITK cannot read it"),
        ("a.nrrd", {"space": "mars"}, "ITK cannot read it"),
        ("a.mha", {"ElementSpacing": "1 0 2"}, "spacing of 0 mm along axis j"),
        ("a.mha", {"ElementSpacing": "1 5000 2"}, "axis j"),
        ("a.mha", {"Offset": "nan 0 0"}, "corrupt header field Offset"),
        ("a.mha", {"TransformMatrix": "1 0 0 1"}, "corrupt header field TransformMatrix"),
        ("a.nrrd", {"space origin": "(nan,0,0)"}, "corrupt header field space origin"),
        ("a.mha", {"TransformMatrix": "1 0 0 1 0 0 0 0 1"}, "singular"),
    ],
)  # fmt: skip
def test_c10_c11_c12_b18_headers_that_are_refused(tmp_path, name, changes, what):
    for look in (load_image, describe_image):
        with pytest.raises(InputError, match=what) as caught:
            look(by_hand(tmp_path / name, **changes))
        assert "\n" not in caught.value.message


@pytest.mark.parametrize("name", ["a.nhdr", "a.mhd"])
def test_b18_detached_headers_are_refused_by_name(tmp_path, name):
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VALUES), str(tmp_path / name))
    with pytest.raises(InputError, match=r"detached header.*convert the pair to one \.(nrrd|mha) file"):
        load_image(tmp_path / name)


def test_b16_content_decides_and_the_name_must_agree(tmp_path):
    nibabel.Nifti1Image(VALUES.T, OBLIQUE).to_filename(tmp_path / "a.nii.gz")
    for made, wrong, right in (
        ("a.nii.gz", "b.mgz", "b.nii.gz"),
        ("a.nii", "b.mha", "b.nii"),
        ("a.mha", "b.nii", "b.mha"),
        ("a.mha", "b.nrrd", "b.mha"),
        ("a.nrrd", "b.mha", "b.nrrd"),
        ("a.nrrd", "b.png", "b.nrrd"),
        ("a.nrrd", "b", "b.nrrd"),
    ):
        if made.endswith(("mha", "nrrd")):
            write(tmp_path / made)
        elif made == "a.nii":
            nibabel.Nifti1Image(VALUES.T, OBLIQUE).to_filename(tmp_path / made)
        (tmp_path / made).rename(tmp_path / wrong)
        with pytest.raises(InputError, match=rf"rename it to {right}\)"):
            load_image(tmp_path / wrong)
    (tmp_path / "c.nrrd").write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match="neither an NRRD nor"):
        load_image(tmp_path / "c.nrrd")


@pytest.mark.parametrize("name", ["A.MHA", "A.NRRD", "ä ö.mha", os.fsdecode(b"x\xff.mha"), os.fsdecode(b"\xff.nrrd")])
def test_c63_names_that_itk_does_not_take(tmp_path, name):
    image = sample()
    save_image(tmp_path / name, image, SaveOptions("same"))
    assert np.array_equal(load_image(tmp_path / name).values, image.values)
    assert [path.name for path in tmp_path.iterdir()] == [name]


# --- writing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("affine", [OBLIQUE, FLIPPED], ids=["oblique", "flipped"])
@pytest.mark.parametrize("kind", KINDS)
def test_b18_round_trip_keeps_values_dtype_and_position(tmp_path, kind, affine, channels):
    for dtype in DTYPES:
        image, path = sample((6, 5, 3), channels, affine, dtype), tmp_path / f"a.{kind}"
        assert save_image(path, image, SaveOptions("same", force=True)) == ()
        again = load_image(path)
        assert np.array_equal(again.values, image.values)
        assert (again.header.file_dtype, again.header.is_oriented) == (dtype, True)
        assert again.header.ndim == image.header.ndim
        assert np.allclose(again.grid.affine, affine, atol=1e-9)
        values, place = by_others(path)
        assert (values.dtype, values.shape) == (dtype, image.values.shape)
        assert np.array_equal(values, image.values)
        assert np.allclose(place, affine, atol=1e-9)


@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_b18_all_48_orientations_are_at_the_same_place(tmp_path, axes):
    image = sample((5, 4, 3)).reoriented(tuple(axes))
    for kind in KINDS:
        save_image(tmp_path / f"a.{kind}", image)
        again = load_image(tmp_path / f"a.{kind}")
        assert again.grid.orientation == axes
        assert again.grid.same_as(image.grid)
        assert np.array_equal(again.values, image.values)


@pytest.mark.parametrize("last", [".nii.gz", ".mgz", ".nrrd", ".mha"])
@pytest.mark.parametrize("first", [".nii.gz", ".mgz", ".nrrd", ".mha"])
def test_conversions_between_all_formats(tmp_path, first, last):
    for channels, dtype in ((1, "int16"), (3, "float32")):
        image = sample((6, 5, 3), channels, FLIPPED, dtype)
        save_image(tmp_path / f"a{first}", image, SaveOptions("same", force=True))
        save_image(tmp_path / f"b{last}", load_image(tmp_path / f"a{first}"), SaveOptions("same", force=True))
        again = load_image(tmp_path / f"b{last}")
        assert np.array_equal(again.values, image.values)
        assert again.header.file_dtype == dtype
        assert again.grid.same_as(image.grid)
        values, place = by_others(tmp_path / f"b{last}")
        assert np.array_equal(values, image.values)
        assert np.allclose(place, FLIPPED, atol=1e-4)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample files are not here")
@pytest.mark.parametrize("last", [".mgz", ".nrrd", ".mha"])
@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.nii.gz")), ids=lambda p: p.name)
def test_real_files_survive_the_other_formats(tmp_path, path, last):
    image = load_image(path)
    try:
        save_image(tmp_path / f"a{last}", image, SaveOptions("auto" if image.header.is_scaled else "same"))
    except UsageError as error:
        assert "cannot store float64" in error.what or "sheared" in error.what  # noqa: PT017
        return
    again = load_image(tmp_path / f"a{last}")
    assert np.array_equal(again.values, image.values.astype(again.values.dtype))
    assert again.grid.same_as(image.grid)
    assert np.array_equal(by_others(tmp_path / f"a{last}")[0], image.values.astype(again.values.dtype))


def test_values_stay_double_only_where_they_need_it(tmp_path):
    for dtype, value, expected in (
        ("float64", 0.1, np.float64),
        ("int64", 2**40 + 1, np.float64),
        ("int64", 7, np.float32),
    ):
        image = load_image(write(tmp_path / "a.nrrd", np.full((2, 2, 2), value, dtype)))
        assert image.values.dtype == expected
        assert (image.values == value).all()
    image = load_image(write(tmp_path / "a.mha", np.full((2, 2, 2), 2**60 + 1, np.int64)))
    assert "rounded to float64" in image.header.warnings[0]


def test_b1_what_is_not_known_is_not_written(tmp_path):
    grid = Grid((5, 4, 3), np.diag([2.0, 3, 4, 1]))
    image = Image(np.zeros((1, 5, 4, 3), np.float32), grid, Header(is_oriented=False))
    assert save_image(tmp_path / "a.nrrd", image) == ()
    again = load_image(tmp_path / "a.nrrd")
    assert not again.header.is_oriented
    assert list(again.grid.spacing_mm) == [2, 3, 4]
    assert SimpleITK.ReadImage(tmp_path / "a.nrrd").GetSpacing() == (2, 3, 4)
    assert "is a guess" in save_image(tmp_path / "a.mha", image)[0]


def test_b10_the_time_step(tmp_path):
    image = sample(channels=3, time_step=(2.5, 8))
    assert save_image(tmp_path / "a.mha", image) == ()
    assert load_image(tmp_path / "a.mha").header.time_step[0] == 2.5
    assert "time step was not kept" in save_image(tmp_path / "a.nrrd", image)[0]
    save_image(tmp_path / "b.mha", sample(ndim=4))
    assert load_image(tmp_path / "b.mha").header.ndim == 4


def test_slabs_are_collected_and_bytes_repeat(tmp_path):
    image = sample((5, 4, 7), channels=2)
    for kind in KINDS:
        for name in (f"a.{kind}", f"b.{kind}"):
            slabs = (channel[None, :, :, k : k + 3] for channel in image.values for k in range(0, 7, 3))
            save_slabs(tmp_path / name, image.grid, Header(ndim=4), slabs, channels=2)
        assert np.array_equal(load_image(tmp_path / f"a.{kind}").values, image.values)
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
        for bad in ([image.values[0, :, :, :3]], [image.values[0, :4]], [image.values[0]] * 3):
            with pytest.raises(ResultError):
                save_slabs(tmp_path / f"c.{kind}", image.grid, Header(), bad)
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_b24_b9_c44_nothing_is_published(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    bad = Image(np.full((1, 2, 2, 2), np.nan, np.float32), Grid((2, 2, 2), OBLIQUE))
    with pytest.raises(ResultError, match="NaN"):
        save_image(path, bad)
    with pytest.raises(ResultError, match="do not fit uint8"):
        save_image(path, Image(np.full((1, 2, 2, 2), 300.0, np.float32), bad.grid), SaveOptions("uint8"))
    assert list(tmp_path.iterdir()) == []
    save_image(path, sample())
    with pytest.raises(OutputError, match="--force"):
        save_image(path, sample())


@pytest.mark.parametrize("kind", KINDS)
def test_c48_what_itk_did_not_write_is_noticed(tmp_path, kind, monkeypatch):
    from nfops.io import itk

    def cut(path, *rest):
        write_itk(path, *rest)
        path.write_bytes(path.read_bytes()[:-20])

    write_itk = itk.write_itk
    monkeypatch.setattr(itk, "write_itk", cut)
    with pytest.raises(OutputError, match=r"cannot be read back.*is the disk full"):
        save_image(tmp_path / f"a.{kind}", sample())
    assert list(tmp_path.iterdir()) == []

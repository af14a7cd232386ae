"""NIfTI files that are no use: each is refused with one clear line, or read with a warning."""

import gzip
import os
import shutil

import numpy as np
import pytest
from nifti_files import (
    BITPIX,
    DATATYPE,
    DIM,
    MAGIC,
    PIXDIM,
    QFORM,
    QUATERN,
    SFORM,
    SLOPE,
    SROW,
    UNITS,
    VOX_OFFSET,
    make,
)

from nfops import memory
from nfops.errors import InputError, MemoryLimitError, NotFoundError, NothingMatchedError
from nfops.io import describe_image, load_image


def test_c1_missing_files_get_a_hint(tmp_path):
    make(tmp_path / "scan.nii")
    with pytest.raises(NotFoundError, match=r"did you mean scan.nii"):
        load_image(tmp_path / "scam.nii")
    with pytest.raises(NotFoundError, match="no directory"):
        load_image(tmp_path / "no" / "scan.nii")


def test_c2_c30_c7_what_is_no_image(tmp_path):
    contents = {
        "empty file": b"",
        "git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
        "web page": b"\n<!DOCTYPE html><html><body>404 \xc3\xa4</body></html>",
        "git-annex": b"/annex/objects/MD5E-s1--00\n",
        "text file": b"hello there\n",
        "is not a NIfTI": bytes(range(256)) * 3,
    }
    for what, content in contents.items():
        (tmp_path / "x.nii").write_bytes(content)
        with pytest.raises(InputError, match=what):
            load_image(tmp_path / "x.nii")
    with pytest.raises(NothingMatchedError, match="no DICOM images"):
        load_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.nii")
    with pytest.raises(InputError, match="regular"):
        load_image(tmp_path / "pipe.nii")
    (tmp_path / "annexed.nii").symlink_to("../.git/annex/objects/xx/yy")
    with pytest.raises(InputError, match="git annex get"):
        load_image(tmp_path / "annexed.nii")
    (tmp_path / "x.jpg").write_bytes(b"\xff\xd8\0")
    with pytest.raises(InputError, match=r"supported: .nii.gz"):
        load_image(tmp_path / "x.jpg")


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz", "x.png", "x.tif"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
        (b"/annex/objects/MD5E-s1--00\n", "git annex get"),
        (b"../../.git/annex/objects/a/b/MD5E-s1--00.nii\n", "git annex get"),
        (b"<!DOCTYPE html><html></html>", "download failed"),
        (b"\xef\xbb\xbf\r\n<HTML>", "download failed"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "download failed"),
        (b"id,split\n1,train\n", "text file"),
    ],
)
def test_c7_whatever_stands_in_for_an_image_is_named(tmp_path, name, content, what):
    (tmp_path / name).write_bytes(content)
    for read in (load_image, describe_image):
        with pytest.raises(InputError, match=what):
            read(tmp_path / name)


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz", "x.zip", "x.tar.gz"])
@pytest.mark.parametrize("kind", ["zip", "tar", "gztar"])
def test_c42_an_archive_is_no_scan(tmp_path, name, kind):
    make(tmp_path / "in" / "scan.nii") if (tmp_path / "in").mkdir() is None else None
    shutil.make_archive(str(tmp_path / "packed"), kind, tmp_path / "in")
    next(tmp_path.glob("packed.*")).rename(tmp_path / name)
    with pytest.raises(InputError, match=r"archive|unknown image format|rename it") as caught:
        load_image(tmp_path / name)
    assert name in str(caught.value)


def test_c3_truncated_gzip_anywhere(tmp_path):
    whole = make(tmp_path / "a.nii.gz", shape=(20, 20, 20)).read_bytes()
    for length in (1, 5, 20, 100, len(whole) // 2, len(whole) - 9, len(whole) - 8, len(whole) - 1):
        (tmp_path / "b.nii.gz").write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"ends early \(\d+ of|not gzipped"):
            load_image(tmp_path / "b.nii.gz")
    with pytest.raises(InputError, match=r"of 16352 bytes"):
        load_image(tmp_path / "b.nii.gz")


def test_c3_whole_gzip_of_a_truncated_image(tmp_path):
    data = gzip.decompress(make(tmp_path / "a.nii.gz").read_bytes())
    for length in (100, 347, 400, len(data) - 1):
        (tmp_path / "b.nii.gz").write_bytes(gzip.compress(data[:length]))
        with pytest.raises(InputError, match=r"holds|ends inside|not a NIfTI"):
            load_image(tmp_path / "b.nii.gz")


def test_c4_truncated_plain_file(tmp_path):
    data = make(tmp_path / "a.nii").read_bytes()
    for length in (3, 100, 347, 351, 400, len(data) - 1):
        (tmp_path / "b.nii").write_bytes(data[:length])
        with pytest.raises(InputError, match=r"truncated|ends inside|not a NIfTI"):
            load_image(tmp_path / "b.nii")


def test_c5_bad_crc_and_damaged_stream(tmp_path):
    whole = bytearray(make(tmp_path / "a.nii.gz", shape=(20, 20, 20)).read_bytes())
    crc, middle = whole.copy(), whole.copy()
    crc[-6] ^= 255
    middle[len(whole) // 2] ^= 255
    for content, what in ((crc, "CRC mismatch"), (middle, "CRC|damaged|early")):
        (tmp_path / "b.nii.gz").write_bytes(bytes(content))
        with pytest.raises(InputError, match=what):
            load_image(tmp_path / "b.nii.gz")


def test_c6_trailing_garbage_is_a_warning_and_zeros_are_not(tmp_path):
    whole = make(tmp_path / "a.nii.gz").read_bytes()
    for rest, warned in ((b"garbage", True), (b"g", True), (bytes(512), False)):
        (tmp_path / "b.nii.gz").write_bytes(whole + rest)
        image = load_image(tmp_path / "b.nii.gz")
        assert any("garbage" in w for w in image.header.warnings) == warned
        assert image.values.max() == 59


def test_b17_several_gzip_members(tmp_path):
    data = gzip.decompress(make(tmp_path / "a.nii.gz").read_bytes())
    (tmp_path / "b.nii.gz").write_bytes(b"".join(gzip.compress(data[i : i + 50]) for i in range(0, len(data), 50)))
    assert load_image(tmp_path / "b.nii.gz").values.max() == 59


def test_b16_c8_suffix_and_content(tmp_path):
    make(tmp_path / "a.nii.gz").rename(tmp_path / "b.nii")
    with pytest.raises(InputError, match=r"rename it to b.nii.gz"):
        load_image(tmp_path / "b.nii")
    make(tmp_path / "a.nii").rename(tmp_path / "c.nii.gz")
    with pytest.raises(InputError, match=r"rename it to c.nii\)"):
        load_image(tmp_path / "c.nii.gz")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_c9_header_bomb(tmp_path, name):
    with pytest.raises(MemoryLimitError, match="GiB"):
        load_image(make(tmp_path / name, {DIM: ("4h", 3, 32767, 32767, 32767)}))


def test_c9_gzip_bomb_and_small_memory(tmp_path, monkeypatch):
    data = gzip.decompress(make(tmp_path / "a.nii.gz").read_bytes())
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(data + bytes(70 << 20), 1))
    with pytest.raises(InputError, match="far more"):
        load_image(tmp_path / "b.nii.gz")
    monkeypatch.setattr(memory, "available_bytes", lambda: 100)
    with pytest.raises(MemoryLimitError):
        load_image(tmp_path / "a.nii.gz")


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        ({DIM: ("h", 0)}, "dim"),
        ({DIM: ("h", 8)}, "dim"),
        ({DIM + 2: ("h", -5)}, "dim"),
        ({DIM + 4: ("h", 0)}, "dim"),
        ({BITPIX: ("h", 8)}, "bitpix"),
        ({DATATYPE: ("h", 3)}, "datatype"),
        ({VOX_OFFSET: ("f", 0)}, "vox_offset"),
        ({VOX_OFFSET: ("f", float("nan"))}, "vox_offset"),
        ({SLOPE: ("2f", 2, float("nan"))}, "scl_inter"),
        ({UNITS: ("b", 7)}, "xyzt_units"),
        ({MAGIC: ("4s", b"xyz")}, "magic"),
    ],
)
def test_c10_corrupt_fields_are_named(tmp_path, edit, field):
    with pytest.raises(InputError, match=f"corrupt header field {field}"):
        load_image(make(tmp_path / "a.nii", edit))


def test_c10_half_of_a_pair(tmp_path):
    with pytest.raises(InputError, match="pair"):
        load_image(make(tmp_path / "a.nii", {MAGIC: ("4s", b"ni1")}))


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), 1e-4, 2e3])
def test_c11_spacing_without_sense_names_the_axis(tmp_path, size):
    with pytest.raises(InputError, match="axis j"):
        load_image(make(tmp_path / "a.nii", {SFORM: ("h", 0), PIXDIM + 8: ("f", size)}))


def test_c11_b6_odd_pixdim_beside_a_good_sform_is_a_warning(tmp_path):
    for size in (0.0, 2.0, float("nan")):
        image = load_image(make(tmp_path / "a.nii", {QFORM: ("h", 0), PIXDIM + 8: ("f", size)}))
        assert "pixdim" in image.header.warnings[0]
        assert np.allclose(image.grid.spacing_mm, [0.9, 1.3, 2.6])


@pytest.mark.parametrize(
    "edit",
    [
        {SROW: ("3f", 3e38, 3e38, 3e38)},
        {SROW + 12: ("f", 1e30)},
        {SROW: ("I", 0x7FA00001)},  # a signalling NaN
        {SFORM: ("h", 0), QUATERN: ("I", 0x7FA00001)},
    ],
)
def test_c12_numbers_without_sense_are_refused_without_a_remark(tmp_path, edit):
    with pytest.raises(InputError, match=r"NaN|spacing|km|quaternion"):
        load_image(make(tmp_path / "a.nii", edit))


def test_c12_singular_and_nan_affines(tmp_path):
    with pytest.raises(InputError, match="NaN"):
        load_image(make(tmp_path / "a.nii", {SROW: ("f", float("nan"))}))
    with pytest.raises(InputError, match="singular"):
        load_image(make(tmp_path / "a.nii", {SROW: ("12f", 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0)}))


@pytest.mark.parametrize(("code", "bits", "name"), [(128, 24, "RGB"), (32, 64, "complex64"), (1792, 128, "complex128")])
def test_c17_colours_and_complex_numbers(tmp_path, code, bits, name):
    with pytest.raises(InputError, match=name):
        load_image(make(tmp_path / "a.nii", {DATATYPE: ("2h", code, bits)}))


def test_c9_describe_does_not_decode_what_is_large(tmp_path, monkeypatch):
    path = make(tmp_path / "a.nii.gz")
    assert describe_image(path)["intensity_range"] == [0, 59]
    monkeypatch.setattr("nfops.io.nifti.DECODE_UP_TO_BYTES", 100)
    described = describe_image(path)
    assert described["intensity_range"] is None
    assert described["shape"] == [5, 4, 3]
    assert set(described) == {
        "kind", "path", "shape", "spacing_mm", "affine", "orientation", "dtype", "channels", "series",
        "intensity_range", "warnings",
    }  # fmt: skip

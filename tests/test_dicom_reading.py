"""The pixels of DICOM files: bits, rescale, colours, transfer syntaxes, damage; and what no output may say."""

import json
import logging
from io import BytesIO

import numpy as np
import pydicom
import pytest
from cli_fixtures import nfops
from dicom_files import GRID, SECRETS, agree, enhanced, expected, series, store, store_raw, write
from dicom_sources import CT, oblique_grid
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import decoders
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from nfops.errors import InputError, NfopsError
from nfops.io import PictureFrame, Reading, describe_image, load_image

SHAPE = (7, 9)
STORED = np.arange(63, dtype=np.int16).reshape(SHAPE) * 30 - 900
LARGE = np.random.default_rng(3).integers(-4000, 4000, (33, 40)).astype(np.int16)
"""Large enough for the encoders, and to stay in the file until it is asked for."""


def one(folder, stored=STORED, **elements):
    """A single slice with these stored values; the path of its file."""
    (dataset,) = series(oblique_grid((*stored.shape[1::-1], 1)))
    store_raw(dataset, stored, **elements)
    return write(folder, [dataset]) / "000.dcm"


def plane(path, reading=None):
    """(rows, columns) values of a single slice."""
    return load_image(path, reading).values[0, :, :, 0].T


# --- values ----------------------------------------------------------------------------------------------------------


def test_b38_every_slice_has_its_own_rescale(tmp_path):
    slices = series(sop_class=CT, Modality="PT")
    for n, dataset in enumerate(slices):
        store(dataset, np.frombuffer(dataset.PixelData, "<i4").reshape(SHAPE) * 1e-5, slope=1e-5 * (n + 1))
    agree(load_image(write(tmp_path, slices)), expected())


@pytest.mark.parametrize(
    ("slope", "intercept", "factor", "offset"),
    [("2.5", "-1024", 2.5, -1024), ("", "", 1, 0), ("1", "-1024.5", 1, -1024.5), ("-1", "", -1, 0), (None, None, 1, 0)],
)
def test_b38_rescale(tmp_path, slope, intercept, factor, offset):
    elements = {} if slope is None else {"RescaleSlope": slope, "RescaleIntercept": intercept}
    path = one(tmp_path, **elements)
    np.testing.assert_allclose(plane(path), STORED * factor + offset)


def test_b38_a_slope_of_zero_is_refused(tmp_path):
    with pytest.raises(InputError, match="RescaleSlope is 0"):
        load_image(one(tmp_path, RescaleSlope="0", RescaleIntercept="0"))


def test_b38_frames_of_an_enhanced_file_have_their_own_rescale(tmp_path):
    slices = series()
    for n, dataset in enumerate(slices):
        store(dataset, np.frombuffer(dataset.PixelData, "<i4").reshape(SHAPE) * 1e-5, slope=1e-5 * (n + 1))
    agree(load_image(write(tmp_path, [enhanced(slices)])), expected())


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32"])
def test_b40_every_kind_of_whole_number(tmp_path, dtype):
    limits = np.iinfo(dtype)
    stored = np.linspace(limits.min, limits.max, 63).astype(dtype).reshape(SHAPE)
    np.testing.assert_allclose(plane(one(tmp_path, stored)), stored.astype(np.float32))
    assert describe_image(tmp_path)["dtype"] == dtype


@pytest.mark.parametrize(("stored_bits", "high"), [(12, 11), (12, 15), (12, 13), (10, 9)])
@pytest.mark.parametrize("is_signed", [True, False])
@pytest.mark.parametrize("width", [9, 1200])
def test_b40_unused_bits_are_left_out(tmp_path, width, stored_bits, high, is_signed):
    lowest = -(1 << (stored_bits - 1)) if is_signed else 0
    true = np.linspace(lowest, lowest + (1 << stored_bits) - 1, 7 * width).astype(int).reshape(7, width)
    used = ((1 << stored_bits) - 1) << (high + 1 - stored_bits)
    rubbish = np.random.default_rng(1).integers(0, 1 << 16, true.shape) & ~used & 0xFFFF
    words = ((true << (high + 1 - stored_bits)) & used) | rubbish
    path = one(
        tmp_path,
        words.astype(np.uint16),
        BitsStored=stored_bits,
        HighBit=high,
        PixelRepresentation=int(is_signed),
    )
    np.testing.assert_array_equal(plane(path), true)


@pytest.mark.parametrize("way", ["keep", "min", "nan"])
@pytest.mark.parametrize(("value", "limit"), [(-900, None), (-900, -840), (65536 - 900, None)])
def test_b40_padding(tmp_path, way, value, limit):
    (dataset,) = series(oblique_grid((9, 7, 1)))
    store_raw(dataset, STORED, RescaleSlope="2", RescaleIntercept="5")
    dataset.add_new("PixelPaddingValue", "US" if value > 0 else "SS", value)  # GE writes US for signed pixels
    if limit is not None:
        dataset.add_new("PixelPaddingRangeLimit", "SS", limit)
    values = plane(write(tmp_path, [dataset]) / "000.dcm", Reading(padding=way))
    highest = -900 if limit is None else limit
    is_padding = np.logical_and(np.greater_equal(STORED, -900), np.less_equal(STORED, highest))
    true = STORED * 2.0 + 5
    if way == "nan":
        true[is_padding] = np.nan
    elif way == "min":
        true[is_padding] = true[~is_padding].min()
    np.testing.assert_array_equal(values, true)


@pytest.mark.parametrize(
    ("modality", "way", "is_mirrored"),
    [
        *(("DX", way, way != "keep") for way in ("auto", "invert", "keep")),
        *(("CR", "auto", True), ("MG", "auto", True), ("XA", "auto", True)),
        *(("CT", "invert", True), ("MR", "keep", False)),
        *(("CT", "auto", None), ("MR", "auto", None), ("PT", "auto", None), ("DX", "error", None)),
    ],
)
def test_b39_monochrome1(tmp_path, modality, way, is_mirrored):
    stored = np.linspace(0, 4095, 63).astype(np.uint16).reshape(SHAPE)
    path = one(tmp_path, stored, BitsStored=12, HighBit=11, PhotometricInterpretation="MONOCHROME1", Modality=modality)
    if is_mirrored is None:
        with pytest.raises(InputError, match=rf"is {modality} stored as MONOCHROME1.*monochrome1: invert"):
            load_image(path, Reading(monochrome1=way))
        return
    np.testing.assert_array_equal(plane(path, Reading(monochrome1=way)), 4095.0 - stored if is_mirrored else stored)


@pytest.mark.parametrize("is_planar", [0, 1])
def test_b41_colours(tmp_path, is_planar):
    colours = np.random.default_rng(2).integers(0, 255, (*SHAPE, 3), np.uint8)
    elements = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": is_planar}
    path = one(tmp_path, colours, **elements)
    if is_planar:
        dataset = pydicom.dcmread(path)
        dataset.PixelData = np.ascontiguousarray(np.moveaxis(colours, 2, 0)).tobytes() + b"\0"
        dataset.save_as(path)
    read = load_image(path)
    assert read.header.is_colour
    np.testing.assert_array_equal(read.values[..., 0].transpose(2, 1, 0), colours)
    assert describe_image(path)["channels"] == 3


def test_b41_a_palette_becomes_colours(tmp_path):
    numbers = (np.arange(63) % 4).astype(np.uint8).reshape(SHAPE)
    (dataset,) = series(oblique_grid((9, 7, 1)))
    store_raw(dataset, numbers, PhotometricInterpretation="PALETTE COLOR")
    table = {"Red": (0, 255, 10, 20), "Green": (1, 2, 3, 4), "Blue": (200, 100, 0, 50)}
    for name, values in table.items():
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [4, 0, 8])
        setattr(dataset, f"{name}PaletteColorLookupTableData", bytes(values))
    read = load_image(write(tmp_path, [dataset]) / "000.dcm")
    assert read.header.is_colour
    for channel, values in zip(read.values, table.values(), strict=True):
        np.testing.assert_array_equal(channel[..., 0].T, np.array(values)[numbers])


# --- pictures without a place in the body -----------------------------------------------------------------------------


def radiograph(folder, **elements):
    (dataset,) = series(oblique_grid((9, 7, 1)))
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(dataset, keyword)
    store_raw(dataset, STORED, Modality="DX", **elements)
    return write(folder, [dataset]) / "000.dcm"


def test_b37_imager_spacing_and_patient_orientation(tmp_path):
    path = radiograph(tmp_path, ImagerPixelSpacing=[0.2, 0.1], PatientOrientation=["L", "F"])
    read = load_image(path)
    assert read.header.is_oriented
    assert read.grid.orientation == describe_image(path)["orientation"]
    assert read.grid.orientation[:2] == "LI"
    np.testing.assert_allclose(read.grid.spacing_mm[:2], [0.1, 0.2])


def test_b37_without_anything_the_recipe_says_it(tmp_path):
    path = radiograph(tmp_path)
    read = load_image(path)
    assert not read.header.is_oriented
    assert read.header.warnings == ("the size of a pixel is not known: 1 mm is assumed",)
    read = load_image(path, Reading(picture=PictureFrame(axes=("R", "I"), pixel_mm=(0.5, 0.25))))
    assert read.header.is_oriented
    assert read.grid.orientation[:2] == "RI"
    np.testing.assert_allclose(read.grid.spacing_mm[:2], [0.5, 0.25])


def test_b37_a_folder_of_radiographs_is_no_volume(tmp_path):
    for name in ("a", "b"):
        radiograph(tmp_path / name)
    with pytest.raises(InputError, match="holds 2 series"):
        load_image(tmp_path)


# --- transfer syntaxes ------------------------------------------------------------------------------------------------


def saved_as(folder, datasets, syntax):
    folder.mkdir()
    for n, dataset in enumerate(datasets):
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<i4").astype(">i4").tobytes()
        dataset.save_as(folder / f"{n}.dcm", enforce_file_format=True)
    return folder


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_b42_native_syntaxes(tmp_path, syntax):
    folder = saved_as(tmp_path / "x", series(), syntax)
    agree(load_image(folder), expected())
    describe_image(folder)


@pytest.mark.parametrize(  # the JPEG-LS encoder takes no signed pixels
    ("syntax", "is_signed"),
    [(RLELossless, True), (JPEG2000Lossless, True), (JPEG2000Lossless, False), (JPEGLSLossless, False)],
)
def test_b42_compressed_syntaxes(tmp_path, syntax, is_signed):
    stored = LARGE if is_signed else (LARGE + 4000).astype(np.uint16)
    (dataset,) = series(oblique_grid((40, 33, 1)))
    store_raw(dataset, stored, RescaleSlope="2", RescaleIntercept="-10")
    dataset.compress(syntax)
    np.testing.assert_array_equal(plane(write(tmp_path, [dataset]) / "000.dcm"), stored * 2.0 - 10)


def test_b42_c28_a_missing_decoder_is_named(tmp_path, monkeypatch):
    (dataset,) = series(oblique_grid((40, 33, 1)))
    store_raw(dataset, LARGE)
    dataset.compress(JPEG2000Lossless)
    folder = write(tmp_path, [dataset])
    monkeypatch.setattr(decoders.base.Decoder, "is_available", property(lambda self: False))
    wanted = r"no decoder .* JPEG 2000 .*\(1\.2\.840\.10008\.1\.2\.4\.90\) \(pip install 'nfops\[dicom\]'\)"
    with pytest.raises(InputError, match=wanted):
        load_image(folder)
    assert describe_image(folder)["shape"] == [40, 33, 1]


def test_b42_video_is_refused(tmp_path):
    (dataset,) = series(oblique_grid((9, 7, 1)))
    dataset.PixelData = encapsulate([b"\0" * 64])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
    with pytest.raises(InputError, match=r"MPEG-4.*4\.102.*does not read"):
        load_image(write(tmp_path, [dataset]))


@pytest.mark.parametrize("keyword", ["FloatPixelData", "DoubleFloatPixelData"])
def test_b40_pixels_of_real_numbers(tmp_path, keyword):
    (dataset,) = series(oblique_grid((9, 7, 1)))
    store_raw(dataset, STORED)
    for name in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(dataset, name)
    dtype = np.float32 if keyword == "FloatPixelData" else np.float64
    dataset.BitsAllocated = 8 * np.dtype(dtype).itemsize
    real = (STORED / 7).astype(dtype)
    setattr(dataset, keyword, real.tobytes())
    np.testing.assert_allclose(plane(write(tmp_path, [dataset]) / "000.dcm"), real, rtol=1e-6)


# --- damage ----------------------------------------------------------------------------------------------------------


def as_bytes(dataset: FileDataset, **how) -> bytes:
    out = BytesIO()
    dataset.save_as(out, **how)
    return out.getvalue()


def test_c29_no_preamble_and_wrong_group_length(tmp_path):
    (dataset,) = series(oblique_grid((9, 7, 1)))
    store_raw(dataset, STORED)
    whole = as_bytes(dataset, enforce_file_format=True)
    (tmp_path / "bare").write_bytes(whole[132:])
    np.testing.assert_array_equal(plane(tmp_path / "bare"), STORED)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    headless = as_bytes(dataset, enforce_file_format=True)
    (tmp_path / "old").write_bytes(headless[headless.index(b"\x08\x00\x08\x00", 132) :])
    np.testing.assert_array_equal(plane(tmp_path / "old"), STORED)
    for length in (0, 7, 100_000, 0xFFFFFFFF):
        wrong = bytearray(whole)
        wrong[140:144] = length.to_bytes(4, "little")
        (tmp_path / "wrong.dcm").write_bytes(wrong)
        np.testing.assert_array_equal(plane(tmp_path / "wrong.dcm"), STORED)


@pytest.mark.parametrize("syntax", ["native", "rle", "jpeg2000", "deflated"])
def test_b44_c29_a_file_cut_anywhere_is_refused(tmp_path, capfd, syntax):
    (dataset,) = series(oblique_grid((40, 33, 1)))
    store_raw(dataset, LARGE)
    if syntax in ("rle", "jpeg2000"):
        dataset.compress(RLELossless if syntax == "rle" else JPEG2000Lossless)
    elif syntax == "deflated":
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    whole = as_bytes(dataset, enforce_file_format=True)
    path = tmp_path / "x.dcm"
    for percent in range(0, 100, 5):
        path.write_bytes(whole[: len(whole) * percent // 100])
        with pytest.raises(NfopsError) as raised:
            load_image(path)
        assert "\n" not in str(raised.value)
    path.write_bytes(whole[:-20])
    with pytest.raises(NfopsError):
        load_image(path)
    assert capfd.readouterr() == ("", "")


def test_b44_one_cut_slice_refuses_the_series(tmp_path):
    slices = series(oblique_grid((40, 30, 5)))
    folder = write(tmp_path / "x", slices)
    last = folder / "004.dcm"  # without the last slice the others still make a volume
    whole = last.read_bytes()
    for percent in range(0, 100, 5):
        last.write_bytes(whole[: len(whole) * percent // 100])
        with pytest.raises(NfopsError) as raised:
            load_image(folder)
        assert "004.dcm" in str(raised.value), percent


def test_b44_a_header_that_promises_too_much(tmp_path):
    for keyword, value in {"Rows": 8, "NumberOfFrames": 2, "NumberOfFrames ": 0, "Columns": 65535}.items():
        dataset = pydicom.dcmread(one(tmp_path))
        setattr(dataset, keyword.strip(), value)
        dataset.save_as(tmp_path / "000.dcm")
        with pytest.raises(NfopsError):
            load_image(tmp_path / "000.dcm")


# --- privacy ---------------------------------------------------------------------------------------------------------


def outputs(folder):
    """Everything that the command line says and leaves behind about good and bad folders."""
    out = folder.parent / "out"
    good, bad = folder, folder.parent / "bad"
    slices = series()
    del slices[2]
    write(bad, slices)
    (bad / "cut.dcm").write_bytes((good / "000.dcm").read_bytes()[:900])
    for words in (
        ("info", "--json", good),
        ("info", good),
        ("info", "--json", bad),
        ("resample", good, "--out", out / "iso.nii.gz", "--spacing", "2x2x2", "-v"),
        ("resample", bad, "--out", out / "bad.nii.gz", "--spacing", "2x2x2", "-v"),
        ("apply", "-r", "brain_t1t2", good, bad, "--out-dir", out / "many", "--series", "all", "-v"),
        ("resample", folder.parent, "--out", out / "all.nii.gz", "--spacing", "2x2x2"),
    ):
        ran = nfops(*words)
        yield ran.out + ran.err
    for path in sorted(out.rglob("*")):
        yield str(path.relative_to(out))
        if path.suffix == ".json":
            json.loads(path.read_text())
            yield path.read_text()


def test_b45_nothing_says_who_the_patient_is(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    folder = write(tmp_path / "scan", series())
    (tmp_path / "out").mkdir()
    said = "\n".join(outputs(folder)) + caplog.text
    assert "iso.nii.gz" in said
    for secret in SECRETS:
        assert secret not in said


# --- what a recipe takes ---------------------------------------------------------------------------------------------


def test_c19_another_modality_is_refused(tmp_path):
    folder = write(tmp_path / "x", series())
    with pytest.raises(InputError, match="has the modality MR, the recipe takes CT or PT"):
        load_image(folder, Reading(modality=("CT", "PT")))
    agree(load_image(folder, Reading(modality=("CT", "MR"))), expected(GRID))


@pytest.mark.parametrize("what", ["4-D", "RGB"])
def test_c17_four_dimensions_or_colours_are_refused(tmp_path, what):
    slices = series(volumes=2)
    if what == "RGB":
        (dataset,) = slices = series(oblique_grid((9, 7, 1)))
        colours = np.zeros((7, 9, 3), np.uint8)
        store_raw(dataset, colours, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    folder = write(tmp_path / "x", slices)
    ran = nfops("apply", "-r", "brain_t1t2", folder, "--out", tmp_path / "out.nii.gz")
    assert ran.code == 3
    assert f"got {3 if what == 'RGB' else 2} in an image of shape (9, 7, {len(slices) // 2 or 1})" in ran.err
    assert not (tmp_path / "out.nii.gz").exists()


# --- from the command line --------------------------------------------------------------------------------------------


def test_b31_series_all_makes_an_output_of_each(tmp_path):
    """Of folders, of single files, and where there is but one series."""
    small = (oblique_grid((30, 28, 2)), oblique_grid((26, 24, 2)))
    write(tmp_path / "many", series(small[0]), "a{}")
    write(tmp_path / "many", series(small[1], SeriesNumber=9), "b{}")
    write(tmp_path / "one", series(small[0]))
    halves = enhanced(series(small[0], volumes=2), [{"FrameContentSequence.StackID": "12"[n // 2]} for n in range(4)])
    write(tmp_path, [halves], "two.dcm")
    scans = (tmp_path / "many", tmp_path / "one", tmp_path / "two.dcm")
    ran = nfops("apply", "-r", "brain_t1t2", *scans, "--out-dir", tmp_path / "out", "--series", "all")
    assert ran.code == 0, ran.err
    names = {path.name for path in (tmp_path / "out").glob("*.nii.gz")}
    assert names == {"many_4.nii.gz", "many_9.nii.gz", "one.nii.gz", "two_4-1.nii.gz", "two_4-2.nii.gz"}
    ran = nfops("resample", tmp_path / "many", "--out", tmp_path / "x.nii.gz", "--spacing", "2x2x2")
    assert ran.code == 3
    assert "choose one with --series N" in ran.err
    ran = nfops("resample", tmp_path / "many", "--out", tmp_path / "x.nii.gz", "--spacing", "2x2x2", "--series", "#9")
    assert ran.code == 0
    assert nfops("info", tmp_path / "many", "--series", "7").code == 2

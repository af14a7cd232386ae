"""Derived DICOM series: read back by others, filed by a PACS, accepted by dciodvfy (B50-B53, B55)."""

import errno
import warnings
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_sources import (
    CT,
    MR,
    PET,
    US,
    by_highdicom,
    by_simpleitk,
    dciodvfy_errors,
    header,
    largest_difference,
    oblique_grid,
    ramp,
    series_files,
    write_sources,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nfops.errors import InputError, NotFoundError, OutputError, ResultError, UsageError
from nfops.grid import Grid
from nfops.image import Header, Image
from nfops.io import load_image
from nfops.io.dicom.writing.derived import DerivedOptions, refuse_series, save_series
from nfops.io.dicom.writing.quantising import choose_scale

RESAMPLED = DerivedOptions("test", "resampled", is_same_contrast=True, is_same_unit=True)
TRANSLATED = DerivedOptions("test", "translated", is_same_contrast=False, is_same_unit=False)
REAL = (
    *("siemens_hfs", "d2n_ge_anatomical", "ct_philips_tilt", "siemens_mosaic_ax", "siemens_xa10_enhanced"),
    *("d2n_philips_enhanced", "uih_dti_pa", "ge_epi_small", "philips_enhanced_fmap", "d2n_hyperfine", "ts_jpegls"),
)
ORIENTED = {
    "as the sources": oblique_grid(),
    "left-handed": oblique_grid(flips=(1, 1, -1)),
    "flipped": oblique_grid(flips=(-1, 1, 1)),
    "other shape": oblique_grid().with_shape((9, 23, 4)),
    "one slice": oblique_grid().with_shape((12, 10, 1)),
    "other axes": oblique_grid().reoriented(oblique_grid().reorientation(("S", "L", "A"))),
}


@pytest.fixture(scope="module")
def ct(tmp_path_factory) -> list[Path]:
    return write_sources(tmp_path_factory.mktemp("ct") / "dcm", oblique_grid())


def real_series(shared_data: Path, name: str) -> tuple[Image, list[Path]]:
    """A series with the trusted conversion of it, the first volume."""
    folder = shared_data / "dicom" / name
    image = load_image(sorted(folder.glob("ref*.nii.gz"))[-1])
    return image.with_values(image.values[:1]), series_files(folder / "dcm")


def quantum(folder: Path) -> float:
    return float(header(folder / "0001.dcm").RescaleSlope)


@pytest.mark.parametrize("name", ORIENTED)
def test_b52_others_read_the_same_values_at_the_same_places(tmp_path, ct, name):
    image = ramp(ORIENTED[name])
    save_series(tmp_path / "out", image, ct, RESAMPLED)
    half = quantum(tmp_path / "out") / 2 * (1 + 1e-6)
    assert largest_difference(by_simpleitk(tmp_path / "out"), image) <= half + 1e-4  # GDCM reads floats of 32 bit
    if image.grid.shape[2] > 1:
        assert largest_difference(by_highdicom(tmp_path / "out"), image) <= half


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("options", [RESAMPLED, TRANSLATED], ids=["resampled", "translated"])
def test_b55_real_series_are_read_back_and_valid(tmp_path, shared_data, name, options):
    image, sources = real_series(shared_data, name)
    save_series(tmp_path / "out", image, sources, options)
    half = quantum(tmp_path / "out") / 2 * (1 + 1e-6)
    assert largest_difference(by_highdicom(tmp_path / "out"), image) <= half
    assert largest_difference(by_simpleitk(tmp_path / "out"), image) <= half + 1e-3
    written = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in written] == [f"{n + 1:04}.dcm" for n in range(image.grid.shape[2])]
    for path in (written[0], written[-1]):
        assert dciodvfy_errors(path) == []


@pytest.mark.parametrize("sop_class", [CT, MR, PET, US])
@pytest.mark.parametrize("options", [RESAMPLED, TRANSLATED], ids=["resampled", "translated"])
def test_b55_every_kind_is_valid(tmp_path, sop_class, options):
    sources = write_sources(tmp_path / "dcm", oblique_grid(), sop_class)
    save_series(tmp_path / "out", ramp(oblique_grid()), sources, options)
    for path in (tmp_path / "out").iterdir():
        assert dciodvfy_errors(path) == []
        expected = sop_class if sop_class != US else "1.2.840.10008.5.1.4.1.1.7"
        assert header(path).SOPClassUID == header(path).file_meta.MediaStorageSOPClassUID == expected
        assert header(path).file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert largest_difference(by_highdicom(tmp_path / "out"), ramp(oblique_grid())) <= quantum(tmp_path / "out") * 0.51


def test_b50_same_patient_study_and_space(tmp_path, shared_data):
    image, sources = real_series(shared_data, "siemens_hfs")
    save_series(tmp_path / "out", image, sources, RESAMPLED)
    source, written = header(sources[0]), header(tmp_path / "out" / "0001.dcm")
    for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "PatientSex", "PatientBirthDate", "StudyDate",
                    "AccessionNumber", "FrameOfReferenceUID"):  # fmt: skip
        assert written.get(keyword) == source.get(keyword), keyword
    assert written.SeriesInstanceUID != source.SeriesInstanceUID
    assert written.SOPInstanceUID != source.SOPInstanceUID


def uids(folder: Path) -> list[str]:
    headers = [header(path) for path in sorted(folder.iterdir())]
    assert len({str(h.SeriesInstanceUID) for h in headers}) == 1
    found = [str(headers[0].SeriesInstanceUID), *(str(h.SOPInstanceUID) for h in headers)]
    assert all(uid.startswith("2.25.") and pydicom.uid.UID(uid).is_valid for uid in found)
    return found


def test_b50_the_same_run_makes_the_same_objects(tmp_path, ct):
    image, made = ramp(oblique_grid()), datetime(2026, 1, 2, tzinfo=UTC)
    for name, order in (("a", ct), ("b", ct[::-1])):
        save_series(tmp_path / name, image, order, DerivedOptions("t", "r", True, True, made=made))
    save_series(tmp_path / "c", image, ct, DerivedOptions("t", "r", True, True))
    assert uids(tmp_path / "a") == uids(tmp_path / "b") == uids(tmp_path / "c")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_b50_whatever_changes_has_uids_of_its_own(tmp_path, ct):
    grid = oblique_grid()
    image, options = ramp(grid), {"description": "t", "derivation": "r", "is_same_contrast": True, "is_same_unit": True}
    changed = image.values.copy()
    changed[0, 0, 0, 0] += 1
    shift = np.zeros((4, 4))
    shift[0, 3] = 0.01
    moved = Grid(grid.shape, grid.affine + shift)
    runs = {
        "plain": (image, ct, {}),
        "value": (Image(changed, grid), ct, {}),
        "place": (Image(image.values, moved), ct, {}),
        "settings": (image, ct, {"settings": "bundle 1"}),
        "sources": (image, ct[:-1], {}),
        "words": (image, ct, {"derivation": "s"}),
        "number": (image, ct, {"series_index": 2}),
    }
    for name, (what, sources, more) in runs.items():
        save_series(tmp_path / name, what, sources, DerivedOptions(**{**options, **more}))
    every = [uid for name in runs for uid in uids(tmp_path / name)]
    assert len(set(every)) == len(every)


def test_b51_says_what_it_is(tmp_path, ct):
    options = DerivedOptions("é" * 70, "why\\not", False, False)
    told = save_series(tmp_path / "out", ramp(oblique_grid()), ct, options)
    headers = [header(path) for path in sorted((tmp_path / "out").iterdir())]
    assert told == ("SeriesDescription was cut to 64 bytes",)
    assert [h.InstanceNumber for h in headers] == list(range(1, 8))
    assert list(headers[0].ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert headers[0].SeriesNumber == 401
    assert headers[0].SeriesDescription == "é" * 32
    assert headers[0].DerivationDescription == "why/not"
    assert "RESEARCH" in headers[0].ImageComments
    assert "not for diagnostic use" in headers[0].ImageComments
    scanner, nfops = headers[0].ContributingEquipmentSequence
    assert (scanner.Manufacturer, nfops.Manufacturer, bool(nfops.SoftwareVersions)) == ("ACME", "nfops", True)
    assert all(h.ContentDate and h.ContentTime and h.InstanceCreationDate for h in headers)
    assert dciodvfy_errors(tmp_path / "out" / "0001.dcm") == []


def named_sources(path: Path) -> set[str]:
    items = header(path).SourceImageSequence
    assert all(item.PurposeOfReferenceCodeSequence[0].CodeValue == "121322" for item in items)
    return {str(item.ReferencedSOPInstanceUID).rsplit(".", 1)[1] for item in items}


def test_b52_names_the_sources_of_each_slice(tmp_path, ct):
    grid = oblique_grid()
    save_series(tmp_path / "same", ramp(grid), ct, RESAMPLED)
    save_series(tmp_path / "thick", ramp(grid.with_shape((12, 10, 2))), ct, RESAMPLED)
    save_series(tmp_path / "across", ramp(grid.reoriented(grid.reorientation(("S", "L", "A")))), ct, RESAMPLED)
    own = [named_sources(path) for path in sorted((tmp_path / "same").iterdir())]
    assert sorted(map(sorted, own)) == [[str(n)] for n in range(1, 8)]
    halves = [named_sources(path) for path in sorted((tmp_path / "thick").iterdir())]
    assert sorted(map(sorted, halves)) == [["1", "2", "3", "4"], ["4", "5", "6", "7"]]
    assert all(len(named_sources(path)) == 7 for path in (tmp_path / "across").iterdir())


def test_b52_names_frames_and_whole_mosaics(tmp_path, shared_data):
    image, sources = real_series(shared_data, "d2n_philips_enhanced")
    save_series(tmp_path / "frames", image, sources, RESAMPLED)
    items = [header(path).SourceImageSequence for path in sorted((tmp_path / "frames").iterdir())]
    assert all(len(item) == 1 for item in items)
    frames = [item[0].ReferencedFrameNumber for item in items]
    assert sorted(map(int, frames)) == list(range(1, len(items) + 1))
    image, sources = real_series(shared_data, "siemens_mosaic_ax")
    save_series(tmp_path / "mosaic", image, sources[:1], RESAMPLED)
    for path in (tmp_path / "mosaic").iterdir():
        (item,) = header(path).SourceImageSequence
        assert item.ReferencedSOPInstanceUID == header(sources[0]).SOPInstanceUID
        assert "ReferencedFrameNumber" not in item


def test_b52_thickness_is_kept_only_with_the_slices(tmp_path):
    sources = write_sources(tmp_path / "dcm", oblique_grid(), SliceThickness="2.5")
    save_series(tmp_path / "same", ramp(oblique_grid()), sources, RESAMPLED)
    save_series(tmp_path / "other", ramp(oblique_grid().with_spacing((1, 1, 1))), sources, RESAMPLED)
    thickness = {name: header(tmp_path / name / "0001.dcm").SliceThickness for name in ("same", "other")}
    assert thickness == {"same": 2.5, "other": 1.0}
    assert header(tmp_path / "same" / "0001.dcm").SpacingBetweenSlices == pytest.approx(3.1)


def test_b53_whole_numbers_keep_slope_one(tmp_path, ct):
    for name, low in (("signed", -1024), ("unsigned", 0), ("far", 100000)):
        values = np.rint(ramp(oblique_grid()).values).clip(-800, 900) + low
        save_series(tmp_path / name, Image(values.astype(np.float32), oblique_grid()), ct, RESAMPLED)
        written = header(tmp_path / name / "0001.dcm")
        assert written.RescaleSlope == 1
        assert (written.RescaleIntercept == 0) == (name != "far")
        assert largest_difference(by_highdicom(tmp_path / name), Image(values, oblique_grid())) == 0


FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(arrays(np.float32, (2, 3, 4), elements=FINITE), st.booleans())
@settings(max_examples=300, deadline=None)
def test_b53_any_values_are_half_a_quantum_off_at_most(values, is_intercept_zero):
    scale = choose_scale(values, is_intercept_zero)
    assert max(map(len, (scale.slope, scale.intercept))) <= 16
    assert not is_intercept_zero or scale.intercept == "0"
    off = np.abs(scale.values(scale.stored(values)) - values.astype(np.float64)).max()
    assert off <= float(scale.slope) / 2 * (1 + 1e-9) + 1e-12 * float(np.abs(values).max())


@pytest.mark.parametrize("value", [0.0, 7.0, -3.25, 1e-30, 3e38, np.pi])
def test_b53_a_constant_is_kept(value):
    values = np.full((2, 3, 4), value, np.float32)
    scale = choose_scale(values)
    np.testing.assert_allclose(scale.values(scale.stored(values)), values, rtol=1e-9)


def test_b53_units_window_and_history(tmp_path):
    names = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
    more = {**dict(zip(names, ("01", "12.5", "ISO_10918_1"), strict=True)), "PixelPaddingValue": -2000}
    sources = write_sources(tmp_path / "dcm", oblique_grid(), WindowCenter="9999", **more)
    save_series(tmp_path / "hu", ramp(oblique_grid()), sources, RESAMPLED)
    save_series(tmp_path / "made", ramp(oblique_grid()), sources, TRANSLATED)
    kept, made = header(tmp_path / "hu" / "0001.dcm"), header(tmp_path / "made" / "0001.dcm")
    assert (kept.RescaleType, made.RescaleType) == ("HU", "US")
    values = ramp(oblique_grid()).values
    assert values.min() < kept.WindowCenter < values.max()
    assert 0 < kept.WindowWidth <= np.ptp(values)
    for written in (kept, made):
        assert written.LossyImageCompression == "01"
        assert (written.LossyImageCompressionRatio, written.LossyImageCompressionMethod) == (12.5, "ISO_10918_1")
        assert not {"PixelPaddingValue", "SmallestImagePixelValue", "IconImageSequence"} & set(written.dir())
        assert not any(element.tag.is_private for element in written)
    assert dciodvfy_errors(tmp_path / "hu" / "0001.dcm") == []


def test_b53_a_narrow_window_is_exact(tmp_path, ct):
    values = ramp(oblique_grid()).values
    small = (values - values.min()) / np.ptp(values)
    save_series(tmp_path / "out", Image(small, oblique_grid()), ct, TRANSLATED)
    assert header(tmp_path / "out" / "0001.dcm").VOILUTFunction == "LINEAR_EXACT"
    assert dciodvfy_errors(tmp_path / "out" / "0001.dcm") == []


def test_b51_a_made_contrast_does_not_claim_the_scanners_timing(tmp_path):
    sources = write_sources(tmp_path / "dcm", oblique_grid(), MR)
    for name, options in (("same", RESAMPLED), ("made", TRANSLATED)):
        save_series(tmp_path / name, ramp(oblique_grid()), sources, options)
    same, made = header(tmp_path / "same" / "0001.dcm"), header(tmp_path / "made" / "0001.dcm")
    assert (same.EchoTime, same.RepetitionTime, same.ScanningSequence) == (30, 2500, "SE")
    assert (made.EchoTime, made.RepetitionTime, made.ScanningSequence) == (None, None, "RM")


def test_b51_enhanced_timing_is_found(tmp_path, shared_data):
    image, sources = real_series(shared_data, "siemens_xa10_enhanced")
    save_series(tmp_path / "out", image, sources, RESAMPLED)
    written = header(tmp_path / "out" / "0001.dcm")
    assert written.SOPClassUID == MR
    assert written.RepetitionTime > 0
    assert written.EchoTime > 0
    assert "EP" in written.ScanningSequence


def test_b51_another_modality_is_secondary_capture(tmp_path):
    sources = write_sources(tmp_path / "dcm", oblique_grid(), MR)
    options = DerivedOptions("ct", "made from MR", False, False, modality="CT")
    save_series(tmp_path / "out", ramp(oblique_grid()), sources, options)
    written = header(tmp_path / "out" / "0001.dcm")
    assert (written.SOPClassUID, written.Modality) == ("1.2.840.10008.5.1.4.1.1.7", "CT")
    assert dciodvfy_errors(tmp_path / "out" / "0001.dcm") == []


def bad_values(value: float) -> Image:
    values = ramp(oblique_grid()).values.copy()
    values[0, 1, 2, 3] = value
    return Image(values, oblique_grid())


def sheared() -> Image:
    affine = oblique_grid().affine.copy()
    affine[:3, 2] += 0.2 * affine[:3, 1]
    return ramp(Grid((12, 10, 7), affine))


def test_b24_what_cannot_be_written_leaves_nothing(tmp_path, ct):
    colour = Image(np.zeros((3, 12, 10, 7), np.float32), oblique_grid())
    for image, error in (
        (bad_values(np.nan), ResultError),
        (bad_values(np.inf), ResultError),
        (sheared(), UsageError),
        (colour, UsageError),
    ):
        with pytest.raises(error):
            save_series(tmp_path / "out", image, ct, RESAMPLED)
        assert list(tmp_path.iterdir()) == []


def test_b51_a_guessed_position_is_not_stated(tmp_path, ct):
    picture = ramp(oblique_grid().with_shape((12, 10, 1)))
    guessed = Image(picture.values, picture.grid, Header(is_oriented=False))
    with pytest.raises(UsageError, match="positions"):
        save_series(tmp_path / "out", guessed, ct, RESAMPLED)
    sources = write_sources(tmp_path / "dcm", guessed.grid, US)
    save_series(tmp_path / "out", guessed, sources, RESAMPLED)
    written = header(tmp_path / "out" / "0001.dcm")
    assert not {"ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID"} & set(written.dir())
    np.testing.assert_allclose(list(map(float, written.PixelSpacing)), guessed.grid.spacing_mm[[1, 0]])
    assert dciodvfy_errors(tmp_path / "out" / "0001.dcm") == []


def test_b50_sources_must_be_one_series(tmp_path, ct):
    other = write_sources(tmp_path / "other", oblique_grid(), StudyInstanceUID="1.2.3", PatientID="Meier")
    (tmp_path / "text.dcm").write_text("not DICOM")
    before = sorted(tmp_path.iterdir())
    for sources, error in (
        ([], UsageError),
        ([tmp_path / "missing.dcm"], NotFoundError),
        ([tmp_path / "text.dcm"], InputError),
        ([*ct, *other], InputError),
    ):
        with pytest.raises(error) as raised:
            save_series(tmp_path / "out", ramp(oblique_grid()), sources, RESAMPLED)
        assert "Meier" not in str(raised.value)  # B45
    assert sorted(tmp_path.iterdir()) == before


def test_b55_force_replaces_only_what_nfops_made(tmp_path, ct):
    image = ramp(oblique_grid())
    save_series(tmp_path / "out", image, ct, RESAMPLED)
    with pytest.raises(OutputError, match="exists already"):
        save_series(tmp_path / "out", image, ct, RESAMPLED)
    smaller = ramp(oblique_grid().with_shape((12, 10, 3)))
    save_series(tmp_path / "out", smaller, ct, DerivedOptions("t", "r", True, True, force=True))
    assert len(list((tmp_path / "out").iterdir())) == 3
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="something else"):
        refuse_series(tmp_path / "out", ct, force=True)
    foreign = write_sources(tmp_path / "foreign", oblique_grid())
    with pytest.raises(OutputError, match="something else"):
        refuse_series(tmp_path / "foreign", ct, force=True)
    with pytest.raises(OutputError, match="input"):
        refuse_series(tmp_path / "foreign", foreign, force=True)


def test_c50_an_interruption_leaves_the_old_folder(tmp_path, ct, monkeypatch):
    save_series(tmp_path / "out", ramp(oblique_grid()), ct, RESAMPLED)
    before = uids(tmp_path / "out")

    def interrupted(path, *_):
        if path.name == "0003.dcm":
            raise KeyboardInterrupt

    monkeypatch.setattr("nfops.io.dicom.writing.derived.read_back", interrupted)
    options = DerivedOptions("t", "other", True, True, force=True)
    with pytest.raises(KeyboardInterrupt):
        save_series(tmp_path / "out", ramp(oblique_grid()), ct, options)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert uids(tmp_path / "out") == before


def test_c48_a_full_disk_leaves_nothing(tmp_path, ct, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr("nfops.io.dicom.writing.derived.write_part10", full)
    with pytest.raises(OutputError, match="disk is full"):
        save_series(tmp_path / "out", ramp(oblique_grid()), ct, RESAMPLED)
    assert list(tmp_path.iterdir()) == []


def test_c49_what_the_disk_changed_is_not_published(tmp_path, ct, monkeypatch):
    from nfops.io.dicom.writing import part10

    def damaging(path, header, pixels):
        part10.write_part10(path, header, pixels)
        path.write_bytes(path.read_bytes()[:-2] + b"\x7f\x7f")

    monkeypatch.setattr("nfops.io.dicom.writing.derived.write_part10", damaging)
    with pytest.raises(OutputError, match="read back"):
        save_series(tmp_path / "out", ramp(oblique_grid()), ct, RESAMPLED)
    assert list(tmp_path.iterdir()) == []


def test_derived_series_can_be_derived_from_again(tmp_path, ct):
    save_series(tmp_path / "one", ramp(oblique_grid()), ct, RESAMPLED)
    first = sorted((tmp_path / "one").iterdir())
    save_series(tmp_path / "two", ramp(oblique_grid()), first, RESAMPLED)
    written = header(tmp_path / "two" / "0001.dcm")
    makers = [item.Manufacturer for item in written.ContributingEquipmentSequence]
    assert makers == ["ACME", "nfops", "nfops"]
    assert dciodvfy_errors(tmp_path / "two" / "0001.dcm") == []


def test_b50_a_name_survives_every_character_set(tmp_path):
    name, charset = "Müller^Jürgen", "ISO_IR 100"
    sources = write_sources(tmp_path / "dcm", oblique_grid(), SpecificCharacterSet=charset, PatientName=name)
    for description, expected in (("plain", charset), ("größer", "ISO_IR 192"), ("小", "ISO_IR 192")):
        options = DerivedOptions(description, "resampled", True, True)
        save_series(tmp_path / description, ramp(oblique_grid()), sources, options)
        written = header(tmp_path / description / "0001.dcm")
        assert (str(written.PatientName), written.SeriesDescription) == (name, description)
        assert written.SpecificCharacterSet == expected
        assert dciodvfy_errors(tmp_path / description / "0001.dcm") == []


def test_b45_odd_values_are_kept_to_themselves(tmp_path, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        odd = {"PatientBirthDate": "secret", "PatientSex": "0", "BodyPartExamined": "the head", "StudyID": "S" * 40}
        sources = write_sources(tmp_path / "dcm", oblique_grid(), **odd, TimezoneOffsetFromUTC="?")
    save_series(tmp_path / "out", ramp(oblique_grid()), sources, RESAMPLED)  # a warning would be an error here
    written = header(tmp_path / "out" / "0001.dcm")
    assert not written.PatientBirthDate
    assert not written.PatientSex
    assert written.StudyID == "S" * 40  # a PACS files by it
    assert "secret" not in "".join(capfd.readouterr())


def test_b53_unknown_loss_is_still_loss(tmp_path):
    sources = write_sources(tmp_path / "dcm", oblique_grid(), LossyImageCompression="01")
    save_series(tmp_path / "out", ramp(oblique_grid()), sources, RESAMPLED)
    assert header(tmp_path / "out" / "0001.dcm").LossyImageCompression == "01"


def test_b52_a_mosaic_keeps_its_thickness(tmp_path, shared_data):
    image, sources = real_series(shared_data, "siemens_mosaic_ax")
    save_series(tmp_path / "out", image, sources, RESAMPLED)
    written = header(tmp_path / "out" / "0001.dcm")
    assert (written.SliceThickness, written.SpacingBetweenSlices) == (3, pytest.approx(3.6))

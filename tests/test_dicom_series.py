"""Which DICOM slices make which volume: grouping, order, geometry, and what is wrong with them (B30-B37, B43, B46)."""

import itertools
import random
import re
import shutil

import numpy as np
import pytest
from dicom_files import (
    GRID,
    LATER,
    RAMP,
    agree,
    by_dcm2niix,
    enhanced,
    expected,
    from_nifti,
    series,
    store_raw,
    write,
)
from dicom_sources import CT, by_highdicom, by_simpleitk, oblique_grid
from pydicom.uid import generate_uid

from nfops.errors import InputError, NothingMatchedError, UsageError
from nfops.grid import Grid
from nfops.io import Reading, describe_image, load_image

K = GRID.shape[2]
SHARED = [
    *("siemens_mosaic_ax", "siemens_mosaic_sag", "siemens_nih_ap", "ge_epi_small", "siemens_xa10_enhanced"),
    *("uih_dti_pa", "ts_explicit_le", "ts_implicit_le", "ts_rle", "ts_jpeg_lossless_sv1", "ts_jpegls", "siemens_hfs"),
    *("d2n_ge_anatomical", "d2n_philips_anatomical", "d2n_philips_enhanced", "d2n_hyperfine", "d2n_jpegls"),
]


@pytest.mark.parametrize("name", SHARED)
def test_b31_b32_b43_b46_shared_series_are_their_trusted_conversions(shared_data, name):
    folder = shared_data / "dicom" / name
    (reference,) = folder.glob("ref*.nii.gz")
    agree(load_image(folder / "dcm"), from_nifti(reference))


@pytest.mark.parametrize(
    ("name", "reference", "chosen"),
    [
        ("philips_fmri", "ref", None),
        ("philips_enhanced_fmap", "ref_1", "1"),
        ("philips_enhanced_fmap", "ref_2", "2"),
    ],
)
def test_b38_philips_series_are_their_conversions_up_to_the_private_scale(shared_data, name, reference, chosen):
    folder = shared_data / "dicom" / name
    read = load_image(folder / "dcm", Reading(series=chosen)).reoriented(("R", "A", "S"))
    truth = from_nifti(folder / f"{reference}.nii.gz").reoriented(("R", "A", "S"))
    np.testing.assert_allclose(read.grid.corners_mm, truth.grid.corners_mm, atol=1e-3)
    line = np.polyfit(read.values.ravel().astype(float), truth.values.ravel(), 1)
    assert np.abs(np.polyval(line, read.values.astype(float)) - truth.values).max() < 1e-6 * np.ptp(truth.values)


def test_b36_the_shared_tilted_ct(shared_data):
    folder = shared_data / "dicom" / "ct_philips_tilt"
    with pytest.raises(InputError, match=r"tilted.*18\.5 degrees.*--untilt"):
        load_image(folder / "dcm")
    assert any("tilted" in warning for warning in describe_image(folder / "dcm")["warnings"])
    read = load_image(folder / "dcm", Reading(untilt=True)).reoriented(("R", "A", "S"))
    truth = from_nifti(folder / "ref_201_0_Tilt_1.nii.gz").reoriented(("R", "A", "S"))
    assert read.values.shape == truth.values.shape
    np.testing.assert_allclose(read.grid.corners_mm, truth.grid.corners_mm, atol=1e-3)
    assert np.percentile(np.abs(read.values - truth.values), 99.5) < 5  # of 1800 units: it interpolates otherwise


# --- finding files ---------------------------------------------------------------------------------------------------


def test_b30_b32_any_order_any_names_any_depth(tmp_path):
    slices = series()
    random.Random(5).shuffle(slices)
    write(tmp_path / "a" / "b", slices[:2], "IM{:04}")
    write(tmp_path / "a" / "c d\n", slices[2:4], "é {}.ima")
    write(tmp_path / "a", slices[4:], "1.2.840.{}")
    (tmp_path / "a" / "notes.txt").write_text("a text file")
    (tmp_path / "a" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM rubbish")
    (tmp_path / "a" / ".hidden.dcm").write_bytes(b"\0" * 128 + b"DICM rubbish")
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "b" / "up").symlink_to("..")
    (tmp_path / "a" / "nowhere").symlink_to("not-there")
    agree(load_image(tmp_path / "a"), expected())


def test_b30_linked_folders_are_followed_once(tmp_path):
    write(tmp_path / "real", series())
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").symlink_to(tmp_path / "real")
    (tmp_path / "a" / "two").symlink_to(tmp_path / "real")
    read = load_image(tmp_path / "a")
    assert read.header.warnings == ()
    agree(read, expected())


def test_b30_c21_documents_are_counted(tmp_path):
    folder = write(tmp_path / "a", series())
    report = series()[0]
    for keyword in ("PixelData", "Rows", "Columns", "ImagePositionPatient"):
        delattr(report, keyword)
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.22"
    write(tmp_path / "a", [report], "sr")
    assert describe_image(folder)["warnings"] == ["1 files without image were left out (Enhanced SR Storage)"]
    agree(load_image(folder), expected())
    write(tmp_path / "b", [report], "sr")
    (tmp_path / "b" / "readme.txt").write_text("x")
    with pytest.raises(NothingMatchedError, match=r"no DICOM images \(2 files seen: 1 Enhanced SR Storage\)"):
        load_image(tmp_path / "b")
    with pytest.raises(InputError, match=r"holds no image.*Enhanced SR"):
        load_image(tmp_path / "b" / "sr")


# --- several series --------------------------------------------------------------------------------------------------


def several(folder):
    first, second = series(SeriesDescription="first"), series(oblique_grid((6, 5, 3)), SeriesNumber=9)
    write(folder, first, "a{}")
    write(folder, second, "b{}")
    return second[0].SeriesInstanceUID


def test_b31_c22_several_series_are_listed_and_chosen(tmp_path):
    uid = several(tmp_path / "x")
    listing = r'holds 2 series: 1: #4 "first" MR M 9x7x5; 2: #9 "ramp" MR M 6x5x3 \(choose one with --series N'
    with pytest.raises(InputError, match=listing):
        load_image(tmp_path / "x")
    for wanted in ("2", "#9", uid):
        agree(load_image(tmp_path / "x", Reading(series=wanted)), expected(oblique_grid((6, 5, 3))))
    for wanted in ("3", "0", "-1", "#5", "1.2", ""):
        with pytest.raises(UsageError, match=r"none of the series is.*1: #4"):
            load_image(tmp_path / "x", Reading(series=wanted))
    assert [each["index"] for each in describe_image(tmp_path / "x")["series"]] == [1, 2]


def by_frame(slices, keyword, values):
    for dataset, value in zip(slices, values, strict=True):
        setattr(dataset, keyword, value)
    return slices


def halves(keyword, one, two):
    return by_frame(series(volumes=2), keyword, [one] * K + [two] * K)


def turned():
    flat, steep = series(), series(Grid(GRID.shape, np.eye(4)[[1, 2, 0, 3]] @ GRID.affine))
    by_frame(steep, "InstanceNumber", range(K + 1, 2 * K + 1))
    return flat + by_frame(steep, "SeriesInstanceUID", [flat[0].SeriesInstanceUID] * K)


def stations():
    moved = GRID.affine.copy()
    moved[:3, 3] += 6 * moved[:3, 1]
    upper, lower = series(), series(Grid(GRID.shape, moved))
    by_frame(lower, "InstanceNumber", range(K + 1, 2 * K + 1))
    return upper + by_frame(lower, "SeriesInstanceUID", [upper[0].SeriesInstanceUID] * K)


def overlapping():
    lower, upper = series(oblique_grid((9, 7, 6))), series(oblique_grid((9, 7, 9)))[4:]
    by_frame(upper, "AcquisitionNumber", [2] * 5)
    by_frame(upper, "InstanceNumber", range(7, 12))
    return lower + by_frame(upper, "SeriesInstanceUID", [lower[0].SeriesInstanceUID] * 5)


@pytest.mark.parametrize(
    ("slices", "title"),
    [
        (lambda: halves("ImageType", ["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]), "MR P "),
        (lambda: halves("ComplexImageComponent", "MAGNITUDE", "PHASE"), "M/PHASE"),
        (turned, "from"),
        (stations, "from"),
        (overlapping, "9x7x6; 2"),
    ],
)
def test_b31_one_series_of_several_volumes_is_split(tmp_path, slices, title):
    made = slices()
    random.Random(1).shuffle(made)
    with pytest.raises(InputError, match="holds 2 series") as raised:
        load_image(write(tmp_path / "x", made))
    assert title in str(raised.value)
    one, two = (load_image(tmp_path / "x", Reading(series=n)) for n in "12")
    for read in (one, two):
        ramp = read.grid.points_mm() @ RAMP
        rest = (read.values[0] - ramp) / LATER
        assert np.ptp(rest) < 1e-4, "the volumes were mixed"


def test_b31_echoes_are_the_fourth_axis_one_after_the_other(tmp_path):
    """Though the times of both alternate: two echoes of two volumes."""
    slices = series(volumes=4)
    by_frame(slices, "EchoTime", [(7.38, 4.92)[n // K % 2] for n in range(4 * K)])
    random.Random(1).shuffle(slices)
    image = load_image(write(tmp_path / "x", slices))
    agree(image.with_values(image.values[[2, 0, 3, 1]]), expected(volumes=4))
    (listed,) = describe_image(tmp_path / "x")["series"]
    assert "TE 4.92, 7.38 ms" in listed["title"]


def test_c27_a_slice_of_another_size_is_a_series_of_its_own(tmp_path):
    slices = series()
    store_raw(slices[-1], np.zeros((8, 8), np.int16))
    with pytest.raises(InputError, match=r"holds 2 series: .*9x7x4; .*8x8x1"):
        load_image(write(tmp_path / "x", slices))


# --- the order of volumes --------------------------------------------------------------------------------------------


def noise(low, high):
    return [random.Random(n).uniform(low, high) for n in range(3 * K)]


TIMES = {
    "volume after volume": {},
    "slice after slice": {"InstanceNumber": [3 * k + t + 1 for t in range(3) for k in range(K)]},
    "trigger per slice": {"TriggerTime": noise(0, 900)},
    "trigger grows by slice": {"TriggerTime": [10.0 * n for n in range(3 * K)]},
    "acquisition per slice": {"AcquisitionNumber": [int(n) for n in noise(1, 99)]},
    "one temporal position": {"TemporalPositionIdentifier": [1] * 3 * K},
    "temporal positions that fall": {"TemporalPositionIdentifier": [3 - n // K for n in range(3 * K)]},
    "echo time in some": {"EchoTime": [None if n % 3 else 5 for n in range(3 * K)]},
    "b-values that fall": {"DiffusionBValue": [1000.0 - 500 * (n // K) for n in range(3 * K)]},
    "numbers of slices, acquisitions of volumes": {
        "InstanceNumber": [n % K + 1 for n in range(3 * K)],
        "AcquisitionNumber": [n // K + 1 for n in range(3 * K)],
    },
    "numbers of slices, times of volumes": {
        "InstanceNumber": [n % K + 1 for n in range(3 * K)],
        "AcquisitionTime": [f"1010{n // K:02}.5" for n in range(3 * K)],
    },
    "numbers at random, temporal positions of volumes": {
        "InstanceNumber": random.Random(2).sample(range(99), 3 * K),
        "TemporalPositionIdentifier": [n // K + 1 for n in range(3 * K)],
    },
    "every second slice, then the others": {
        "InstanceNumber": [n // K * K + (n * 2) % K + 1 for n in range(3 * K)],
    },
}


@pytest.mark.parametrize("name", TIMES)
def test_b31_the_fourth_axis_is_in_the_order_of_the_instance_numbers(tmp_path, name):
    slices = series(volumes=3)
    for keyword, values in TIMES[name].items():
        by_frame(slices, keyword, values)
    for dataset in slices:
        if dataset.get("EchoTime", 0) is None:
            del dataset.EchoTime
    random.Random(4).shuffle(slices)
    agree(load_image(write(tmp_path / "x", slices)), expected(volumes=3))


def test_b31_numbers_that_fall_order_as_dcm2niix_does(tmp_path):
    slices = series(volumes=2)
    folder = write(tmp_path / "x", by_frame(slices, "InstanceNumber", range(2 * K, 0, -1)))
    read = load_image(folder)
    agree(read, expected(volumes=2).with_values(expected(volumes=2).values[::-1]))
    for theirs in by_dcm2niix(folder, tmp_path / "out"):
        agree(read, theirs)


def test_b33_a_volume_that_lacks_a_slice_is_refused(tmp_path):
    slices = series(volumes=3)
    with pytest.raises(InputError, match=r"2 images at the position .*, 3 at most others .*lacks slices"):
        load_image(write(tmp_path / "x", slices[:-1]))


def of_frames(frames):
    """What an enhanced file says of frames (time, slice)."""
    return [
        {
            "FrameContentSequence.StackID": "1",
            "FrameContentSequence.InStackPositionNumber": k + 1,
            "FrameContentSequence.DimensionIndexValues": [1, k + 1, t + 1],
        }
        for t, k in frames
    ]


@pytest.mark.parametrize("order", ["time", "slice", "random"])
def test_b43_enhanced_files_in_any_order_of_frames(tmp_path, order):
    frames = list(itertools.product(range(3), range(K)))
    if order == "slice":
        frames.sort(key=lambda frame: frame[1])
    elif order == "random":
        random.Random(6).shuffle(frames)
    slices = series(volumes=3)
    whole = enhanced([slices[t * K + k] for t, k in frames], of_frames(frames))
    agree(load_image(write(tmp_path / "x", [whole]) / "000.dcm"), expected(volumes=3))


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("MRImageFrameTypeSequence.FrameType", [["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]]),
        ("FrameContentSequence.StackID", ["1", "2"]),
    ],
)
def test_b43_kinds_of_frames_in_one_enhanced_file_are_split(tmp_path, keyword, values):
    slices = series(volumes=2)
    whole = enhanced(slices, [{keyword: values[n // K]} for n in range(2 * K)])
    path = write(tmp_path, [whole]) / "000.dcm"
    with pytest.raises(InputError, match="holds 2 series"):
        load_image(path)
    later = expected().with_values(expected().values + LATER)
    agree(load_image(path, Reading(series="1")), expected())
    agree(load_image(path, Reading(series="2")), later)


def test_b43_numbers_of_frames_that_differ_by_slice_split_nothing(tmp_path):
    contents = [
        {
            "FrameContentSequence.StackID": str(n),
            "FrameContentSequence.FrameAcquisitionNumber": n,
            "FrameContentSequence.TemporalPositionIndex": n,
        }
        for n in range(K)
    ]
    agree(load_image(write(tmp_path, [enhanced(series(), contents)])), expected())


def test_b43_enhanced_files_of_one_volume_each_are_one_image(tmp_path):
    slices = series(volumes=4)
    files = []
    for t, b_value in enumerate((0.0, 1000.0, 0.0, 1000.0)):  # Siemens XA diffusion: b0 images in between
        contents = [{"MRDiffusionSequence.DiffusionBValue": b_value}] * K
        files.append(enhanced(slices[t * K : t * K + K], contents))
        files[-1].InstanceNumber = t + 1
    agree(load_image(write(tmp_path, files[::-1])), expected(volumes=4))


def test_b43_fewer_groups_than_frames(tmp_path):
    whole = enhanced(series())
    del whole.PerFrameFunctionalGroupsSequence[-1]
    with pytest.raises(InputError, match="describes 4 of its 5 frames"):
        load_image(write(tmp_path, [whole]))


# --- copies ----------------------------------------------------------------------------------------------------------


def test_b34_copies_are_left_out(tmp_path):
    slices = series()
    folder = write(tmp_path / "x", slices)
    shutil.copy(folder / "002.dcm", folder / "copy of 2.dcm")
    renamed = series(SeriesInstanceUID=slices[0].SeriesInstanceUID)
    write(folder, renamed[3:4], "new uid")
    read = load_image(folder)
    assert read.header.warnings == ("2 copies of images were left out",)
    agree(read, expected())


def test_b34_a_whole_series_twice(tmp_path):
    slices = series()
    folder = write(tmp_path / "x", slices)
    shutil.copytree(folder, folder / "again")
    agree(load_image(folder), expected())
    renewed = by_frame(slices, "SOPInstanceUID", [generate_uid() for _ in slices])
    write(folder / "new uids", renewed)
    agree(load_image(folder), expected())


@pytest.mark.parametrize("which", [[2], range(K)])
@pytest.mark.parametrize("is_new", [True, False])
def test_b34_c24_two_images_at_one_place_are_refused(tmp_path, which, is_new):
    slices = series()
    folder = write(tmp_path / "x", slices)
    for k in which:
        slices[k].PixelData = bytes(len(slices[k].PixelData))
        if is_new:
            slices[k].SOPInstanceUID = generate_uid()
    write(folder, [slices[k] for k in which], "other {}")
    what = "two different images at the position" if is_new else "claim to be the same image and are not"
    with pytest.raises(InputError, match=what):
        load_image(folder)


def test_b34_an_anonymiser_that_gave_all_one_uid(tmp_path):
    agree(load_image(write(tmp_path / "x", series(SOPInstanceUID="1.2.3"))), expected())
    many = series(volumes=2, SOPInstanceUID="1.2.3")
    agree(load_image(write(tmp_path / "y", many)), expected(volumes=2))


# --- slices that make no rectangular grid ----------------------------------------------------------------------------


def test_b33_c23_a_missing_slice_is_refused_and_may_be_filled(tmp_path):
    slices = series(oblique_grid((9, 7, 8)))
    del slices[3]
    folder = write(tmp_path / "x", slices)
    with pytest.raises(InputError, match=r"a slice is missing: 6\.2 mm .* 3\.1 mm elsewhere .*--resample-uniform"):
        load_image(folder)
    assert any("missing" in warning for warning in describe_image(folder)["warnings"])
    with pytest.raises(InputError, match="missing"):
        load_image(folder, Reading(untilt=True))
    read = load_image(folder, Reading(resample_uniform=True))
    assert "resampled linearly" in read.header.warnings[0]
    agree(read, expected(oblique_grid((9, 7, 8))))


def test_b35_jitter_passes_and_uneven_steps_do_not(tmp_path):
    place = random.Random(3)
    slices = series()
    for dataset in slices:
        moved = [float(v) + place.uniform(-0.003, 0.003) for v in dataset.ImagePositionPatient]
        dataset.ImagePositionPatient = [f"{v:.6f}" for v in moved]
        turned = [float(v) + place.uniform(-1e-5, 1e-5) for v in dataset.ImageOrientationPatient]
        dataset.ImageOrientationPatient = [f"{v:.7f}" for v in turned]
    read = load_image(write(tmp_path / "x", slices))
    assert read.header.warnings == ()
    np.testing.assert_allclose(read.grid.corners_mm, GRID.corners_mm, atol=0.01)


def test_b35_c26_uneven_steps(tmp_path):
    heights = [0.0, 3.0, 6.2, 9.1, 12.0, 15.4]
    folder = write(tmp_path / "x", series(heights_mm=heights))
    with pytest.raises(InputError, match=r"uneven distances, from 2\.9 to 3\.4 mm \(--resample-uniform"):
        load_image(folder)
    read = load_image(folder, Reading(resample_uniform=True))
    np.testing.assert_allclose(read.grid.spacing_mm[2], 15.4 / 5)
    np.testing.assert_allclose(read.values[0], read.grid.points_mm() @ RAMP, atol=1e-3)


@pytest.mark.parametrize("shift", [(0.0, 0.3), (0.0, -0.3), (0.25, 0.0), (-0.2, 0.35)])
def test_b36_c25_a_tilted_gantry(tmp_path, shift):
    grid = oblique_grid((24, 22, 6), (1.1, 0.9, 2.5))
    folder = write(tmp_path / "x", series(grid, shift_mm=shift, sop_class=CT, GantryDetectorTilt=0))
    for reading in (Reading(), Reading(resample_uniform=True)):
        with pytest.raises(InputError, match=r"tilted acquisition.* degrees \(--untilt"):
            load_image(folder, reading)
    read = load_image(folder, Reading(untilt=True))
    assert read.grid.is_orthogonal()
    inner = np.s_[8:-8, 8:-8, :]
    np.testing.assert_allclose(read.values[0][inner], (read.grid.points_mm() @ RAMP)[inner], atol=1e-3)
    for corner in series(grid, shift_mm=shift)[0], series(grid, shift_mm=shift)[-1]:
        place = np.array(corner.ImagePositionPatient, float) * [-1, -1, 1]
        index = np.linalg.inv(read.grid.affine) @ [*place, 1]
        assert (index[:3] > -0.01).all()
        assert (index[:3] < np.array(read.grid.shape) - 0.99).all()


def test_b36_tilted_and_uneven_need_both(tmp_path):
    heights = [0.0, 2.5, 5.0, 10.0, 12.5]
    grid = oblique_grid((24, 22, 5), (1.1, 0.9, 2.5))
    folder = write(tmp_path / "x", series(grid, heights_mm=heights, shift_mm=(0.0, 0.3)))
    for reading in (Reading(untilt=True), Reading(resample_uniform=True)):
        with pytest.raises(InputError):
            load_image(folder, reading)
    read = load_image(folder, Reading(untilt=True, resample_uniform=True))
    inner = np.s_[8:-8, 8:-8, :]
    np.testing.assert_allclose(read.values[0][inner], (read.grid.points_mm() @ RAMP)[inner], atol=1e-3)


def test_b36_slices_that_wander_lie_on_no_grid(tmp_path):
    slices = series()
    slices[2].ImagePositionPatient = [float(v) + 2 for v in slices[2].ImagePositionPatient]
    with pytest.raises(InputError, match=r"slice|uneven|missing"):
        load_image(write(tmp_path / "x", slices), Reading(untilt=True))


# --- positions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flips", list(itertools.product((1, -1), repeat=3)))
def test_b32_every_way_to_lie(tmp_path, flips):
    """Decubitus, prone, feet first: only positions count."""
    grid = oblique_grid((9, 7, 5), flips=flips)
    slices = series(grid, PatientPosition="FFDL", SliceThickness="", SpacingBetweenSlices=-3.1)
    for dataset, k in zip(slices, range(K, 0, -1), strict=True):
        dataset.InstanceNumber, dataset.SliceLocation = k, 5.0
    folder = write(tmp_path / "x", slices)
    agree(load_image(folder), expected(grid))


def test_b32_highdicom_and_simpleitk_and_dcm2niix_read_the_same(tmp_path):
    folder = write(tmp_path / "x", series())
    read = load_image(folder)
    for theirs in (by_highdicom(folder), by_simpleitk(folder), *by_dcm2niix(folder, tmp_path / "out")):
        np.testing.assert_allclose(
            read.reoriented(("R", "A", "S")).grid.affine, theirs.reoriented(("R", "A", "S")).grid.affine, atol=1e-4
        )
        if theirs.values[0].max() < 1e6:  # highdicom gives stored values
            agree(read, theirs)


def test_b37_one_slice_and_one_file(tmp_path):
    grid = oblique_grid((9, 7, 1))
    folder = write(tmp_path / "x", series(grid))
    for scan in (folder, folder / "000.dcm"):
        read = load_image(scan)
        assert read.grid.shape == (9, 7, 1)
        agree(read, expected(grid))
    (only,) = series(grid, SpacingBetweenSlices=7.5)
    assert load_image(write(tmp_path / "y", [only])).grid.spacing_mm[2] == pytest.approx(7.5)
    only.SliceThickness = only.SpacingBetweenSlices = ""
    assert load_image(write(tmp_path / "z", [only])).grid.spacing_mm[2] == 1


def test_b46_a_mosaic_whose_normal_is_opposite_counts_the_other_way(shared_data, tmp_path):
    source = next(path for path in sorted((shared_data / "dicom/siemens_mosaic_ax/dcm").iterdir()))
    content = source.read_bytes()
    start = content.index(b"SliceNormalVector\0")
    part = content[start : start + 250]
    for found in set(re.findall(rb"-?[01]\.[0-9]{6,}", part)):
        part = part.replace(found, b"0" + found[1:] if found.startswith(b"-") else b"-" + found[:-1])
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "1.dcm").write_bytes(content[:start] + part + content[start + 250 :])
    usual, opposite = load_image(source), load_image(tmp_path / "x")
    np.testing.assert_array_equal(opposite.values, usual.values[..., ::-1])
    step = usual.grid.affine[:3, 2]
    np.testing.assert_allclose(opposite.grid.affine[:3, 3], usual.grid.affine[:3, 3] - 34 * step, atol=1e-3)
    for theirs in by_dcm2niix(tmp_path / "x", tmp_path / "out"):
        agree(opposite, theirs)


def test_b33_every_second_slice_missing_is_wondered_at(tmp_path):
    slices = series()
    for dataset in slices:
        dataset.SpacingBetweenSlices = str(GRID.spacing_mm[2] / 2)
    (note,) = load_image(write(tmp_path / "x", slices)).header.warnings
    assert "are some missing?" in note


def test_b31_a_series_uid_that_came_twice_is_two_series(tmp_path):
    slices = series(volumes=2)
    by_frame(slices, "PatientID", ["A"] * K + ["B"] * K)
    with pytest.raises(InputError, match="holds 2 series"):
        load_image(write(tmp_path / "x", slices))


def test_b30_what_was_left_out_is_counted(tmp_path):
    folder = write(tmp_path / "x", series())
    (folder / "notes.dcm").write_text("a note")
    assert "1 files that are no DICOM were left out" in describe_image(folder)["warnings"]

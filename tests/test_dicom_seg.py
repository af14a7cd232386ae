"""Labels as DICOM segmentations: at the right place, valid, and referring to the real sources (B54)."""

import highdicom
import numpy as np
import pytest
from dicom_sources import CT, DX, MR, PET, US, dciodvfy_errors, header, oblique_grid, series_files, write_sources

from nfops.errors import InputError, OutputError, ResultError, UsageError
from nfops.grid import Grid
from nfops.image import Header, Image
from nfops.io import load_image
from nfops.io.dicom.writing.segmentation import SegmentationOptions, save_segmentation

OPTIONS = SegmentationOptions("labels", "a recipe")
NAMES = {2: "Liver", 7: "Spleen", 9: "not there"}
REAL = (
    *("siemens_hfs", "d2n_ge_anatomical", "ct_philips_tilt", "siemens_mosaic_ax", "siemens_xa10_enhanced"),
    *("d2n_philips_enhanced", "uih_dti_pa", "ge_epi_small"),
)


def labels_on(grid: Grid) -> Image:
    """Two boxes without a symmetry, one reaching the first slice."""
    values = np.zeros(grid.shape, np.float32)
    i, j, k = grid.shape
    values[: i // 2, j // 3 :, : max(1, k // 2)] = 2
    values[i // 2 :, : j // 2, k // 3 :] = 7
    values[0, 0, 0] = 7
    return Image(values[None], grid)


def placed_labels(path) -> dict[tuple, int]:
    """The place in the body, in hundredths of a mm, and the segment of every voxel that has one."""
    volume = highdicom.seg.segread(path).get_volume(combine_segments=True, allow_missing_positions=True)
    index = np.argwhere(volume.array)
    points = index @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    places = np.rint(points * [-1, -1, 1] * 100).astype(int)
    return dict(zip(map(tuple, places), volume.array[tuple(index.T)], strict=True))


def expected_labels(image: Image) -> dict[tuple, int]:
    inside = image.values[0] != 0
    places = np.rint(image.grid.points_mm()[inside] * 100).astype(int)
    return dict(zip(map(tuple, places), np.where(image.values[0][inside] == 2, 1, 2), strict=True))


def same_place(found: dict, expected: dict) -> bool:
    """Every voxel has its label within a hundredth of a mm."""
    assert len(found) == len(expected)
    mine, theirs = (np.array([(*place, label) for place, label in sorted(side.items())]) for side in (found, expected))
    if np.abs(mine - theirs).max() <= 1:
        return True
    distances = np.abs(mine[:, None] - theirs[None]).max(axis=2) if len(mine) < 4000 else np.array([[2]])
    return bool((distances.min(axis=1) <= 1).all() and (distances.min(axis=0) <= 1).all())


@pytest.mark.parametrize("sop_class", [CT, MR, PET, US])
def test_b54_labels_come_back_at_their_place(tmp_path, sop_class):
    sources = write_sources(tmp_path / "dcm", oblique_grid(), sop_class)
    image = labels_on(oblique_grid())
    assert save_segmentation(tmp_path / "seg.dcm", image, sources, NAMES, OPTIONS) == ()
    assert same_place(placed_labels(tmp_path / "seg.dcm"), expected_labels(image))
    assert dciodvfy_errors(tmp_path / "seg.dcm") == []


@pytest.mark.parametrize(
    "grid",
    [
        oblique_grid(flips=(1, 1, -1)),
        oblique_grid(flips=(-1, 1, 1)),
        oblique_grid().with_shape((9, 23, 4)),
        oblique_grid().with_shape((12, 10, 1)),
        oblique_grid().reoriented(oblique_grid().reorientation(("S", "L", "A"))),
    ],
    ids=["left-handed", "flipped", "other-shape", "one-slice", "other-axes"],
)
def test_b54_labels_on_another_grid_are_placed_right(tmp_path, grid):
    sources = write_sources(tmp_path / "dcm", oblique_grid())
    image = labels_on(grid)
    save_segmentation(tmp_path / "seg.dcm", image, sources, NAMES, OPTIONS)
    assert same_place(placed_labels(tmp_path / "seg.dcm"), expected_labels(image))
    assert dciodvfy_errors(tmp_path / "seg.dcm") == []


@pytest.mark.parametrize("name", REAL)
def test_b54_real_sources(tmp_path, shared_data, name):
    folder = shared_data / "dicom" / name
    grid = load_image(sorted(folder.glob("ref*.nii.gz"))[-1]).grid.with_shape((13, 11, 5))
    sources = series_files(folder / "dcm")
    save_segmentation(tmp_path / "seg.dcm", labels_on(grid), sources, NAMES, OPTIONS)
    assert same_place(placed_labels(tmp_path / "seg.dcm"), expected_labels(labels_on(grid)))
    assert dciodvfy_errors(tmp_path / "seg.dcm") == []
    real = {str(header(path).SOPInstanceUID) for path in sources}
    assert referenced(tmp_path / "seg.dcm") <= real


def referenced(path) -> set[str]:
    """Every instance that the object names, wherever it does."""
    found = set()
    header(path).walk(
        lambda _, element: found.add(str(element.value)) if element.keyword == "ReferencedSOPInstanceUID" else None
    )
    return found


def test_b54_frames_name_the_sources_on_their_plane(tmp_path):
    sources = write_sources(tmp_path / "dcm", oblique_grid())
    save_segmentation(tmp_path / "seg.dcm", labels_on(oblique_grid()), sources, NAMES, OPTIONS)
    written = header(tmp_path / "seg.dcm")
    for frame in written.PerFrameFunctionalGroupsSequence:
        (item,) = frame.DerivationImageSequence[0].SourceImageSequence
        source = header(next(p for p in sources if header(p).SOPInstanceUID == item.ReferencedSOPInstanceUID))
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(position, source.ImagePositionPatient, atol=1e-3)
    assert referenced(tmp_path / "seg.dcm") == {str(header(path).SOPInstanceUID) for path in sources}


def test_b54_segments_are_named_and_coded(tmp_path):
    sources = write_sources(tmp_path / "dcm", oblique_grid())
    codes = {2: (("123037004", "SCT", "Anatomical Structure"), ("10200004", "SCT", "Liver"))}
    options = SegmentationOptions("labels", "a recipe", codes)
    warnings = save_segmentation(tmp_path / "seg.dcm", labels_on(oblique_grid()), sources, {2: "Liver"}, options)
    assert warnings == ("labels without a name: 7",)
    written = header(tmp_path / "seg.dcm")
    liver, other = written.SegmentSequence
    assert (liver.SegmentNumber, liver.SegmentLabel, other.SegmentLabel) == (1, "Liver", "label 7")
    assert liver.SegmentedPropertyTypeCodeSequence[0].CodeValue == "10200004"
    assert other.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Tissue"
    algorithm = liver.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmSource) == ("a recipe", "nfops")
    assert (written.SeriesNumber, written.SegmentationType, written.PatientID) == (401, "BINARY", "J1")
    assert "not for diagnostic use" in written.ImageComments
    assert dciodvfy_errors(tmp_path / "seg.dcm") == []


def test_b50_the_same_labels_have_the_same_uids(tmp_path):
    sources = write_sources(tmp_path / "dcm", oblique_grid())
    image = labels_on(oblique_grid())
    changed = image.values.copy()
    changed[0, 5, 5, 5] = 2
    save_segmentation(tmp_path / "a.dcm", image, sources, NAMES, OPTIONS)
    save_segmentation(tmp_path / "b.dcm", image, sources[::-1], NAMES, OPTIONS)
    save_segmentation(tmp_path / "c.dcm", Image(changed, image.grid), sources, NAMES, OPTIONS)
    save_segmentation(tmp_path / "d.dcm", image, sources, {**NAMES, 2: "Leber"}, OPTIONS)
    uids = [
        (str(h.SeriesInstanceUID), str(h.SOPInstanceUID)) for h in (header(p) for p in sorted(tmp_path.glob("*.dcm")))
    ]
    assert uids[0] == uids[1]
    assert len({uid for pair in uids for uid in pair}) == 6


def test_b54_what_is_no_label_leaves_nothing(tmp_path):
    sources = write_sources(tmp_path / "dcm", oblique_grid())
    image = labels_on(oblique_grid())
    sheared = image.grid.affine.copy()
    sheared[:3, 2] += 0.2 * sheared[:3, 1]
    bad = {
        ResultError: [Image(image.values + np.float32(value), image.grid) for value in (0.5, -8, 70000, np.nan)],
        UsageError: [
            Image(np.repeat(image.values, 3, axis=0), image.grid),
            Image(image.values, Grid(image.grid.shape, sheared)),
        ],
    }
    for error, images in bad.items():
        for wrong in images:
            with pytest.raises(error):
                save_segmentation(tmp_path / "seg.dcm", wrong, sources, NAMES, OPTIONS)
    with pytest.raises(UsageError, match="at least one label"):
        save_segmentation(tmp_path / "seg.dcm", image.with_values(image.values * 0), sources, {}, OPTIONS)
    with pytest.raises(OutputError, match="input"):
        save_segmentation(sources[0], image, sources, NAMES, SegmentationOptions("t", "r", force=True))
    (tmp_path / "dcm" / "text").write_text("no")
    with pytest.raises(InputError):
        save_segmentation(tmp_path / "seg.dcm", image, [tmp_path / "dcm" / "text"], NAMES, OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["dcm"]


def test_b54_a_picture_without_a_position(tmp_path):
    grid = oblique_grid().with_shape((12, 10, 1))
    sources = write_sources(tmp_path / "dcm", grid, DX)
    labels = labels_on(grid)
    picture = Image(labels.values, grid, Header(is_oriented=False))
    save_segmentation(tmp_path / "seg.dcm", picture, sources, NAMES, OPTIONS)
    written = header(tmp_path / "seg.dcm")
    assert "FrameOfReferenceUID" not in written
    segments = highdicom.seg.segread(tmp_path / "seg.dcm").get_pixels_by_source_instance(
        [header(sources[0]).SOPInstanceUID], combine_segments=True, ignore_spatial_locations=True
    )
    np.testing.assert_array_equal(segments[0].T, np.searchsorted([0, 2, 7], labels.values[0, ..., 0]))
    assert dciodvfy_errors(tmp_path / "seg.dcm") == []


def test_b54_no_voxel_at_all_is_a_result(tmp_path):
    sources = write_sources(tmp_path / "dcm", oblique_grid())
    empty = Image(np.zeros((1, 12, 10, 7), np.float32), oblique_grid())
    save_segmentation(tmp_path / "seg.dcm", empty, sources, NAMES, OPTIONS)
    assert placed_labels(tmp_path / "seg.dcm") == {}
    assert dciodvfy_errors(tmp_path / "seg.dcm") == []

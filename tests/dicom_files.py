"""Synthetic DICOM series whose values are a ramp over the body: a voxel in a wrong place has a wrong value."""

import itertools
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
from dicom_sources import CT, MR, oblique_grid
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from nfops.grid import Grid
from nfops.image import Header, Image

RAMP = np.array([1.37, 0.83, 2.11])
"""Value per mm along R, A and S."""

LATER = 500.0
"""How much the values of each volume are above those of the volume before."""

SECRETS = ("SECRET", "ID-4711", "19521231")
SLOPE = 1e-5
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
LPS = np.diag([-1.0, -1.0, 1.0])
GRID = oblique_grid((9, 7, 5))


def expected(grid: Grid = GRID, volumes: int = 1) -> Image:
    """What a reader should make of `series` on the same grid."""
    ramp = grid.points_mm() @ RAMP
    values = np.stack([ramp + LATER * t for t in range(volumes)]).astype(np.float32)
    return Image(values, grid, Header(ndim=4 if volumes > 1 else 3))


def series(
    grid: Grid = GRID,
    *,
    volumes: int = 1,
    heights_mm: Sequence[float] | None = None,
    shift_mm: tuple[float, float] = (0.0, 0.0),
    sop_class: str = MR,
    **elements: object,
) -> list[Dataset]:
    """One dataset for each slice, volume after volume, values at 1e-5.

    heights_mm: of the slices above the first, instead of the grid's. shift_mm: along columns and rows for each mm of
    height, a gantry tilt. elements: the same in all of them; tests change single ones afterwards.
    """
    row, column, normal = grid.directions.T
    heights = grid.spacing_mm[2] * np.arange(grid.shape[2]) if heights_mm is None else heights_mm
    moves = [h * (normal + shift_mm[0] * row + shift_mm[1] * column) for h in heights]
    uid = generate_uid()
    made = []
    for t, (k, move) in itertools.product(range(volumes), enumerate(moves)):
        affine = grid.affine.copy()
        affine[:3, 3] += move
        plane = Grid((*grid.shape[:2], 1), affine)
        dataset = _described(uid, sop_class, t * len(moves) + k + 1)
        _place(dataset, plane, thickness_mm=float(grid.spacing_mm[2]))
        store(dataset, (plane.points_mm() @ RAMP)[..., 0].T + LATER * t)
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
        made.append(dataset)
    return made


def store(dataset: Dataset, values: np.ndarray, slope: float = SLOPE) -> None:
    """Put (rows, columns) values into a dataset as signed 32-bit numbers with a slope."""
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 32
    dataset.HighBit, dataset.PixelRepresentation = 31, 1
    dataset.RescaleSlope, dataset.RescaleIntercept = f"{slope:.10g}", "0"
    dataset.PixelData = np.round(values / slope).astype("<i4").tobytes()


def store_raw(dataset: Dataset, stored: np.ndarray, **elements: object) -> None:
    """Put whole numbers into a dataset as they are, without a rescale unless `elements` say one."""
    dataset.Rows, dataset.Columns = stored.shape[:2]
    dataset.BitsAllocated = dataset.BitsStored = 8 * stored.dtype.itemsize
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(stored.dtype.kind == "i")
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        if keyword in dataset:
            delattr(dataset, keyword)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)


def _described(uid: str, sop_class: str, number: int) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = "1.2.3.4", uid, "1.2.3.5"
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "SECRET^NAME", "ID-4711", "19521231"
    dataset.StudyDate, dataset.Manufacturer, dataset.SeriesDescription = "20240203", "ACME", "ramp"
    dataset.Modality = "CT" if sop_class == CT else "MR"
    dataset.SeriesNumber, dataset.InstanceNumber, dataset.AcquisitionNumber = 4, number, 1
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    return dataset


def _place(dataset: Dataset, plane: Grid, thickness_mm: float) -> None:
    dataset.PixelSpacing = [f"{s:.10g}" for s in (plane.spacing_mm[1], plane.spacing_mm[0])]
    dataset.SliceThickness = f"{thickness_mm:.10g}"
    dataset.ImagePositionPatient = [f"{v:.9f}" for v in LPS @ plane.affine[:3, 3]]
    dataset.ImageOrientationPatient = [f"{v:.11f}" for v in (LPS @ plane.directions[:, :2]).T.ravel()]


def write(folder: Path, datasets: Sequence[Dataset], name: str = "{:03}.dcm") -> Path:
    """Save datasets in a folder, named by their place in the list."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, dataset in enumerate(datasets):
        dataset.save_as(folder / name.format(number), enforce_file_format=True)
    return folder


def enhanced(datasets: Sequence[Dataset], contents: Sequence[dict[str, object]] = ()) -> Dataset:
    """One multi-frame file of classic slices of one size and slope.

    contents: for each frame what its functional groups say beside the position, as {"Sequence.Keyword": value}.
    """
    first = datasets[0]
    whole = _described(first.SeriesInstanceUID, ENHANCED_MR, 1)
    store(whole, np.zeros((first.Rows, first.Columns)))
    del whole.RescaleSlope, whole.RescaleIntercept
    whole.NumberOfFrames = len(datasets)
    whole.PixelData = b"".join(dataset.PixelData for dataset in datasets)
    shared = Dataset()
    shared.PixelMeasuresSequence = Items([_only(first, "PixelSpacing", "SliceThickness")])
    shared.PlaneOrientationSequence = Items([_only(first, "ImageOrientationPatient")])
    whole.SharedFunctionalGroupsSequence = Items([shared])
    groups = []
    for dataset, content in itertools.zip_longest(datasets, contents, fillvalue={}):
        group = Dataset()
        group.PlanePositionSequence = Items([_only(dataset, "ImagePositionPatient")])
        group.PixelValueTransformationSequence = Items([_only(dataset, "RescaleSlope", "RescaleIntercept")])
        for place, value in content.items():
            sequence, keyword = place.split(".")
            if sequence not in group:
                setattr(group, sequence, Items([Dataset()]))
            setattr(group[sequence][0], keyword, value)
        groups.append(group)
    whole.PerFrameFunctionalGroupsSequence = Items(groups)
    return whole


def _only(dataset: Dataset, *keywords: str) -> Dataset:
    part = Dataset()
    for keyword in keywords:
        part[keyword] = dataset[keyword]
    return part


def agree(read: Image, truth: Image, tolerance: float = 1e-3) -> None:
    """Assert that two images are one in the body: same grid up to flips and order of axes, same values."""
    mine, theirs = read.reoriented(("R", "A", "S")), truth.reoriented(("R", "A", "S"))
    assert mine.values.shape == theirs.values.shape
    np.testing.assert_allclose(mine.grid.corners_mm, theirs.grid.corners_mm, atol=1e-3)
    np.testing.assert_allclose(mine.values, theirs.values, atol=tolerance)


def from_nifti(path: Path) -> Image:
    """A reference, read by nibabel alone."""
    volume = nibabel.load(path)
    values = np.asarray(volume.dataobj, np.float32)
    values = values[..., None] if values.ndim == 3 else values
    return Image(np.moveaxis(values, 3, 0), Grid(values.shape[:3], volume.affine), Header(ndim=3))


def by_dcm2niix(folder: Path, out: Path) -> list[Image]:
    """What dcm2niix makes of a folder; [] where it is not installed."""
    if not shutil.which("dcm2niix"):
        return []
    out.mkdir()
    told = subprocess.run(
        ["dcm2niix", "-b", "n", "-z", "n", "-f", "%s_%p", "-o", out, folder],
        capture_output=True,
        text=True,
        check=False,
    )
    (out / "log.txt").write_text(told.stdout + told.stderr)
    return [from_nifti(path) for path in sorted(out.glob("*.nii"))]

"""DICOM series for tests: small CT, PET and ultrasound series made here, and readers that are not nfops."""

import shutil
import subprocess
import warnings
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from nfops.grid import Grid
from nfops.image import Image

CT, MR, PET, US, DX = (f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2", "4", "128", "6.1", "1.1"))
KINDS = {
    CT: {"Modality": "CT", "KVP": "120", "RescaleType": "HU", "ConvolutionKernel": "B30f"},
    MR: {
        **{"Modality": "MR", "ScanningSequence": "SE", "SequenceVariant": "SK"},
        **{"EchoTime": "30", "RepetitionTime": "2500"},
    },
    PET: {
        **{"Modality": "PT", "Units": "BQML", "DecayCorrection": "START", "DecayFactor": "1.2"},
        **{"CountsSource": "EMISSION", "SeriesType": ["WHOLE BODY", "IMAGE"], "FrameReferenceTime": "1500"},
        "CorrectedImage": ["ATTN", "DECY"],
    },
    US: {"Modality": "US"},
    DX: {"Modality": "DX"},
}


def ramp(grid: Grid, dtype=np.float32) -> Image:
    """Values that tell every voxel from every other, and none of them whole."""
    points = grid.points_mm()
    values = (points @ [1.37, 0.83, 2.11] + 0.01 * points[..., 0] ** 2).astype(dtype)
    return Image(values[None], grid)


def oblique_grid(shape=(12, 10, 7), spacing=(0.9, 1.3, 3.1), flips=(1, 1, 1)) -> Grid:
    """Three rotations, unequal spacings, three sizes."""
    rotation = np.eye(3)
    for axis, angle in enumerate((0.3, -0.2, 0.5)):
        a, b = [n for n in range(3) if n != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        rotation = turn @ rotation
    affine = np.eye(4)
    affine[:3, :3] = rotation * np.array(spacing) * np.array(flips)
    affine[:3, 3] = -41.25, 17.5, 230.125
    return Grid(shape, affine)


def write_sources(folder: Path, grid: Grid, sop_class: str = CT, **more) -> list[Path]:
    """A plain series whose slice k, row j, column i is the voxel of the grid; thickness = spacing."""
    folder.mkdir()
    lps = np.diag([-1.0, -1.0, 1.0])
    paths = []
    for k in range(grid.shape[2]):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, f"1.2.826.0.1.3680043.9.1.{k + 1}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.826.0.1.3680043.9.2", "1.2.826.0.1.3680043.9.3"
        dataset.FrameOfReferenceUID = "1.2.826.0.1.3680043.9.4"
        dataset.PatientName, dataset.PatientID, dataset.PatientSex = "Doe^Jane", "J1", "F"
        dataset.PatientBirthDate, dataset.StudyDate, dataset.StudyTime = "19700101", "20240203", "101112"
        dataset.SeriesDate, dataset.SeriesTime = "20240203", "101500"
        dataset.AccessionNumber, dataset.StudyID, dataset.ReferringPhysicianName = "A7", "S1", ""
        dataset.SeriesNumber, dataset.InstanceNumber, dataset.Manufacturer = 4, k + 1, "ACME"
        dataset.ImageType, dataset.PatientPosition = ["ORIGINAL", "PRIMARY", "AXIAL"], "HFS"
        dataset.BodyPartExamined = "HEAD"
        dataset.Rows, dataset.Columns = grid.shape[1], grid.shape[0]
        dataset.PixelSpacing = [f"{s:.10g}" for s in (grid.spacing_mm[1], grid.spacing_mm[0])]
        dataset.SliceThickness = f"{grid.spacing_mm[2]:.10g}"
        position = lps @ (grid.affine @ [0, 0, k, 1])[:3]
        dataset.ImagePositionPatient = [f"{v:.9f}" for v in position]
        dataset.ImageOrientationPatient = [f"{v:.11f}" for v in (lps @ grid.directions[:, :2]).T.ravel()]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, 1
        dataset.SmallestImagePixelValue = 0
        for keyword, value in {**KINDS[sop_class], **more}.items():
            setattr(dataset, keyword, value)
        dataset.add_new(0x00091001, "LO", "private")
        dataset.PixelData = bytes(2 * grid.shape[0] * grid.shape[1])
        paths.append(folder / f"{k:03}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def series_files(folder: Path) -> list[Path]:
    """The DICOM files of a series of the shared data."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".txt")


def by_highdicom(folder: Path) -> Image:
    """A series as highdicom reads it."""
    datasets = [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]
    volume = highdicom.get_volume_from_series(datasets)
    return from_lps(volume.array.transpose(2, 1, 0), volume.affine[:, [2, 1, 0, 3]])


def by_simpleitk(folder: Path) -> Image:
    """A series as SimpleITK (GDCM) reads it."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    read = SimpleITK.Cast(reader.Execute(), SimpleITK.sitkFloat64)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(read.GetDirection(), (3, 3)) * read.GetSpacing()
    affine[:3, 3] = read.GetOrigin()
    return from_lps(SimpleITK.GetArrayFromImage(read).transpose(2, 1, 0), affine)


def from_lps(values, affine) -> Image:
    """(I, J, K) values with an LPS affine, as an image."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    return Image(values[None].astype(np.float64), Grid(values.shape, affine))


def largest_difference(read: Image, image: Image) -> float:
    """Compare voxel by voxel in the body; fails where the positions differ by more than a thousandth of a mm."""
    mine, theirs = (side.reoriented(("R", "A", "S")) for side in (image, read))
    assert theirs.grid.shape == mine.grid.shape
    np.testing.assert_allclose(theirs.grid.corners_mm, mine.grid.corners_mm, atol=1e-3)
    return float(np.abs(theirs.values - mine.values.astype(np.float64)).max())


def dciodvfy_errors(path: Path) -> list[str]:
    """What dciodvfy calls an error in a file."""
    if not shutil.which("dciodvfy"):
        pytest.skip("dciodvfy (Debian dicom3tools) is not installed")
    told = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, errors="replace", check=False)
    assert told.stderr, "dciodvfy said nothing, not even what the file is"
    return [line for line in (told.stdout + told.stderr).splitlines() if "Error" in line]


def header(path: Path) -> Dataset:
    """A header, read whole; odd values of old files pass."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        dataset.walk(lambda *_: None)  # pydicom looks at a value when it is first asked for
        return dataset

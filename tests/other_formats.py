"""For tests of formats beside NIfTI: images to write, and how others read what was written."""

import gzip
import itertools
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK
from nifti_files import OBLIQUE

from nfops.grid import Grid
from nfops.image import Header, Image

LPS = np.diag([-1.0, -1, 1, 1])
FLIPPED = OBLIQUE @ np.diag([-1.0, 1, 1, 1])
"""Left-handed, as radiologists store it."""

DTYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")
ORIENTATIONS = [
    "".join(letters) for order in itertools.permutations(("RL", "AP", "SI")) for letters in itertools.product(*order)
]


def sample(shape=(5, 4, 3), channels=1, affine=OBLIQUE, dtype="int16", **header) -> Image:
    values = np.random.default_rng(1).integers(0, 100, (channels, *shape)).astype(np.float32)
    header = {"file_dtype": dtype, "ndim": 4 if channels > 1 else 3} | header
    return Image(values, Grid(shape, affine), Header(**header))


def by_others(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """((C, I, J, K) values, affine RAS+) as nibabel or SimpleITK reads them, with none of our code."""
    if path.suffix in (".nrrd", ".mha"):
        image = SimpleITK.ReadImage(str(path))
        dims = image.GetDimension()
        values = SimpleITK.GetArrayFromImage(image)
        values = np.moveaxis(values, -1, 0) if image.GetNumberOfComponentsPerPixel() > 1 else values
        values = values.reshape(-1, *values.shape[-3:]).transpose(0, 3, 2, 1)
        affine = np.eye(4)
        direction = np.array(image.GetDirection()).reshape(dims, dims)[:3, :3]
        affine[:3, :3] = direction * image.GetSpacing()[:3]
        affine[:3, 3] = image.GetOrigin()[:3]
        return values, LPS @ affine
    image = nibabel.MGHImage.from_bytes(unzipped(path)) if path.suffix != ".gz" else nibabel.load(path)
    values = np.asarray(image.dataobj)
    return values.reshape(*values.shape[:3], -1).transpose(3, 0, 1, 2), image.affine


def unzipped(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data

"""NIfTI files to test with: good ones, and the same with single header fields changed."""

import gzip
import struct
from pathlib import Path

import nibabel
import numpy as np
from scipy.spatial.transform import Rotation

from nfops.grid import Grid
from nfops.image import Header, Image

SAMPLES = Path("/work/shared/data/nifti")

OBLIQUE = np.eye(4)

OBLIQUE[:3, :3] = Rotation.from_euler("xyz", (0.3, -0.2, 0.15)).as_matrix() @ np.diag([0.9, 1.3, 2.6])

OBLIQUE[:3, 3] = (-12, 30, 7)


def stored(shape=(5, 4, 3), dtype="int16", affine=OBLIQUE, kind=nibabel.Nifti1Image):
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    image = kind(values, affine, dtype=dtype)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    return image


def make(path, edit=None, **options) -> Path:
    """A good file, with header fields changed afterwards: edit = {offset: (format, value...)}."""
    stored(**options).to_filename(path)
    if edit:
        change(path, edit)
    return path


def change(path, edit):
    data = bytearray(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
    for offset, (form, *values) in edit.items():
        struct.pack_into(f"<{form}", data, offset, *values)
    path.write_bytes(gzip.compress(bytes(data)) if path.suffix == ".gz" else bytes(data))


DIM, DATATYPE, BITPIX, PIXDIM, VOX_OFFSET, SLOPE, INTER, UNITS, QFORM, SFORM, QUATERN, SROW, MAGIC = (
    40, 70, 72, 76, 108, 112, 116, 123, 252, 254, 256, 280, 344,
)  # fmt: skip


def some(values, **header) -> Image:
    values = np.asarray(values, np.float32).reshape(1, -1, 1, 1)
    return Image(values, Grid(values.shape[1:], np.eye(4)), Header(**header))

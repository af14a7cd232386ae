"""What `nfops info` says of an image whose format has a header: the one document that such formats share."""

from pathlib import Path
from typing import Any

import numpy as np

from nfops.arrays import Array
from nfops.image import Image
from nfops.io.nifti_header import Stored

DECODE_UP_TO_BYTES = 64 << 20
"""Up to this size the values are read, too, for their range."""


def description(kind: str, path: Path, stored: Stored, image: Image | None) -> dict[str, Any]:
    """The document of a file; image: the whole of it where it was read."""
    grid, header = stored.grid, image.header if image else stored.header
    return {
        "kind": kind,
        "path": str(path),
        "shape": list(grid.shape),
        "spacing_mm": [float(s) for s in grid.spacing_mm],
        "affine": grid.affine.tolist(),
        "orientation": grid.orientation if header.is_oriented else None,
        "dtype": header.file_dtype,
        "channels": stored.channels,
        "series": None,
        "intensity_range": finite_range(image.values) if image else None,
        "warnings": list(header.warnings),
    }


def finite_range(values: Array) -> list[float] | None:
    """[smallest, largest] finite value, None if there is none."""
    finite = values[np.isfinite(values)]
    return [float(finite.min()), float(finite.max())] if finite.size else None

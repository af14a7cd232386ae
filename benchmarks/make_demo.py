"""Make the demo's sample out of the cohort: a few axial slices of a patient that the shipped bundle has not seen.

python benchmarks/make_demo.py DATA: reads DATA/mr_t1_t2_flair and writes recipes/demo/{t1,t2}.nii.gz.
"""

import csv
import sys
from pathlib import Path

import numpy as np

from nfops.image import Header, Image
from nfops.io import PictureFrame, SaveOptions, load_image, save_image

PATIENT, FIRST, COUNT = "msl04", 20, 7


def main(data: Path) -> None:
    """Stack the pictures of neighbouring slices into volumes."""
    folder = data / "mr_t1_t2_flair"
    with (folder / "split.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["patient"] == PATIENT][FIRST : FIRST + COUNT]
    frame = PictureFrame(("L", "P"), (float(rows[0]["pixel_mm"]),) * 2)
    for contrast in ("t1", "t2"):
        slices = [load_image(folder / contrast / f"{row['id']}.png", frame) for row in rows]
        affine = slices[0].grid.affine.copy()
        affine[:3, 2] *= float(rows[0]["slice_mm"])
        values = np.concatenate([image.values for image in slices], axis=3)
        grid = type(slices[0].grid)((*slices[0].grid.shape[:2], len(slices)), affine)
        target = Path(__file__).parent.parent / "recipes" / "demo" / f"{contrast}.nii.gz"
        save_image(target, Image(values, grid, Header(file_dtype="uint8")), SaveOptions("same", force=True))
        print(target, [row["id"] for row in rows])


if __name__ == "__main__":
    main(Path(sys.argv[1]))

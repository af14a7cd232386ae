"""Tiny cohorts on disk for tests: blobs whose source is an image and whose target is derived from it."""

from pathlib import Path

import nibabel
import numpy as np
from PIL import Image as Picture

PICTURE_RECIPE = """
name: blobs
seed: 3
data:
  table: split.csv
  patient: patient
  source: "images/{id}.png"
  target: "masks/{id}.png"
  picture: {axes: [L, P], pixel_mm: 2.0}
geometry:
  dims: 2
  slice_axis: S
  frame: physical
  grid: {shape: [24, 20]}
source:
  intensity: {map: range, low: 0, high: 255}
  field: {backbone: fpca, latent: 8}
target:
  head: sigmoid
  field: {backbone: fpca, latent: 8}
encode: {steps: 3, prior: 1.0e-4}
augment: {affine: {rotate_deg: 5, shift_mm: 2}, flip: [L], copies: 2}
operator: {backend: linear}
"""

VOLUME_RECIPE = """
name: balls
seed: 3
data:
  table: split.csv
  source: "images/{id}.nii.gz"
  target: "labels/{id}.nii.gz"
geometry:
  dims: 3
  frame: unit
  grid: {shape: [10, 9, 8]}
source:
  intensity: {map: percentile, low: 0, high: 100}
  field: {backbone: fpca, latent: 6}
target:
  head: softmax
  labels: [0, 1, 2]
  field: {backbone: fpca, latent: 6}
encode: {steps: 3, prior: 1.0e-4}
operator: {backend: linear}
"""


SIGNAL_RECIPE = """
name: waves
seed: 3
data:
  table: waves.csv
  source: {columns: "s*", step: 0.5}
  target: {columns: t0..t31, step: 0.5}
geometry:
  dims: 1
  frame: physical
  grid: {shape: [24]}
source:
  intensity: {map: none}
  field: {backbone: fpca, latent: 6}
target:
  intensity: {map: none}
  output_range: unit
  field: {backbone: fpca, latent: 6}
encode: {steps: 1, prior: 1.0e-6}
operator: {backend: linear}
"""


def _blob(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A soft blob of random place and size; 1 in its middle."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    centre = rng.uniform(-0.3, 0.3, len(shape)).reshape(-1, *[1] * len(shape))
    return np.exp(-((grid - centre) ** 2).sum(axis=0) / rng.uniform(0.15, 0.4))


def write_pictures(folder: Path, count: int = 24) -> Path:
    """(folder of the data; the recipe lies beside it as recipe.yaml). Rows 24 x columns 20."""
    rng = np.random.default_rng(0)
    rows = ["id,patient,split,kind"]
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        blob = _blob((24, 20), rng)
        Picture.fromarray((40 + 180 * blob).astype(np.uint8)).save(folder / "images" / f"b{number}.png")
        Picture.fromarray(((blob > 0.5) * 255).astype(np.uint8)).save(folder / "masks" / f"b{number}.png")
        split = "val" if number >= count - 6 else "train"
        rows.append(f"b{number},p{number // 2},{split},{'odd' if number % 2 else 'even'}")
    (folder / "split.csv").write_text("\n".join(rows) + "\n")
    (folder / "recipe.yaml").write_text(PICTURE_RECIPE)
    return folder


def write_volumes(folder: Path, count: int = 14) -> Path:
    """Volumes 12 x 10 x 9, oblique and anisotropic, with two labels."""
    rng = np.random.default_rng(1)
    rows = ["id,split"]
    affine = np.array([[1.8, 0.3, 0, -10], [-0.2, 2.4, 0.5, 4], [0, -0.4, 3.0, 7], [0, 0, 0, 1.0]])
    orthogonal, _ = np.linalg.qr(affine[:3, :3])
    affine[:3, :3] = orthogonal @ np.diag([1.8, 2.4, 3.0])
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        blob = _blob((12, 10, 9), rng)
        labels = (blob > 0.35).astype(np.uint8) + (blob > 0.7).astype(np.uint8)
        for name, values in (("images", (blob * 1000).astype(np.int16)), ("labels", labels)):
            nibabel.save(nibabel.Nifti1Image(values, affine), folder / name / f"v{number}.nii.gz")
        rows.append(f"v{number},{'val' if number >= count - 3 else 'train'}")
    (folder / "split.csv").write_text("\n".join(rows) + "\n")
    (folder / "recipe.yaml").write_text(VOLUME_RECIPE)
    return folder


def write_signals(folder: Path, count: int = 30) -> Path:
    """A table whose rows are signals of 32 samples and their doubles; columns s31 down to s0, then t0 to t31."""
    rng = np.random.default_rng(2)
    place = np.linspace(0, 1, 32)
    header = ["id", "split", *(f"s{n}" for n in reversed(range(32))), *(f"t{n}" for n in range(32))]
    lines = [",".join(header)]
    for number in range(count):
        wave = sum(rng.normal() * np.cos(np.pi * k * place) for k in range(4))
        cells = [f"w{number}", "val" if number >= count - 6 else "train", *(f"{v:.6g}" for v in wave[::-1])]
        lines.append(",".join([*cells, *(f"{2 * v:.6g}" for v in wave)]))
    folder.mkdir(parents=True)
    (folder / "waves.csv").write_text("\n".join(lines) + "\n")
    (folder / "recipe.yaml").write_text(SIGNAL_RECIPE)
    return folder

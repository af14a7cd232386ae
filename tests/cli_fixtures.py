"""For tests of the command line: `nfops` in this process with its exit code, and small bundles that it trained."""

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import nibabel
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from toy_cohorts import write_pictures, write_volumes

from nfops.cli.errors import guarded
from nfops.cli.main import SUMMARIES, invoke

SHADES_RECIPE = """
name: shades
seed: 3
data:
  table: split.csv
  source: "source/{id}.nii.gz"
  target: "target/{id}.nii.gz"
geometry:
  dims: 2
  slice_axis: S
  axes: [L, P]
  frame: physical
  grid: {shape: [20, 18]}
source:
  intensity: {map: percentile, low: 0, high: 100}
  field: {backbone: fpca, latent: 8}
target:
  intensity: {map: range, low: 0, high: 500}
  output_range: training-median
  field: {backbone: fpca, latent: 8}
encode: {steps: 2, prior: 1.0e-4}
operator: {backend: linear}
"""

OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", (0.15, -0.1, 0.2)).as_matrix() @ np.diag([-2.0, -2.5, 6.0])
OBLIQUE[:3, 3] = (25, 10, -8)
"""Columns near L, P, S: a little oblique, anisotropic."""


@dataclass(frozen=True)
class Ran:
    """How a run ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


def nfops(*argv: object, stdin: str = "") -> Ran:
    """Run a command in this process as the console entry point does, signals aside."""
    words = [str(word) for word in argv]
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "stdin", io.StringIO(stdin)),
        mock.patch.dict(os.environ),
    ):
        code = guarded(lambda: invoke(words), words, list(SUMMARIES))
    return Ran(code, out.getvalue(), err.getvalue())


@dataclass(frozen=True)
class Trained:
    """A cohort with the recipe and the bundle that was trained on it."""

    data: Path
    recipe: Path
    bundle: Path

    def options(self) -> tuple[object, ...]:
        return "--recipe", self.recipe


def train(data: Path, name: str) -> Trained:
    recipe = data / "recipe.yaml"
    for verb in ("fit-inr", "encode", "train-operator"):
        ran = nfops(verb, "--recipe", recipe, "--data", data, "-q")
        assert ran.code == 0, ran.err
    return Trained(data, recipe, data / "bundles" / name)


@pytest.fixture(scope="session")
def blobs(tmp_path_factory) -> Trained:
    """2-D pictures, 20 wide and 24 high, to a mask (sigmoid)."""
    return train(write_pictures(tmp_path_factory.mktemp("cli") / "blobs"), "blobs")


@pytest.fixture(scope="session")
def balls(tmp_path_factory) -> Trained:
    """3-D volumes 12 x 10 x 9 to three labels (softmax)."""
    return train(write_volumes(tmp_path_factory.mktemp("cli") / "balls"), "balls")


@pytest.fixture(scope="session")
def shades(tmp_path_factory) -> Trained:
    """Volumes 20 x 18 x 4, read slice by slice, to other intensities (identity)."""
    return train(write_shades(tmp_path_factory.mktemp("cli") / "shades"), "shades")


def shade(rng: np.random.Generator) -> np.ndarray:
    """A smooth volume (20, 18, 4) from 100 to about 1100."""
    i, j, k = np.meshgrid(np.linspace(-1, 1, 20), np.linspace(-1, 1, 18), np.linspace(-1, 1, 4), indexing="ij")
    a, b, width = rng.uniform(-0.4, 0.4), rng.uniform(-0.4, 0.4), rng.uniform(0.2, 0.5)
    return 100 + 1000 * np.exp(-((i - a) ** 2 + (j - b - 0.1 * k) ** 2) / width) * (1 + 0.2 * k)


def write_shades(folder: Path, count: int = 10) -> Path:
    rng = np.random.default_rng(4)
    for name in ("source", "target"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        values = shade(rng)
        save_nifti(folder / "source" / f"s{number}.nii.gz", values)
        save_nifti(folder / "target" / f"s{number}.nii.gz", 450 - values / 3)
    (folder / "split.csv").write_text("id,split\n" + "".join(f"s{number},train\n" for number in range(count)))
    (folder / "recipe.yaml").write_text(SHADES_RECIPE)
    return folder


def save_nifti(path: Path, values: np.ndarray, affine: np.ndarray = OBLIQUE, dtype: str = "float32") -> Path:
    image = nibabel.Nifti1Image(np.ascontiguousarray(values, dtype=dtype), affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    image.to_filename(path)
    return path


def nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values and affine, by nibabel."""
    image = nibabel.load(path)
    return np.asanyarray(image.dataobj), image.affine


def leftovers(folder: Path) -> list[str]:
    """Temporary files of nfops below a folder."""
    return [path.name for path in folder.rglob(".nfops-*")]


def corners(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """World positions of the outer corners of a field of view: edges of voxels, not centres."""
    ends = np.stack(np.meshgrid(*((-0.5, n - 0.5) for n in shape[:3]), indexing="ij"), axis=-1).reshape(-1, 3)
    return ends @ affine[:3, :3].T + affine[:3, 3]


ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
"""For processes started elsewhere: this checkout is what they import."""


HEEDING_SIGNALS = """
import runpy, signal
for name in ("SIGHUP", "SIGTERM", "SIGUSR1"):
    signal.signal(getattr(signal, name), signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("nfops", run_name="__main__")
"""
"""nohup and a shell's background jobs start the tests, and so this process, with some signals ignored."""


def start(*argv: object, **options: Any) -> "subprocess.Popen[str]":
    """`nfops` as a process of its own."""
    words = [sys.executable, "-c", HEEDING_SIGNALS, *map(str, argv)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(words, text=True, env=ENVIRONMENT, **pipes)


def names(folder: str | Path = ".") -> list[str]:
    """What a folder holds, sorted."""
    return sorted(path.name for path in Path(folder).iterdir())

"""Speed and memory as ratios, each pair measured side by side in one run. Quote the medians.

python benchmarks/speed.py [--runs 15] [--json FILE]: needs nfops installed and its shipped bundle; no data.

1. `nfops --help` against `python -c pass`.
2. `nfops apply` on one 256x256 slice with the demo's bundle against importing numpy, nibabel and scipy.
3. Encoding and decoding in-process, one such slice and 32, against the bare matrix products that they need.
4. A 512x512x512 output from a 3-D bundle, streamed: first slabs measured, the total extrapolated; peak memory.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from nfops.bundle import Bundle, load_bundle
from nfops.codec_spec import CodecSpec, EncodeSettings
from nfops.coding import encode_image
from nfops.engines.numpy_engine import NumpyEngine
from nfops.grid import Grid
from nfops.image import Image
from nfops.intensity import IntensitySettings
from nfops.io import save_image
from nfops.rendering import render
from nfops.sampling import lattice_of
from nfops.shipped import shipped_folder
from nfops.splines import axis_matrices

BUNDLE = shipped_folder() / "bundles" / "brain_t1t2_latent"


def interleaved(pair: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """Median seconds of each, run in turn after one warm-up, and their ratio (first / second)."""
    times: dict[str, list[float]] = {name: [] for name in pair}
    for run in range(runs + 1):
        for name, call in pair.items():
            start = time.perf_counter()
            call()
            if run:
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    first, second = medians.values()
    return {**medians, "ratio": first / second}


def command(*words: str) -> Callable[[], object]:
    """A whole process."""
    return lambda: subprocess.run(words, check=True, capture_output=True)


def scan_image(slices: int = 1) -> Image:
    """Smooth 256x256 slices of 0.9 mm with noise."""
    rng = np.random.default_rng(0)
    grid = Grid((256, 256, slices), np.diag([-0.9, -0.9, 3, 1]))
    i, j = np.meshgrid(np.linspace(-1, 1, 256), np.linspace(-1, 1, 256), indexing="ij")
    values = (np.exp(-3 * (i**2 + j**2)) * 200)[..., None] + rng.normal(0, 3, (256, 256, slices))
    return Image(values[None].astype(np.float32), grid)


def start_up(runs: int) -> dict[str, dict[str, float]]:
    """Whole processes."""
    nfops = [sys.executable, "-m", "nfops"]
    with tempfile.TemporaryDirectory() as folder:
        scan, out = Path(folder) / "slice.nii.gz", Path(folder) / "out.nii.gz"
        save_image(scan, scan_image())
        apply = command(*nfops, "apply", "-q", "-f", "-r", "brain_t1t2_latent", str(scan), "--out", str(out))
        imports = command(sys.executable, "-c", "import numpy, nibabel, scipy")
        return {
            "help / python -c pass": interleaved(
                {"help": command(*nfops, "--help"), "pass": command(sys.executable, "-c", "pass")}, runs
            ),
            "apply 256x256 / import numpy, nibabel, scipy": interleaved({"apply": apply, "imports": imports}, runs),
        }


def coding(runs: int, slices: int) -> dict[str, dict[str, float]]:
    """In-process, against the products alone, which are done for all slices at once as nfops does them."""
    bundle = load_bundle(BUNDLE)
    image = scan_image(slices)
    source, target = bundle.side("source"), bundle.side("target")
    engine = NumpyEngine(bundle)
    field, output = engine._fields["source"], engine._fields["target"]
    latent = encode_image(engine, source, image)
    aligned = image.reoriented(source.spec.axes)
    lattice = lattice_of(aligned.grid, latent.frame, source.spec.spacing)
    part = lattice.inside(np.array(source.spec.half_extent))
    a, b = axis_matrices(field.nodes, field.half_extent, lattice[part])
    values = np.ascontiguousarray(np.moveaxis(aligned.values[0], -1, 0)[:, *part])
    gram_a, gram_b, size = a.T @ a, b.T @ b, len(field.basis)

    def encode() -> object:
        field._gram_key = ()  # as for the first scan
        return encode_image(engine, source, image)

    def encode_products() -> object:
        smoothed = np.matmul(gram_a, field.basis[:, 0]) @ gram_b
        curvature = smoothed.reshape(size, -1) @ field.flat_basis.T
        gradient = np.matmul(a.T, values @ b).reshape(slices, -1) @ field.flat_basis.T
        return np.linalg.solve(curvature + np.eye(size, dtype=np.float32), gradient.T)

    out_a, out_b = axis_matrices(output.nodes, output.half_extent, lattice[part])
    predicted = replace(latent, vectors=engine.operate(latent.vectors))

    def decode_products() -> object:
        nodal = (predicted.vectors @ output.flat_basis).reshape(slices, *output.nodes)
        return np.matmul(out_a, nodal) @ out_b.T

    def decode() -> object:
        return render(engine, target, predicted, image.grid).image()

    points = np.prod(lattice[part].shape)
    dense = np.einsum("ia,jb,pab->ijp", out_a, out_b, output.basis[:, 0], optimize=True).reshape(points, -1)
    vectors = np.ascontiguousarray(predicted.vectors.T)

    name = f"256x256x{slices}"
    return {
        f"decode {name} / product with the basis at every pixel": interleaved(
            {"decode": decode, "dense product": lambda: dense @ vectors}, runs
        ),
        f"encode {name} / bare products": interleaved({"encode": encode, "products": encode_products}, runs),
        f"decode {name} / bare products": interleaved({"decode": decode, "products": decode_products}, runs),
    }


def volume_bundle() -> Bundle:
    """A 3-D bundle of the hippocampus recipe's size with a random basis: speed does not depend on what it shows."""
    rng = np.random.default_rng(0)
    nodes, size = (24, 24, 24), 64
    spec = CodecSpec(
        "fpca", "spline-basis", 3, ("R", "A", "S"), 128.0, (1.0,) * 3, tuple(2 / n for n in nodes), "identity", (), 1,
        size, IntensitySettings(), (0.0,), (1.0,), EncodeSettings(),
    )  # fmt: skip
    arrays = {
        "field.mean": rng.normal(size=(1, *nodes)).astype(np.float32),
        "field.basis": rng.integers(-127, 127, (size, 1, *nodes)).astype(np.int8),
        "field.basis_scale": np.full(size, 0.01, np.float32),
        "field.variance": np.ones(size, np.float32),
        "prior_mean": np.zeros(size, np.float32),
        "prior_variance": np.ones(size, np.float32),
    }
    return Bundle("volume", {}, {"source": spec, "target": spec}, {"source": arrays, "target": arrays})


def streamed(slabs: int = 6) -> dict[str, float]:
    """512x512x512 from a 3-D bundle: the first slabs' time, extrapolated, and this process's peak memory."""
    bundle = volume_bundle()
    engine, target = NumpyEngine(bundle), bundle.side("target")
    scan = Image(
        np.random.default_rng(1).normal(size=(1, 64, 64, 64)).astype(np.float32), Grid((64,) * 3, np.diag([4, 4, 4, 1]))
    )
    latent = encode_image(engine, bundle.side("source"), scan)
    drawn = render(engine, target, latent, scan.grid.with_shape((512, 512, 512)))
    depth, start = 0, time.perf_counter()
    for number, slab in enumerate(drawn.slabs(), start=1):
        depth += slab.shape[3]
        if number == slabs:
            break
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"slices measured": depth, "seconds for 512 slices": seconds * 512 / depth, "peak GiB of the process": peak}


def main() -> None:
    """Measure everything, print it, and keep it as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, object] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": f"Python {platform.python_version()}, NumPy {np.__version__}",
        "512x512x512, streamed": streamed(),
        **start_up(options.runs),
        **coding(options.runs, 1),
        **coding(options.runs, 32),
    }
    print(json.dumps(results, indent=1))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

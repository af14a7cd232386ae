"""Tiny bundles in memory for tests: random smooth fields with a known analytic value at any world point."""

from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from nfops import splines
from nfops.bundle import Bundle
from nfops.codec_spec import CodecSpec, EncodeSettings
from nfops.grid import Grid
from nfops.heads import Head
from nfops.image import Image
from nfops.intensity import IntensitySettings

P = 6
DOMAINS = {1: ((1.0,), (18,)), 2: ((1.0, 0.8), (16, 14)), 3: ((1.0, 0.8, 0.7), (12, 10, 9))}
RADIUS_MM = 40.0


def make_spec(dims: int = 2, head: str = "identity", channels: int = 1, **changes) -> CodecSpec:
    half, nodes = DOMAINS[dims]
    spec = CodecSpec(
        backbone="fpca",
        form="spline-basis",
        dims=dims,
        axes=("L", "P", "S") if dims > 1 else (),
        radius_mm=RADIUS_MM,
        half_extent=half,
        spacing=tuple(2 * h / n for h, n in zip(half, nodes, strict=True)),
        head=head,
        labels=tuple(range(channels)) if head == "softmax" else (),
        channels=channels,
        latent=P,
        intensity=IntensitySettings("none"),
        range_low=(0.0,) * channels,
        range_high=(1.0,) * channels,
        encode=EncodeSettings(steps=8, points=500, prior=1e-7),
    )
    return replace(spec, **changes)


def make_arrays(spec: CodecSpec, seed: int = 0) -> dict[str, np.ndarray]:
    """A mean and P basis functions: sums of slow cosines that are mirror-symmetric at the domain's edge."""
    rng = np.random.default_rng(seed)
    nodes = tuple(round(2 * h / s) for h, s in zip(spec.half_extent, spec.spacing, strict=True))
    waves = [np.cos(np.pi * np.outer(np.arange(4), (np.arange(n) + 0.5) / n)) for n in nodes]
    letters = "xyz"[: spec.dims]
    weights = rng.normal(size=(P + 1, spec.channels, *[4] * spec.dims))
    form = ",".join(f"{a.upper()}{a}" for a in letters)
    functions = np.einsum(f"pc{letters.upper()},{form}->pc{letters}", weights, *waves)
    functions /= np.sqrt((functions**2).mean(axis=tuple(range(1, functions.ndim)), keepdims=True))
    flat = np.abs(functions[1:].reshape(P, -1)).max(axis=1)
    scale = (flat / 127).astype(np.float32)
    quantised = np.rint(functions[1:] / scale.reshape(-1, *[1] * (spec.dims + 1))).astype(np.int8)
    strength = 2.0 if spec.head != "identity" else 0.1
    return {
        "field.mean": (0.1 * functions[0] + (0.5 if spec.head == "identity" else 0)).astype(np.float32),
        "field.basis": quantised,
        "field.basis_scale": scale,
        "field.variance": np.full(P, strength**2, np.float32),
        "prior_mean": np.zeros(P, np.float32),
        "prior_variance": np.full(P, strength**2, np.float32),
    }


def make_bundle(source: CodecSpec, target: CodecSpec | None = None) -> Bundle:
    target = target or source
    rng = np.random.default_rng(5)
    operator = {
        "weight": (rng.normal(size=(target.latent, source.latent)) / 3).astype(np.float32),
        "bias": (rng.normal(size=target.latent) / 10).astype(np.float32),
    }
    plain = {"field": {"backbone": "fpca", "latent": P}}
    recipe = {"seed": 1, "source": plain, "target": plain, "operator": {"backend": "linear"}}
    arrays = {"source": make_arrays(source, 1), "target": make_arrays(target, 2), "operator": operator}
    return Bundle("toy", recipe, {"source": source, "target": target}, arrays, operator={"form": "affine"})


def random_latents(bundle: Bundle, count: int, side: str = "source", seed: int = 3) -> np.ndarray:
    deviation = np.sqrt(bundle.arrays[side]["prior_variance"])
    return (np.random.default_rng(seed).normal(size=(count, P)) * deviation).astype(np.float32)


def field_at(bundle: Bundle, side: str, vector: np.ndarray, coords: np.ndarray) -> np.ndarray:
    """The field's values (C, ...) at coordinates (..., d), without any engine; clamped at the domain's edge."""
    spec, arrays = bundle.specs[side], bundle.arrays[side]
    basis = arrays["field.basis"] * arrays["field.basis_scale"].reshape(-1, *[1] * (spec.dims + 1))
    nodal = arrays["field.mean"] + np.tensordot(vector, basis, 1)
    flat = splines.evaluate_points(nodal, np.array(spec.half_extent), coords.reshape(-1, spec.dims))
    values = np.moveaxis(Head(spec.head).activate(np.moveaxis(flat, 0, -1)), -1, 0)
    return values.reshape(-1, *coords.shape[:-1])


def scan_grid(dims: int = 3) -> Grid:
    """Oblique, anisotropic, non-square, stored in an order of its own (not the recipe's L, P, S)."""
    shape, spacing = ((13, 11, 9), (4.4, 5.1, 5.3)) if dims == 3 else ((14, 3, 17), (4.1, 9.0, 4.4))
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", (0.2, -0.15, 0.1)).as_matrix()
    columns = [[0, 1, 0], [0, 0, -1], [1, 0, 0]]  # A, I, R
    affine[:3, :3] = turn @ np.array(columns, float).T @ np.diag(spacing)
    affine[:3, 3] = (20.0, -35.0, 8.0)
    return Grid(shape, affine)


def world_coords(spec: CodecSpec, scan: Grid, points_mm: np.ndarray) -> np.ndarray:
    """World points (..., 3) in the field's coordinates, worked out by hand from the scan's own axes."""
    letters = {"L": (0, -1), "P": (1, -1), "S": (2, 1)}
    coords = []
    for letter in spec.axes[: spec.dims]:
        world, sign = letters[letter]
        axis = int(np.abs(scan.directions[world]).argmax())
        direction = scan.directions[:, axis] * np.sign(scan.directions[world, axis]) * sign
        half = RADIUS_MM if spec.radius_mm is not None else scan.extent_mm[axis] / 2
        coords.append((points_mm - scan.centre_mm) @ direction / half)
    return np.stack(coords, axis=-1)


def image_in_span(bundle: Bundle, vectors: np.ndarray, grid: Grid, side: str = "source") -> Image:
    """The scan that a field with these latents shows: one latent for a volume, or one per slice of a 2-D recipe."""
    spec = bundle.specs[side]
    values = np.stack([field_at(bundle, side, v, world_coords(spec, grid, grid.points_mm())) for v in vectors])
    if spec.dims == 3:
        return Image(values[0], grid)
    axis = int(np.abs(grid.directions[2]).argmax())
    ordered = np.arange(grid.shape[axis]) if grid.directions[2, axis] > 0 else np.arange(grid.shape[axis])[::-1]
    parts = [np.take(values[number], [k], axis=axis + 1) for k, number in enumerate(ordered)]
    return Image(np.concatenate(parts, axis=axis + 1), grid)

"""How near a bundle's ONNX graphs come to torch: on random input, on what `apply` feeds them of scans, in the image."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch

from nfops.arrays import Array
from nfops.bundle import Bundle
from nfops.bundle_graphs import APPLY, DECODE, ENCODE_STEP, OPERATOR
from nfops.codec import seen_channels
from nfops.coding import encode_image
from nfops.engines import Engine
from nfops.engines.onnx_engine import OnnxEngine
from nfops.engines.onnx_sessions import GraphSession
from nfops.engines.torch_engine import TorchEngine
from nfops.errors import ResultError
from nfops.field_translation import draw_translation, positions_on, translate_field
from nfops.grid import WORLD_DIRECTIONS, Grid
from nfops.image import Image
from nfops.intensity import from_channels
from nfops.onnx_export import apply_module
from nfops.rendering import Units, render
from nfops.sampling import Lattice, even_draw
from nfops.solvers import Problem, Products, solve

LARGEST = {"float32": 1e-4, "float16": 2e-2}
"""By storage: differences, relative to the largest value (of an image: to its range), that are published."""
LARGEST_ITERATED = 1e-2
"""As above, of an image whose encoding takes several steps through a graph: rounding grows from step to step where they
have not converged (torch against itself, adding in other blocks: 1e-6 to 5e-3, by the strength of the prior)."""
RANDOM_LATENTS, RANDOM_CELLS = 1000, 11
FINER = 2
"""Times: a graph for any spacing is tried on two."""
DRAWN_SLICES = 3
LINEARISED_POINTS = 4096

Call: TypeAlias = Callable[[Engine], Sequence[Array]]
"""Asks an engine for arrays."""


@dataclass(frozen=True)
class Parity:
    """The largest difference, and what part it is of the largest value (of an image: of the range of the output)."""

    max_abs: float
    relative: float

    def to_plain(self) -> dict[str, float]:
        """As JSON-able data, three digits."""
        return {"max_abs": float(f"{self.max_abs:.3g}"), "relative": float(f"{self.relative:.3g}")}


def checked(bundle: Bundle, images: Sequence[Image], names: Sequence[str] = ()) -> Bundle:
    """The bundle with the parity of its graphs, or of some, among their facts: on "random" and "real" input and, where
    it has all that apply needs, in the "image".

    images: real scans; without any, slices are drawn from its source field, and "real_input" says so.
    Raises ResultError for a graph that differs too much to be published (C67).
    """
    torch_engine, onnx_engine = TorchEngine(bundle, "cpu"), OnnxEngine(bundle, "cpu", only_graphs=True)
    recorder = Recorder(bundle, torch_engine)
    real = "scans" if images else "drawn from the source field"
    images = images or [drawn_scan(bundle, torch_engine)]
    pictures = [predicted(bundle, recorder, image) for image in images]
    is_whole = set(bundle.graphs_to_apply) <= set(bundle.graphs)
    again = [predicted(bundle, OnnxEngine(bundle, "cpu"), image) for image in images] if is_whole else []
    graphs = dict(bundle.graphs)
    for name in names or bundle.graphs:
        graph = bundle.graphs[name]
        if name == APPLY:
            found = _compare_whole(bundle, recorder, torch_engine)
        else:
            calls = {"random": random_calls(bundle, name), "real": recorder.calls[name]}
            found = {kind: _compare(some, torch_engine, onnx_engine) for kind, some in calls.items()}
            if is_whole:
                found["image"] = _worst(zip(pictures, again, strict=True), _range(bundle))
        for kind, parity in found.items():
            is_iterated = kind == "image" and (name == APPLY or ENCODE_STEP in bundle.graphs_to_apply)
            _refuse(name, kind, parity, max(LARGEST[graph.facts["storage"]], LARGEST_ITERATED * is_iterated))
        parities = {kind: parity.to_plain() for kind, parity in found.items()}
        graphs[name] = replace(graph, facts={**graph.facts, "parity": parities, "real_input": real})
    return replace(bundle, graphs=graphs)


def predicted(bundle: Bundle, engine: Engine, image: Image) -> Array:
    """What `apply` makes of a scan on its own grid, labels as probabilities; without a target, the scan again."""
    source = bundle.side("source")
    encoded = encode_image(engine, source, image)
    if bundle.acts_on_fields:
        is_label = bundle.specs["target"].is_label
        return draw_translation(translate_field(engine, bundle, image), image.grid, soft=is_label).image().values
    if "target" not in bundle.specs:
        units: Units = "probability" if source.spec.is_label else "scan"
        return render(engine, source, encoded, image.grid, units).image().values
    target = bundle.side("target")
    moved = replace(encoded, vectors=engine.operate(encoded.vectors))
    units = "probability" if target.spec.is_label else "output-range"
    return render(engine, target, moved, image.grid, units).image().values


class Recorder:
    """An engine that keeps what it was asked, so that another may be asked the same. calls: by the graph asked."""

    name = "recorder"

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self._bundle, self._engine, self.device = bundle, engine, engine.device
        self.calls: dict[str, list[Call]] = {ENCODE_STEP: [], OPERATOR: [], DECODE: []}
        self.posed: tuple[Lattice, Array] | None = None

    def pose(self, side: str, lattice: Lattice, values: Array, weights: Array | None) -> Problem:
        """See `Engine.pose`."""
        self.posed = self.posed or (lattice, values)
        latents = np.tile(self._bundle.side(side).prior.mean, (len(values), 1))
        step = max(1, math.ceil((lattice.size / LINEARISED_POINTS) ** (1 / len(lattice.shape))))
        part = (slice(None, None, step),) * len(lattice.shape)  # of all points an engine would take a draw of its own
        few = lattice[part], values[:, :, *part], None if weights is None else weights[:, *part]
        self.calls[ENCODE_STEP].append(lambda asked: _linearised(asked.pose(side, *few), latents))
        return self._engine.pose(side, lattice, values, weights)

    def operate(self, latents: Array) -> Array:
        """See `Engine.operate`."""
        self.calls[OPERATOR].append(lambda asked: [asked.operate(latents)])
        return self._engine.operate(latents)

    def operate_each(self, latents: Array) -> Array:
        """See `Engine.operate_each`."""
        self.calls[OPERATOR].append(lambda asked: [asked.operate_each(latents)])
        return self._engine.operate_each(latents)

    def operate_field(self, values: Array, coords: Array, spacing: Array) -> tuple[Array, Array | None]:
        """See `Engine.operate_field`."""
        self.calls[OPERATOR].append(lambda asked: [_both(asked.operate_field(values, coords, spacing))])
        return self._engine.operate_field(values, coords, spacing)

    def decode(self, side: str, latents: Array, lattice: Lattice) -> Array:
        """See `Engine.decode`."""
        self.calls[DECODE].append(lambda asked: [asked.decode(side, latents, lattice)])
        return self._engine.decode(side, latents, lattice)

    def decode_points(self, side: str, latents: Array, coords: Array) -> Array:
        """See `Engine.decode_points`."""
        self.calls[DECODE].append(lambda asked: [asked.decode_points(side, latents, coords)])
        return self._engine.decode_points(side, latents, coords)


def random_calls(bundle: Bundle, name: str) -> list[Call]:
    """Latents drawn from the prior, values and places by chance, for one graph."""
    random = np.random.default_rng(0)
    if name == OPERATOR and bundle.acts_on_fields:
        inputs = GraphSession(bundle.graphs[OPERATOR].content, OPERATOR).inputs
        return [_random_field(bundle, random, times) for times in ((1, FINER) if "spacing" in inputs else (1,))]
    if name == OPERATOR:
        many = _random_latents(bundle, "source", RANDOM_LATENTS, random)
        return [lambda asked: [asked.operate(many)]]
    side = "source" if name == ENCODE_STEP or "target" not in bundle.specs else "target"
    spec, lattice = bundle.specs[side], _random_lattice(bundle, side, random)
    latents = _random_latents(bundle, side, 3, random)
    if name == DECODE:
        return [lambda asked: [asked.decode(side, latents, lattice)]]
    values = random.random((3, spec.channels, *lattice.shape), np.float32)
    values = values / values.sum(axis=1, keepdims=True) if spec.head == "softmax" else values
    weights = random.random((3, *lattice.shape), np.float32)
    return [lambda asked: _linearised(asked.pose(side, lattice, values, weights), latents)]


def drawn_scan(bundle: Bundle, engine: Engine) -> Image:
    """A scan that the source field shows: latents drawn from their prior, on the nodes of its domain."""
    spec = bundle.specs["source"]
    latents = _random_latents(bundle, "source", DRAWN_SLICES if spec.dims == 2 else 1, np.random.default_rng(1))
    values = engine.decode("source", latents, spec.domain.lattice())
    if spec.is_label:
        values = np.stack([from_channels(item, spec.head, spec.labels) for item in values])
    shape = values.shape[2:]
    volume = np.moveaxis(values, 0, -1) if spec.dims == 2 else values[0].reshape(-1, *shape, *[1] * (3 - spec.dims))
    affine = np.eye(4)
    for column, axis in enumerate(spec.axes):
        affine[:3, column] = 0
        world, sign = WORLD_DIRECTIONS[axis]
        affine[world, column] = sign
    steps = np.ones(3)
    steps[: spec.dims] = np.array(spec.spacing) * (spec.radius_mm or 100.0)
    affine[:3, :3] *= steps
    return Image(np.ascontiguousarray(volume, dtype=np.float32), Grid(volume.shape[1:], affine))


def _random_latents(bundle: Bundle, side: str, count: int, random: np.random.Generator) -> Array:
    prior = bundle.side(side).prior
    drawn = prior.mean + np.sqrt(prior.variance) * random.standard_normal((count, len(prior.mean)))
    return np.asarray(drawn, dtype=np.float32)


def _random_lattice(bundle: Bundle, side: str, random: np.random.Generator) -> Lattice:
    """Uneven axes of cells of two points each."""
    axes = []
    for half, step in zip(bundle.specs[side].half_extent, bundle.specs[side].spacing, strict=True):
        centres = np.sort(random.uniform(-half, half, RANDOM_CELLS))
        axes.append(centres[:, None] + np.array([-0.5, 0.5]) * step)
    return Lattice(tuple(axes))


def _random_field(bundle: Bundle, random: np.random.Generator, times: int) -> Call:
    """Noise on a grid of a few coarse cells, as no scan has, so many times as fine as the working grid."""
    working = bundle.operator["working"]
    shape = [times * working["multiple"] * (3 if axis else 2) for axis in range(bundle.specs["source"].dims)]
    spacing = np.array(working["spacing"]) / times
    values = random.random((2, seen_channels(bundle, bundle.condition), *shape), np.float32)
    places = positions_on(tuple(shape), spacing)
    return lambda asked: [_both(asked.operate_field(values, places, spacing))]


def _both(made: tuple[Array, Array | None]) -> Array:
    """Values and, of an ensemble, their deviation: differences of either are parts of the largest value."""
    values, deviation = made
    return values if deviation is None else np.stack([values, deviation])


def _linearised(problem: Problem, latents: Array) -> list[Array]:
    """A problem about latents (B, P): loss, gradient, and curvature (of long latents its product with ones)."""
    model = problem.linearise(latents)
    bent = model.curvature.apply(np.ones_like(latents)) if isinstance(model.curvature, Products) else model.curvature
    return [model.loss, model.gradient, np.asarray(bent)]


def _compare(calls: Sequence[Call], one: Engine, other: Engine) -> Parity:
    return _worst([pair for call in calls for pair in zip(call(one), call(other), strict=True)])


def _compare_whole(bundle: Bundle, recorder: Recorder, engine: Engine) -> dict[str, Parity]:
    """The graph `apply` beside its module in torch: on random values, and on the first slice that was encoded; as
    "image", beside what the solver of `apply` makes of that slice, whose descent is another.
    """
    session, module = GraphSession(bundle.graphs[APPLY].content, APPLY), apply_module(bundle)
    random, found = np.random.default_rng(2), {}
    lattice, values = recorder.posed or (bundle.specs["source"].domain.lattice(), np.empty(0))
    cells = even_draw(lattice.size, min(lattice.size, LINEARISED_POINTS), seed=0)
    points = lattice.points_of(cells).astype(np.float32)
    shown = np.moveaxis(values[0], 0, -1).reshape(lattice.size, -1)[cells].astype(np.float32)
    for kind, seen in (("random", random.random(shown.shape, np.float32)), ("real", shown)):
        inputs = {
            "points": points,
            "values": seen,
            "weights": np.ones(len(points), np.float32),
            "output_points": points,
        }
        with torch.inference_mode():
            reference = module(*(torch.from_numpy(array) for array in inputs.values())).numpy()
        predicted_here = session.run(["predicted"], inputs)[0]
        found[kind] = _worst([(reference, predicted_here)])
    side = bundle.side("source")
    posed = engine.pose("source", lattice, values[:1], None).subset(len(cells), seed=0)
    latents, _ = solve(posed, side.prior, 1, replace(side.spec.encode, points=len(cells)))
    decoded = engine.decode("target", engine.operate(latents), lattice)
    solved = np.moveaxis(decoded[0], 0, -1).reshape(lattice.size, -1)[cells]
    return {**found, "image": _worst([(solved, predicted_here)])}


def _worst(pairs: Iterable[tuple[Array, Array]], whole: float | None = None) -> Parity:
    """Of arrays beside their references; whole: what differences are a part of, if not of the largest value."""
    found = [Parity(0.0, 0.0)]
    for reference, other in pairs:
        largest = float(np.abs(reference - np.broadcast_to(other, reference.shape)).max())
        found.append(Parity(largest, largest / (whole or float(np.abs(reference).max()) or 1.0)))
    return max(found, key=lambda parity: np.nan_to_num(parity.relative, nan=np.inf))


def _range(bundle: Bundle) -> float | None:
    """Of an image that the bundle predicts; None, which is the largest value, where a scan is drawn again."""
    if "target" not in bundle.specs:
        return None
    spec = bundle.specs["target"]
    return 1.0 if spec.is_label else float(max(np.subtract(spec.range_high, spec.range_low)))


def _refuse(name: str, kind: str, parity: Parity, limit: float) -> None:
    if not parity.relative <= limit:  # NaN too
        where = "in the image" if kind == "image" else f"on {kind} input"
        what = f"{where} it differs from torch by {parity.relative:.2g} of the largest value"
        raise ResultError(name, f"{what}, at most {limit:g} is published", "please report this")

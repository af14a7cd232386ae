"""Engines: NumPy and torch give the same, and a device that was asked for is honoured or refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_bundles import make_bundle, make_spec, random_latents

from nfops.bundle import save_bundle
from nfops.engines import open_engine
from nfops.engines.numpy_engine import NumpyEngine, SplineEngine
from nfops.engines.torch_engine import TorchEngine
from nfops.errors import BundleError, DeviceError
from nfops.sampling import Lattice
from nfops.solvers import gauss_newton

# Forward-mode derivatives make torch import a module of its own that it calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

CASES = [(2, "identity", 1), (2, "identity", 2), (2, "sigmoid", 1), (3, "softmax", 3), (3, "identity", 1)]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-D {case[1]} {case[2]}")
def both(request):
    dims, head, channels = request.param
    bundle = make_bundle(make_spec(dims, head, channels))
    return bundle, NumpyEngine(bundle), TorchEngine(bundle, "cpu")


def a_lattice(bundle, sub_points: tuple[int, ...] = (1, 1, 1)) -> Lattice:
    """Uneven axes that reach to the domain's edges, with q sub-points a cell."""
    rng = np.random.default_rng(0)
    axes = []
    for a, half in enumerate(bundle.specs["source"].half_extent):
        centres = np.sort(rng.uniform(-half, half, 9 - a))
        axes.append(centres[:, None] + np.linspace(-0.05, 0.05, sub_points[a])[None] * (sub_points[a] > 1))
    return Lattice(tuple(axes))


def values_on(bundle, lattice: Lattice) -> np.ndarray:
    spec = bundle.specs["source"]
    rng = np.random.default_rng(1)
    if spec.head == "softmax":
        labels = rng.integers(0, spec.channels, (2, *lattice.shape))
        return np.moveaxis(np.eye(spec.channels, dtype=np.float32)[labels], -1, 1)
    values = rng.random((2, spec.channels, *lattice.shape), np.float32)
    return values.round() if spec.head == "sigmoid" else values


def weights_on(kind: str, lattice: Lattice) -> np.ndarray | None:
    rng = np.random.default_rng(2)
    shapes = {"per image": 2, "shared": 1, "few": 2}
    if kind == "all":
        return None
    kept = 0.2 if kind == "few" else 0.8
    return (rng.random((shapes[kind], *lattice.shape)) < kept).astype(np.float32)


def close(one: np.ndarray, other: np.ndarray, tolerance: float = 2e-5) -> bool:
    one, other = np.broadcast_arrays(one, other)
    return bool(np.abs(one - other).max() <= tolerance * max(1.0, np.abs(other).max()))


@pytest.mark.parametrize("weights", ["all", "per image", "shared", "few"])
@pytest.mark.parametrize("sub_points", [(1, 1, 1), (2, 3, 1)])
def test_problems_agree(both, weights, sub_points):
    bundle, *engines = both
    lattice = a_lattice(bundle, sub_points)
    values, weight = values_on(bundle, lattice), weights_on(weights, lattice)
    here, there = (engine.pose("source", lattice, values, weight) for engine in engines)
    assert here.is_linear == there.is_linear
    latents = random_latents(bundle, 2)
    assert close(here.loss(latents), there.loss(latents))
    for name, point in (("start", latents[0]), ("linearise", latents)):
        one, other = getattr(here, name)(point), getattr(there, name)(point)
        for part in ("loss", "gradient", "curvature"):
            assert close(getattr(one, part), getattr(other, part)), f"{name}.{part}"
    prior = bundle.side("source").prior
    for one, other in zip(*(gauss_newton(problem, prior, 2, 3) for problem in (here, there)), strict=True):
        assert close(one, other, 1e-3)


def test_the_gradient_is_that_of_the_loss(both):
    bundle, engine, _ = both
    lattice = a_lattice(bundle)
    problem = engine.pose("source", lattice, values_on(bundle, lattice), weights_on("per image", lattice))
    latents, step = random_latents(bundle, 2).astype(np.float64), 1e-2
    gradient = problem.linearise(latents).gradient
    for axis in range(latents.shape[1]):
        move = step * np.eye(latents.shape[1])[axis]
        difference = (problem.loss(latents + move) - problem.loss(latents - move)) / (2 * step)
        assert np.abs(difference - gradient[:, axis]).max() < 1e-3 * max(1, np.abs(gradient).max())


@pytest.mark.parametrize("sub_points", [(1, 1, 1), (2, 3, 1)])
def test_decoding_agrees(both, sub_points):
    bundle, here, there = both
    lattice, latents = a_lattice(bundle, sub_points), random_latents(bundle, 3)
    one, other = (engine.decode("source", latents, lattice) for engine in (here, there))
    assert one.shape == (3, bundle.specs["source"].channels, *lattice.shape)
    assert close(one, other)


def test_points_are_the_lattice(both):
    bundle, here, there = both
    lattice, latents = a_lattice(bundle), random_latents(bundle, 1)
    on_lattice = here.decode("source", latents, lattice)[0].reshape(bundle.specs["source"].channels, -1)
    for engine in (here, there):
        assert close(engine.decode_points("source", latents, lattice.points()[:, 0]), on_lattice)


def test_operators_agree(both):
    bundle, here, there = both
    latents = random_latents(bundle, 4)
    assert close(here.operate(latents), there.operate(latents))


def test_sides_are_not_confused():
    bundle = make_bundle(make_spec(2), make_spec(2, "sigmoid"))
    engine, latents = NumpyEngine(bundle), random_latents(bundle, 1)
    lattice = a_lattice(bundle)
    target = engine.decode("target", latents, lattice)
    assert 0 <= target.min() <= target.max() <= 1
    assert not close(target, engine.decode("source", latents, lattice), 0.1)


class TestOpenEngine:
    def test_a_linear_bundle_runs_without_torch(self):
        for device in ("auto", "cpu"):
            assert isinstance(open_engine(make_bundle(make_spec(2)), device), NumpyEngine)

    def test_an_operator_that_numpy_does_not_know_runs_in_torch_and_spline_fields_do_not(self, tmp_path: Path):
        bundle = replace(make_bundle(make_spec(2)), operator={"form": "torch"}, path=tmp_path / "b")
        engine, whole = open_engine(bundle, "cpu"), TorchEngine(bundle, "cpu")
        assert isinstance(engine, SplineEngine)
        assert engine.device == "cpu"
        latents, lattice = random_latents(bundle, 2), a_lattice(bundle)
        assert np.array_equal(engine.operate(latents), whole.operate(latents))
        assert close(engine.decode("target", latents, lattice), whole.decode("target", latents, lattice), 1e-5)

    def test_fields_of_other_forms_run_in_torch(self, monkeypatch):
        monkeypatch.setattr("nfops.bundle.Bundle.codes_in_numpy", False)
        assert isinstance(open_engine(make_bundle(make_spec(2)), "cpu"), TorchEngine)

    def test_a_bundle_without_operator_is_linear_still(self, tmp_path: Path):
        bundle = make_bundle(make_spec(2))
        arrays = {side: bundle.arrays[side] for side in ("source", "target")}
        bare = replace(bundle, arrays=arrays, operator={})
        save_bundle(bare, tmp_path / "b", force=False)
        assert isinstance(open_engine(bare), NumpyEngine)
        with pytest.raises(BundleError, match="no operator"):
            TorchEngine(bare, "cpu").operate(random_latents(bundle, 1))
        with pytest.raises(BundleError, match="no operator"):
            NumpyEngine(bare).operate(random_latents(bundle, 1))

    @pytest.mark.parametrize("device", ["gpu", "", "cpu:0", "CUDA", "cudax", "cuda:", "cuda:one", "cuda:-1"])
    def test_a_device_that_is_no_device_is_refused(self, device):
        with pytest.raises(DeviceError, match="expected auto, cpu or cuda"):
            open_engine(make_bundle(make_spec(2)), device)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
    @pytest.mark.parametrize("device", ["cuda", "cuda:1"])
    def test_cuda_without_cuda_is_refused(self, device, tmp_path: Path):
        bundle = replace(make_bundle(make_spec(2)), path=tmp_path / "b")
        with pytest.raises(DeviceError, match=f"{device} was asked for"):
            open_engine(bundle, device)

    @pytest.mark.gpu
    def test_cuda_gives_the_same(self, tmp_path: Path):
        bundle = replace(make_bundle(make_spec(3, "softmax", 3)), path=tmp_path / "b")
        here, there = NumpyEngine(bundle), open_engine(bundle, "cuda")
        lattice, latents = a_lattice(bundle, (2, 1, 2)), random_latents(bundle, 3)
        assert close(here.decode("source", latents, lattice), there.decode("source", latents, lattice), 1e-3)
        problems = [engine.pose("source", lattice, values_on(bundle, lattice), None) for engine in (here, there)]
        assert close(*(problem.linearise(latents[:2]).gradient for problem in problems), 1e-3)

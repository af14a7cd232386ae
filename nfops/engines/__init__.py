"""Engines compute; NumPy goes in and comes out. `open_engine` and `open_engine_to_apply` choose one for a bundle."""

import re
from typing import Protocol

from nfops.arrays import Array
from nfops.bundle import Bundle
from nfops.bundle_graphs import OPERATOR
from nfops.errors import BundleError, DeviceError, UsageError
from nfops.sampling import Lattice
from nfops.solvers import Problem

ENGINES = ("auto", "numpy", "onnx", "torch")


class Engine(Protocol):
    """The seam between nfops and whatever does the arithmetic. `side` is "source" or "target"."""

    name: str
    device: str

    def pose(self, side: str, lattice: Lattice, values: Array, weights: Array | None) -> Problem:
        """The problem of matching (B, C, *lattice.shape) values; weights broadcast to (B, *lattice.shape)."""

    def operate(self, latents: Array) -> Array:
        """Source latents (B, P_in) -> target latents (B, P_out)."""

    def operate_each(self, latents: Array) -> Array:
        """As `operate`, by each member of an ensemble: (M, B, P_out), whose mean it gives; M is 1 for any other."""

    def operate_field(self, values: Array, coords: Array, spacing: Array) -> tuple[Array, Array | None]:
        """A field operator on (B, C, *grid) at coords (*grid, d), spacing (d,) -> values or probabilities
        (B, C', *grid) float32, and the standard deviation of those of an ensemble's members; None for any other.
        """

    def decode(self, side: str, latents: Array, lattice: Lattice) -> Array:
        """(B, P) -> values or probabilities (B, C, *lattice.shape) float32."""

    def decode_points(self, side: str, latents: Array, coords: Array) -> Array:
        """(1, P) at scattered coordinates (N, d) -> (C, N) float32."""


def open_engine(bundle: Bundle, device: str = "auto") -> Engine:
    """The engine for a bundle: NumPy for what it knows of it, torch for the rest or where a GPU is used.

    device: "auto", "cpu" or "cuda[:N]"; an explicit device is honoured or refused (DeviceError), never replaced.
    """
    _check_device(device)
    if not device.startswith("cuda") and bundle.runs_in_numpy:
        from nfops.engines.numpy_engine import NumpyEngine

        return NumpyEngine(bundle)
    return _torch_engine(bundle, device)


def open_engine_to_apply(bundle: Bundle, device: str = "auto", engine: str = "auto") -> Engine:
    """The engine for what `apply` does: encode a source, operate, decode a target.

    engine: "auto" is NumPy where it knows all parts, else onnxruntime where the bundle has the graphs of the others,
    else torch. An explicit engine is honoured or refused: BundleError where the bundle is not made for it, DeviceError
    for the device; device as for `open_engine`.
    """
    if engine not in ENGINES:
        raise UsageError("--engine", f"expected one of {', '.join(ENGINES)}, got {engine!r}")
    _check_device(device)
    if engine == "auto":
        engine = _best_engine(bundle, device)
    if engine == "onnx":
        return _onnx_engine(bundle, device)
    if engine == "numpy":
        return _numpy_engine(bundle, device)
    return _torch_engine(bundle, device)


def _best_engine(bundle: Bundle, device: str) -> str:
    is_cuda, needed = device.startswith("cuda"), bundle.graphs_to_apply
    if bundle.runs_in_numpy and not is_cuda:
        return "numpy"
    if not needed or not set(needed) <= set(bundle.graphs):
        return "torch"
    try:
        from nfops.engines.onnx_sessions import cuda_fault, has_driver
    except ImportError:  # not there, or broken: nobody asked for it by name
        return "torch"
    asks_for_gpu = is_cuda or (device == "auto" and has_driver())
    return "torch" if asks_for_gpu and cuda_fault(device if is_cuda else "cuda") else "onnx"


def _onnx_engine(bundle: Bundle, device: str) -> Engine:
    where = bundle.path or "bundle"
    hint = "`nfops export-onnx` makes them"
    missing = [name for name in bundle.graphs_to_apply if name not in bundle.graphs]
    if missing or not bundle.graphs:
        raise BundleError(where, f"it has no {' and no '.join(missing) or 'ONNX graphs'}", hint)
    if not bundle.graphs_to_apply and OPERATOR not in bundle.graphs:
        raise BundleError(where, "NumPy does all that apply asks of it, no graph would run", "use --engine numpy")
    try:
        from nfops.engines.onnx_engine import OnnxEngine
    except ImportError as error:
        raise DeviceError("--engine", f"onnxruntime cannot be imported: {error}", "install it again") from error
    return OnnxEngine(bundle, device)


def _numpy_engine(bundle: Bundle, device: str) -> Engine:
    if device.startswith("cuda"):
        raise DeviceError("--device", "--engine numpy computes on the CPU only", "use --engine onnx or torch")
    if not bundle.runs_in_numpy:
        parts = " and ".join(name.removesuffix(".onnx") for name in bundle.graphs_to_apply)
        raise BundleError(bundle.path or "bundle", f"NumPy does not know its {parts}", "use --engine onnx or torch")
    from nfops.engines.numpy_engine import NumpyEngine

    return NumpyEngine(bundle)


def _torch_engine(bundle: Bundle, device: str) -> Engine:
    """Torch for all of a bundle, but on a CPU NumPy for spline fields, which it encodes several times quicker."""
    from nfops.engines.torch_engine import TorchEngine

    engine = TorchEngine(bundle, device)
    if engine.device == "cpu" and bundle.codes_in_numpy:
        from nfops.engines.numpy_engine import SplineEngine

        return SplineEngine(bundle, engine)
    return engine


def _check_device(device: str) -> None:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise DeviceError("--device", f"expected auto, cpu or cuda[:N], got {device!r}")

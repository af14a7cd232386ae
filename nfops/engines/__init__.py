"""Engines compute; NumPy goes in and comes out. `open_engine` chooses one for a bundle and a device."""

import re
from typing import Protocol

from nfops.arrays import Array
from nfops.bundle import Bundle
from nfops.errors import DeviceError
from nfops.sampling import Lattice
from nfops.solvers import Problem


class Engine(Protocol):
    """The seam between nfops and whatever does the arithmetic. `side` is "source" or "target"."""

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
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise DeviceError("--device", f"expected auto, cpu or cuda[:N], got {device!r}")
    if not device.startswith("cuda") and bundle.runs_in_numpy:
        from nfops.engines.numpy_engine import NumpyEngine

        return NumpyEngine(bundle)
    from nfops.engines.torch_engine import TorchEngine

    engine = TorchEngine(bundle, device)
    if engine.device == "cpu" and bundle.codes_in_numpy:
        from nfops.engines.numpy_engine import SplineEngine

        return SplineEngine(bundle, engine)
    return engine

"""The engine for any backbone and operator: torch inside, NumPy at the border, points in blocks."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nfops import torch_heads
from nfops.arrays import Array
from nfops.bundle import Bundle
from nfops.codec import load_codec, load_operator
from nfops.engines.torch_problem import BLOCK_POINTS, TorchProblem
from nfops.errors import BundleError, DeviceError
from nfops.memory import require_memory
from nfops.sampling import Lattice

POINTS_AT_ONCE = 1 << 18
"""Of working grids: as many slices of a 2-D recipe pass through a field operator together."""


class TorchEngine:
    """Backbones and operator as torch modules on one device."""

    name = "torch"

    def __init__(self, bundle: Bundle, device: str = "auto") -> None:
        self.device = choose_device(device)
        self._codecs = {side: load_codec(bundle, side).to(self.device) for side in bundle.specs}
        self._operator = load_operator(bundle).to(self.device) if bundle.has_operator else None

    def pose(self, side: str, lattice: Lattice, values: Array, weights: Array | None) -> TorchProblem:
        """See `Engine.pose`."""
        return TorchProblem.on_lattice(self._codecs[side], lattice, values, weights)

    @torch.inference_mode()
    def operate(self, latents: Array) -> Array:
        """See `Engine.operate`."""
        return np.asarray(self._trained(self._tensor(latents)).cpu().numpy())

    @torch.inference_mode()
    def operate_each(self, latents: Array) -> Array:
        """See `Engine.operate_each`."""
        return np.asarray(self._each(self._tensor(latents)).cpu().numpy())

    @torch.inference_mode()
    def operate_field(self, values: Array, coords: Array, spacing: Array) -> tuple[Array, Array | None]:
        """See `Engine.operate_field`: the whole of a grid at once, some slices of many."""
        points = math.prod(values.shape[2:])
        if self.device == "cpu":
            needed = 4 * points * getattr(self._trained, "values_per_point", 1)
            require_memory("operator", needed, f"a working grid of {'x'.join(map(str, values.shape[2:]))} points")
        head, place, step = self._codecs["target"].head, self._tensor(coords), self._tensor(spacing)
        found, apart = [], []
        for some in torch.split(self._tensor(values), max(1, POINTS_AT_ONCE // points)):
            each = self._each(some, place.expand(len(some), *place.shape), step)
            found.append(torch_heads.activate(head, each.mean(dim=0).movedim(1, -1)).movedim(-1, 1).cpu())
            if len(each) > 1:
                shown = torch_heads.activate(head, each.movedim(2, -1)).movedim(-1, 2)
                apart.append(shown.std(dim=0, correction=0).cpu())
        return np.asarray(torch.cat(found).numpy()), np.asarray(torch.cat(apart).numpy()) if apart else None

    @property
    def _trained(self) -> nn.Module:
        if self._operator is None:
            raise BundleError("bundle", "it has no operator yet", "run `nfops train-operator`")
        return self._operator

    def _each(self, *inputs: Tensor) -> Tensor:
        """(M, ...): what each member of an ensemble makes of them; M is 1 for any other operator."""
        operator: Any = self._trained
        each: Tensor = operator.each(*inputs) if hasattr(operator, "each") else operator(*inputs)[None]
        return each

    def decode(self, side: str, latents: Array, lattice: Lattice) -> Array:
        """See `Engine.decode`."""
        values = self._evaluate(side, self._tensor(latents), self._tensor(lattice.points()))
        return np.moveaxis(values, -1, 1).reshape(len(latents), -1, *lattice.shape)

    def decode_points(self, side: str, latents: Array, coords: Array) -> Array:
        """See `Engine.decode_points`."""
        values = self._evaluate(side, self._tensor(latents), self._tensor(coords)[:, None])
        return np.asarray(values[0].T)

    @torch.inference_mode()
    def _evaluate(self, side: str, latents: Tensor, points: Tensor) -> Array:
        """Latents (B, P), points (N, Q, d) -> values (B, N, C), block by block, latent by latent where that is much."""
        codec, count = self._codecs[side], len(points)
        values = np.empty((len(latents), count, codec.spec.channels), np.float32)
        block = BLOCK_POINTS[points.device.type]
        cells, items = max(1, block // points.shape[1]), max(1, block // max(1, count * points.shape[1]))
        for first in range(0, len(latents), items):
            some = latents[first : first + items]
            for start in range(0, count, cells):
                field = codec.field(points[start : start + cells], some)
                shown = torch_heads.activate(codec.head, field)
                values[first : first + items, start : start + cells] = shown.cpu().numpy()
        return values

    def _tensor(self, array: Array) -> Tensor:
        writable = np.require(array, requirements="W")  # torch warns of others, views that NumPy broadcast among them
        return torch.as_tensor(writable, dtype=torch.float32, device=self.device)


def choose_device(device: str) -> str:
    """A device that torch really has. Raises DeviceError naming what is missing."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            built = "no CUDA device was found" if torch.version.cuda else "this torch is a CPU build, without CUDA"
            raise DeviceError("--device", f"{device} was asked for, but {built}", "use --device cpu or auto")
        index = int(device.partition(":")[2] or 0)
        if index >= torch.cuda.device_count():
            raise DeviceError("--device", f"{device} was asked for, of {torch.cuda.device_count()} CUDA devices")
    return device

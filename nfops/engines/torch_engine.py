"""The engine for any backbone and operator: torch inside, NumPy at the border, points in blocks."""

import numpy as np
import torch
from torch import Tensor

from nfops.arrays import Array
from nfops.bundle import Bundle
from nfops.codec import Codec, load_codec, load_operator
from nfops.errors import BundleError, DeviceError
from nfops.sampling import Lattice
from nfops.solvers import Linearisation


class TorchProblem:
    """B images on one lattice against a codec. values (B, C, *shape), weights (B or 1, *shape) or None."""

    def __init__(self, codec: Codec, lattice: Lattice, values: Array, weights: Array | None) -> None:
        self.is_linear = codec.is_linear
        self._codec = codec
        self._points = lattice.points().astype(np.float32)
        self._values = np.moveaxis(values, 1, -1).reshape(len(values), lattice.size, -1)
        ones = np.ones((1, lattice.size), np.float32)
        self._weights = ones if weights is None else weights.reshape(len(weights), -1)

    def start(self, latent: Array) -> Linearisation:
        """Least squares on the linked values for fields linear in the latent; else the loss itself."""
        latents = np.tile(latent, (len(self._values), 1))
        if not self._codec.starts_linked:
            return self.linearise(latents)
        return self._collect(latents, self._codec.head.link(self._values), linked=True)

    def linearise(self, latents: Array) -> Linearisation:
        """The head's loss and its Gauss-Newton model."""
        return self._collect(latents, self._values, linked=False)

    def loss(self, latents: Array) -> Array:
        """(B, P) -> (B,)."""
        head = self._codec.head
        total = np.zeros(len(latents))
        for part in self._blocks():
            field = self._codec.field(self._points[part], latents)
            total += (head.loss(field, self._values[:, part]) * self._weights[:, part]).sum(axis=1)
        return np.asarray(total / np.maximum(self._weights.sum(axis=1), 1e-12))

    def _blocks(self) -> list[slice]:
        step = self._codec.spec.encode.points
        return [slice(start, start + step) for start in range(0, len(self._points), step)]

    def _collect(self, latents: Array, targets: Array, *, linked: bool) -> Linearisation:
        weights = np.broadcast_to(self._weights, (len(latents), self._weights.shape[1]))
        parts = [self._one(*item, linked) for item in zip(latents, targets, weights, strict=True)]
        return Linearisation(*(np.stack([np.asarray(part[i]) for part in parts]) for i in range(3)))

    def _one(self, latent: Array, target: Array, weights: Array, linked: bool) -> tuple[float, Array, Array]:
        head = self._codec.quadratic if linked else self._codec.head
        loss, gradient, curvature = 0.0, np.zeros(len(latent)), np.zeros((len(latent),) * 2)
        for part in self._blocks():
            field, jacobian = self._codec.jacobian(self._points[part], latent)
            weight = weights[part]
            loss += float((head.loss(field, target[part]) * weight).sum())
            gradient += np.einsum("nc,ncp->p", head.slope(field, target[part]) * weight[:, None], jacobian)
            curvature += head.curve(field, jacobian, weight)
        total = max(float(weights.sum()), 1e-12)
        return loss / total, gradient / total, curvature / total


class TorchEngine:
    """Backbones and operator as torch modules on one device."""

    def __init__(self, bundle: Bundle, device: str = "auto") -> None:
        self.device = _choose(device)
        self._codecs = {side: load_codec(bundle, side).to(self.device) for side in bundle.specs}
        self._operator = load_operator(bundle).to(self.device) if bundle.has_operator else None

    def pose(self, side: str, lattice: Lattice, values: Array, weights: Array | None) -> TorchProblem:
        """See `Engine.pose`."""
        return TorchProblem(self._codecs[side], lattice, values, weights)

    @torch.inference_mode()
    def operate(self, latents: Array) -> Array:
        """See `Engine.operate`."""
        if self._operator is None:
            raise BundleError("bundle", "it has no operator yet", "run `nfops train-operator`")
        moved: Tensor = self._operator(torch.as_tensor(latents, dtype=torch.float32, device=self.device))
        return np.asarray(moved.cpu().numpy())

    def decode(self, side: str, latents: Array, lattice: Lattice) -> Array:
        """See `Engine.decode`."""
        codec = self._codecs[side]
        points, step = lattice.points().astype(np.float32), codec.spec.encode.points
        blocks = [codec.field(points[s : s + step], latents) for s in range(0, len(points), step)]
        values = codec.head.activate(np.concatenate(blocks, axis=1))
        return np.moveaxis(values, -1, 1).reshape(len(latents), -1, *lattice.shape)

    def decode_points(self, side: str, latents: Array, coords: Array) -> Array:
        """See `Engine.decode_points`."""
        codec = self._codecs[side]
        points, step = coords.astype(np.float32)[:, None], codec.spec.encode.points
        blocks = [codec.field(points[s : s + step], latents) for s in range(0, len(points), step)]
        return np.asarray(codec.head.activate(np.concatenate(blocks, axis=1))[0].T)


def _choose(device: str) -> str:
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

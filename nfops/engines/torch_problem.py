"""`TorchProblem`: images to be matched by a codec, on its device, in blocks of points that stay in cache."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nfops import torch_heads
from nfops.arrays import Array
from nfops.codec import Codec
from nfops.engines.factored_curvature import linearise_by_products
from nfops.heads import Head
from nfops.sampling import Lattice, even_draw
from nfops.solvers import DENSE_LATENT, Linearisation

BLOCK_POINTS = {"cpu": 2048, "cuda": 1 << 16}
"""Points in work at once, of all images together."""
KEPT_POINTS = 1 << 20
"""A problem of no more points than this keeps them."""


@dataclass(frozen=True, eq=False)
class LatticePoints:
    """The points (N, Q, d) of a lattice, made where they are asked for: those of a volume would fill the memory."""

    lattice: Lattice
    device: torch.device

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, Q, d)."""
        return self.lattice.size, math.prod(self.lattice.cell_points), len(self.lattice.axes)

    def __getitem__(self, cells: slice | Tensor) -> Tensor:
        chosen = np.arange(*cells.indices(self.shape[0])) if isinstance(cells, slice) else cells.cpu().numpy()
        return torch.as_tensor(self.lattice.points_of(chosen), dtype=torch.float32, device=self.device)


@dataclass(frozen=True, eq=False)
class TorchProblem:
    """B images on N cells. points: (N, Q, d). values: (B, N, C). weights: (B or 1, N). All on the codec's device."""

    codec: Codec
    points: Tensor | LatticePoints
    values: Tensor
    weights: Tensor

    @classmethod
    def on_lattice(cls, codec: Codec, lattice: Lattice, values: Array, weights: Array | None) -> "TorchProblem":
        """values: (B, C, *lattice.shape). weights: (B or 1, *lattice.shape), or None: all cells count alike."""
        points = LatticePoints(lattice, codec.device)
        channels_last = np.moveaxis(values, 1, -1).reshape(len(values), lattice.size, -1)
        known = np.ones((1, lattice.size)) if weights is None else weights.reshape(len(weights), -1)
        shown, cells = (torch.as_tensor(a, dtype=torch.float32, device=codec.device) for a in (channels_last, known))
        return cls(codec, points[:] if math.prod(points.shape) <= KEPT_POINTS else points, shown, cells)

    @property
    def is_linear(self) -> bool:
        """See `Problem`."""
        return self.codec.is_linear

    def subset(self, count: int, seed: int) -> "TorchProblem":
        """See `Problem`: of the cells that any of the images has; all of them where the field is linear."""
        if self.codec.starts_linked:
            return self
        known = torch.nonzero((self.weights > 0).any(dim=0))[:, 0]
        if count >= len(known):
            return self
        drawn = known[torch.as_tensor(even_draw(len(known), count, seed), device=known.device)]
        return TorchProblem(self.codec, self.points[drawn], self.values[:, drawn], self.weights[:, drawn])

    def item(self, index: int) -> "TorchProblem":
        """See `Problem`."""
        return self._items(slice(index, index + 1))

    @torch.no_grad()
    def start(self, latent: Array) -> Linearisation:
        """Least squares on the linked values for fields linear in the latent; else the loss itself."""
        z, head = self._tensor(latent[None]), self.codec.head
        if not self.codec.starts_linked:
            return self._linearise(z, self.values, head)
        return self._linearise(z, self._tensor(head.link(_array(self.values))), self.codec.quadratic)

    @torch.no_grad()
    def linearise(self, latents: Array) -> Linearisation:
        """The head's loss and its Gauss-Newton model."""
        if len(latents) == 1 or self._is_large(latents.shape[1]):
            return self._linearise(self._tensor(latents), self.values, self.codec.head)
        parts = [
            group._linearise(self._tensor(latents[items]), group.values, self.codec.head)
            for items, group in self._groups()
        ]
        return Linearisation(
            np.concatenate([part.loss for part in parts]),
            np.concatenate([part.gradient for part in parts]),
            np.concatenate([np.asarray(part.curvature).reshape(-1, *[latents.shape[1]] * 2) for part in parts]),
        )

    @torch.no_grad()
    def gradient(self, latents: Array) -> tuple[Array, Array]:
        """See `Problem`: one pass forward and one back."""
        found = [group._gradient(self._tensor(latents[items])) for items, group in self._groups()]
        losses, gradients = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return losses, gradients

    @torch.inference_mode()
    def loss(self, latents: Array) -> Array:
        """(B, P) -> (B,)."""
        return np.concatenate([group._loss(self._tensor(latents[items])) for items, group in self._groups()])

    def _items(self, items: slice) -> "TorchProblem":
        weights = self.weights if len(self.weights) == 1 else self.weights[items]
        return TorchProblem(self.codec, self.points, self.values[items], weights)

    def _groups(self) -> Iterator[tuple[slice, "TorchProblem"]]:
        """The images, as many at once as make up a block."""
        step = max(1, self._block() // max(1, self.points.shape[0] * self.points.shape[1]))
        for start in range(0, len(self.values), step):
            items = slice(start, start + step)
            yield items, self._items(items)

    def _blocks(self) -> Iterator[slice]:
        step = max(1, self._block() // self.points.shape[1])
        return (slice(start, start + step) for start in range(0, self.points.shape[0], step))

    def _block(self) -> int:
        return max(1, BLOCK_POINTS[self.codec.device.type] // self.values.shape[2])

    def _total(self) -> Tensor:
        return self.weights.sum(dim=1, dtype=torch.float64).clamp(min=1e-12)

    def _tensor(self, array: Array) -> Tensor:
        return torch.as_tensor(array, dtype=torch.float32, device=self.codec.device)

    def _loss(self, latents: Tensor) -> Array:
        loss = torch.zeros(len(latents), dtype=torch.float64, device=latents.device)
        for part in self._blocks():
            field = self.codec.field(self.points[part], latents)
            loss += (torch_heads.loss(self.codec.head, field, self.values[:, part]) * self.weights[:, part]).sum(dim=1)
        return _array(loss / self._total())

    def _gradient(self, latents: Tensor) -> tuple[Array, Array]:
        head = self.codec.head
        loss = torch.zeros(len(latents), dtype=torch.float64, device=latents.device)
        gradient = torch.zeros(latents.shape, dtype=torch.float64, device=latents.device)
        for part in self._blocks():
            target, weight = self.values[:, part], self.weights[:, part]

            def slope(field: Tensor, target: Tensor = target, weight: Tensor = weight) -> Tensor:
                return torch_heads.slope(head, field, target) * weight[..., None]

            field, found = self.codec.pull_back(self.points[part], latents, slope)
            loss += (torch_heads.loss(head, field, target) * weight).sum(dim=1)
            gradient += found
        return _array(loss / self._total()), _array(gradient / self._total()[:, None])

    def _linearise(self, latents: Tensor, targets: Tensor, head: Head) -> Linearisation:
        """About one latent for each image, or one that they share: then its Jacobian is shared too."""
        if self._is_large(latents.shape[1]):
            kept = self.points if isinstance(self.points, Tensor) else self.points[:]
            pieces = [(kept[part], targets[:, part], self.weights[:, part]) for part in self._blocks()]
            return linearise_by_products(self.codec, latents, head, pieces)
        shape = len(targets), latents.shape[1]
        loss, gradient = torch.zeros(shape[0]).to(self._total()), torch.zeros(shape).to(self._total())
        curvature = gradient.new_zeros((max(len(latents), len(self.weights)), shape[1], shape[1]))
        for part in self._blocks():
            target, weight = targets[:, part], self.weights[:, part]
            field, outer, inner = self.codec.factored_jacobian(self.points[part], latents)
            jacobian = outer.flatten(1, 2) if inner is None else outer.flatten(1, 2) @ inner
            loss += (torch_heads.loss(head, field, target) * weight).sum(dim=1)
            slope = (torch_heads.slope(head, field, target) * weight[..., None]).flatten(1)
            gradient += slope @ jacobian[0] if len(jacobian) == 1 else (slope[:, None] @ jacobian)[:, 0]
            _add_curvature(curvature, head, field, jacobian.reshape(len(jacobian), *field.shape[1:], shape[1]), weight)
        curvature /= self._total()[:, None, None]
        bent = _array(curvature[0] if len(curvature) < len(targets) else curvature)
        return Linearisation(_array(loss / self._total()), _array(gradient / self._total()[:, None]), bent)

    def _is_large(self, latent: int) -> bool:
        return latent > DENSE_LATENT and not self.is_linear


def _add_curvature(curvature: Tensor, head: Head, field: Tensor, jacobian: Tensor, weight: Tensor) -> None:
    """Add sum w J^T H J to (B or 1, P, P), image by image; what has a first size of 1 is shared by all."""
    for item in range(len(curvature)):
        own = [tensor if len(tensor) == 1 else tensor[item : item + 1] for tensor in (field, jacobian, weight)]
        rows = torch_heads.curvature_rows(head, *own)[0]
        curvature[item] += rows.T @ rows


def _array(tensor: Tensor) -> Array:
    return np.asarray(tensor.cpu().numpy())

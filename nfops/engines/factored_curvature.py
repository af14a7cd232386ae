"""Curvatures of fields with long latents, kept as factors: products with them cost what they weigh, not P^2."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from nfops import torch_heads
from nfops.arrays import Array
from nfops.codec import Codec
from nfops.heads import Head
from nfops.solvers import Linearisation, Products

STORED_BYTES = 1 << 30
"""Rows that are kept between products; with more, each product computes them again."""
DIAGONAL_ROWS = 256
"""About so many rows estimate the diagonal of a curvature."""

Piece: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""Points (N, Q, d), targets (B, N, C) and weights (B or 1, N) of one block."""


@dataclass(frozen=True, eq=False)
class FactoredCurvature:
    """(rows inner)^T (rows inner) / total. rows(): blocks (B, n C, S), of `count` rows in all.

    inner: (B, S, P), or None for the identity. total: (B or 1, 1), the sum of the weights.
    """

    rows: Callable[[], Iterable[Tensor]]
    count: int
    inner: Tensor | None
    total: Tensor

    @torch.no_grad()
    def apply(self, vectors: Array) -> Array:
        """(B, P) -> (B, P)."""
        v = torch.as_tensor(vectors, dtype=torch.float32, device=self.total.device)[..., None]
        moved = v if self.inner is None else self.inner @ v
        bent = torch.zeros_like(moved)
        for rows in self.rows():
            bent += rows.mT @ (rows @ moved)
        back = bent if self.inner is None else self.inner.mT @ bent
        return np.asarray((back[..., 0] / self.total).cpu().numpy(), dtype=np.float64)

    def diagonal(self) -> Array:
        """(B, P), estimated from rows taken evenly: enough to precondition with."""
        step = max(1, self.count // DIAGONAL_ROWS)
        some = torch.cat([rows[:, ::step] for rows in self.rows()], dim=1)
        moved = some if self.inner is None else some @ self.inner
        return np.asarray(((moved**2).sum(dim=1) * (step / self.total)).cpu().numpy(), dtype=np.float64)


def linearise_by_products(codec: Codec, latents: Tensor, head: Head, pieces: Sequence[Piece]) -> Linearisation:
    """The loss and its Gauss-Newton model about one latent (B, P) for each image, the curvature as products."""

    def rows() -> Iterator[Tensor]:
        for points, _, weight in pieces:
            field, outer, _ = codec.factored_jacobian(points, latents)
            yield torch_heads.curvature_rows(head, field, outer, weight)

    total = torch.stack([weight.sum(dim=1) for _, _, weight in pieces]).sum(dim=0).clamp(min=1e-12)[:, None]
    loss, by_shift = torch.zeros_like(latents[:, 0]), torch.zeros(())
    kept: list[Tensor] = []
    inner: Tensor | None = None
    for points, target, weight in pieces:
        field, outer, inner = codec.factored_jacobian(points, latents)
        loss = loss + (torch_heads.loss(head, field, target) * weight).sum(dim=1)
        slope = (torch_heads.slope(head, field, target) * weight[..., None]).flatten(1)
        by_shift = (slope[:, None] @ outer.flatten(1, 2)) + by_shift.to(outer)
        if outer.nbytes * len(pieces) <= STORED_BYTES:
            kept.append(torch_heads.curvature_rows(head, field, outer, weight))
    count = sum(target.shape[1] * target.shape[2] for _, target, _ in pieces)
    curvature = FactoredCurvature((lambda: kept) if kept else rows, count, inner, total)
    gradient = (by_shift if inner is None else by_shift @ inner)[:, 0] / total
    products = Products(curvature.apply, curvature.diagonal())
    return Linearisation(_array(loss / total[:, 0]), _array(gradient), products)


def _array(tensor: Tensor) -> Array:
    return np.asarray(tensor.cpu().numpy(), dtype=np.float64)

"""Cubic B-splines on a domain's nodes, in torch: values and derivatives at scattered coordinates.

The continuous arrays of `splines`, mirrored at the domain's edge; beyond the edge the value at the edge goes on.
"""

import itertools

import torch
from torch import Tensor

from nfops.sampling import Domain
from nfops.splines import to_coefficients


def coefficients(nodal: Tensor, domain: Domain) -> Tensor:
    """Values at the nodes (..., *nodes) -> the B-spline coefficients whose spline goes through them."""
    for axis, nodes in enumerate(domain.nodes):
        place = nodal.ndim - domain.dims + axis
        matrix = torch.as_tensor(to_coefficients(nodes), dtype=nodal.dtype, device=nodal.device)
        nodal = torch.movedim(torch.movedim(nodal, place, -1) @ matrix.T, -1, place)
    return nodal


class Taps:
    """The 4^d coefficients that a spline's value at each of (..., d) coordinates is made of.

    Differentiable by the coordinates.
    """

    def __init__(self, coords: Tensor, domain: Domain) -> None:
        half = torch.as_tensor(domain.half_extent, dtype=coords.dtype, device=coords.device)
        nodes = torch.as_tensor(domain.nodes, device=coords.device)
        self._nodes, self.per_coord = domain.nodes, nodes / 2 / half
        inside = (coords >= -half) & (coords <= half)
        position = (torch.clamp(coords / half, -1, 1) + 1) * nodes / 2 - 0.5
        start = torch.floor(position).detach()
        f = position - start
        self.weights = (
            torch.stack(((1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, 3 * f + 3 * f**2 - 3 * f**3 + 1, f**3), -1) / 6
        )
        slopes = torch.stack((-((1 - f) ** 2) / 2, 1.5 * f**2 - 2 * f, 0.5 + f - 1.5 * f**2, f**2 / 2), -1)
        self.slopes = slopes * (self.per_coord * inside)[..., None]
        taps = (start.long()[..., None] + torch.arange(-1, 3, device=coords.device)) % (2 * nodes[:, None])
        self.columns = torch.where(taps < nodes[:, None], taps, 2 * nodes[:, None] - 1 - taps)

    def sum(self, table: Tensor, along: int | None = None) -> Tensor:
        """Coefficients shared by all, (nodes in C order, K) -> (..., K); or their derivative by one coordinate."""
        if torch.compiler.is_compiling():
            rows, weights = self._all(along)
            return (weights[..., None, :] @ table[rows])[..., 0, :]
        total = torch.zeros((*self.weights.shape[:-2], table.shape[-1]), dtype=table.dtype, device=table.device)
        for taps in itertools.product(range(4), repeat=len(self._nodes)):
            rows, weight = self._one(taps, along)
            total = torch.addcmul(total, table[rows], weight[..., None])
        return total

    def sum_each(self, tables: Tensor, along: int | None = None) -> Tensor:
        """As `sum`, with coefficients (B, nodes, K) of its own for each of the first axis of (B, N, d)."""
        batch = torch.arange(len(tables), device=tables.device)[:, None]
        if torch.compiler.is_compiling():
            rows, weights = self._all(along)
            return (weights[..., None, :] @ tables[batch[..., None], rows])[..., 0, :]
        shape = (*self.weights.shape[:-2], tables.shape[-1])
        total = torch.zeros(shape, dtype=tables.dtype, device=tables.device)
        for taps in itertools.product(range(4), repeat=len(self._nodes)):
            rows, weight = self._one(taps, along)
            total = torch.addcmul(total, tables[batch, rows], weight[..., None])
        return total

    def _all(self, along: int | None) -> tuple[Tensor, Tensor]:
        """Rows and weights (..., 4^d) of all taps: one look-up in a graph to export, where memory counts less."""
        row, weight = torch.zeros_like(self.columns[..., 0, :1]), torch.ones_like(self.weights[..., 0, :1])
        for axis, nodes in enumerate(self._nodes):
            own = (self.slopes if axis == along else self.weights)[..., axis, None, :]
            row = (row[..., None] * nodes + self.columns[..., axis, None, :]).flatten(-2)
            weight = (weight[..., None] * own).flatten(-2)
        return row, weight

    def _one(self, taps: tuple[int, ...], along: int | None) -> tuple[Tensor, Tensor]:
        """Rows (...,) and weights (...,) of one tap."""
        row = torch.zeros_like(self.columns[..., 0, 0])
        weight = torch.ones_like(self.weights[..., 0, 0])
        for axis, tap in enumerate(taps):
            row = row * self._nodes[axis] + self.columns[..., axis, tap]
            weight = weight * (self.slopes if axis == along else self.weights)[..., axis, tap]
        return row, weight


def evaluate(table: Tensor, coords: Tensor, domain: Domain) -> Tensor:
    """Splines with coefficients (B, C, *nodes) at (B, N, d) -> (B, N, C)."""
    return Taps(coords, domain).sum_each(table.flatten(2).movedim(1, 2))

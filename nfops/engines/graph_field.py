"""A field of a bundle as ONNX graphs: one to linearise it, for the solvers, and one to evaluate it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from nfops.arrays import Array
from nfops.bundle_graphs import DECODE, ENCODE_STEP
from nfops.codec_spec import CodecSpec
from nfops.engines.onnx_sessions import GraphSession
from nfops.errors import BundleError
from nfops.memory import require_memory
from nfops.sampling import Lattice, even_draw
from nfops.solvers import DENSE_LATENT, Linearisation, Products

BLOCK_POINTS = {"cpu": 4096, "cuda": 1 << 16}
"""Points in work at once: on a CPU sums of so many stay exact enough, which onnxruntime adds naively."""
KEPT_POINTS = 1 << 20
"""A problem of no more points than this keeps them, on the device."""


class GraphField:
    """One side of a bundle. steps, values: sessions of its graphs encode_step and decode, where there are such."""

    def __init__(self, spec: CodecSpec, steps: GraphSession | None, values: GraphSession | None) -> None:
        self.spec, self._steps, self._values = spec, steps, values

    @property
    def steps(self) -> GraphSession:
        """Raises BundleError where the bundle has no such graph."""
        return _present(self._steps, ENCODE_STEP)

    def pose(self, lattice: Lattice, values: Array, weights: Array | None) -> "GraphProblem":
        """As `Engine.pose`, of this side."""
        _present(self._steps, ENCODE_STEP)
        channels_last = np.moveaxis(values, 1, -1).reshape(len(values), lattice.size, -1)
        known = np.ones((1, lattice.size)) if weights is None else weights.reshape(len(weights), -1)
        shown, cells = (np.asarray(a, dtype=np.float32) for a in (channels_last, known))
        return GraphProblem(self, lattice, np.arange(lattice.size), shown, cells)

    def decode(self, latents: Array, lattice: Lattice) -> Array:
        """As `Engine.decode`, of this side."""
        session, cells = _present(self._values, DECODE), np.arange(lattice.size)
        values = np.empty((len(latents), lattice.size, self.spec.channels), np.float32)
        placed = [session.place(latent) for latent in latents]
        for part in _blocks(lattice.size, math.prod(lattice.cell_points), session.device):
            points = session.place(lattice.points_of(cells[part]))
            for item, latent in enumerate(placed):
                values[item, part] = session.run(["values"], {"latent": latent, "points": points})[0]
        return np.moveaxis(values, -1, 1).reshape(len(latents), -1, *lattice.shape)

    def decode_points(self, latents: Array, coords: Array) -> Array:
        """As `Engine.decode_points`, of this side."""
        session = _present(self._values, DECODE)
        latent, points = session.place(latents[0]), np.asarray(coords)[:, None]
        found = [
            session.run(["values"], {"latent": latent, "points": session.place(points[part])})[0]
            for part in _blocks(len(coords), 1, session.device)
        ]
        return np.concatenate(found).T


def _blocks(count: int, cell: int, device: str) -> list[slice]:
    """So many cells of `cell` points each, a block at a time."""
    step = max(1, BLOCK_POINTS[device.partition(":")[0]] // cell)
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def _present(session: GraphSession | None, name: str) -> GraphSession:
    if session is None:
        what = f"has no graph {name} of this side"
        raise BundleError("bundle", what, "`nfops export-onnx` makes it, `--engine torch` needs none")
    return session


@dataclass(frozen=True, eq=False)
class GraphProblem:
    """B images on N cells of a lattice. cells: (N,). values: (B, N, C). weights: (B or 1, N)."""

    field: GraphField
    lattice: Lattice
    cells: Array
    values: Array
    weights: Array

    is_linear = False

    def start(self, latent: Array) -> Linearisation:
        """See `Problem`: the loss itself, as for every field that is not linear in the latent."""
        return self.linearise(np.tile(latent, (len(self.values), 1)))

    def linearise(self, latents: Array) -> Linearisation:
        """See `Problem`: a matrix as curvature, of long latents products with its rows."""
        if latents.shape[1] > DENSE_LATENT:
            return self._linearise_by_rows(latents)
        loss, gradient, curvature = self._sums(("loss", "gradient", "curvature"), latents)
        return Linearisation(loss, gradient, curvature)

    def gradient(self, latents: Array) -> tuple[Array, Array]:
        """See `Problem`."""
        loss, gradient = self._sums(("loss", "gradient"), latents)
        return loss, gradient

    def loss(self, latents: Array) -> Array:
        """(B, P) -> (B,)."""
        return self._sums(("loss",), latents)[0]

    def subset(self, count: int, seed: int) -> "GraphProblem":
        """See `Problem`: of the cells that any of the images has."""
        (known,) = np.nonzero((self.weights > 0).any(axis=0))
        if count >= len(known):
            return self
        drawn = known[even_draw(len(known), count, seed)]
        return GraphProblem(self.field, self.lattice, self.cells[drawn], self.values[:, drawn], self.weights[:, drawn])

    def item(self, index: int) -> "GraphProblem":
        """See `Problem`."""
        one = slice(index, index + 1)
        weights = self.weights if len(self.weights) == 1 else self.weights[one]
        return GraphProblem(self.field, self.lattice, self.cells, self.values[one], weights)

    def _sums(self, names: tuple[str, ...], latents: Array) -> list[Array]:
        """Outputs of the graph, added over blocks in float64 and divided by the weights: one (B, ...) each."""
        steps = self.field.steps
        found = []
        for item, latent in enumerate(latents):
            placed = steps.place(latent)
            runs = [steps.run(names, {"latent": placed, **block}) for block in self._blocks(item)]
            found.append([np.sum(parts, axis=0, dtype=np.float64) for parts in zip(*runs, strict=True)])
        totals = np.broadcast_to(self._totals, (len(latents),))
        return [
            np.stack([one / total for one, total in zip(parts, totals, strict=True)])
            for parts in zip(*found, strict=True)
        ]

    def _linearise_by_rows(self, latents: Array) -> Linearisation:
        """With products J v and J^T u of the stored rows, in place of a matrix of P x P."""
        size, (batch, count, channels) = latents.shape[1], self.values.shape
        require_memory("encode", 4 * batch * count * channels * size, f"the Jacobian of {count} points")
        names, steps = ("loss", "gradient", "rows"), self.field.steps
        totals = np.broadcast_to(self._totals, (batch,))
        losses, gradients, rows = np.zeros(batch), np.zeros(latents.shape), []
        for item, latent in enumerate(latents):
            placed, own = steps.place(latent), []
            for block in self._blocks(item):
                loss, gradient, part = steps.run(names, {"latent": placed, **block})
                losses[item] += float(loss)
                gradients[item] += gradient
                own.append(part)
            rows.append(np.concatenate(own))

        def apply(vectors: Array) -> Array:
            moved = [(r.T @ (r @ v.astype(np.float32))) / t for r, v, t in zip(rows, vectors, totals, strict=True)]
            return np.asarray(moved, dtype=np.float64)

        diagonal = np.stack([np.einsum("np,np->p", r, r) / t for r, t in zip(rows, totals, strict=True)])
        means = losses / totals, gradients / totals[:, None]
        return Linearisation(*means, Products(apply, diagonal.astype(np.float64)))

    @property
    def _totals(self) -> Array:
        """(B or 1,)."""
        return np.asarray(np.maximum(self.weights.sum(axis=1, dtype=np.float64), 1e-12))

    def _blocks(self, item: int) -> Iterator[dict[str, Any]]:
        """The graph's other inputs for one image, block by block."""
        row = item % len(self.weights)
        place = self.field.steps.place
        for part, kept in zip(self._parts, self._points, strict=True):
            points = place(self.lattice.points_of(self.cells[part])) if kept is None else kept
            yield {
                "points": points,
                "values": place(self.values[item, part]),
                "weights": place(self.weights[row, part]),
            }

    @cached_property
    def _parts(self) -> list[slice]:
        return _blocks(len(self.cells), math.prod(self.lattice.cell_points), self.field.steps.device)

    @cached_property
    def _points(self) -> list[Any]:
        """The points of each part, placed; None where they are too many to keep."""
        if len(self.cells) * math.prod(self.lattice.cell_points) > KEPT_POINTS:
            return [None] * len(self._parts)
        return [self.field.steps.place(self.lattice.points_of(self.cells[part])) for part in self._parts]

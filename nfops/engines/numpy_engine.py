"""The engine for spline bases on lattices and small operators on latents, in NumPy, without torch.

On a lattice a spline is a product of one small matrix per axis, so nothing as large as (points, P) is ever formed
for an image, and the curvature of one geometry serves every slice that shares it.
"""

from typing import Protocol

import numpy as np

from nfops import splines
from nfops.arrays import Array
from nfops.bundle import Bundle
from nfops.codec_spec import CodecSpec
from nfops.engines.numpy_operators import mean_of, open_members
from nfops.errors import BundleError
from nfops.heads import Head
from nfops.sampling import Lattice
from nfops.solvers import Linearisation

BLOCK_POINTS = 4096
"""Cells whose Jacobian is in memory at once, where the head is not linear."""


class SplineField:
    """mean + latents @ basis on nodes, read as splines. Arrays as backbone `fpca` stores them."""

    def __init__(self, spec: CodecSpec, arrays: dict[str, Array]) -> None:
        self.half_extent = np.array(spec.half_extent)
        self.head = Head(spec.head)
        self.mean = arrays["field.mean"].astype(np.float32)
        scale = arrays["field.basis_scale"].astype(np.float32).reshape(-1, *[1] * self.mean.ndim)
        self.basis = arrays["field.basis"].astype(np.float32) * scale
        self.nodes = self.mean.shape[1:]
        self.flat_basis = self.basis.reshape(len(self.basis), -1)
        self._gram_key: tuple[bytes, ...] = ()
        self._gram = np.empty(0)

    def nodal(self, latents: Array) -> Array:
        """(B, P) -> (B, C, *nodes)."""
        flat = latents.astype(np.float32) @ self.flat_basis
        return np.asarray(flat.reshape(-1, *self.mean.shape) + self.mean)

    def pose(self, lattice: Lattice, values: Array, weights: Array | None) -> "SplineProblem":
        """As `Engine.pose`, of this side."""
        return SplineProblem(self, lattice, values, weights)

    def decode(self, latents: Array, lattice: Lattice) -> Array:
        """As `Engine.decode`, of this side."""
        raw = splines.apply_axes(self.matrices(lattice), self.nodal(latents))
        return _activated(self.head, raw, 1)

    def decode_points(self, latents: Array, coords: Array) -> Array:
        """As `Engine.decode_points`, of this side."""
        return _activated(self.head, splines.evaluate_points(self.nodal(latents)[0], self.half_extent, coords), 0)

    def matrices(self, lattice: Lattice) -> tuple[Array, ...]:
        """One (cells, nodes) matrix per axis."""
        return splines.axis_matrices(self.nodes, self.half_extent, lattice)

    def gram(self, matrices: tuple[Array, ...]) -> Array:
        """(P, P): basis^T A^T A basis, every cell of weight one; the last geometry's is kept for the next image."""
        key = tuple(matrix.tobytes() for matrix in matrices)
        if key != self._gram_key:
            smoothed = splines.apply_axes(tuple(m.T @ m for m in matrices), self.basis)
            self._gram = np.asarray(smoothed.reshape(len(smoothed), -1) @ self.flat_basis.T)
            self._gram_key = key
        return self._gram


class SplineProblem:
    """B images on one lattice against a spline field. values (B, C, *shape), weights (B or 1, *shape) or None."""

    def __init__(self, field: SplineField, lattice: Lattice, values: Array, weights: Array | None) -> None:
        self.is_linear = field.head.is_linear
        self._field, self._lattice, self._values = field, lattice, values
        self._matrices = field.matrices(lattice)
        self._weights = weights
        total = np.full(1, lattice.size) if weights is None else weights.reshape(len(weights), -1).sum(axis=1)
        self._total = np.maximum(total, 1e-12)

    def start(self, latent: Array) -> Linearisation:
        """Least squares on the linked values: exact for an identity head."""
        head, channels = self._field.head, self._values.shape[1]
        target = np.moveaxis(head.link(np.moveaxis(self._values, 1, -1)), -1, 1)
        rest = splines.apply_axes(self._matrices, self._field.nodal(latent[None])) - target
        weighted = rest if self._weights is None else rest * self._weights[:, None]
        scale = 2 / (channels * self._total)
        back = splines.apply_axes(tuple(m.T for m in self._matrices), weighted).reshape(len(rest), -1)
        gradient = (back @ self._field.flat_basis.T) * scale[:, None]
        loss = (rest * weighted).reshape(len(rest), -1).sum(axis=1) / (channels * self._total)
        curvature = self._gram(self._weights)
        return Linearisation(loss, gradient, curvature * scale.reshape(-1, *[1] * (curvature.ndim - 1)))

    def linearise(self, latents: Array) -> Linearisation:
        """The head's own loss, image by image, block by block."""
        parts = [self._linearise_one(b, latents[b]) for b in range(len(latents))]
        return Linearisation(*(np.stack([part[i] for part in parts]) for i in range(3)))

    def gradient(self, latents: Array) -> tuple[Array, Array]:
        """See `Problem`."""
        field, values = self._shown(latents)
        slope = np.moveaxis(self._field.head.slope(field, values), -1, 1)
        weighted = slope if self._weights is None else slope * self._weights[:, None]
        back = splines.apply_axes(tuple(m.T for m in self._matrices), weighted).reshape(len(field), -1)
        return self._mean(field, values), (back @ self._field.flat_basis.T) / self._total[:, None]

    def loss(self, latents: Array) -> Array:
        """(B, P) -> (B,)."""
        return self._mean(*self._shown(latents))

    def subset(self, count: int, seed: int) -> "SplineProblem":  # noqa: ARG002
        """See `Problem`: products of axes are cheap on all of a lattice."""
        return self

    def item(self, index: int) -> "SplineProblem":
        """See `Problem`."""
        one = slice(index, index + 1)
        weights = self._weights if self._weights is None or len(self._weights) == 1 else self._weights[one]
        return SplineProblem(self._field, self._lattice, self._values[one], weights)

    def _shown(self, latents: Array) -> tuple[Array, Array]:
        """The raw fields of (B, P) and the values that they should have, (B, *shape, C)."""
        field = splines.apply_axes(self._matrices, self._field.nodal(latents))
        return np.moveaxis(field, 1, -1), np.moveaxis(self._values, 1, -1)

    def _mean(self, field: Array, values: Array) -> Array:
        """(B, *shape, C) twice -> mean losses (B,)."""
        loss = self._field.head.loss(field, values)
        weighted = loss if self._weights is None else loss * self._weights
        return np.asarray(weighted.reshape(len(loss), -1).sum(axis=1) / self._total)

    def _gram(self, weights: Array | None) -> Array:
        """(P, P) for all cells alike, (B, P, P) for weights: from the cells that count or, if fewer, that do not."""
        whole = self._field.gram(self._matrices)
        if weights is None:
            return whole
        rows = splines.apply_axes(self._matrices, self._field.basis)
        flat = rows.reshape(len(rows), -1)
        grams = []
        for weight in weights:
            spread = np.broadcast_to(weight, rows.shape[1:]).reshape(-1).astype(np.float32)
            few_lack = 2 * np.count_nonzero(spread == 1) > spread.size
            scale = spread - 1 if few_lack else spread
            (cells,) = np.nonzero(scale)
            part = flat[:, cells]
            gram = (part * scale[cells]) @ part.T
            grams.append(whole + gram if few_lack else gram)
        return np.stack(grams)

    def _linearise_one(self, index: int, latent: Array) -> tuple[Array, Array, Array]:
        head, size = self._field.head, len(latent)
        nodal = self._field.nodal(latent[None])[0]
        loss, gradient, curvature = 0.0, np.zeros(size), np.zeros((size, size))
        for block in self._lattice.blocks(BLOCK_POINTS):
            matrices = (self._matrices[0][block[0]], *self._matrices[1:])
            field = np.moveaxis(splines.apply_axes(matrices, nodal), 0, -1).reshape(-1, len(nodal))
            rows = splines.apply_axes(matrices, self._field.basis)
            jacobian = np.moveaxis(rows, (0, 1), (-1, -2)).reshape(len(field), len(nodal), size)
            values = np.moveaxis(self._values[index][:, *block], 0, -1).reshape(field.shape)
            weights = np.ones(len(field), np.float32)
            if self._weights is not None:
                weights = self._weights[index % len(self._weights)][block].reshape(-1)
            loss += float((head.loss(field, values) * weights).sum())
            gradient += np.einsum("nc,ncp->p", head.slope(field, values) * weights[:, None], jacobian)
            curvature += head.curve(field, jacobian, weights)
        total = self._total[index % len(self._total)]
        return np.asarray(loss / total), gradient / total, curvature / total


class SplineFields:
    """The part of an engine that codes: source and target as spline fields."""

    def __init__(self, bundle: Bundle) -> None:
        self._fields = {side: SplineField(spec, bundle.arrays[side]) for side, spec in bundle.specs.items()}

    def pose(self, side: str, lattice: Lattice, values: Array, weights: Array | None) -> SplineProblem:
        """See `Engine.pose`."""
        return self._fields[side].pose(lattice, values, weights)

    def decode(self, side: str, latents: Array, lattice: Lattice) -> Array:
        """See `Engine.decode`."""
        return self._fields[side].decode(latents, lattice)

    def decode_points(self, side: str, latents: Array, coords: Array) -> Array:
        """See `Engine.decode_points`."""
        return self._fields[side].decode_points(latents, coords)


class NumpyEngine(SplineFields):
    """Source and target as spline fields; the operator in a form that NumPy knows."""

    name = "numpy"
    device = "cpu"

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self._members = open_members(bundle) if bundle.has_operator else []

    def operate(self, latents: Array) -> Array:
        """See `Engine.operate`."""
        return mean_of(self.operate_each(latents))

    def operate_each(self, latents: Array) -> Array:
        """See `Engine.operate_each`."""
        if not self._members:
            raise BundleError("bundle", "it has no operator yet", "run `nfops train-operator`")
        return np.stack([member(latents) for member in self._members])

    def operate_field(self, values: Array, coords: Array, spacing: Array) -> tuple[Array, Array | None]:
        """See `Engine.operate_field`; `open_engine` takes another engine for operators on fields."""
        del values, coords, spacing
        raise BundleError("bundle", "its operator acts on fields, which needs onnxruntime or torch")


class SplineEngine(SplineFields):
    """Source and target as spline fields, whose encoding is several times quicker here; another engine's operator."""

    def __init__(self, bundle: Bundle, operator: "OperatorEngine") -> None:
        super().__init__(bundle)
        self.name, self.device = operator.name, operator.device
        self.operate, self.operate_each = operator.operate, operator.operate_each
        self.operate_field = operator.operate_field


class OperatorEngine(Protocol):
    """The part of an engine that runs operators; see `Engine`."""

    name: str
    device: str

    def operate(self, latents: Array) -> Array:
        """See `Engine.operate`."""

    def operate_each(self, latents: Array) -> Array:
        """See `Engine.operate_each`."""

    def operate_field(self, values: Array, coords: Array, spacing: Array) -> tuple[Array, Array | None]:
        """See `Engine.operate_field`."""


def _activated(head: Head, raw: Array, channel: int) -> Array:
    """The head's activation with channels on another axis than the last."""
    if head.is_linear:
        return raw
    return np.moveaxis(head.activate(np.moveaxis(raw, channel, -1)), -1, channel)

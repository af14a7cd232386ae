"""Heads: how a field's raw output becomes values, and what it costs to be wrong.

`identity` for intensities (squared error), `sigmoid` for one label, `softmax` for several (cross-entropy).
Curvatures are generalised Gauss-Newton: p(1 - p) and diag(p) - p p^T.
"""

from dataclasses import dataclass

import numpy as np

from nfops.arrays import Array

HEADS = ("identity", "sigmoid", "softmax")

SMOOTHING = 0.05
"""Labels are pulled this far from 0 and 1 before the link, so that logits stay finite."""


@dataclass(frozen=True)
class Head:
    """name: one of HEADS. Arrays are (..., C) with channels last."""

    name: str

    @property
    def is_linear(self) -> bool:
        """Whether the loss is quadratic in the field."""
        return self.name == "identity"

    def activate(self, field: Array) -> Array:
        """Field -> values or probabilities."""
        if self.name == "sigmoid":
            return np.asarray(1 / (1 + np.exp(-np.clip(field, -60, 60))))
        if self.name == "softmax":
            shifted = np.exp(field - field.max(axis=-1, keepdims=True))
            return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))
        return field

    def link(self, values: Array) -> Array:
        """Values or probabilities -> the field that would give them: the working response of a first step."""
        if self.name == "sigmoid":
            p = SMOOTHING + (1 - 2 * SMOOTHING) * values
            return np.asarray(np.log(p / (1 - p)))
        if self.name == "softmax":
            smoothing = min(SMOOTHING, 0.5 / values.shape[-1])  # many labels: each keeps less, their sum stays below 1
            log = np.log(smoothing + (1 - smoothing * values.shape[-1]) * values)
            return np.asarray(log - log.mean(axis=-1, keepdims=True))
        return values

    def loss(self, field: Array, values: Array) -> Array:
        """(..., C), (..., C) -> (...): mean squared error over channels, or cross-entropy."""
        if self.is_linear:
            return np.asarray(((field - values) ** 2).mean(axis=-1))
        if self.name == "sigmoid":
            return np.asarray((np.logaddexp(0, field) - values * field).sum(axis=-1))
        top = field.max(axis=-1, keepdims=True)
        log_p = field - top - np.log(np.exp(field - top).sum(axis=-1, keepdims=True))
        return np.asarray(-(values * log_p).sum(axis=-1))

    def slope(self, field: Array, values: Array) -> Array:
        """Derivative of the loss with respect to the field, (..., C)."""
        if self.is_linear:
            return np.asarray(2 * (field - values) / field.shape[-1])
        return np.asarray(self.activate(field) - values)

    def curve(self, field: Array, jacobian: Array, weights: Array) -> Array:
        """(N, C), J (N, C, P), (N,) -> (P, P): sum over points of w J^T H J, H the curvature of the loss."""
        channels = field.shape[-1]
        flat = jacobian.reshape(-1, jacobian.shape[-1])
        if self.is_linear:
            scale = np.repeat(2 * weights / channels, channels)
            return np.asarray(flat.T @ (flat * scale[:, None]))
        p = self.activate(field)
        if self.name == "sigmoid":
            scale = (weights[:, None] * p * (1 - p)).reshape(-1)
            return np.asarray(flat.T @ (flat * scale[:, None]))
        mean = np.einsum("nc,ncp->np", p, jacobian)
        return np.asarray(flat.T @ (flat * (weights[:, None] * p).reshape(-1, 1)) - mean.T @ (mean * weights[:, None]))

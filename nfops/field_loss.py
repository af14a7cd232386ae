"""What a field's output costs over its scans, and the quadratic model of that about their latents, in torch."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nfops import torch_heads
from nfops.contexts import Context
from nfops.heads import Head


@dataclass(frozen=True, eq=False)
class FieldLoss:
    """What a field's output costs: a backbone (see the design, "Adding a part") and a head."""

    backbone: Any
    head: Head

    def losses(self, context: Context, latents: Tensor) -> Tensor:
        """(B,) mean losses of latents (B, P)."""
        return self._mean(context, self.backbone(context.coords, latents))

    def gradient(self, context: Context, latents: Tensor, *, create_graph: bool = False) -> Tensor:
        """Of the losses by the latents, which must be leaves that require one: (B, P)."""
        (found,) = torch.autograd.grad(self.losses(context, latents).sum(), latents, create_graph=create_graph)
        return found

    def linearise(self, context: Context, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Losses (B,), gradients (B, P) and Gauss-Newton curvatures (B, P, P); with a graph where gradients are on.

        Where all B scans share their points, their weights and one latent (1, P), so they do the Jacobian and the
        curvature (1, P, P).
        """
        coords = context.coords[: len(latents)]
        output, jacobian = self._jacobian(coords, latents)
        slope = torch_heads.slope(self.head, output, context.values) * context.weights[..., None]
        flat = jacobian.flatten(1, 2)
        gradient = slope.flatten(1) @ flat[0] if len(flat) == 1 else (slope.flatten(1)[:, None] @ flat)[:, 0]
        return self._mean(context, output), gradient, self._curvature(output, jacobian, context.weights)

    def describe(self, loss: float) -> str:
        """A mean loss in words: decibels for intensities, whose values go from 0 to 1; nats for labels."""
        if not self.head.is_linear or not 0 < loss < math.inf:
            return f"{loss:.4g}"
        return f"{-10 * math.log10(loss):.2f} dB"

    def _mean(self, context: Context, output: Tensor) -> Tensor:
        return (torch_heads.loss(self.head, output, context.values) * context.weights).sum(dim=1)

    def _curvature(self, output: Tensor, jacobian: Tensor, weights: Tensor) -> Tensor:
        """Sum of w J^T H J: (N, C) outputs and (N, C, P) Jacobians of each scan or of all, weights likewise."""
        if weights.stride(0) == 0:
            weights = weights[:1]
        if self.head.is_linear:
            scale = (weights * (2 / output.shape[-1]))[..., None].expand(-1, -1, output.shape[-1])
            return _weighed_square(jacobian, scale)
        p = torch_heads.activate(self.head, output)
        if self.head.name == "sigmoid":
            return _weighed_square(jacobian, weights[..., None] * p * (1 - p))
        # diag(p) - p p^T = sum_c p_c (e_c - p) (e_c - p)^T
        return _weighed_square(jacobian - p[..., None, :] @ jacobian, weights[..., None] * p)

    def _jacobian(self, coords: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        if hasattr(self.backbone, "jacobian"):
            output, jacobian = self.backbone.jacobian(coords, latents)
            if jacobian.requires_grad or not torch.is_grad_enabled():  # one that is made for encoding has no graph
                return output, jacobian

        def one(where: Tensor, latent: Tensor) -> tuple[Tensor, Tensor]:
            output = self.backbone(where[None], latent[None])[0]
            return output, output

        jacobian, output = torch.func.vmap(torch.func.jacfwd(one, argnums=1, has_aux=True))(coords, latents)
        return output, jacobian


def _weighed_square(jacobian: Tensor, scale: Tensor) -> Tensor:
    """J^T diag(scale) J: (B or 1, N, C, P), (B or 1, N, C) -> (B or 1, P, P)."""
    weighed = jacobian * scale[..., None]
    return weighed.flatten(1, 2).transpose(1, 2) @ jacobian.flatten(1, 2)

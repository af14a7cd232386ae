"""The parts of a bundle as torch modules with the inputs and outputs of its ONNX graphs; see nfops-bundle(5)."""

from typing import Any

import torch
from torch import Tensor, nn

from nfops import torch_heads
from nfops.codec import Codec
from nfops.heads import Head
from nfops.solvers import Prior


class EncodeStep(nn.Module):
    """A field about one latent: all that a solver's step needs, as sums over points that blocks may be added of."""

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self.codec = codec

    def forward(
        self, latent: Tensor, points: Tensor, values: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Latent (P,), points (N, Q, d), values (N, C), weights (N,) -> sums of w times: the loss (), its gradient
        (P,), its Gauss-Newton curvature (P, P); and rows (N C, P) with rows^T rows = curvature.
        """
        head, weight, (count, cell) = self.codec.head, weights[None], points.shape[:2]
        fine, outer, inner = self.codec.factored_jacobian(points.reshape(-1, 1, points.shape[2]), latent[None])
        field = fine.reshape(1, count, cell, -1).mean(dim=2)
        loss = torch_heads.loss(head, field, values[None]) @ weights
        slope = torch_heads.slope(head, field, values[None]) * weight[..., None] / cell
        spread = slope[:, :, None].expand(1, count, cell, slope.shape[2])
        gradient = spread.reshape(1, -1) @ outer[0].flatten(0, 1)
        whole = outer
        if inner is not None:
            gradient, whole = gradient @ inner[0], outer @ inner[0]
        jacobian = whole.reshape(1, count, cell, *whole.shape[2:]).mean(dim=2)  # of cells: the last, it is the least
        rows = torch_heads.curvature_rows(head, field, jacobian, weight)[0]
        return loss[0], gradient[0], rows.T @ rows, rows


class Decode(nn.Module):
    """latent (P,), points (N, Q, d) -> values or probabilities (N, C), means over the Q points of a cell."""

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, latent: Tensor, points: Tensor) -> Tensor:
        """As the class says."""
        return torch_heads.activate(self.codec.head, self.codec.field(points, latent[None])[0])


class LatentOperator(nn.Module):
    """latents (B, P_in) -> (B, P_out) and, of an ensemble, what each member makes of them (M, B, P_out)."""

    def __init__(self, operator: nn.Module) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, latents: Tensor) -> tuple[Tensor, ...]:
        """As the class says."""
        each = _each(self.operator, latents)
        return (each.mean(dim=0), each) if is_ensemble(self.operator) else (each[0],)


class FieldOperator(nn.Module):
    """field (B, C, *grid), positions (*grid, d) from the grid's centre, spacing (d,) -> values or probabilities
    (B, C', *grid) and, of an ensemble, the standard deviation of those of its members.

    Where the operator knows one spacing only, or does not say that it takes any in a graph, there is no such input, and
    the spacing is that of its working grid: all that `apply` asks for.
    """

    def __init__(self, operator: nn.Module, head: Head, spacing: tuple[float, ...]) -> None:
        super().__init__()
        self.operator, self.head, self.spacing = operator, head, spacing

    @property
    def takes_spacing(self) -> bool:
        """Whether it has the third input."""
        operators: Any = getattr(self.operator, "members", [self.operator])
        return all(getattr(each, "graph_takes_spacing", False) for each in operators)

    def forward(self, field: Tensor, positions: Tensor, spacing: Tensor | None = None) -> tuple[Tensor, ...]:
        """As the class says."""
        steps = self.spacing if spacing is None else spacing.unbind()
        each = _each(self.operator, field, positions.expand(field.shape[0], *positions.shape), steps)
        values = torch_heads.activate(self.head, each.mean(dim=0).movedim(1, -1)).movedim(-1, 1)
        if not is_ensemble(self.operator):
            return (values,)
        shown = torch_heads.activate(self.head, each.movedim(2, -1)).movedim(-1, 2)
        return values, (shown - shown.mean(dim=0)).square().mean(dim=0).sqrt()


class Apply(nn.Module):
    """The whole way: points (N, Q, d), values (N, C) and weights (N,) of a scan, output_points (M, R, d) -> the values
    of the target there (M, C').

    The encoding is a damped Gauss-Newton descent on all the points, `steps` long (one where that is exact), whose P x P
    systems are solved by products alone. Unlike `solvers.gauss_newton` it does not begin on few points.
    """

    mean: Tensor
    precision: Tensor

    def __init__(self, source: Codec, prior: Prior, operator: nn.Module, target: Codec) -> None:
        super().__init__()
        self.encode_step, self.operator, self.decode = EncodeStep(source), operator, Decode(target)
        self.steps = 1 if source.is_linear else source.spec.encode.steps
        self.register_buffer("mean", torch.as_tensor(prior.mean, dtype=torch.float32))
        self.register_buffer("precision", torch.as_tensor(2 * prior.precision, dtype=torch.float32))

    def forward(self, points: Tensor, values: Tensor, weights: Tensor, output_points: Tensor) -> Tensor:
        """As the class says."""
        latent = self._encode((points, values, weights))
        predicted: Tensor = self.decode(self.operator(latent[None])[0], output_points)
        return predicted

    def _encode(self, scan: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """(P,): a step that does not lower the objective is taken again, shorter."""
        best, trial, damping = self.mean, self.mean, torch.zeros(())
        lowest, gradient, curvature = self._model(trial, scan)
        for step in range(self.steps):
            if step:
                value, slope, bent = self._model(trial, scan)
                helps = value <= lowest
                best, lowest = torch.where(helps, trial, best), torch.where(helps, value, lowest)
                gradient, curvature = torch.where(helps, slope, gradient), torch.where(helps, bent, curvature)
                damping = torch.where(helps, 0.0, torch.clamp(damping * 10, min=FIRST_DAMPING))
            extra = damping * torch.diagonal(curvature).mean() * torch.eye(len(self.mean))
            trial = best - solved(curvature + extra, gradient)
        value, _, _ = self._model(trial, scan)
        return torch.where(value <= lowest, trial, best)

    def _model(self, latent: Tensor, scan: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The objective about a latent: its value, gradient and curvature."""
        loss, gradient, curvature, _ = self.encode_step(latent, *scan)
        total, off = scan[2].sum(), latent - self.mean
        value = loss / total + (self.precision * off * off).sum() / 2
        return value, gradient / total + self.precision * off, curvature / total + torch.diag(self.precision)


FIRST_DAMPING = 1e-2
INVERTING, REFINING = 30, 3
"""Newton-Schulz iterations, enough for a condition of 1e8, and corrections of the solution in the end."""


def solved(matrix: Tensor, vector: Tensor) -> Tensor:
    """X (P,) with matrix x = vector, matrix (P, P) positive definite: ONNX has no operator that solves."""
    scale = torch.rsqrt(torch.diagonal(matrix))
    even = matrix * scale[:, None] * scale
    inverse = torch.eye(even.shape[0]) / even.abs().sum(dim=0).max()
    for _ in range(INVERTING):
        inverse = 2 * inverse - inverse @ (even @ inverse)
    wanted = vector * scale
    found = inverse @ wanted
    for _ in range(REFINING):
        found = found + inverse @ (wanted - even @ found)
    return found * scale


def is_ensemble(operator: nn.Module) -> bool:
    """Whether it has several members, whose predictions may lie apart."""
    return hasattr(operator, "each") and len(getattr(operator, "members", (0, 1))) > 1


def _each(operator: Any, *inputs: Any) -> Tensor:
    each: Tensor = operator.each(*inputs) if is_ensemble(operator) else operator(*inputs)[None]
    return each

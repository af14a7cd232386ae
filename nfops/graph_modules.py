"""The parts of a bundle as torch modules with the inputs and outputs of its ONNX graphs; see nfops-bundle(5)."""

from typing import Any

from torch import Tensor, nn

from nfops import torch_heads
from nfops.codec import Codec
from nfops.heads import Head


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
        head, weight = self.codec.head, weights[None]
        field, outer, inner = self.codec.factored_jacobian(points, latent[None])
        loss = torch_heads.loss(head, field, values[None]) @ weights
        slope = (torch_heads.slope(head, field, values[None]) * weight[..., None]).flatten(1)
        gradient = slope @ outer[0].flatten(0, 1)
        rows = torch_heads.curvature_rows(head, field, outer, weight)[0]
        if inner is not None:
            gradient, rows = gradient @ inner[0], rows @ inner[0]
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
    """field (B, C, *grid), positions (*grid, d) from the grid's centre -> values or probabilities (B, C', *grid) and,
    of an ensemble, the standard deviation of those of its members.

    On the one spacing of the operator's working grid, whatever the number of its points: all that `apply` asks for.
    """

    def __init__(self, operator: nn.Module, head: Head, spacing: tuple[float, ...]) -> None:
        super().__init__()
        self.operator, self.head, self.spacing = operator, head, spacing

    def forward(self, field: Tensor, positions: Tensor) -> tuple[Tensor, ...]:
        """As the class says."""
        each = _each(self.operator, field, positions.expand(field.shape[0], *positions.shape), self.spacing)
        values = torch_heads.activate(self.head, each.mean(dim=0).movedim(1, -1)).movedim(-1, 1)
        if not is_ensemble(self.operator):
            return (values,)
        shown = torch_heads.activate(self.head, each.movedim(2, -1)).movedim(-1, 2)
        return values, (shown - shown.mean(dim=0)).square().mean(dim=0).sqrt()


def is_ensemble(operator: nn.Module) -> bool:
    """Whether it has members, whose predictions may lie apart."""
    return hasattr(operator, "each")


def _each(operator: Any, *inputs: Any) -> Tensor:
    each: Tensor = operator.each(*inputs) if is_ensemble(operator) else operator(*inputs)[None]
    return each

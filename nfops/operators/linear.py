"""Ridge regression on standardised latents; its strength is chosen by leaving out one patient at a time."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from nfops.annotations import about
from nfops.latents import LatentTable, Objective
from nfops.progress import OnStep, Step, silent
from nfops.ridge import STRENGTHS, fit_ridge


@dataclass(frozen=True)
class Config:
    """strengths: candidates for the ridge, in units of the variance of a standardised latent."""

    strengths: tuple[float, ...] = field(
        default=STRENGTHS,
        metadata=about("Candidates for the ridge, in variances of a standardised latent.", low=0),
    )

    def __post_init__(self) -> None:
        if not self.strengths:
            raise ValueError("strengths: expected at least one number")


class Operator(nn.Module):
    """target = weight @ source + bias (the standardisation is folded in): (B, P_in) -> (B, P_out)."""

    acts_on = "latent"
    form = "affine"
    needs_validation = False
    weight: Tensor
    bias: Tensor

    def __init__(self, config: Config, source_size: int, target_size: int) -> None:
        super().__init__()
        self.config = config
        self.figures: dict[str, float] = {}
        self.register_buffer("weight", torch.zeros(target_size, source_size))
        self.register_buffer("bias", torch.zeros(target_size))

    def forward(self, latents: Tensor) -> Tensor:
        """(B, P_in) -> (B, P_out)."""
        return latents @ self.weight.to(latents.dtype).T + self.bias.to(latents.dtype)

    def fit(self, source: LatentTable, target: LatentTable, objective: Objective, on_step: OnStep = silent) -> None:
        """Fit to two tables of the same rows; the strength with the least error on left-out patients wins.

        Least squares has a closed form, so `objective` is not asked.
        """
        del objective
        on_step(Step("ridge", 0, 1))
        ridge = fit_ridge(source, target, self.config.strengths)
        self.weight.copy_(torch.from_numpy(ridge.weight))
        self.bias.copy_(torch.from_numpy(ridge.bias))
        on_step(Step("ridge", 1, 1))
        self.figures = {"strength": ridge.strength, "left_out_latent_mse": ridge.left_out_error}

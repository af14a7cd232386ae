"""Residual multilayer perceptron between latents (NOIR, Table S3), as an ensemble that starts at the ridge.

Latents are standardised (as CORAL does). With `start: ridge` the network learns what ridge regression leaves: its
last layer begins at zero, so that training can only be stopped at the ridge or beyond it.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from nfops.annotations import about
from nfops.latents import LatentTable, Objective
from nfops.progress import OnStep, Step, silent
from nfops.ridge import fit_ridge

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"silu": nn.functional.silu, "relu": nn.functional.relu}


@dataclass(frozen=True)
class Config:
    """One network: width, depth residual blocks, dropout; members of them are averaged. The loss is latent_weight
    times the latents' error plus decoded_weight times the decoded field's.
    """

    width: int = field(default=256, metadata=about("Features of a hidden layer.", low=1))
    depth: int = field(default=2, metadata=about("Residual blocks.", low=1))
    dropout: float = field(default=0.3, metadata=about("Part of the features dropped in training.", low=0, high=0.95))
    activation: Literal["silu", "relu"] = field(default="silu", metadata=about("Between the layers."))
    start: Literal["ridge", "random"] = field(
        default="ridge", metadata=about("ridge: learn what ridge regression leaves; random: learn all.")
    )
    members: int = field(default=1, metadata=about("Networks whose predictions are averaged.", low=1))
    epochs: int = field(default=50, metadata=about("Passes over the table of latents.", low=1))
    batch: int = field(default=128, metadata=about("Latents in a step.", low=1))
    learning_rate: float = field(default=2e-3, metadata=about("Largest step size of AdamW (cosine schedule).", above=0))
    weight_decay: float = field(default=1e-2, metadata=about("Weight decay of AdamW.", low=0))
    patience: int = field(
        default=50, metadata=about("Epochs without a better decoded validation score before a member stops.", low=1)
    )
    latent_weight: float = field(default=1.0, metadata=about("Weight of the latents' squared error.", low=0))
    decoded_weight: float = field(default=1.0, metadata=about("Weight of the decoded field's error.", low=0))

    def __post_init__(self) -> None:
        if self.latent_weight == self.decoded_weight == 0:
            raise ValueError("latent_weight, decoded_weight: one of them must be above 0")


class Member(nn.Module):
    """One residual network between standardised latents, (B, P_in) -> (B, P_out), zero at first."""

    def __init__(self, config: Config, source_size: int, target_size: int) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.first = nn.Linear(source_size, config.width)
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(config.depth))
        self.widen = nn.ModuleList(nn.Linear(config.width, config.width) for _ in range(config.depth))
        self.narrow = nn.ModuleList(nn.Linear(config.width, config.width) for _ in range(config.depth))
        self.dropout = nn.Dropout(config.dropout)
        self.last = nn.Linear(config.width, target_size)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, latents: Tensor) -> Tensor:
        """(B, P_in) -> (B, P_out)."""
        hidden = self.dropout(self.activation(self.first(latents)))
        for norm, widen, narrow in zip(self.norms, self.widen, self.narrow, strict=True):
            hidden = hidden + narrow(self.dropout(self.activation(widen(norm(hidden)))))
        output: Tensor = self.last(hidden)
        return output


class Operator(nn.Module):
    """target = ridge(source) + scale * mean over members of member((source - centre) / spread)."""

    acts_on = "latent"
    form = "residual-mlp"
    needs_validation = True
    centre: Tensor
    spread: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, config: Config, source_size: int, target_size: int) -> None:
        super().__init__()
        self.config = config
        self.figures: dict[str, float] = {}
        self.register_buffer("centre", torch.zeros(source_size))
        self.register_buffer("spread", torch.ones(source_size))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("weight", torch.zeros(target_size, source_size))
        self.register_buffer("bias", torch.zeros(target_size))
        self.members = nn.ModuleList(Member(config, source_size, target_size) for _ in range(config.members))

    def forward(self, latents: Tensor) -> Tensor:
        """(B, P_in) -> (B, P_out)."""
        return self.each(latents).mean(dim=0)

    def each(self, latents: Tensor) -> Tensor:
        """(B, P_in) -> (M, B, P_out): the prediction of every member."""
        standard = (latents - self.centre) / self.spread
        corrections = torch.stack([member(standard) for member in self.members])
        return self._linear(latents) + self.scale * corrections

    def fit(self, source: LatentTable, target: LatentTable, objective: Objective, on_step: OnStep = silent) -> None:
        """Fit every member to two tables of the same rows, each stopped where `objective.score` is best.

        Without validation scans a member is trained to the end of its schedule.
        """
        self._standardise(source, target)
        latents = torch.from_numpy(source.vectors)
        starts = self._score(objective, self._linear)
        bests, epochs = [], []
        for number, member in enumerate(self.members):
            best, stopped = self._fit_member(member, latents, objective, starts, _stages(on_step, number, self.config))
            bests.append(best)
            epochs.append(stopped)
        self.eval()
        self.figures |= {
            "score_start": starts,
            "score_members": float(np.mean(bests)),
            "epochs": float(np.mean(epochs)),
        }
        self.figures["score"] = self._score(objective, self)

    def _standardise(self, source: LatentTable, target: LatentTable) -> None:
        """Set the standardisation, and the linear part: the ridge, or the mean target."""
        spread = source.vectors.std(axis=0)
        self.centre.copy_(torch.from_numpy(source.vectors.mean(axis=0)))
        self.spread.copy_(torch.from_numpy(np.maximum(spread, 1e-6 * spread.max() + 1e-12)))
        self.scale.fill_(float(np.sqrt(target.vectors.var(axis=0).mean())) or 1.0)
        self.bias.copy_(torch.from_numpy(target.vectors.mean(axis=0)))
        if self.config.start == "ridge":
            ridge = fit_ridge(source, target)
            self.weight.copy_(torch.from_numpy(ridge.weight))
            self.bias.copy_(torch.from_numpy(ridge.bias))
            self.figures["ridge_strength"] = ridge.strength

    def _linear(self, latents: Tensor) -> Tensor:
        return latents @ self.weight.T + self.bias

    def _fit_member(
        self, member: nn.Module, latents: Tensor, objective: Objective, start: float, tell: Callable[[int, float], None]
    ) -> tuple[float, int]:
        """Train one member alone; its best score, and the epoch that had it (0: the start was never beaten)."""

        def predict(z: Tensor) -> Tensor:
            corrected: Tensor = self._linear(z) + self.scale * member((z - self.centre) / self.spread)
            return corrected

        config, best, best_epoch = self.config, start, 0
        kept = {name: tensor.clone() for name, tensor in member.state_dict().items()}
        optimizer = torch.optim.AdamW(member.parameters(), config.learning_rate, weight_decay=config.weight_decay)
        steps = config.epochs * max(1, len(latents) // config.batch)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_cosine(step, steps))
        for epoch in range(1, config.epochs + 1):
            member.train()
            for rows in _batches(len(latents), config.batch):
                self._descend(predict(latents[rows]), rows, objective, optimizer)
                schedule.step()
            member.eval()
            score = self._score(objective, predict)
            tell(epoch, score)
            if math.isnan(score) or score > best:
                kept = {name: tensor.clone() for name, tensor in member.state_dict().items()}
                best, best_epoch = score, epoch
            elif epoch - best_epoch >= config.patience:
                break
        member.load_state_dict(kept)
        return best, best_epoch

    def _descend(
        self, prediction: Tensor, rows: Tensor, objective: Objective, optimizer: torch.optim.Optimizer
    ) -> None:
        loss = torch.zeros(())
        if self.config.latent_weight:
            loss = loss + self.config.latent_weight * objective.latent(prediction, rows)
        if self.config.decoded_weight:
            loss = loss + self.config.decoded_weight * objective.decoded(prediction, rows)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()

    @staticmethod
    @torch.no_grad()
    def _score(objective: Objective, predict: Callable[[Tensor], Tensor]) -> float:
        return objective.score(predict)


def _batches(count: int, size: int) -> Iterator[Tensor]:
    """Shuffled rows in batches; a last one that is not full is left out, unless it is the only one."""
    order = torch.randperm(count)
    for start in range(0, max(count - size, 0) + 1, size):
        yield order[start : start + size]


def _warm_cosine(step: int, steps: int) -> float:
    """Linear warm-up over the first twentieth, then half a cosine down to 0."""
    warm = max(1, min(200, steps // 20))
    return min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(steps, 1))))


def _stages(on_step: OnStep, number: int, config: Config) -> Callable[[int, float], None]:
    """How one member tells where it is."""
    stage = "operator" if config.members == 1 else f"operator, member {number + 1} of {config.members}"

    def tell(epoch: int, score: float) -> None:
        note = "" if math.isnan(score) else f"validation {score:.4g}"
        on_step(Step(stage, epoch, config.epochs, note))

    return tell

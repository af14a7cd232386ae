"""Operator `knn`: the mean target latent of the nearest source latents, nearer ones counting more.

A plugin's module is what a file of `nfops/operators` is: a frozen dataclass `Config` and a class `Operator`.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from nfops.annotations import about
from nfops.latents import LatentTable, Objective
from nfops.progress import OnStep, Step, silent
from nfops.sized_by_state import SizedByState


@dataclass(frozen=True)
class Config:
    """What a recipe may say beside `backend: knn`; ranges are checked, and the man page of a recipe is made of it."""

    neighbours: tuple[int, ...] = field(
        default=(1, 2, 5, 10, 20, 40),
        metadata=about("Candidates for how many; the best on left-out patients wins.", low=1),
    )
    copies: bool = field(default=True, metadata=about("Keep augmented copies too, in a larger bundle."))

    def __post_init__(self) -> None:
        if not self.neighbours:
            raise ValueError("neighbours: expected at least one number")


class Operator(SizedByState):
    """(B, P_in) -> (B, P_out): weights exp(-distance^2 / that of the last neighbour), which sum to one.

    `SizedByState` lets stored arrays be longer than those of an empty operator: the rows are known after `fit` only.
    """

    acts_on = "latent"
    needs_validation = False  # fit does not ask for objective.score
    centre: Tensor
    known: Tensor
    answers: Tensor
    count: Tensor

    def __init__(self, config: Config, source_size: int, target_size: int) -> None:
        super().__init__()
        self.config = config
        self.figures: dict[str, float] = {}
        self.register_buffer("centre", torch.zeros(source_size))
        self.register_buffer("known", torch.zeros(0, source_size))
        self.register_buffer("answers", torch.zeros(0, target_size))
        self.register_buffer("count", torch.ones((), dtype=torch.int64))

    def forward(self, latents: Tensor) -> Tensor:
        """Plain tensor operations only, so that it runs on any device and can be exported."""
        return _answer(_squares(latents - self.centre, self.known), self.answers, int(self.count))

    def fit(self, source: LatentTable, target: LatentTable, objective: Objective, on_step: OnStep = silent) -> None:
        """Keep the rows, and choose how many neighbours; `objective` has losses and a score for whoever needs them."""
        del objective
        on_step(Step("neighbours", 0, 1))
        if not self.config.copies:
            source, target = source.where(source.copies == 0), target.where(target.copies == 0)
        vectors = torch.from_numpy(source.vectors)
        self.centre = vectors.mean(dim=0)
        self.known, self.answers = vectors - self.centre, torch.from_numpy(target.vectors)
        errors = self._left_out_errors(source)
        best = min(errors, key=lambda count: errors[count])
        self.count = torch.tensor(best)
        on_step(Step("neighbours", 1, 1))
        self.figures = {"neighbours": best, "left_out_latent_mse": errors[best]}

    def _left_out_errors(self, source: LatentTable) -> dict[int, float]:
        """Mean squared error of every scan as it is, its own patient's rows left out, by candidate."""
        squares = _squares(self.known, self.known)
        names = {name: number for number, name in enumerate(sorted(set(source.patients)))}
        owner = torch.tensor([names[name] for name in source.patients])
        alone = owner[:, None] == owner if len(names) > 1 else torch.eye(len(owner), dtype=torch.bool)
        rows = torch.from_numpy(source.copies == 0)
        others = int((~alone[rows]).sum(dim=1).min())
        counts = sorted({min(count, max(others, 1)) for count in self.config.neighbours})
        apart = squares.masked_fill(alone, 1e30)[rows]
        return {n: float(((_answer(apart, self.answers, n) - self.answers[rows]) ** 2).mean()) for n in counts}


def _squares(latents: Tensor, known: Tensor) -> Tensor:
    """(B, P), (N, P) -> squared distances (B, N); centred, or float32 would lose them."""
    squares = (latents**2).sum(dim=1, keepdim=True) + (known**2).sum(dim=1) - 2 * latents @ known.T
    return squares.clamp_min(0)


def _answer(squares: Tensor, answers: Tensor, count: int) -> Tensor:
    """Squared distances (B, N), answers (N, P_out) -> (B, P_out)."""
    near, rows = squares.topk(count, dim=1, largest=False)
    weights = torch.softmax(-near / near[:, -1:].clamp_min(1e-12), dim=1)
    return (weights[..., None] * answers[rows]).sum(dim=1)

"""Support vector regression between latents (NOIR, Table 3): an epsilon-SVR per target latent, all over one kernel.

scikit-learn fits; what it found is applied as plain tensor operations on the union of the support vectors. The RBF
kernel sees distances between latents: divided by one number they stay those of the fields (`scale: together`).
"""

import itertools
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from nfops.annotations import about
from nfops.arrays import Array
from nfops.latents import LatentTable, Objective
from nfops.progress import OnStep, Step, silent
from nfops.ridge import patient_folds
from nfops.sized_by_state import SizedByState
from nfops.support_vectors import Machines, View

PENALTIES = {"rbf": (3.0, 10.0, 30.0), "linear": (1e-3, 3e-3, 1e-2)}
CHOICE_GROUPS = 3
"""Candidates are tried on so many groups of left-out patients."""


@dataclass(frozen=True)
class Config:
    """penalties: candidates for C. gammas: for gamma times the number of latents that the kernel sees, whose mean
    variance is 1. epsilon: in standard deviations of a target latent.
    """

    kernel: Literal["rbf", "linear"] = field(default="rbf", metadata=about("Of two latents."))
    components: int | None = field(
        default=None,
        metadata=about("Leading principal components of the source latents that are seen; without it, all.", low=1),
    )
    scale: Literal["together", "each"] = field(
        default="together", metadata=about("each: every latent has a deviation of 1; together: their mean square.")
    )
    penalties: tuple[float, ...] | None = field(
        default=None, metadata=about("Candidates for C; without it some that suit the kernel.", above=0)
    )
    gammas: tuple[float, ...] = field(
        default=(0.03, 0.1, 0.3),
        metadata=about("Candidates for gamma of the RBF kernel, times the number of latents seen.", above=0),
    )
    epsilon: float = field(default=0.1, metadata=about("Errors below so many deviations cost nothing.", low=0))
    rows: int = field(
        default=1500, metadata=about("Most rows learned from, of all patients: time grows with their square.", low=2)
    )

    def __post_init__(self) -> None:
        for name in ("penalties", "gammas"):
            if getattr(self, name) == ():
                raise ValueError(f"{name}: expected at least one number")

    @property
    def candidates(self) -> list[tuple[float, float]]:
        """(gamma, C); gamma is 0 for the linear kernel, which has none."""
        gammas = self.gammas if self.kernel == "rbf" else (0.0,)
        return list(itertools.product(gammas, self.penalties or PENALTIES[self.kernel]))


class Operator(SizedByState):
    """target = expm1(-gamma |seen - support|^2) @ coefficients + bias, where seen is the centred, scaled source.

    With the linear kernel target = weight @ source + bias. (B, P_in) -> (B, P_out).

    The coefficients of an output sum to zero, so that the kernel may be taken less 1: where gamma is small they are
    large, and float32 would lose in the sum what it keeps so.
    """

    acts_on = "latent"
    form = "rbf-kernel"
    needs_validation = False
    bias: Tensor
    weight: Tensor
    centre: Tensor
    spread: Tensor
    basis: Tensor
    support: Tensor
    coefficients: Tensor
    gamma: Tensor

    def __init__(self, config: Config, source_size: int, target_size: int) -> None:
        super().__init__()
        self.config = config
        self.figures: dict[str, float] = {}
        seen = min(config.components or source_size, source_size)
        arrays = {"bias": torch.zeros(target_size)}
        if config.kernel == "linear":
            self.form = "affine"
            arrays |= {"weight": torch.zeros(target_size, source_size)}
        else:
            arrays |= {"centre": torch.zeros(source_size), "spread": torch.ones(seen), "gamma": torch.zeros(())}
            arrays |= {"support": torch.zeros(0, seen), "coefficients": torch.zeros(0, target_size)}
            arrays |= {"basis": torch.zeros(source_size, seen)} if config.components else {}
        for name, array in arrays.items():
            self.register_buffer(name, array)

    def forward(self, latents: Tensor) -> Tensor:
        """(B, P_in) -> (B, P_out)."""
        if self.config.kernel == "linear":
            return latents @ self.weight.T + self.bias
        seen = latents - self.centre  # centred, or float32 loses the distances (feasibility, section 3)
        seen = (seen @ self.basis if self.config.components else seen) / self.spread
        squares = (seen**2).sum(dim=1, keepdim=True) + (self.support**2).sum(dim=1) - 2 * seen @ self.support.T
        exponent = -self.gamma * squares
        lessened = torch.tanh(exponent / 2) * (torch.exp(exponent) + 1)  # expm1, which ONNX has not
        return lessened @ self.coefficients + self.bias

    def fit(self, source: LatentTable, target: LatentTable, objective: Objective, on_step: OnStep = silent) -> None:
        """Fit to two tables of the same rows; the candidates with the least error on left-out patients win.

        `objective` is not asked: a machine has no gradient to follow.
        """
        del objective
        rows = _spread_rows(source.patients, source.copies == 0, self.config.rows)
        source, target = source.where(rows), target.where(rows)
        config = self.config
        view = View.of(source.vectors.astype(np.float64), config.components, config.scale)
        seen, wanted = view.see(source.vectors), target.vectors.astype(np.float64)
        machines = Machines.of(seen, wanted, config.kernel, config.epsilon)
        best, error = self._choose(machines, source, on_step)
        gamma, penalty = config.candidates[best]
        coefficients, intercepts, unconverged = machines.solve(gamma, penalty, on_step)
        if config.kernel == "linear":
            self._keep_linear(view, machines, coefficients, intercepts)
        else:
            self._keep_support(view, machines, coefficients, intercepts, gamma)
        self.figures |= {"rows_used": len(source), "penalty": penalty, "left_out_latent_mse": error}
        self.figures |= {"gamma": gamma} if gamma else {"unconverged": unconverged}

    def _choose(self, machines: Machines, source: LatentTable, on_step: OnStep) -> tuple[int, float]:
        """The number of the best candidate, and its mean squared error (over the outputs that were tried)."""
        folds, candidates = patient_folds(source.patients) % CHOICE_GROUPS, self.config.candidates
        errors = []
        for done, (gamma, penalty) in enumerate(candidates):
            on_step(Step("support vectors: choice", done, len(candidates)))
            errors.append(machines.left_out_error(gamma, penalty, folds, source.copies == 0))
        return int(np.argmin(errors)), float(np.min(errors))

    def _keep_linear(self, view: View, machines: Machines, coefficients: Array, intercepts: Array) -> None:
        """coefficients: (seen, P_out), of standardised outputs."""
        slopes = (coefficients / view.spread[:, None]) * machines.deviation
        weight = (slopes if view.basis is None else view.basis @ slopes).T
        self.weight.copy_(torch.from_numpy(weight))
        self.bias.copy_(torch.from_numpy(machines.mean + intercepts * machines.deviation - weight @ view.centre))

    def _keep_support(
        self, view: View, machines: Machines, coefficients: Array, intercepts: Array, gamma: float
    ) -> None:
        """coefficients: (rows, P_out), of standardised outputs; rows that are no machine's support are dropped."""
        used = coefficients.any(axis=1)
        kept = {"centre": view.centre, "spread": view.spread, "support": machines.seen[used]}
        kept |= {"coefficients": coefficients[used] * machines.deviation}
        kept |= {"bias": machines.mean + intercepts * machines.deviation}
        kept |= {"gamma": np.array(gamma / machines.seen.shape[1])}
        kept |= {} if view.basis is None else {"basis": view.basis}
        for name, array in kept.items():
            setattr(self, name, torch.from_numpy(np.array(array, dtype=np.float32, order="C")))
        self.figures["support_vectors"] = int(used.sum())


def _spread_rows(patients: tuple[str, ...], originals: Array, most: int) -> Array:
    """(N,) which rows to learn from: every patient's scans as they are, then copies by chance, patient by patient."""
    chance = torch.rand(len(patients)).numpy() - originals  # scans as they are come first
    order = np.argsort(chance)
    turn = np.empty(len(patients), int)
    _, owner = np.unique(patients, return_inverse=True)
    for patient in range(owner.max() + 1):
        own = order[owner[order] == patient]
        turn[own] = np.arange(len(own))
    chosen = np.zeros(len(patients), bool)
    chosen[np.lexsort((chance, turn))[:most]] = True
    return chosen

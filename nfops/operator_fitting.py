"""Fit the operator of a recipe between two tables of latents: what `train-operator` runs, and `evaluate`."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nfops import torch_heads
from nfops.arrays import Array
from nfops.bundle import Bundle
from nfops.codec import Codec, build_operator, load_codec, state_arrays
from nfops.cohort import Pair
from nfops.cohort_samples import Sampler
from nfops.engines import open_engine
from nfops.heads import Head
from nfops.latents import LatentTable
from nfops.metrics import dice
from nfops.progress import OnStep, Step, silent
from nfops.recipe import Recipe
from nfops.schema import to_plain
from nfops.spread import evenly, latent_spreads, spread_figures

POINTS = 512
"""Nodes at which a step of training looks at the decoded field."""

LoadPairs = Callable[[], Sequence[Pair]]
"""Gives the pairs behind the tables when they are asked for: a closed-form operator never asks."""


def fit_operator(
    recipe: Recipe, bundle: Bundle, tables: dict[str, LatentTable], pairs: LoadPairs, on_step: OnStep = silent
) -> Bundle:
    """The bundle with an operator fitted to the training rows of `tables` ("source", "target").

    Their rows of the validation splits tell an iterative operator when to stop.
    """
    torch.manual_seed(recipe.seed)
    operator = build_operator(recipe.require_operator(), bundle.specs["source"].latent, bundle.specs["target"].latent)
    training = {side: table.where(np.isin(table.splits, recipe.data.train)) for side, table in tables.items()}
    objective = DecodedObjective(recipe, bundle, tables, pairs, on_step)
    operator.fit(training["source"], training["target"], objective, on_step)
    facts: dict[str, Any] = {
        "form": getattr(operator, "form", "torch"),
        "rows": len(training["source"]),
        "figures": dict(getattr(operator, "figures", {})),
        "source_residual": residual_figures(training["source"].residual[training["source"].copies == 0]),
    }
    if forms := getattr(operator, "forms", ()):
        facts["members"] = list(forms)
    fitted = bundle.with_operator(to_plain(recipe), state_arrays(operator), facts)
    if hasattr(operator, "each"):
        fitted = replace(fitted, operator=facts | _usual_spread(recipe, fitted, tables["source"]))
    return fitted


def _usual_spread(recipe: Recipe, fitted: Bundle, table: LatentTable) -> dict[str, Any]:
    """How far the members lie apart on validation scans, or on training scans where there are none."""
    training, original = np.isin(table.splits, recipe.data.train), table.copies == 0
    watched = ~training & np.isin(table.splits, recipe.data.validation) & original
    of, rows = ("validation", watched) if watched.any() else ("training", training & original)
    latents = table.where(rows).vectors
    spreads = latent_spreads(open_engine(fitted), fitted.specs["target"], latents[evenly(len(latents))])
    return {} if spreads is None else {"spread": spread_figures(spreads, of)}


def residual_figures(residual: Array) -> dict[str, float]:
    """What the source field leaves unexplained of training scans (N,): a scan that leaves far more is unlike them."""
    return {"median": float(np.median(residual)), "p99": float(np.percentile(residual, 99))}


class DecodedObjective:
    """`Objective` on a cohort: the true target at the nodes of its field, beside the target's latents."""

    def __init__(
        self, recipe: Recipe, bundle: Bundle, tables: dict[str, LatentTable], pairs: LoadPairs, on_step: OnStep
    ) -> None:
        self._recipe, self._bundle, self._pairs, self._on_step = recipe, bundle, pairs, on_step
        splits = np.array(tables["target"].splits)
        training = np.isin(splits, recipe.data.train)
        checked = ~training & np.isin(splits, recipe.data.validation) & (tables["target"].copies == 0)
        self._training, self._checked = (tables["target"].where(rows) for rows in (training, checked))
        self._source = torch.from_numpy(tables["source"].where(checked).vectors)
        self._truth = torch.from_numpy(self._training.vectors)
        self._scale = float(1 / self._truth.var(dim=0).mean().clamp_min(1e-12))

    def latent(self, predictions: Tensor, rows: Tensor) -> Tensor:
        """See `Objective.latent`."""
        return ((predictions - self._truth[rows]) ** 2).mean() * self._scale

    def decoded(self, predictions: Tensor, rows: Tensor) -> Tensor:
        """See `Objective.decoded`: at POINTS random nodes, the same for all rows; squares in units of variance."""
        nodes = torch.randint(len(self._nodes), (POINTS,))
        field = self._codec.backbone(self._nodes[nodes].expand(len(predictions), -1, -1), predictions)
        values = self._values[rows][:, nodes].float()
        error = torch_heads.loss(self._codec.head, field, values).mean()
        if self._codec.head.is_linear:
            return error / self._variance
        return error + dice_loss(torch_heads.activate(self._codec.head, field), values)

    def score(self, predict: Callable[[Tensor], Tensor]) -> float:
        """See `Objective.score`: the mean over validation scans, at the nodes."""
        if not len(self._source):
            return float("nan")
        fields = [self._field(predict(part)) for part in torch.split(self._source, 64)]
        values = torch_heads.activate(self._codec.head, torch.cat(fields))
        return float(decoded_scores(self._codec.head, values, self._checked_values).mean())

    def _field(self, latents: Tensor) -> Tensor:
        parts = torch.split(self._nodes, self._codec.spec.encode.points)
        return torch.cat([self._codec.backbone(part.expand(len(latents), -1, -1), latents) for part in parts], dim=1)

    @cached_property
    def _codec(self) -> Codec:
        return load_codec(self._bundle, "target").requires_grad_(False)

    @cached_property
    def _nodes(self) -> Tensor:
        """(G, d) coordinates of the target field's nodes."""
        return torch.from_numpy(self._codec.spec.domain.lattice().points()[:, 0].astype(np.float32))

    @cached_property
    def _values(self) -> Tensor:
        """(N, G, C) half precision: the true target behind every training row."""
        return self._drawn(self._training)

    @cached_property
    def _checked_values(self) -> Tensor:
        return self._drawn(self._checked).float()

    @cached_property
    def _variance(self) -> float:
        sample = self._values[:: max(1, len(self._values) // 256)].float()
        return float(sample.var(dim=0).mean().clamp_min(1e-12))

    @cached_property
    def _by_id(self) -> dict[str, Pair]:
        return {pair.scan_id: pair for pair in self._pairs()}

    def _drawn(self, table: LatentTable) -> Tensor:
        """(N, G, C) half precision: the target at the nodes for each row of a table, copies as they were encoded."""
        spec = self._codec.spec
        sampler = Sampler(self._recipe, spec, "target", spec.domain)
        rows: dict[str, list[int]] = defaultdict(list)
        for row, scan_id in enumerate(table.ids):
            rows[scan_id].append(row)
        drawn = torch.empty(len(table), len(self._nodes), spec.channels, dtype=torch.float16)
        for done, (scan_id, where) in enumerate(rows.items(), start=1):
            values, _ = sampler.draw(self._by_id[scan_id], [int(table.copies[row]) for row in where])
            drawn[where] = torch.from_numpy(values).flatten(2).movedim(1, 2).half()
            self._on_step(Step("true targets", done, len(rows)))
        return drawn


def dice_loss(probabilities: Tensor, truth: Tensor) -> Tensor:
    """(B, N, C) twice -> scalar: 1 - soft Dice over the points, mean over labels; of several, the first is the rest."""
    first = 1 if truth.shape[-1] > 1 else 0
    p, t = probabilities[..., first:], truth[..., first:]
    overlap, total = (p * t).sum(dim=1), p.sum(dim=1) + t.sum(dim=1)
    return 1 - ((2 * overlap + 1) / (total + 1)).mean()


def decoded_scores(head: Head, values: Tensor, truth: Tensor) -> Array:
    """Values or probabilities (V, N, C) and the true ones -> (V,) PSNR, or Dice of all labels together."""
    if head.is_linear:
        error = ((values.clamp(0, 1) - truth.clamp(0, 1)) ** 2).mean(dim=(1, 2))
        return np.asarray(-10 * torch.log10(error.clamp_min(1e-12)).numpy())
    masks = zip(_foreground(values), _foreground(truth), strict=True)
    return np.array([dice(one, other) for one, other in masks])


def _foreground(values: Tensor) -> Array:
    """Probabilities (V, G, C) -> (V, G): where any label is; of several, the first is the rest."""
    is_label = values[..., 0] > 0.5 if values.shape[-1] == 1 else values.argmax(dim=-1) > 0
    return is_label.numpy()

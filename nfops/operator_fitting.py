"""Fit the operator of a recipe between two tables of latents: what `train-operator` runs, and `evaluate`."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nfops.bundle import Bundle
from nfops.codec import build_operator, state_arrays
from nfops.latents import LatentTable
from nfops.progress import OnStep, silent
from nfops.recipe import Recipe
from nfops.schema import to_plain


def fit_operator(recipe: Recipe, bundle: Bundle, tables: dict[str, LatentTable], on_step: OnStep = silent) -> Bundle:
    """The bundle with an operator fitted to the rows of `tables` ("source", "target")."""
    torch.manual_seed(recipe.seed)
    operator = build_operator(recipe.operator, bundle.specs["source"].latent, bundle.specs["target"].latent)
    operator.fit(tables["source"], tables["target"], _latent_loss(tables["target"]), on_step)
    figures = {
        "form": getattr(operator, "form", "torch"),
        "rows": len(tables["source"]),
        "figures": dict(getattr(operator, "figures", {})),
        "source_residual": _residuals(tables["source"]),
    }
    arrays = {**bundle.arrays, "operator": state_arrays(operator)}
    return replace(bundle, recipe=to_plain(recipe), arrays=arrays, operator=figures)


def _residuals(source: LatentTable) -> dict[str, float]:
    """What the source field leaves unexplained of the training scans: a scan that leaves far more is unlike them."""
    own = source.residual[source.copies == 0]
    return {"median": float(np.median(own)), "p99": float(np.percentile(own, 99))}


def _latent_loss(target: LatentTable) -> Any:
    """Mean squared error of latents, in units of the training latents' own variance."""
    truth = torch.from_numpy(target.vectors)
    scale = 1 / truth.var(dim=0).mean().clamp_min(1e-12)

    def loss(prediction: Tensor, rows: Tensor) -> Tensor:
        return ((prediction - truth.to(prediction.device)[rows]) ** 2).mean() * scale.to(prediction.device)

    return loss

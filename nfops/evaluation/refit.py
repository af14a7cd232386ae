"""Everything refitted to some patients: the one place where evaluation calls the fitting of fields and operators."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nfops.bundle import Bundle
from nfops.codec import operator_acts_on
from nfops.cohort import Pair
from nfops.engines import open_engine
from nfops.errors import RecipeError
from nfops.field_operator_fitting import fit_field_operator
from nfops.fitting import Training, fit_fields, learned_sides
from nfops.latent_tables import encode_pairs
from nfops.latents import LatentTable
from nfops.operator_fitting import fit_operator
from nfops.progress import OnStep, silent
from nfops.recipe import Recipe
from nfops.registry import load_component


@dataclass(frozen=True, eq=False)
class Refitted:
    """bundle: trained, in memory. tables: its training latents, augmented copies included, by side."""

    bundle: Bundle
    tables: dict[str, LatentTable]


def refit(
    recipe: Recipe, training: list[Pair], inner: list[Pair], *, device: str = "auto", on_step: OnStep = silent
) -> Refitted:
    """Fit fields and operator. inner: pairs of training patients that say when to stop; where nothing asks for them
    they are trained on like the others.
    """
    watched: list[Pair] = []
    aside = [split for split in recipe.data.validation if split not in recipe.data.train]
    if not needs_validation(recipe):
        training = training + inner
    elif inner and aside:
        watched = [replace(pair, split=aside[0]) for pair in inner]
    else:
        what = "its training stops by validation patients: it needs data.validation, and two training patients a fold"
        raise RecipeError(recipe.name, what)
    pairs = [replace(pair, split=recipe.data.train[0]) for pair in training]
    facts: dict[str, Any] = {"scans": len(pairs), "patients": len({pair.patient for pair in pairs})}
    bundle = fit_fields(recipe, pairs, facts, on_step, Training(watched, device=device)).bundle
    tables = encode_pairs(recipe, bundle, open_engine(bundle, device), pairs + watched, on_step)
    if "target" in bundle.specs and operator_acts_on(recipe) == "field":
        bundle = fit_field_operator(recipe, bundle, pairs + watched, device, on_step)
    elif "target" in bundle.specs:
        bundle = fit_operator(recipe, bundle, tables, lambda: pairs + watched, on_step)
    kept = {side: table.where(np.isin(table.splits, recipe.data.train)) for side, table in tables.items()}
    return Refitted(bundle, kept)


def needs_validation(recipe: Recipe) -> bool:
    """Whether a component of the recipe stops early, or keeps its best, by scans that it does not learn from.

    Fields that are learned by descent do; operators unless they say `needs_validation = False`.
    """
    if learned_sides(recipe):
        return True
    if recipe.operator is None:
        return False
    return bool(getattr(load_component("operator", recipe.operator.component).cls, "needs_validation", True))

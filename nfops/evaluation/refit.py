"""Everything refitted to some patients: the one place where evaluation calls the fitting of fields and operators."""

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nfops.bundle import Bundle
from nfops.codec import operator_acts_on
from nfops.cohort import Pair
from nfops.engines import open_engine
from nfops.errors import RecipeError
from nfops.evaluation.operators import FittedOperator, stops_by_validation, with_operator
from nfops.field_operator_fitting import fit_field_operator
from nfops.fitting import Training, fit_fields, learned_sides
from nfops.latent_tables import encode_pairs
from nfops.latents import LatentTable
from nfops.operator_fitting import fit_operator
from nfops.progress import OnStep, silent
from nfops.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Refitted:
    """bundle: trained, in memory. tables: its training latents, augmented copies included, by side.

    operators: the recipe's own first, then its rivals on the same fields and tables; none without a target.
    """

    bundle: Bundle
    tables: dict[str, LatentTable]
    operators: tuple[FittedOperator, ...] = ()


def refit(
    recipe: Recipe,
    training: list[Pair],
    inner: list[Pair],
    *,
    rivals: tuple[str, ...] = (),
    device: str = "auto",
    on_step: OnStep = silent,
) -> Refitted:
    """Fit fields and operator, and other operators (`rivals`) to the same tables of latents.

    inner: pairs of training patients that say when to stop; where nothing asks for them they are trained on like the
    others.
    """
    watched: list[Pair] = []
    aside = [split for split in recipe.data.validation if split not in recipe.data.train]
    if not needs_validation(recipe, rivals):
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
    operators = []
    if "target" in bundle.specs:
        for name in (recipe.require_operator().component, *rivals):
            began = time.perf_counter()
            chosen = with_operator(recipe, name)
            if operator_acts_on(chosen) == "field":
                whole = fit_field_operator(chosen, bundle, pairs + watched, device, on_step)
            else:
                whole = fit_operator(chosen, bundle, tables, lambda: pairs + watched, on_step)
            operators.append(FittedOperator(name, whole, time.perf_counter() - began))
    kept = {side: table.where(np.isin(table.splits, recipe.data.train)) for side, table in tables.items()}
    return Refitted(operators[0].bundle if operators else bundle, kept, tuple(operators))


def needs_validation(recipe: Recipe, rivals: tuple[str, ...] = ()) -> bool:
    """Whether a component of the recipe, or a rival, stops early, or keeps its best, by scans not learned from.

    Fields that are learned by descent do; operators unless they say `needs_validation = False`.
    """
    if learned_sides(recipe):
        return True
    if recipe.operator is None:
        return False
    return any(stops_by_validation(recipe, name) for name in (recipe.operator.component, *rivals))

"""Which rows of a table are evaluated, and what must be said of their split."""

from nfops.bundle import Bundle
from nfops.cohort import Cohort
from nfops.errors import NothingMatchedError, UsageError
from nfops.evaluation.refit import needs_validation
from nfops.recipe import Recipe


def choose_splits(recipe: Recipe, bundle: Bundle, named: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The splits to evaluate, those named or else the recipe's validation, and warnings of what they had a part in.

    Raises UsageError where there are none, and for one that was trained on, unless it was named.
    """
    splits = named or recipe.data.validation
    if not splits:
        raise UsageError("--split", "the recipe has no data.validation", "name a split of its table, or use --folds")
    trained = {*recipe.data.train, *bundle.data.get("splits", ())}
    seen = [split for split in splits if split in trained]
    if seen and not named:
        what = f"split {', '.join(seen)} was trained on: its figures say little"
        raise UsageError("data.validation", what, f"use --folds, or ask for it by name: --split {seen[0]}")
    warnings = []
    if seen:
        what = f"Split {' and '.join(seen)} was trained on"
        warnings += [f"{what}: these figures are not those of new patients, who will be worse off."]
    watched = [split for split in splits if split in recipe.data.validation and split not in seen]
    if watched and needs_validation(recipe):
        what = f"Split {' and '.join(watched)} told the training when to stop"
        warnings += [f"{what}: figures lean to the good side. A split that played no part, or --folds, is fair."]
    return splits, tuple(warnings)


def all_splits(recipe: Recipe) -> tuple[str, ...]:
    """Those of training and validation, which folds are made of."""
    return tuple(dict.fromkeys((*recipe.data.train, *recipe.data.validation)))


def rows_of(recipe: Recipe, cohort: Cohort, splits: tuple[str, ...]) -> Cohort:
    """The rows of some splits. Raises NothingMatchedError where there are none."""
    chosen = cohort.with_splits(splits)
    if not chosen.rows:
        raise NothingMatchedError(recipe.name, f"no row has split {' or '.join(splits)}")
    return chosen

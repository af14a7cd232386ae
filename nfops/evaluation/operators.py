"""Several operators on the same fields (NOIR, Table 3): which, and what each would be on its own."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nfops.bundle import Bundle
from nfops.cohort import Pair
from nfops.errors import ComponentError, RecipeError, UsageError
from nfops.evaluation.model import Model
from nfops.image import Image
from nfops.node import Mark, node_from_plain
from nfops.recipe import Recipe
from nfops.registry import list_components, load_component, stated
from nfops.schema import Section, to_plain

OPTION, ALL = "--operators", "all"
PREFIX = "operator_"
"""Of an operator's key among the results; the recipe's own is the "result"."""


@dataclass(frozen=True, eq=False)
class FittedOperator:
    """bundle: the fields, the same for all, with this operator. seconds: that its fit took."""

    operator: str
    bundle: Bundle
    seconds: float

    def facts(self) -> dict[str, Any]:
        """What the report tells of it."""
        size = sum(int(np.asarray(array).nbytes) for array in self.bundle.arrays["operator"].values())
        figures = dict(self.bundle.operator["figures"])
        return {"seconds": self.seconds, "megabytes": size / 1e6, "figures": figures}


@dataclass(frozen=True, eq=False)
class Rival:
    """An operator beside the recipe's own: it predicts like a `Baseline`, whatever it acts on."""

    operator: str
    model: Model

    @property
    def name(self) -> str:
        """See `Baseline`."""
        return PREFIX + self.operator

    def predict(self, pair: Pair) -> Image:
        """See `Baseline`."""
        return self.model.predict(pair)


def choose_operators(recipe: Recipe, asked: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The operators to fit beside the recipe's own ("linear,svr", "all" or ""), and warnings of those left out.

    Raises UsageError for a list that is none and for operators that do not act on latents, ComponentError for those
    that cannot be used, RecipeError for those without defaults. "all" leaves all of them out.
    """
    if not asked:
        return (), ()
    own = recipe.require_operator().component
    if asked != ALL:
        names = tuple(dict.fromkeys(asked.split(",")))
        if not all(names):
            raise UsageError(OPTION, f"expected {ALL} or names such as linear,svr, got {asked!r}")
        for name in names:
            _require_fit(recipe, name)
        return tuple(name for name in names if name != own), ()
    chosen, warnings = [], []
    for name in dict.fromkeys(component.name for component in list_components("operator")):
        try:
            _require_fit(recipe, name)
            chosen.append(name)
        except (ComponentError, RecipeError, UsageError) as error:  # an ensemble has no settings by default
            warnings.append(f"Not compared: {error.message}.")
    return tuple(name for name in chosen if name != own), tuple(warnings)


def with_operator(recipe: Recipe, name: str) -> Recipe:
    """A recipe with another operator, which has its defaults; the recipe itself where it is its own."""
    if recipe.require_operator().component == name:
        return recipe
    section = Section(node_from_plain({"backend": name}, Mark(f"{OPTION} {name}")), "operator", "backend")
    return replace(recipe, operator=section)


def settings_of_operator(recipe: Recipe, name: str) -> Mapping[str, Any]:
    """All settings that it is fitted with. Raises RecipeError for one that has no defaults."""
    part = load_component("operator", name)
    return dict(to_plain(with_operator(recipe, name).require_operator().configure(part.config)))


def stops_by_validation(recipe: Recipe, name: str) -> bool:
    """Whether its fit asks for scans that it does not learn from; it does unless it says that it does not."""
    part = load_component("operator", name)
    config = with_operator(recipe, name).require_operator().configure(part.config)
    return bool(stated(part.cls, config, "needs_validation", True))


def _require_fit(recipe: Recipe, name: str) -> None:
    acts_on = getattr(load_component("operator", name).cls, "acts_on", "latent")
    if acts_on != "latent":
        raise UsageError(OPTION, f"operator {name} acts on {acts_on}s, expected one on latents")
    settings_of_operator(recipe, name)

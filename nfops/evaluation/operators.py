"""Several operators on the same scans (NOIR, Table 3): which, and what each would be on its own."""

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
    """An operator beside the recipe's own, whatever it acts on."""

    operator: str
    model: Model

    @property
    def name(self) -> str:
        """A key of the results."""
        return PREFIX + self.operator

    def predict(self, pair: Pair, seen: tuple[Image, Image] | None = None) -> Image:
        """See `Model.predict`."""
        return self.model.predict(pair, seen)


def choose_operators(recipe: Recipe, asked: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The operators to fit beside the recipe's own ("linear,svr", "all" or ""), and warnings of those left out.

    A name is one of the recipe's `evaluate.operators`, or that of an installed operator, which has its defaults; "all"
    means both, and leaves out what cannot be used. Raises UsageError for a list that is none, ComponentError and
    RecipeError for operators that cannot be used.
    """
    if not asked:
        return (), ()
    own = recipe.require_operator().component
    if own in recipe.evaluate.operators and recipe.evaluate.operators[own] != recipe.operator:
        what = f"evaluate.operators.{own}: is the name of the recipe's own operator, which has other settings"
        raise RecipeError(recipe.evaluate.operators[own].node.mark, what, "give it another name")
    if asked != ALL:
        names = tuple(dict.fromkeys(asked.split(",")))
        if not all(names):
            raise UsageError(OPTION, f"expected {ALL} or names such as linear,svr, got {asked!r}")
        for name in names:
            settings_of_operator(recipe, name)
        return tuple(name for name in names if name != own), ()
    chosen, warnings = [], []
    installed = [component.name for component in list_components("operator")]
    for name in dict.fromkeys((*recipe.evaluate.operators, *installed)):
        try:
            settings_of_operator(recipe, name)
            chosen.append(name)
        except (ComponentError, RecipeError) as error:
            if isinstance(error, RecipeError) and name not in recipe.evaluate.operators:
                continue  # it has no defaults, and nobody asked for it
            problems = error.problems if isinstance(error, RecipeError) else ()
            warnings.append(f"Not compared: {'; '.join(problems) or error.message}.")
    return tuple(name for name in chosen if name != own), tuple(warnings)


def with_operator(recipe: Recipe, name: str) -> Recipe:
    """A recipe with another operator, as `choose_operators` names them; the recipe itself where it is its own."""
    if recipe.require_operator().component == name:
        return recipe
    default = Section(node_from_plain({"backend": name}, Mark(f"{OPTION} {name}")), "operator", "backend")
    return replace(recipe, operator=recipe.evaluate.operators.get(name, default))


def settings_of_operator(recipe: Recipe, name: str) -> Mapping[str, Any]:
    """All settings that it is fitted with. Raises RecipeError for one that has no defaults, or mistakes in them."""
    section = with_operator(recipe, name).require_operator()
    part = load_component("operator", section.component)
    return {section.selector: section.component, **to_plain(section.configure(part.config))}


def stops_by_validation(recipe: Recipe, name: str) -> bool:
    """Whether its fit asks for scans that it does not learn from; it does unless it says that it does not."""
    section = with_operator(recipe, name).require_operator()
    part = load_component("operator", section.component)
    return bool(stated(part.cls, section.configure(part.config), "needs_validation", True))

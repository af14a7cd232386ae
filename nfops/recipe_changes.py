"""Whether a bundle was fitted by the recipe at hand: what fields depend on, and may not differ."""

from collections.abc import Mapping
from typing import Any

from nfops.bundle import MANIFEST, Bundle
from nfops.errors import BundleError, RecipeError
from nfops.recipe import recipe_from_plain
from nfops.schema import to_plain

FREE_KEYS = ("operator.", "evaluate.", "description", "bundle", "data.root", "data.validation")
"""What a recipe may say otherwise than when its fields were fitted."""


def refuse_other_recipe(bundle: Bundle, recipe: Mapping[str, Any]) -> None:
    """Raise BundleError where a resolved recipe is not the one that a bundle's fields were fitted by.

    Only the operator, what is evaluated, the description and where the data lie may differ: else the bundle would
    record settings that were not used. A key that is younger than the bundle had its default.
    """
    if difference := recipe_difference(bundle.recipe, recipe):
        what = f"its fields were fitted with {difference}"
        raise BundleError(
            bundle.path or "bundle", what, "repeat its --set, name another folder with --bundle, or fit again"
        )


def recipe_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What fields depend on and two recipes do not share, in words ("seed 3, the recipe says 4"); empty if nothing."""
    fitted, asked = _flat(_resolved(before)), _flat(now)
    differing = sorted(key for key in fitted.keys() | asked.keys() if fitted.get(key) != asked.get(key))
    differing = [key for key in differing if not key.startswith(FREE_KEYS)]
    if not differing:
        return ""
    key = "name" if "name" in differing else differing[0]
    return f"{key} {fitted.get(key)!r}, the recipe says {asked.get(key)!r}"


def _resolved(plain: Mapping[str, Any]) -> Mapping[str, Any]:
    """With the default of every key; as it is, where it can no longer be read."""
    try:
        return dict(to_plain(recipe_from_plain(plain, MANIFEST)))
    except RecipeError:
        return plain


def _flat(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"source.field.latent": 64, ...}."""
    found: dict[str, Any] = {}
    for key, value in plain.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found

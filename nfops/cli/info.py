"""`nfops info`: what an image, a bundle or a recipe is."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from nfops.cli.options import SOURCE, Session, pixel_mm_option, series_option, session_with, xform_option
from nfops.cli.pipes import DASH, check_pipes, received
from nfops.cli.progress import say, show_result
from nfops.shipped import SUFFIXES, named_recipe

UNASKED: Mapping[str, Any] = {"pixel_mm": None}
WIDEST = 110
"""Of a line that says all of a fact."""
EXAMPLES = [
    ("Shape, spacing and orientation of a scan", "nfops info scan.nii.gz"),
    ("The same as JSON, for a script", "nfops info --json scan.nii.gz"),
    ("What a shipped recipe is made of", "nfops info brain_t1t2"),
]


@click.command()
@click.argument("paths", nargs=-1, required=True, type=SOURCE, metavar="PATH...")
@pixel_mm_option
@series_option
@xform_option
@session_with()
def command(session: Session, paths: tuple[Path, ...], **options: Any) -> None:
    """Say what an image, a bundle or a recipe is.

    A bundle is a folder with a manifest.json; a recipe is a .yaml file, or the name of a shipped one, and it is checked
    as a training would check it. Anything else is read as an image, '-' as NIfTI from standard input. With --json,
    several paths give one list.
    """
    check_pipes(session, paths, {})
    found = [describe(path, options) for path in paths]
    for each in found:
        for warning in each.get("warnings") or ():
            say(session, f"{each['path']}: warning: {warning}")
    lines = [line for each in found for line in text_lines(each)]
    show_result(session, found if len(found) > 1 else found[0], lines)


def describe(path: Path, options: Mapping[str, Any] = UNASKED) -> dict[str, Any]:
    """What `path` is, as a document: `kind`, `path` and what there is to say about that kind.

    options: the user's words about how to read an image, as `read_as` takes them.
    """
    if os.path.isfile(path / "manifest.json"):  # noqa: PTH113 - Path.is_file may raise
        return _describe_bundle(path)
    if path.suffix in SUFFIXES or (not os.path.lexists(path) and named_recipe(str(path))):
        return _describe_recipe(path)
    from nfops.cli.scans import read_as
    from nfops.io import Reading, describe_image

    scan = received() if str(path) == DASH else path
    return describe_image(scan, read_as(Reading(), options))


def _describe_bundle(path: Path) -> dict[str, Any]:
    from nfops.bundle import load_bundle

    bundle = load_bundle(path)
    found = {"kind": "bundle", "path": path, "name": bundle.name, "sha256": bundle.digest}
    found |= {side: spec.to_plain() for side, spec in bundle.specs.items()}
    found |= {name: dict(graph.facts) for name, graph in bundle.graphs.items()}
    return found | {"operator": bundle.operator, "data": bundle.data, "versions": bundle.versions, "warnings": []}


def _describe_recipe(path: Path) -> dict[str, Any]:
    from nfops.cli.places import find_places
    from nfops.recipe import check_components

    places = find_places(str(path))
    recipe = places.recipe
    check_components(recipe)
    found = {"kind": "recipe", "path": places.file, "name": recipe.name, "description": recipe.description}
    found |= {"bundle": places.bundle, "is_trained": (places.bundle / "manifest.json").is_file()}
    found |= {"dims": recipe.geometry.dims, "grid": recipe.geometry.grid.shape}
    found |= {side: recipe.side(side).field.plain() for side in recipe.sides}
    return found | {"operator": recipe.operator.plain() if recipe.operator else None, "warnings": []}


def text_lines(document: Mapping[str, Any]) -> list[str]:
    """The document for people: the path, then indented lines, one a fact, or what a longer fact is made of."""
    facts = [(key, value) for key, value in document.items() if key not in {"path", "warnings"}]
    return [str(document["path"]), *(line for key, value in facts if value is not None for line in _fact(key, value))]


def _fact(key: str, value: Any) -> list[str]:
    """A fact on a line; of several series each on its own, as errors list them."""
    if key == "series":
        values = [f"{one['index']}: {one['title']}, {one['files']} files" for one in value]
        return [f"  {name:<16} {text}" for name, text in zip([key, *[""] * len(values)], values, strict=False)]
    line = f"  {key:<16} {_short(value)}"
    if len(line) <= WIDEST or not isinstance(value, Mapping | list) or not _parts(value):
        return [line]
    return [f"  {key}", *(f"  {part}" for name, item in _parts(value) for part in _fact(name, item))]


def _parts(value: Any) -> list[tuple[str, Any]]:
    """What there is to say of each part of a value that is made up of others: names or numbers, and the parts."""
    if isinstance(value, Mapping):
        return [(str(key), item) for key, item in value.items() if item not in (None, "", [], {}, ())]
    is_nested = all(isinstance(item, Mapping) for item in value)
    return [(str(number), item) for number, item in enumerate(value)] if is_nested else []


def _short(value: Any) -> str:
    """A value on one line: numbers with six digits, a matrix row by row."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        between = "; " if any(isinstance(item, list | tuple) for item in value) else " "
        return between.join(_short(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_short(item)}" for key, item in value.items())
    return f"{value:.6g}" if isinstance(value, float) else str(value)

"""`nfops recipes`: the recipes that travel with nfops."""

import os
from pathlib import Path

import click

from nfops.cli.options import Session, force_option, session_with
from nfops.cli.progress import say, show_result

EXAMPLES = [
    ("List the shipped recipes", "nfops recipes list"),
    ("Copy one here, to change it", "nfops recipes copy brain_t1t2 my_brain.yaml"),
]


@click.group()
def command() -> None:
    """List, show and copy the shipped recipes.

    Every command that takes --recipe finds a shipped recipe by its name; a file of that name comes first.
    """


@command.command("list")
@session_with()
def list_recipes(session: Session) -> None:
    """List the shipped recipes; [trained] marks those whose bundle travels with nfops, ready for apply."""
    from nfops.recipe import load_recipe
    from nfops.shipped import shipped_recipes

    document, lines = [], []
    for name, path in shipped_recipes().items():
        recipe = load_recipe(path)
        bundle = path.parent / recipe.bundle
        is_trained = (bundle / "manifest.json").is_file()
        found = {"name": name, "path": path, "description": recipe.description}
        document.append({**found, "bundle": bundle if is_trained else None})
        lines.append(f"{name:<20} {'[trained] ' * is_trained}{recipe.description}".rstrip())
    show_result(session, document, lines)


@command.command()
@click.argument("name")
@session_with()
def show(session: Session, name: str) -> None:
    """Print a shipped recipe."""
    path = _shipped(name)
    text = path.read_text(encoding="utf-8")
    if session.json:
        show_result(session, {"name": name, "path": path, "text": text}, ())
    else:
        click.echo(text, nl=False)


@command.command()
@click.argument("name")
@click.argument("target", type=click.Path(path_type=Path), default=".", metavar="[DIR|FILE]")
@session_with(force_option)
def copy(session: Session, name: str, target: Path) -> None:
    """Copy a shipped recipe to a folder or a file."""
    from nfops.io import publishing

    path = _shipped(name)
    place = target / path.name if os.path.isdir(target) else target  # noqa: PTH112 - Path.is_dir may raise
    with publishing(place, session.force) as temporary:
        temporary.write_bytes(path.read_bytes())
    say(session, f"wrote {place}")
    show_result(session, {"name": name, "path": place}, ())


def _shipped(name: str) -> Path:
    """The file of a shipped recipe; a wrong name is met with the likeliest right one."""
    from nfops.annotations import did_you_mean
    from nfops.errors import RecipeError
    from nfops.shipped import shipped_recipes

    known = shipped_recipes()
    if name not in known:
        hint = did_you_mean(name, known) or f"shipped recipes: {', '.join(known) or 'none'}"
        raise RecipeError(name, "no shipped recipe of this name", hint)
    return known[name]

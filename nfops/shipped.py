"""The recipes that travel with nfops: in the wheel they are `nfops/shipped_recipes`, in a checkout `recipes`."""

from dataclasses import dataclass
from pathlib import Path

from nfops.annotations import did_you_mean
from nfops.errors import NotFoundError, RecipeError

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class FoundRecipe:
    """path: the file. is_shipped: it came with nfops, so its bundle did too."""

    path: Path
    is_shipped: bool


def shipped_folder() -> Path:
    """Where recipes, `bundles/` and `demo/` are; the folder may be missing in a bare installation."""
    package = Path(__file__).parent
    inside = package / "shipped_recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def shipped_recipes() -> dict[str, Path]:
    """Name -> file of every shipped recipe, sorted by name."""
    return {path.stem: path for path in sorted(shipped_folder().glob("*.yaml"))}


def named_recipe(text: str) -> Path | None:
    """The shipped recipe that a name means, with or without `.yaml`; None where it means another, or a file."""
    path = Path(text)
    name = path.stem if path.suffix in SUFFIXES else text
    return shipped_recipes().get(name) if path.name == text and not path.is_file() else None


def find_recipe(name_or_path: str | Path) -> FoundRecipe:
    """The recipe file: an existing file comes first, then a shipped recipe of that name, with or without `.yaml`.

    Raises NotFoundError for a path where no file is, RecipeError for a name that is not shipped.
    """
    path, text = Path(name_or_path), str(name_or_path)
    known = shipped_recipes()
    name = path.stem if path.suffix in SUFFIXES else text
    if shipped := named_recipe(text):
        return FoundRecipe(shipped, is_shipped=True)
    if _exists(path):  # a folder too: reading it says what is wrong
        return FoundRecipe(path, is_shipped=False)
    hint = did_you_mean(name, known) or f"shipped recipes: {', '.join(known) or 'none'}"
    if path.suffix in SUFFIXES or path.name != text:
        raise NotFoundError(text, "no such file", hint)
    raise RecipeError(text, "no such file, and no shipped recipe of that name", hint)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # it may, behind a folder that is closed to us: reading it says what is wrong
        return True

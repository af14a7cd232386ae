"""Where a command finds what its recipe speaks of: the recipe itself, its data, its bundle."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nfops.io import Reading
    from nfops.recipe import Recipe


@dataclass(frozen=True)
class Places:
    """recipe: checked, with the `file` it is from. data: the folder that its `data.root` is relative to. bundle: the
    bundle's directory. name: the recipe as the user called it.
    """

    recipe: "Recipe"
    file: Path
    data: Path
    bundle: Path
    name: str

    def reading(self, options: Mapping[str, Any]) -> "Reading":
        """How to read a scan: as the recipe says, pictures in its plane; `options` are the user's own words."""
        from nfops.cli.scans import read_as
        from nfops.cohort import reading_of
        from nfops.io import PictureFrame

        axes = self.recipe.geometry.anatomical_axes or ("L", "P")  # a signal is in no plane
        reading = reading_of(self.recipe, "source")
        return read_as(replace(reading, picture=reading.picture or PictureFrame((axes[0], axes[1]))), options)

    def recorded(self) -> dict[str, str]:
        """What a sidecar says of the recipe."""
        from nfops.io.digest import sha256_of

        return {"name": self.recipe.name, "sha256": sha256_of(self.file)}

    def how_to_train(self) -> str:
        """The three commands, on one line; the first is enough where there is no operator to train."""
        verbs = ("fit-inr", "encode", "train-operator") if self.recipe.operator else ("fit-inr",)
        return "train it: " + " && ".join(f"nfops {verb} --recipe {self.name} --data DIR" for verb in verbs)


def find_places(
    recipe: str,
    settings: Sequence[str] = (),
    data: Path | None = None,
    bundle: Path | None = None,
    *,
    to_train: bool = False,
) -> Places:
    """Load a recipe and say where its data and its bundle are.

    A recipe's bundle is relative to its file. A shipped recipe is trained into the working directory (`to_train`), and
    applied from there if a bundle is there, otherwise from the one that was shipped.
    """
    from nfops.recipe import load_recipe
    from nfops.shipped import find_recipe, shipped_folder

    found = find_recipe(recipe)
    loaded = load_recipe(found.path, settings)
    if bundle is None:
        own = Path(loaded.bundle) if found.is_shipped else found.path.parent / loaded.bundle
        shipped = shipped_folder() / loaded.bundle
        may_be_shipped = found.is_shipped and not to_train and not (own / "manifest.json").is_file()
        bundle = shipped if may_be_shipped and (shipped / "manifest.json").is_file() else own
    return Places(loaded, found.path, data or Path(), bundle, recipe)

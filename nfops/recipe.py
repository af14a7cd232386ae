"""A recipe: one YAML file that says what to learn from which images. See the man page nfops-recipe(5)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as setting
from pathlib import Path
from typing import Any

from nfops import __version__
from nfops.annotations import about
from nfops.errors import RecipeError, UsageError
from nfops.node import MAX_DEPTH, Mark, Node, node_from_plain, quoted
from nfops.recipe_data import Columns, Data
from nfops.recipe_geometry import Geometry, body_axes, require_different_axes
from nfops.recipe_sections import Augment, Encode, Evaluate, Fit, SourceSide, TargetSide
from nfops.registry import load_component
from nfops.schema import NO_CODE, Section, read
from nfops.yaml_tree import parse_yaml, read_yaml

SCHEMA = 1
"""The newest form of recipes that this version reads."""
NO_TARGET = "this recipe has no target, so nothing is predicted"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole recipe, checked, every default filled in: `to_plain` of it goes into the bundle."""

    schema: int = setting(default=SCHEMA, metadata=about("Form of this file.", low=1))
    name: str = setting(metadata=about("Name of the recipe: letters, digits, _ and -."))
    description: str = setting(default="", metadata=about("One line for nfops recipes."))
    bundle: str = setting(
        default="", metadata=about("Folder of the trained parts, relative to this file; without it, bundles/NAME.")
    )
    seed: int = setting(default=42, metadata=about("Where all randomness begins.", low=0, high=2**32 - 1))
    data: Data = setting(metadata=about("Which files, and which of them to learn from."))
    geometry: Geometry = setting(metadata=about("Dimensions, directions and the working grid."))
    source: SourceSide = setting(metadata=about("What the operator starts from."))
    target: TargetSide | None = setting(
        default=None,
        metadata=about("What the operator makes; without it the recipe learns to represent its source, no more."),
    )
    encode: Encode = setting(default_factory=Encode, metadata=about("How a scan becomes a latent."))
    fit: Fit = setting(default_factory=Fit, metadata=about("How fields without a fit of their own are learned."))
    augment: Augment = setting(default_factory=Augment, metadata=about("More training scans out of those there are."))
    operator: Section | None = setting(
        default=None,
        metadata=about(
            "The operator: its backend and what that one takes, see nfops plugins. Where there is a target, and only "
            "there.",
            selector="backend",
        ),
    )
    evaluate: Evaluate = setting(default_factory=Evaluate, metadata=about("What is measured."))

    def __post_init__(self) -> None:
        bare = self.name.replace("_", "").replace("-", "")
        if not (bare.isascii() and bare.isalnum()) or self.name.startswith("-"):
            raise ValueError(f"name: expected letters, digits, _ and -, got {quoted(self.name)}")
        object.__setattr__(self, "bundle", self.bundle or f"bundles/{self.name}")
        self._check_sides()
        self._check_picture()
        if self.geometry.dims != 2 and self.data.central_slices is not None:
            raise ValueError("data.central_slices: only where geometry.dims is 2")
        for key in ("source", "target"):
            if self.geometry.dims != 1 and isinstance(self.data.place(key), Columns):
                raise ValueError(f"data.{key}: columns hold signals, geometry.dims is {self.geometry.dims}")
        axes = self.geometry.anatomical_axes[: self.geometry.dims]
        if not set(body_axes(self.augment.flip)) <= set(body_axes(axes)):
            known = ", ".join(axes) or "none: a signal lies along no axis of the body"
            raise ValueError(f"augment.flip: expected directions along {known}")

    @property
    def sides(self) -> tuple[str, ...]:
        """The names of the sides that have a field: "source", and "target" where there is one."""
        return ("source",) if self.target is None else ("source", "target")

    def side(self, name: str) -> SourceSide | TargetSide:
        """The "source" or the "target" of a recipe that has one."""
        part = self.source if name == "source" else self.target
        if part is None:
            raise RecipeError(self.name, NO_TARGET, "nfops resample --method field decodes what its field encodes")
        return part

    def require_operator(self) -> Section:
        """The section of the operator. Raises RecipeError for a recipe without a target."""
        if self.operator is None:
            raise RecipeError(self.name, NO_TARGET, "nfops resample --method field decodes what its field encodes")
        return self.operator

    def _check_sides(self) -> None:
        """`data.target`, `target` and `operator`: all three, or none."""
        parts = {"data.target": self.data.target, "target": self.target, "operator": self.operator}
        there = [key for key, value in parts.items() if value is not None]
        if there and len(there) < len(parts):
            missing = " and ".join(key for key in parts if key not in there)
            raise ValueError(f"{there[0]}: needs {missing} too (data.target, target and operator go together)")

    def _check_picture(self) -> None:
        picture = self.data.picture
        if picture is None:
            return
        if self.geometry.dims != 2:
            raise ValueError(f"data.picture: pictures have two dimensions, geometry.dims is {self.geometry.dims}")
        require_different_axes(
            "data.picture.axes: with geometry.slice_axis,", (*picture.axes, self.geometry.slice_axis)
        )
        if self.geometry.axes is None:
            object.__setattr__(self, "geometry", replace(self.geometry, axes=picture.axes))


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a file, with `overrides` such as "operator.width=512" put in (their values are YAML too).

    Raises NotFoundError if there is no such file, UsageError for an override that is not KEY=VALUE, and RecipeError
    with every mistake: one line each, with the line of the file or the override.
    """
    root = read_yaml(Path(path))
    for override in overrides:
        root = _override(root, override)
    return _recipe_from_node(root)


def check_components(recipe: Recipe) -> None:
    """Read the settings of every component as a training would; imports them.

    Raises ComponentError for one that is not installed, RecipeError with every mistake in their settings.
    """
    problems: list[str] = []
    parts = [("backbone", recipe.side(side).field) for side in recipe.sides]
    for kind, section in parts + ([("operator", recipe.operator)] if recipe.operator else []):
        try:
            section.configure(load_component(kind, section.component).config)
        except RecipeError as error:
            problems += error.problems or [error.message]
    if problems:
        raise RecipeError(recipe.name, "unusable settings", problems=problems)


def recipe_from_plain(plain: Mapping[str, Any], source: str = "recipe") -> Recipe:
    """The recipe whose `to_plain` this is; `source` (a manifest, say) names it in errors. Raises RecipeError."""
    return _recipe_from_node(node_from_plain(plain, Mark(source)))


def _recipe_from_node(root: Node) -> Recipe:
    _refuse_newer(root)
    _refuse_code(root)
    return read(Recipe, root)


def _refuse_newer(root: Node) -> None:
    schema = root.value.get("schema") if isinstance(root.value, dict) else None
    if schema is not None and isinstance(schema.value, int) and schema.value > SCHEMA:
        what = f"schema {schema.value} needs nfops > {__version__}, which reads schema {SCHEMA}"
        raise RecipeError(schema.mark, what, "update nfops")


def _refuse_code(root: Node) -> None:
    """`_target_: os.system`, `$expr`, `${data.root}`: said plainly, because other tools do have them."""
    problems = []
    for node in root.walk():
        if isinstance(node.value, dict):
            codes = [key for key in node.value if key.startswith("$") or (key[:1] == key[-1:] == "_" and len(key) > 2)]
            problems += [f"{node.keys[key]}: key {quoted(key)}: {NO_CODE}" for key in codes]
        elif isinstance(node.value, str) and (node.value.startswith("$") or "${" in node.value):
            problems.append(f"{node.mark}: {quoted(node.value[:40])}: {NO_CODE}")
    if problems:
        raise RecipeError(root.mark, NO_CODE, problems=problems)


def _override(root: Node, override: str) -> Node:
    key, equals, text = override.partition("=")
    path = key.split(".")
    source = f"--set {override if override.isprintable() else quoted(override)}"
    if not equals or not all(path) or len(path) > MAX_DEPTH:
        raise UsageError(source, "expected KEY=VALUE, such as operator.epochs=10")
    mark = Mark(source)
    return _put(root, path, node_from_plain(parse_yaml(text, source).plain(), mark), mark)


def _put(node: Node, path: Sequence[str], new: Node, mark: Mark) -> Node:
    """A copy of the tree with `new` at `path`; sections that are missing on the way are made."""
    if not isinstance(node.value, dict):
        raise RecipeError(mark, f'"{path[0]}" is inside a value that has no keys')
    child = new
    if len(path) > 1:
        child = _put(node.value.get(path[0], Node({}, mark)), path[1:], new, mark)
    keys = {path[0]: mark, **node.keys} if len(path) > 1 else {**node.keys, path[0]: mark}
    return replace(node, value={**node.value, path[0]: child}, keys=keys)

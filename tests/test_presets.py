"""The shipped recipes, above all the papers' presets: their networks are the papers', and they run."""

import csv
import re
import tomllib
from pathlib import Path

import nibabel
import numpy as np
import pytest
from cli_fixtures import nfops
from PIL import Image as Picture

from nfops.bundle import load_bundle
from nfops.codec import build_backbone
from nfops.io import load_image
from nfops.recipe import Recipe, check_components, load_recipe
from nfops.recipe_changes import recipe_difference
from nfops.sampling import Domain
from nfops.schema import to_plain

FOLDER = Path(__file__).resolve().parents[1]
RECIPES = {path.stem: path for path in sorted((FOLDER / "recipes").glob("*.yaml"))}
BUNDLES = {path.parent.name: path.parent for path in sorted((FOLDER / "recipes/bundles").glob("*/manifest.json"))}

NOIR = {
    # name: {side: (channels, hidden layers of 256, latent)}, tables S1 and S2; channels as NOIR counts them
    "noir_shenzhen": {"source": (1, 6, 64), "target": (2, 6, 64)},
    "noir_oasis": {"source": (1, 6, 2048), "target": (5, 10, 2048)},
    "noir_skullbreak": {"source": (1, 10, 64), "target": (2, 6, 64)},
    "noir_fastmri": {"source": (1, 10, 4096), "target": (1, 10, 4096)},
    "noir_ultrasound": {"source": (1, 10, 64), "target": (1, 10, 64)},
    "knee_pd2t2": {"source": (1, 10, 4096), "target": (1, 10, 4096)},
}
PRESETS = (*NOIR, "medfuncta_chest64")


def test_every_recipe_travels_in_the_wheel():
    settings = tomllib.loads((FOLDER / "pyproject.toml").read_text())
    listed = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    for name in RECIPES:
        assert listed.get(f"recipes/{name}.yaml") == f"nfops/shipped_recipes/{name}.yaml"


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_names_components_and_settings_that_there_are(name):
    recipe = load_recipe(RECIPES[name])
    check_components(recipe)
    assert recipe.name == name
    assert recipe.description


@pytest.mark.parametrize("name", BUNDLES)
def test_every_shipped_bundle_is_that_of_the_recipe_as_it_is(name):
    """Else `nfops evaluate` refuses it."""
    bundle, recipe = load_bundle(BUNDLES[name]), load_recipe(RECIPES[name])
    assert not recipe_difference(bundle.recipe, to_plain(recipe))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_listed_and_described(name):
    listed = {line.split()[0]: line for line in nfops("recipes", "list").out.splitlines()}
    assert all(len(line) <= 120 for line in listed.values())
    assert load_recipe(RECIPES[name]).description in listed[name]
    ran = nfops("info", RECIPES[name])
    assert ran.code == 0, ran.err


def channels(recipe: Recipe, side: str) -> int:
    part = recipe.side(side)
    return len(part.labels or ()) if part.head == "softmax" else 1


def count(recipe: Recipe, side: str) -> int:
    """Shared weights of one side's field, built as a training builds it (on a grid of its own size)."""
    shape = recipe.geometry.grid.shape
    backbone = build_backbone(recipe.side(side).field, Domain((1.0,) * len(shape), shape), channels(recipe, side))
    return sum(weights.numel() for weights in backbone.parameters())


def of_tables(dims: int, outputs: int, depth: int, latent: int, width: int = 256) -> int:
    """What NOIR's tables add up to: a multilayer perceptron, and one linear map from the latent to every layer."""
    network = (dims + 1) * width + (depth - 1) * (width + 1) * width + (width + 1) * outputs
    return network + (latent + 1) * depth * width


@pytest.mark.parametrize("name", NOIR)
def test_fields_are_those_of_noirs_tables(name):
    recipe = load_recipe(RECIPES[name])
    for side, (outputs, depth, latent) in NOIR[name].items():
        assert channels(recipe, side) == outputs
        assert count(recipe, side) == of_tables(recipe.geometry.dims, outputs, depth, latent)


def test_the_smallest_field_of_noir_has_its_known_size():
    assert of_tables(2, 1, 6, 64) == 329_985 + 99_840
    assert count(load_recipe(RECIPES["noir_shenzhen"]), "source") == 329_985 + 99_840


def test_medfuncta_has_the_papers_number_of_weights():
    assert count(load_recipe(RECIPES["medfuncta_chest64"]), "source") == 7_675_393


def variants(name: str) -> tuple[str, ...]:
    """The --set options that a recipe's comment names."""
    comment = " ".join(line[1:] for line in RECIPES[name].read_text().splitlines() if line.startswith("#"))
    return tuple(word.strip("'") for word in re.findall(r"--set ('[^']*'|\S+)", comment))


def test_the_variant_of_medfunctas_code_has_its_number_of_weights():
    recipe = load_recipe(RECIPES["medfuncta_chest64"], variants("medfuncta_chest64"))
    check_components(recipe)
    assert count(recipe, "source") == 8_199_937
    assert recipe.fit.schedule == "constant"


def test_the_variant_of_the_heartbeats_is_medfunctas_field_for_signals():
    recipe = load_recipe(RECIPES["ecg"], variants("ecg"))
    check_components(recipe)
    first_and_last, between = 2 * 64 + 64 + 1, 6 * 65 * 64
    assert count(recipe, "source") == first_and_last + between + 65 * 6 * 64  # 8 layers, 6 of them modulated


def test_the_variant_of_the_knee_for_two_cores_is_functional_pca():
    recipe = load_recipe(RECIPES["knee_pd2t2"], variants("knee_pd2t2"))
    check_components(recipe)
    assert {recipe.side(side).field.component for side in recipe.sides} == {"fpca"}
    assert recipe.encode.solver == "gauss-newton"


# --- tiny cohorts of the right kind ------------------------------------------------------------------------------


def write_cohort(recipe: Recipe, folder: Path, shape: tuple[int, ...], count: int = 6) -> Path:
    """A table and, for each of its rows, files as the recipe names them: smooth images, or labels."""
    rng, root = np.random.default_rng(0), folder / recipe.data.root
    root.mkdir(parents=True, exist_ok=True)
    rows = [{"id": f"s{n}", "split": "train" if n < count - 2 else "val", "patient": f"p{n}"} for n in range(count)]
    for row in rows:
        place = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"), axis=-1)
        blob = np.exp(-((place - rng.uniform(-0.4, 0.4, len(shape))) ** 2).sum(axis=-1) * 3)
        for side in recipe.sides:
            path = root / str(recipe.data.place(side)).format(**row)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(path, values_of(recipe, side, blob))
    with (root / recipe.data.table).open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "split", "patient"])
        writer.writeheader()
        writer.writerows(rows)
    return folder


def values_of(recipe: Recipe, side: str, blob: np.ndarray) -> np.ndarray:
    """Bytes: an image from 0 to 255, or labels by level."""
    part = recipe.side(side)
    if part.head == "identity":
        return (255 * blob).astype(np.uint8)
    labels = np.array(part.labels or (0, 1))
    return labels[np.minimum((blob * len(labels)).astype(int), len(labels) - 1)].astype(np.uint8)


def write_image(path: Path, values: np.ndarray) -> None:
    if path.suffix == ".png":
        Picture.fromarray(np.ascontiguousarray(values.T)).save(path)
        return
    if values.ndim == 2:  # a slice along A, as the recipes for NIfTI have it
        values = values[:, None, :]
    nibabel.save(nibabel.Nifti1Image(values, np.diag([-1.0, 1, -1, 1])), path)


@pytest.mark.parametrize("name", PRESETS)
def test_a_dry_run_on_files_of_the_right_kind_works(name, tmp_path):
    recipe = load_recipe(RECIPES[name])
    folder = write_cohort(recipe, tmp_path, (8,) * recipe.geometry.dims)
    ran = nfops("fit-inr", "-r", name, "--data", folder, "--bundle", tmp_path / "bundle", "--dry-run")
    assert ran.code == 0, ran.err
    assert "scans: 4" in ran.out
    assert not (tmp_path / "bundle").exists()


SMALL = ("width=8", "depth=2", "latent=4")
"""Of a field: what makes it quick to train."""


def small(recipe: Recipe) -> list[str]:
    """--set options that make a preset's networks and its training small; everything else stays."""
    chosen = [f"{side}.field.{setting}" for side in recipe.sides for setting in SMALL]
    chosen += [f"geometry.grid.shape={[8] * recipe.geometry.dims}", "fit.iterations=6", "fit.validate_every=3"]
    if recipe.operator:
        chosen += ["operator.width=8", "operator.epochs=2"]
    return [word for setting in chosen for word in ("--set", setting)]


@pytest.mark.parametrize("name", ["medfuncta_chest64", "noir_shenzhen", "noir_skullbreak"])
def test_a_preset_made_small_is_trained_from_images_to_a_result(name, tmp_path):
    recipe = load_recipe(RECIPES[name])
    folder = write_cohort(recipe, tmp_path, (10, 12, 9)[: recipe.geometry.dims])
    words = ("-r", name, *small(recipe), "--data", folder, "--bundle", tmp_path / "bundle", "-q")
    for verb in ("fit-inr", "encode", "train-operator")[: 3 if recipe.operator else 2]:
        ran = nfops(verb, *words)
        assert ran.code == 0, ran.err
    scan = next(folder.glob(str(recipe.data.source).format(id="s5")))
    way = ("apply",) if recipe.operator else ("resample", "--method", "field")
    out = tmp_path / f"out{''.join(scan.suffixes)}"
    ran = nfops(*way, "-r", name, "--bundle", tmp_path / "bundle", scan, "--out", out)
    assert ran.code == 0, ran.err
    made = load_image(out)
    assert made.grid.same_as(load_image(scan).grid)
    if recipe.target:
        assert set(np.unique(made.values)) <= set(recipe.target.labels)

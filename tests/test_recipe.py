"""Recipes: the design's example, defaults, checks across sections, overrides, shipped recipes (C31-C38)."""

import json
from pathlib import Path

import pytest

from nfops import shipped
from nfops.errors import NfopsError, NotFoundError, RecipeError, UsageError
from nfops.recipe import Recipe, load_recipe, recipe_from_plain
from nfops.schema import describe, to_plain

EXAMPLE = """\
name: brain_t1t2
bundle: bundles/brain_t1t2          # a directory, relative to this file
seed: 42
data:
  root: mr_t1_t2_flair
  table: split.csv
  source: "t1/{id}.png"
  target: "t2/{id}.png"
  where: {t1: 1, t2: 1}
  picture: {axes: [L, P], pixel_mm: 1.2}
geometry:
  dims: 2
  slice_axis: S
  frame: physical
  grid: {shape: [192, 192]}
source:
  intensity: {map: percentile, low: 0.1, high: 99.9}
  field: {backbone: fpca, latent: 64}
target:
  intensity: {map: percentile, low: 0.1, high: 99.9}
  output_range: training-median
  head: identity
  field: {backbone: fpca, latent: 64}
encode: {solver: gauss-newton, steps: 4, points: 4096, prior: 1.0e-3}
augment: {affine: {rotate_deg: 10, scale: 0.15, shift_mm: 8}, flip: [L], gamma: 0.2, copies: 8}
operator: {backend: residual-mlp, width: 512, depth: 3, epochs: 300}
evaluate: {metrics: [psnr, ssim], resolutions: [0.1, 0.25, 0.5, 1.0]}
"""

MINIMAL = """\
name: m
data: {source: "a/{id}.nii", target: "b/{id}.nii"}
geometry: {dims: 2, grid: {shape: 8x9}}
source: {field: {backbone: fpca}}
target: {field: {backbone: fpca}}
operator: {backend: linear}
"""


@pytest.fixture(autouse=True)
def _work_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(text: str, *overrides: str) -> Recipe:
    Path("r.yaml").write_text(text, encoding="utf-8")
    return load_recipe("r.yaml", overrides)


def problems(text: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(text, *overrides)
    return caught.value.message.splitlines()


def changed(old: str, new: str) -> str:
    assert old in EXAMPLE
    return EXAMPLE.replace(old, new)


def test_the_example_of_the_design() -> None:
    recipe = load(EXAMPLE)
    assert recipe.geometry.anatomical_axes == ("L", "P", "S")
    assert recipe.geometry.grid.shape == (192, 192)
    assert recipe.operator.component == "residual-mlp"
    assert recipe.source.field.get("latent") == 64
    assert recipe.encode.prior == 1e-3
    assert recipe.data.where == {"t1": 1, "t2": 1}


def test_defaults() -> None:
    recipe = load(MINIMAL)
    assert recipe.bundle == "bundles/m"
    assert recipe.seed == 42
    assert recipe.data.train == ("train",)
    assert recipe.data.patient is None
    assert recipe.source.nan == recipe.source.constant == "error"
    assert recipe.target.output_range == "training-median"
    assert recipe.geometry.grid.shape == (8, 9)


def test_the_resolved_recipe_reads_back() -> None:
    for text in (EXAMPLE, MINIMAL, changed("training-median", "[0, 4.5]")):
        recipe = load(text)
        assert recipe_from_plain(json.loads(json.dumps(to_plain(recipe), allow_nan=False))) == recipe


def test_every_key_is_documented() -> None:
    assert [key.path for key in describe(Recipe) if not key.doc] == []


@pytest.mark.parametrize(
    ("geometry", "axes"),
    [
        ("dims: 2, slice_axis: S", "LPS"), ("dims: 2, slice_axis: I", "LPI"), ("dims: 2, slice_axis: A", "LIA"),
        ("dims: 2, slice_axis: P", "LIP"), ("dims: 2, slice_axis: R", "PIR"), ("dims: 2, slice_axis: L", "PIL"),
        ("dims: 2, slice_axis: S, axes: [A, R]", "ARS"),
    ],
)  # fmt: skip
def test_anatomical_axes_2d(geometry: str, axes: str) -> None:
    assert "".join(load(MINIMAL.replace("dims: 2", geometry)).geometry.anatomical_axes) == axes


def test_anatomical_axes_3d() -> None:
    three = MINIMAL.replace("8x9", "8x9x7")
    assert load(three.replace("dims: 2", "dims: 3")).geometry.anatomical_axes == ("R", "A", "S")
    assert load(three.replace("dims: 2", "dims: 3, axes: [L, P, S]")).geometry.anatomical_axes == ("L", "P", "S")


def test_axes_of_a_picture() -> None:
    assert load(changed("axes: [L, P]", "axes: [A, R]")).geometry.anatomical_axes == ("A", "R", "S")


def test_c32_a_typo() -> None:
    assert problems(changed("shape: [192", "shpae: [192")) == [
        'r.yaml:15: unknown key "shpae" (did you mean "shape"?)',
        'r.yaml:15: geometry.grid: missing key "shape"',
    ]


def test_c32_ranges_all_at_once() -> None:
    text = changed("steps: 4", "steps: 0").replace("copies: 8", "copies: -1").replace("[192, 192]", "[1, 192]")
    text = text.replace("resolutions: [0.1", "resolutions: [0").replace("dims: 2", "dims: 4").replace("psnr,", "pnsr,")
    found = problems(text)
    assert [line.split(" expected")[0] for line in found] == [
        "r.yaml:12: geometry.dims:",
        "r.yaml:15: geometry.grid.shape:",
        "r.yaml:24: encode.steps:",
        "r.yaml:25: augment.copies:",
        "r.yaml:27: evaluate.metrics[0]:",
        "r.yaml:27: evaluate.resolutions[0]:",
    ]
    assert "expected 1, 2 or 3" in found[0]


def test_c33_shape() -> None:
    expected = "r.yaml:15: geometry.grid.shape: expected a list of 1 to 3 integers from 2 to 16384, got "
    assert problems(changed("[192, 192]", "192 by 192")) == [expected + 'text "192 by 192"']
    assert problems(changed("[192, 192]", "192")) == [expected + "192"]
    assert problems(changed("[192, 192]", "192.5x3")) == [expected + 'text "192.5x3"']
    assert load(changed("[192, 192]", "192x192")) == load(EXAMPLE)


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("name: brain_t1t2", "name: a/b", "r.yaml:1: name: expected letters"),
        ("name: brain_t1t2", "name: --x", "r.yaml:1: name: expected letters"),
        ("[192, 192]", "[192, 192, 3]", "r.yaml:15: geometry: grid.shape: 3 sizes, dims is 2"),
        ("axes: [L, P]", "axes: [L, R]", "r.yaml:10: data.picture: axes: expected 2 different body axes, got L, R"),
        ("slice_axis: S", "slice_axis: L", "r.yaml:10: data.picture.axes: with geometry.slice_axis, expected 3"),
        ("flip: [L]", "flip: [S]", "r.yaml:25: augment.flip: expected directions along L, P"),
        ("flip: [L]", "flip: [L, R]", "r.yaml:25: augment: flip: expected 2 different body axes"),
        ('"t1/{id}.png"', "t1.png", "r.yaml:7: data: source: expected a column"),
        ('"t1/{id}.png"', '"{id.__class__}"', "r.yaml:7: data: source: no such feature"),
        ('"t1/{id}.png"', '"{id!r:>9}"', "r.yaml:7: data: source: no such feature"),
        ('"t1/{id}.png"', '"{id"', "r.yaml:7: data: source: expected '}'"),
        ("training-median", "[2, 1]", "r.yaml:21: target: output_range: low 2 must be below high 1"),
        ("head: identity", "labels: [1]", "r.yaml:22: target: labels: only with head"),
        ("head: identity", "head: sigmoid\n  labels: [1, 1]", "r.yaml:23: target: labels: expected different"),
        ("low: 0.1, high: 99.9}\n  field", "low: 5, high: 2}\n  field", "r.yaml:17: source.intensity: low 5"),
        ("map: percentile, low: 0.1, high: 99.9}\n  f", "map: range}\n  f", "r.yaml:17: source.intensity: map: range"),
        ("dims: 2", "dims: 3", "r.yaml:15: geometry: grid.shape: 2 sizes, dims is 3"),
        ("backbone: fpca, latent: 64}\nt", "latent: 64}\nt", 'r.yaml:18: source.field: missing key "backbone"'),
    ],
)
def test_checks_across_keys(old: str, new: str, where: str) -> None:
    assert any(line.startswith(where) for line in problems(changed(old, new)))


def test_pictures_are_two_dimensional() -> None:
    text = changed("dims: 2", "dims: 3").replace("[192, 192]", "4x4x4")
    assert problems(text) == ["r.yaml:10: data.picture: pictures have two dimensions, geometry.dims is 3"]


def test_c36_newer_schema() -> None:
    (line,) = problems("schema: 2\nunheard_of: 3\n")
    assert line.startswith("r.yaml:1: schema 2 needs nfops > ")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("backend: residual-mlp", "backend: os.system"),
        ("backend: residual-mlp", "backend: ../evil"),
        ("backend: residual-mlp", "_target_: os.system"),
        ("backbone: fpca", "backbone: torch.nn.Linear"),
        ("seed: 42", "seed: $expr"),
        ("root: mr_t1_t2_flair", "root: ${HOME}/x"),
        ("width: 512", "width: '${a.b}'"),
        ("seed: 42", "$import: x"),
    ],
)
def test_c38_no_code(old: str, new: str) -> None:
    assert all("no such feature" in line for line in problems(changed(old, new)))


def test_overrides() -> None:
    recipe = load(EXAMPLE, "operator.width=64", "encode.prior=1e-2", "geometry.grid={shape: 8x8}", "data.patient=p")
    assert recipe.operator.get("width") == 64
    assert recipe.encode.prior == 0.01
    assert recipe.geometry.grid.shape == (8, 8)
    assert recipe.data.patient == "p"


def test_overrides_make_sections() -> None:
    assert load(MINIMAL, "augment.affine.scale=0.5", "encode.steps=2", "encode.steps=3").encode.steps == 3


def test_overrides_are_checked_with_the_rest() -> None:
    assert problems(EXAMPLE, "encode.stpes=3", "seed=-1", "evaluat.x=1") == [
        '--set evaluat.x=1: unknown key "evaluat" (did you mean "evaluate"?)',
        "--set seed=-1: seed: expected an integer (at least 0 and at most 4294967295), got -1",
        '--set encode.stpes=3: unknown key "stpes" (did you mean "steps"?)',
    ]
    assert problems(EXAMPLE, "name.x=1") == ['--set name.x=1: "x" is inside a value that has no keys']
    assert problems(EXAMPLE, "seed=[1")[0].startswith("--set seed=[1:1:3: ")


def test_an_override_of_a_component_is_met_when_it_is_configured() -> None:
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Config:
        width: int = 1
        depth: int = 1
        epochs: int = 1

    with pytest.raises(RecipeError) as caught:
        load(EXAMPLE, "operator.widht=512").operator.configure(Config)
    assert caught.value.message == '--set operator.widht=512: unknown key "widht" (did you mean "width"?)'


@pytest.mark.parametrize("override", ["", "seed", "=1", "a..b=1", ".".join("a" * 5000) + "=1"])
def test_override_without_key_or_value(override: str) -> None:
    with pytest.raises(UsageError):
        load(EXAMPLE, override)


@pytest.mark.parametrize("text", ["", "- a", "text", "name: 3\n"])
def test_not_a_recipe(text: str) -> None:
    assert problems(text)[0].startswith("r.yaml:1: ")


def test_c36_a_manifest_names_itself() -> None:
    plain = to_plain(load(EXAMPLE)) | {"sede": 1}
    with pytest.raises(RecipeError, match=r'^manifest\.json: unknown key "sede" \(did you mean "seed"\?\)$'):
        recipe_from_plain(plain, "manifest.json")


@pytest.fixture
def two_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "wheel"
    folder.mkdir()
    for name in ("knee_pd2t2", "brain"):
        (folder / f"{name}.yaml").write_text(MINIMAL, encoding="utf-8")
    monkeypatch.setattr(shipped, "shipped_folder", lambda: folder)
    return folder


def test_shipped_recipes_are_found_by_name(two_shipped: Path) -> None:
    assert list(shipped.shipped_recipes()) == ["brain", "knee_pd2t2"]
    for name in ("knee_pd2t2", "knee_pd2t2.yaml", "knee_pd2t2.yml"):
        assert shipped.find_recipe(name) == shipped.FoundRecipe(two_shipped / "knee_pd2t2.yaml", True)


def test_a_file_comes_before_a_shipped_recipe(two_shipped: Path) -> None:
    Path("brain").mkdir()  # a folder does not
    Path("knee_pd2t2.yaml").write_text(MINIMAL, encoding="utf-8")
    assert shipped.find_recipe("knee_pd2t2.yaml") == shipped.FoundRecipe(Path("knee_pd2t2.yaml"), False)
    assert shipped.find_recipe("brain").is_shipped


@pytest.mark.parametrize(
    ("name", "error", "what"),
    [
        ("knee_pd2", RecipeError, 'did you mean "knee_pd2t2"'),
        ("lung", RecipeError, "shipped recipes: brain, knee_pd2t2"),
        ("knee_pd2.yaml", NotFoundError, 'did you mean "knee_pd2t2"'),
        ("no/brain", NotFoundError, "no such file"),
    ],
)
def test_c37_unknown_recipe(two_shipped: Path, name: str, error: type[NfopsError], what: str) -> None:
    with pytest.raises(error, match=what):
        shipped.find_recipe(name)


def test_every_shipped_recipe_is_valid() -> None:
    for path in shipped.shipped_recipes().values():
        assert load_recipe(path).name == path.stem

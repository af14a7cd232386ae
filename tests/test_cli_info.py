# ruff: noqa: F401, F811 (fixtures are imported)
"""`nfops info`, `plugins` and `recipes` on real files: what they say, and how they end."""

from pathlib import Path

import numpy as np
import pytest
from cli_fixtures import OBLIQUE, balls, blobs, nfops, save_nifti, shade, shades

IMAGE_KEYS = {
    "kind",
    "path",
    "shape",
    "spacing_mm",
    "affine",
    "orientation",
    "dtype",
    "channels",
    "series",
    "intensity_range",
    "warnings",
}


def test_an_image_has_every_key_of_the_design(tmp_path):
    path = save_nifti(tmp_path / "a.nii.gz", np.arange(60).reshape(5, 4, 3), dtype="int16")
    found = nfops("info", "--json", path).document
    assert found.keys() == IMAGE_KEYS
    assert (found["kind"], found["path"], found["shape"]) == ("nifti", str(path), [5, 4, 3])
    assert np.allclose(found["affine"], OBLIQUE, atol=1e-6)
    assert np.allclose(found["spacing_mm"], [2, 2.5, 6])
    assert (found["orientation"], found["dtype"], found["channels"]) == ("LPS", "int16", 1)
    assert found["intensity_range"] == [0, 59]


def test_a_series_of_volumes_has_channels(tmp_path):
    path = save_nifti(tmp_path / "a.nii", np.zeros((5, 4, 3, 2)))
    found = nfops("info", "--json", path).document
    assert (found["shape"], found["channels"]) == ([5, 4, 3], 2)


def test_a_picture_takes_its_spacing_from_pixel_mm(blobs):
    path = blobs.data / "images" / "b0.png"
    found = nfops("info", "--json", path, "--pixel-mm", "4.8x3").document
    assert found.keys() == IMAGE_KEYS
    assert (found["shape"], found["spacing_mm"][:2], found["warnings"]) == ([20, 24, 1], [4.8, 3.0], [])
    assert "1 mm is assumed" in nfops("info", path).err


def test_a_trained_bundle_says_how_it_was_made(shades):
    found = nfops("info", "--json", shades.bundle).document
    assert (found["kind"], found["name"], found["data"]["scans"]) == ("bundle", "shades", 10)
    assert found["operator"]["form"] == "affine"
    assert {"python", "numpy", "nfops"} <= found["versions"].keys()
    text = nfops("info", shades.bundle)
    assert text.code == 0
    assert "shades" in text.out


def test_a_recipe_is_checked_as_a_training_would_check_it(blobs, tmp_path):
    good = blobs.recipe.read_text()
    path = tmp_path / "r.yaml"
    path.write_text(good)
    assert nfops("info", "--json", path).document["kind"] == "recipe"
    path.write_text(good.replace("backend: linear", "backend: linaer"))
    ran = nfops("info", path)
    assert ran.code == 4
    assert 'did you mean "linear"' in ran.err
    path.write_text(good.replace("latent: 8", "latent: many"))
    ran = nfops("info", path)
    assert ran.code == 4
    assert len(ran.err.splitlines()) == 2
    assert 'latent: expected an integer (at least 1), got text "many"' in ran.err


def test_several_paths_give_one_list_with_json(shades, blobs):
    found = nfops("info", "--json", shades.bundle, blobs.recipe, blobs.data / "images" / "b0.png").document
    assert [each["kind"] for each in found] == ["bundle", "recipe", "picture"]


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("scna.nii.gz", 2, "no such file (did you mean scan.nii.gz?)"),
        ("", 2, "expected the name of a file"),
        (".", 9, "no DICOM images"),
        ("scan.mp4", 3, "unknown image format"),
    ],
)
def test_c1_what_is_no_image_is_told_in_one_line(tmp_path, monkeypatch, name, code, said):
    monkeypatch.chdir(tmp_path)
    save_nifti(tmp_path / "scan.nii.gz", shade(np.random.default_rng(0)))
    (tmp_path / "scan.mp4").write_bytes(bytes(range(256)))
    ran = nfops("info", name)
    assert (ran.code, len(ran.err.splitlines()), ran.out) == (code, 1, "")
    assert ran.err.startswith("nfops info: error: ")
    assert said in ran.err


def test_an_error_with_json_is_one_document(tmp_path):
    ran = nfops("info", "--json", tmp_path / "none.nii")
    assert ran.document["error"]["code"] == ran.code == 2
    assert ran.document["error"]["where"] == str(tmp_path / "none.nii")


def test_plugins_as_json_have_the_keys_of_the_design():
    found = nfops("plugins", "--json").document
    assert {each["name"] for each in found} >= {"fpca", "linear"}
    assert all(each.keys() == {"kind", "name", "distribution", "version", "error"} for each in found)
    assert {each["kind"] for each in nfops("plugins", "operator", "--json").document} == {"operator"}
    assert nfops("plugins", "operatr").code == 2


def test_every_shipped_recipe_can_be_copied_and_is_good(tmp_path):
    names = [each["name"] for each in nfops("recipes", "list", "--json").document]
    assert {"cxr_lungs", "brain_t1t2", "nuclei", "hippocampus", "knee_pd2t2"} <= set(names)
    for name in names:
        assert nfops("recipes", "copy", name, tmp_path).code == 0
        assert nfops("info", tmp_path / f"{name}.yaml").code == 0
    again = nfops("recipes", "copy", names[0], tmp_path)
    assert again.code == 5
    assert "exists already" in again.err


def test_a_bundle_with_graphs_says_so():
    found = nfops("info", Path(__file__).parents[1] / "recipes/bundles/brain_t1t2", "--json").document
    assert found["operator.onnx"]["parity"]["image"]["relative"] < 1e-4


def test_a_shipped_recipe_is_known_by_its_name_and_what_is_trained_is_told():
    for name, is_trained in (("brain_t1t2", True), ("nuclei", False)):
        found = nfops("info", name, "--json").document
        assert (found["kind"], found["name"], found["is_trained"]) == ("recipe", name, is_trained)
        (listed,) = [each for each in nfops("recipes", "list", "--json").document if each["name"] == name]
        assert (listed["bundle"] is not None) == is_trained
    lines = nfops("recipes", "list").out.splitlines()
    assert {line.split()[0] for line in lines if "[trained]" in line} >= {"brain_t1t2", "hippocampus"}


def test_a_long_fact_is_told_in_lines_of_its_parts():
    lines = nfops("info", Path(__file__).parents[1] / "recipes/bundles/brain_t1t2").out.splitlines()
    assert max(map(len, lines)) < 120
    assert lines[lines.index("  source") + 1].split() == ["backbone", "fpca"]
    members = nfops("info", "brain_t1t2").out.splitlines()
    at = members.index("    members")
    assert [line.split()[:3] for line in members[at + 1 : at + 3]] == [[n, "backend:", "oinr,"] for n in "01"]


def test_a_bundle_trained_here_is_that_of_a_shipped_recipe(tmp_path, monkeypatch):
    """As `apply --recipe nuclei` finds it."""
    monkeypatch.chdir(tmp_path)
    place = Path("bundles") / "nuclei"
    place.mkdir(parents=True)
    (place / "manifest.json").write_text("{}")
    for name in ("nuclei", "nuclei.yaml"):
        found = nfops("info", name, "--json").document
        assert (found["is_trained"], found["bundle"]) == (True, str(place))

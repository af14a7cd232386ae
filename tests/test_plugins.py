"""The distributions in `plugins`, found by their own metadata without being installed; their own tests are theirs."""

import sys
import tomllib
from pathlib import Path

import pytest
from toy_cohorts import write_pictures

from nfops.evaluation.operators import choose_operators
from nfops.recipe import load_recipe
from nfops.registry import list_components, load_component
from nfops.testing import check_export, check_operator

ROOT = Path(__file__).parents[1]
SMALL = {"knn": {}, "unet": {"iterations": 20}, "fno": {"iterations": 20, "layers": 2}}
"""Plugin -> settings that make it quick to fit."""


def folder(name):
    return ROOT / "plugins" / f"nfops-{name}"


@pytest.fixture(params=SMALL)
def project(request, tmp_path, monkeypatch):
    """Its metadata as an installer would write them, and the plugin on the path."""
    project = tomllib.loads((folder(request.param) / "pyproject.toml").read_text())["project"]
    info = tmp_path / "site" / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(head)
    groups = project["entry-points"].items()
    points = [f"[{group}]\n" + "\n".join(f"{k} = {v}" for k, v in found.items()) for group, found in groups]
    (info / "entry_points.txt").write_text("\n\n".join(points) + "\n")
    for path in (folder(request.param), info.parent):
        monkeypatch.syspath_prepend(str(path))
    yield project
    for name in [name for name in sys.modules if name.startswith(project["name"].replace("-", "_"))]:
        del sys.modules[name]


def test_it_is_found_and_keeps_the_contract(project):
    name = project["name"].removeprefix("nfops-")
    (found,) = [component for component in list_components("operator") if component.name == name]
    assert (found.distribution, found.version, found.error) == (project["name"], project["version"], "")
    part = load_component("operator", name)
    check_operator(part.cls, part.config(**SMALL[name]))


def test_onnxruntime_computes_what_it_does(project):
    name = project["name"].removeprefix("nfops-")
    part = load_component("operator", name)
    check_export(part.cls, part.config(**SMALL[name]))


@pytest.mark.parametrize("project", ["knn"], indirect=True)
def test_all_operators_are_those_of_plugins_too(project, tmp_path):
    recipe = load_recipe(write_pictures(tmp_path / "blobs") / "recipe.yaml")
    chosen, warnings = choose_operators(recipe, "all")
    assert {"knn", "svr", "random-forest", "residual-mlp"} <= set(chosen)
    assert "linear" not in chosen
    assert [
        warning for warning in warnings if not any(name in warning for name in ("acts on fields", "ensemble"))
    ] == []


@pytest.mark.parametrize("name", SMALL)
def test_its_licence_is_ours(name):
    assert (folder(name) / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()

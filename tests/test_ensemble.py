# ruff: noqa: F401, F811 (fixtures are imported)
"""Ensembles: the mean of operators of one kind, in both engines; what is refused; what they say of a scan."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cli_fixtures import Trained, blobs, nfops, nifti, save_nifti, shades, train
from dicom_files import series, write
from latent_trials import P_IN, P_OUT, check_engines_agree, check_misfits_are_refused, curved, moved
from PIL import Image as Picture
from toy_cohorts import write_pictures, write_signals

from nfops.bundle import Bundle, load_bundle, save_bundle
from nfops.codec import load_operator, operator_acts_on, state_arrays
from nfops.engines import open_engine
from nfops.engines.numpy_engine import NumpyEngine
from nfops.engines.numpy_operators import open_members
from nfops.errors import BundleError, RecipeError
from nfops.evaluation.operators import choose_operators
from nfops.evaluation.refit import needs_validation
from nfops.field_contract import WINDOW, ToyFields, check_field_operator
from nfops.field_pairs import Window, WorkingGrid
from nfops.operators import linear, residual_mlp, svr
from nfops.operators.ensemble import Config, Operator
from nfops.progress import silent
from nfops.recipe import check_components, load_recipe
from nfops.schema import Section
from nfops.testing import ToyObjective, check_operator
from nfops.yaml_tree import parse_yaml

LATENT = "[{backend: linear}, {backend: svr}, {backend: residual-mlp, width: 16, epochs: 4}]"
SMALL = "backend: oinr, widths: [8, 8], blocks: [1, 1], iterations: 40"


def section(members: str) -> Section:
    return Section(parse_yaml(f"backend: ensemble\nmembers: {members}", "r.yaml"), "operator", "backend")


def config(members: str) -> Config:
    return section(members).configure(Config)


def fitted(members: str, tables) -> Operator:
    torch.manual_seed(0)
    operator = Operator(config(members), P_IN, P_OUT)
    operator.fit(*tables, ToyObjective(*tables), silent)
    return operator.eval()


def bundle_of(operator: Operator, members: str) -> Bundle:
    specs = {"source": SimpleNamespace(latent=P_IN), "target": SimpleNamespace(latent=P_OUT)}
    facts = {"form": operator.form, "members": list(operator.forms)}
    return Bundle("toy", {"operator": section(members).plain()}, specs, {"operator": state_arrays(operator)}, facts)


class TestOnLatents:
    def test_it_keeps_the_contract(self):
        check_operator(Operator, config("[{backend: random-forest, trees: 8}, {backend: svr}]"))

    def test_the_mean_is_that_of_its_members_fitted_alone(self):
        tables = curved()
        operator = fitted("[{backend: linear}, {backend: svr, kernel: linear}]", tables)
        alone = []
        for module, settings in ((linear, linear.Config()), (svr, svr.Config(kernel="linear"))):
            member = module.Operator(settings, P_IN, P_OUT)
            member.fit(*tables, None)
            alone.append(moved(member, tables[0].vectors))
        assert np.allclose(moved(operator, tables[0].vectors), np.mean(alone, axis=0), atol=1e-4)
        figures = [name for name in operator.figures if name.startswith("members.1.")]
        assert "members.0.strength" in operator.figures
        assert "members.1.penalty" in figures

    def test_the_same_section_twice_gives_two_networks(self):
        tables = curved()
        operator = fitted("[{backend: residual-mlp, epochs: 2}, {backend: residual-mlp, epochs: 2}]", tables)
        one, other = operator.each(torch.from_numpy(tables[0].vectors)).detach()
        assert float((one - other).abs().max()) > 1e-3

    @pytest.mark.parametrize("members", [LATENT, "[{backend: random-forest, trees: 5}, {backend: linear}]"])
    def test_numpy_gives_what_torch_gives(self, members):
        tables = curved()
        operator = fitted(members, tables)
        bundle = bundle_of(operator, members)
        check_engines_agree(bundle, operator, tables[0].vectors)
        here = np.stack([member(tables[0].vectors) for member in open_members(bundle)])
        there = operator.each(torch.from_numpy(tables[0].vectors)).detach().numpy()
        assert np.abs(here - there).max() < 1e-5 * np.abs(there).max()

    def test_arrays_that_do_not_fit_are_refused(self):
        members = "[{backend: linear}, {backend: random-forest, trees: 5}]"
        bundle = bundle_of(fitted(members, curved()), members)
        check_misfits_are_refused(bundle, "members.0.bias")
        check_misfits_are_refused(bundle, "members.1.child")

    @pytest.mark.parametrize(
        "forms", [[], ["affine"], ["affine", "rbf-kernel", "forest"], ["affine", 3], "affine", None]
    )
    def test_a_manifest_of_other_members_is_refused(self, forms):
        members = "[{backend: linear}, {backend: svr}]"
        bundle = bundle_of(fitted(members, curved()), members)
        with pytest.raises(BundleError, match="operator"):
            open_members(replace(bundle, operator={"form": "ensemble", "members": forms}))

    def test_the_networks_of_a_residual_mlp_are_its_members(self):
        tables = curved()
        torch.manual_seed(0)
        operator = residual_mlp.Operator(residual_mlp.Config(epochs=2, members=3), P_IN, P_OUT)
        operator.fit(*tables, ToyObjective(*tables))
        latents = torch.from_numpy(tables[0].vectors)
        each = operator.eval().each(latents)
        assert each.shape == (3, len(latents), P_OUT)
        assert torch.allclose(each.mean(dim=0), operator(latents), atol=1e-5)

    def test_it_needs_what_one_of_its_members_needs(self):
        assert not config("[{backend: linear}, {backend: svr}]").needs_validation
        assert config("[{backend: linear}, {backend: residual-mlp}]").needs_validation


class TestOnFields:
    def test_it_keeps_the_contract(self):
        check_field_operator(Operator, config(f"[{{{SMALL}}}, {{{SMALL}, frequencies: 0}}]"))

    def test_the_mean_is_of_raw_output(self):
        torch.manual_seed(1)
        operator = Operator(config(f"[{{{SMALL}}}, {{{SMALL}}}]"), 2, 1, WINDOW[2])
        pairs = ToyFields(operator.working_grid, WINDOW[2])
        operator.fit(pairs, silent)
        inputs = pairs.draw([0], 0).source, pairs.coords[None], pairs.spacing
        with torch.no_grad():
            each = operator.eval().each(*inputs)
            assert torch.equal(operator(*inputs), each.mean(dim=0))
            assert torch.equal(each[1], operator.members[1](*inputs))
        assert float((each[0] - each[1]).abs().max()) > 1e-4

    def test_the_working_grid_suits_all(self):
        members = "[{backend: oinr, widths: [8, 8, 8], blocks: [0, 0, 1]}, {backend: oinr, widths: [8], blocks: [1]}]"
        operator = Operator(config(members), 2, 1, WINDOW[2])
        assert operator.working_grid == WorkingGrid((1.5, 1.5), 4)
        assert operator.values_per_point == max(m.values_per_point for m in operator.members) + 2

    def test_grids_without_a_common_spacing_are_refused(self):
        settings = config(f"\n  - {{{SMALL}}}\n  - {{{SMALL}, spacing_mm: 2}}")
        with pytest.raises(RecipeError) as caught:
            Operator(settings, 2, 1, Window((24.0, 24.0), (1.5, 1.5)))
        assert caught.value.message == (
            "r.yaml:4: operator.members[1]: works on a grid of 2 x 2, operator.members[0] on one of 1.5 x 1.5: "
            "an ensemble has one grid"
        )


REFUSED = {
    "[]": ["r.yaml:2: operator: members: expected at least one operator"],
    "5": ["r.yaml:2: operator.members: expected a list of sections, got 5"],
    "\n  - backend: linear\n  - {width: 3}": ['r.yaml:4: operator.members[1]: missing key "backend"'],
    "\n  - backend: linear\n  - backend: oinr\n  - backend: svr": [
        "r.yaml:4: operator.members[1]: oinr acts on fields, linear on latents; expected members of one kind"
    ],
    "\n  - backend: linear\n  - backend: svr\n    gama: 1\n  - backend: residual-mlp\n    epochs: 0\n"
    "  - backend: lineal\n  - {backend: ensemble, members: [{backend: linear}]}": [
        'r.yaml:5: unknown key "gama" (did you mean "gammas"?)',
        "r.yaml:7: operator.members[2].epochs: expected an integer (at least 1), got 0",
        'r.yaml:8: operator.members[3]: operator lineal: not installed (did you mean "linear"? installed: ',
        "r.yaml:9: operator.members[4]: an ensemble is no member of an ensemble",
    ],
}


@pytest.mark.parametrize("members", REFUSED)
def test_what_is_no_ensemble_is_refused_on_its_line(members):
    with pytest.raises(RecipeError) as caught:
        config(members)
    lines = caught.value.message.splitlines()
    assert len(lines) == len(REFUSED[members])
    assert all(line.startswith(wanted) for line, wanted in zip(lines, REFUSED[members], strict=True))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("ensembles") / "data")


def test_a_recipe_says_what_its_ensemble_acts_on_and_asks_for(data):
    latent, fields = (
        load_recipe(data / "recipe.yaml", (f"operator={{backend: ensemble, members: {members}}}",))
        for members in (LATENT, f"[{{{SMALL}}}]")
    )
    assert (operator_acts_on(latent), operator_acts_on(fields)) == ("latent", "field")
    assert needs_validation(latent)
    assert needs_validation(fields)
    assert not needs_validation(
        load_recipe(data / "recipe.yaml", ("operator={backend: ensemble, members: [{backend: svr}]}",))
    )
    broken = load_recipe(data / "recipe.yaml", ("operator={backend: ensemble, members: [{backend: svr, c: 1}]}",))
    with pytest.raises(RecipeError, match='unknown key "c"'):
        check_components(broken)


def test_without_members_it_is_left_out_of_a_comparison(data):
    recipe = load_recipe(data / "recipe.yaml")
    chosen, warnings = choose_operators(recipe, "all")
    assert "ensemble" not in chosen
    assert not [warning for warning in warnings if "ensemble" in warning]
    with pytest.raises(RecipeError, match="missing key"):
        choose_operators(recipe, "ensemble")


def with_operator(data: Path, folder: Path, operator: str, *settings: tuple[str, str]) -> Path:
    """A copy of the pictures' recipe, beside links to its data."""
    text = (data / "recipe.yaml").read_text().replace("operator: {backend: linear}", f"operator: {operator}")
    for before, after in settings:
        text = text.replace(before, after)
    folder.mkdir()
    for path in data.iterdir():
        if path.name in ("images", "masks", "split.csv"):
            (folder / path.name).symlink_to(path)
    (folder / "recipe.yaml").write_text(text)
    return folder


@pytest.fixture(scope="module", params=["latents", "fields"])
def ensemble(request, data) -> Trained:
    """X-rays, so to speak, to masks; its validation scans say how far the members usually lie apart."""
    members = LATENT if request.param == "latents" else f"[{{{SMALL}}}, {{{SMALL}}}]"
    folder = data.parent / request.param
    return train(with_operator(data, folder, f"{{backend: ensemble, members: {members}}}"), "blobs")


def judged(trained: Trained, path: Path, out: Path) -> dict:
    ran = nfops("apply", *trained.options(), path, "--out", out, "--json", "--soft")
    assert ran.code == 0, ran.err
    sidecar = json.loads(out.with_name(f"{out.name.partition('.')[0]}.json").read_text())
    assert sidecar["Warnings"] == ran.document["warnings"]
    quality = sidecar["Quality"]
    words = ["".join(word.capitalize() for word in key.split("_")) for key in ran.document["quality"]]
    assert dict(zip(words, ran.document["quality"].values(), strict=True)) == quality
    assert quality["UnlikeTraining"] == bool(quality["Reasons"])
    assert all(reason in sidecar["Warnings"] and f"warning: {reason}" in ran.err for reason in quality["Reasons"])
    return quality


class TestQuality:
    def test_the_manifest_says_what_is_usual(self, ensemble):
        facts = load_bundle(ensemble.bundle).operator
        assert facts["spread"].keys() == {"median", "p99", "of", "scans"}
        assert (facts["spread"]["of"], facts["spread"]["scans"]) == ("validation", 6)
        assert 0 < facts["spread"]["median"] <= facts["spread"]["p99"]

    def test_an_ordinary_scan_is_not_flagged(self, ensemble, tmp_path):
        facts = load_bundle(ensemble.bundle).operator
        found = [judged(ensemble, ensemble.data / "images" / f"b{n}.png", tmp_path / f"m{n}.nii") for n in (0, 18, 23)]
        assert list(found[0]) == [
            "SourceResidual",
            "SourceResidualLimit",
            "Spread",
            "SpreadLimit",
            "UnlikeTraining",
            "Reasons",
            "EmptySlices",
        ]
        assert not any(one["UnlikeTraining"] for one in found)
        assert found[0]["SourceResidualLimit"] > facts["source_residual"]["p99"]
        assert 0 < found[1]["Spread"] <= facts["spread"]["p99"] * 1.01

    def test_a_senseless_scan_is_flagged(self, ensemble, tmp_path):
        noise = np.random.default_rng(0).integers(0, 255, (24, 20)).astype(np.uint8)
        Picture.fromarray(noise).save(tmp_path / "noise.png")
        found = judged(ensemble, tmp_path / "noise.png", tmp_path / "m.nii")
        assert found["UnlikeTraining"]
        assert found["SourceResidual"] > found["SourceResidualLimit"]
        assert any("unexplained" in reason for reason in found["Reasons"])

    def test_members_that_lie_apart_are_a_reason(self, ensemble, tmp_path):
        bundle = load_bundle(ensemble.bundle)
        tight = {**bundle.operator, "spread": {**bundle.operator["spread"], "p99": 1e-6}}
        save_bundle(replace(bundle, operator=tight), tmp_path / "b", force=False)
        ran = nfops(
            *("apply", *ensemble.options(), "--bundle", tmp_path / "b", ensemble.data / "images" / "b0.png"),
            *("--out", tmp_path / "m.png", "--json"),
        )
        assert ran.document["quality"]["unlike_training"]
        (reason,) = ran.document["quality"]["reasons"]
        assert "the members of the ensemble lie" in reason
        assert "on validation scans at most about 1e-06" in reason

    def test_a_batch_says_it_of_each(self, ensemble, tmp_path):
        scans = [ensemble.data / "images" / f"b{n}.png" for n in (0, 1)]
        ran = nfops("apply", *ensemble.options(), *scans, "--out-dir", tmp_path / "out")
        assert ran.code == 0, ran.err
        for path in (tmp_path / "out").glob("*.json"):
            assert json.loads(path.read_text())["Quality"]["Spread"] > 0


def test_latent_ensembles_are_applied_without_torch(data, tmp_path):
    folder = with_operator(data, tmp_path / "data", f"{{backend: ensemble, members: {LATENT}}}")
    trained = train(folder, "blobs")
    bundle = load_bundle(trained.bundle)
    assert bundle.runs_in_numpy
    assert bundle.operator["members"] == ["affine", "rbf-kernel", "residual-mlp"]
    assert isinstance(open_engine(bundle), NumpyEngine)
    assert len(load_operator(bundle).members) == 3


def test_without_validation_scans_training_scans_say_what_is_usual(tmp_path):
    data = write_signals(tmp_path / "data")
    text = (data / "recipe.yaml").read_text()
    members = "[{backend: linear}, {backend: linear, strengths: [10]}]"
    text = text.replace("{backend: linear}", f"{{backend: ensemble, members: {members}}}")
    (data / "recipe.yaml").write_text(
        text.replace("columns: t0..t31, step: 0.5}", "columns: t0..t31, step: 0.5}\n  validation: []")
    )
    facts = load_bundle(train(data, "waves").bundle).operator
    assert (facts["spread"]["of"], facts["spread"]["scans"]) == ("training", 24)


def test_an_operator_without_members_has_no_spread(blobs, tmp_path):
    found = judged(blobs, blobs.data / "images" / "b0.png", tmp_path / "m.nii")
    assert found["Spread"] is None
    assert found["SpreadLimit"] is None
    assert found["SourceResidual"] <= found["SourceResidualLimit"]
    assert "spread" not in load_bundle(blobs.bundle).operator


def test_of_a_4d_scan_the_worst_volume_counts(shades, tmp_path):
    usual = nifti(shades.data / "source" / "s0.nii.gz")[0]
    senseless = np.random.default_rng(4).uniform(100, 1100, usual.shape)
    mapped = shades.recipe.with_name("each.yaml")
    mapped.write_text(shades.recipe.read_text().replace("data:\n", "data:\n  map: t\n"))
    found = {}
    for name, volumes in {"a": [usual] * 2, "b": [usual, senseless, usual], "c": [senseless]}.items():
        scan = save_nifti(tmp_path / f"{name}.nii", np.stack(volumes, axis=-1))
        ran = nfops("apply", "-r", mapped, scan, "--out", tmp_path / f"{name}_out.nii", "--json")
        assert ran.code == 0, ran.err
        found[name] = ran.document
    assert [found[name]["quality"]["unlike_training"] for name in "abc"] == [False, True, True]
    worst = found["b"]["quality"]
    assert worst["source_residual"] == pytest.approx(found["c"]["quality"]["source_residual"])
    assert found["b"]["warnings"] == [f"volume 2: {reason}" for reason in worst["reasons"]]


def test_beside_dicom_there_is_a_quality_too(shades, tmp_path):
    write(tmp_path / "mr", series())
    ran = nfops("apply", *shades.options(), tmp_path / "mr", "--out", tmp_path / "out", "--dicom", "--json")
    assert ran.code == 0, ran.err
    (path,) = tmp_path.glob("*.json")
    assert json.loads(path.read_text())["Quality"]["SourceResidual"] == ran.document["quality"]["source_residual"]


def test_slices_that_show_nothing_are_left_empty_and_told_of(shades, tmp_path):
    """There were none in the training: what the operator makes of them is made up."""
    values = nifti(shades.data / "source" / "s0.nii.gz")[0].astype(np.float32)
    random, found = np.random.default_rng(0), {}
    for name, level in {"whole": None, "dark": values.min(), "grey": values.mean()}.items():
        changed = values.copy()
        if level is not None:
            changed[..., [0, 3]] = level + random.uniform(0, 0.02 * np.ptp(values), changed[..., [0, 3]].shape)
        scan, out = save_nifti(tmp_path / f"{name}.nii", changed), tmp_path / f"{name}_o.nii"
        ran = nfops("apply", "-r", shades.recipe, scan, "--json", "--out", out)
        assert ran.code == 0, ran.err
        reasons = " ".join(ran.document["quality"]["reasons"])
        found[name] = ran.document["quality"]["empty_slices"], "2 of 4 slices show next to nothing" in reasons
        drawn = nifti(out)[0]
        assert (drawn[..., [0, 3]].std() > 0) == (name != "dark")
        assert drawn[..., 1:3].std() > 0
        assert ("2 of 4 slices show nothing and are left empty" in ran.err) == (name == "dark")
    assert found == {"whole": (0, False), "dark": (2, False), "grey": (0, True)}

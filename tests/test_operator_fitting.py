"""What an operator learns by: the true target at the nodes, its copies drawn as they were encoded, and Dice."""

import numpy as np
import pytest
import torch
from toy_cohorts import PICTURE_RECIPE, write_pictures

from nfops import torch_heads
from nfops.bundle import load_bundle, save_bundle
from nfops.cohort import load_pairs, read_cohort
from nfops.engines import open_engine
from nfops.engines.numpy_engine import NumpyEngine
from nfops.engines.torch_engine import TorchEngine
from nfops.fitting import fit_fields
from nfops.latent_tables import encode_pairs
from nfops.operator_fitting import DecodedObjective, dice_loss, fit_operator
from nfops.progress import silent
from nfops.recipe import load_recipe


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blobs")
    small = "operator={backend: residual-mlp, width: 16, epochs: 3, batch: 16}"
    recipe = load_recipe(write_pictures(folder) / "recipe.yaml", (small,))
    pairs = list(load_pairs(recipe, read_cohort(recipe, folder), lambda done: None))
    training = [pair for pair in pairs if pair.split in recipe.data.train]
    bundle = fit_fields(recipe, training, {}).bundle
    tables = encode_pairs(recipe, bundle, open_engine(bundle), pairs)
    return recipe, bundle, tables, pairs


def test_the_targets_own_latents_have_the_least_decoded_error(trained):
    recipe, bundle, tables, pairs = trained
    objective = DecodedObjective(recipe, bundle, tables, lambda: pairs, silent)
    truth = torch.from_numpy(tables["target"].where(np.isin(tables["target"].splits, recipe.data.train)).vectors)
    rows = torch.arange(len(truth))
    own, shuffled = objective.decoded(truth, rows), objective.decoded(truth.roll(7, dims=0), rows)
    assert float(objective.latent(truth, rows)) == 0
    assert float(own) < 0.5 * float(shuffled)


def test_the_score_is_that_of_the_validation_scans(trained):
    recipe, bundle, tables, pairs = trained
    objective = DecodedObjective(recipe, bundle, tables, lambda: pairs, silent)
    checked = np.isin(tables["target"].splits, recipe.data.validation) & (tables["target"].copies == 0)
    truth = torch.from_numpy(tables["target"].where(checked).vectors)
    perfect, mean = (
        objective.score(lambda z: truth[: len(z)]),
        objective.score(lambda z: torch.zeros(len(z), truth.shape[1])),
    )
    assert 0.8 < perfect <= 1
    assert mean < perfect


def test_the_fitted_operator_is_in_the_bundle_and_runs(trained):
    recipe, bundle, tables, pairs = trained
    fitted = fit_operator(recipe, bundle, tables, lambda: pairs)
    assert fitted.operator["form"] == "residual-mlp"
    moved = open_engine(fitted).operate(tables["source"].vectors)
    assert moved.shape == tables["target"].vectors.shape
    assert fitted.runs_in_numpy


@pytest.mark.parametrize(
    "operator",
    [
        "{backend: svr}",
        "{backend: svr, kernel: linear}",
        "{backend: svr, components: 4, rows: 20}",
        "{backend: random-forest, trees: 5}",
    ],
)
def test_operators_of_scikit_learn_are_stored_and_run_in_both_engines(trained, tmp_path, operator):
    recipe, bundle, tables, pairs = trained
    (tmp_path / "recipe.yaml").write_text(PICTURE_RECIPE)
    recipe = load_recipe(tmp_path / "recipe.yaml", (f"operator={operator}",))
    save_bundle(fit_operator(recipe, bundle, tables, lambda: pairs), tmp_path / "bundle", force=False)
    stored, latents = load_bundle(tmp_path / "bundle"), tables["source"].vectors
    here, there = open_engine(stored), TorchEngine(stored, "cpu")
    assert isinstance(here, NumpyEngine)
    expected = there.operate(latents)
    assert expected.shape == tables["target"].vectors.shape
    assert np.abs(here.operate(latents) - expected).max() < 1e-5 * np.abs(expected).max()


def test_dice_loss_of_a_perfect_and_of_a_disjoint_answer():
    truth = torch.zeros(2, 100, 1)
    truth[:, :40] = 1
    assert float(dice_loss(truth, truth)) == pytest.approx(0, abs=1e-6)
    assert float(dice_loss(1 - truth, truth)) > 0.95


def test_dice_loss_leaves_out_the_background():
    truth = torch.nn.functional.one_hot(torch.tensor([0] * 90 + [1] * 10), 3).float()[None]
    wrong = torch.nn.functional.one_hot(torch.tensor([0] * 90 + [2] * 10), 3).float()[None]
    assert float(dice_loss(wrong, truth)) > 0.85


def test_dice_loss_has_a_gradient_towards_the_truth():
    truth = (torch.arange(50) < 20).float()[None, :, None]
    logits = torch.zeros(1, 50, 1, requires_grad=True)
    torch.autograd.backward(dice_loss(torch_heads.activate(torch_heads.Head("sigmoid"), logits), truth))
    assert ((logits.grad < 0) == (truth > 0)).all()

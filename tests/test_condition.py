"""`condition: latent`: ridge that has not seen the patient, encoding of draws, and the chain with it."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_bundles import make_bundle, make_spec, random_latents
from toy_cohorts import write_pictures, write_signals, write_volumes

from nfops.bundle import load_bundle, save_bundle
from nfops.coding import encode_image
from nfops.cohort import Pair, load_pairs, read_cohort
from nfops.condition_fitting import DrawnCondition, encode_draws, fit_condition
from nfops.conditioning import with_prediction
from nfops.cross_fitting import cross_fit
from nfops.engines import open_engine
from nfops.errors import BundleError, InputError
from nfops.field_contract import check_field_operator
from nfops.field_operator_fitting import CohortFields, fit_field_operator
from nfops.field_pairs import WorkingGrid
from nfops.field_translation import translate_field
from nfops.latents import LatentTable
from nfops.operators.oinr import Config, Operator
from nfops.recipe import Recipe, load_recipe
from nfops.resampling import resample
from nfops.sampling import centred_lattice
from nfops.workflows.apply import GridRequest, apply, open_translator
from nfops.workflows.evaluate import Request, evaluate
from nfops.workflows.fit_inr import fit_inr
from nfops.workflows.train_operator import train_operator

TINY = ("operator.backend=oinr", "operator.widths=[8,8]", "operator.blocks=[0,1]")
LATENT = (*TINY, "operator.iterations=12", "operator.condition=latent")
SINE = "{backbone: siren, latent: 4, width: 12, depth: 2, omega: 8}"
FIT = "fit: {iterations: 12, validate_every: 6, batch: 6, points: 60, inner_steps: 1}\n"


# --- ridges that have not seen the patient -----------------------------------------------------------------------


def tables(patients: int = 7, rows: int = 6) -> tuple[LatentTable, LatentTable]:
    """Every patient has a map of its own, so that it matters who taught."""
    rng = np.random.default_rng(4)
    names = tuple(f"p{number // rows}" for number in range(patients * rows))
    ids = tuple(f"s{number // 2}" for number in range(patients * rows))
    source = rng.normal(size=(len(names), 4))
    maps = rng.normal(size=(patients, 4, 3))
    target = np.einsum("np,npq->nq", source, np.repeat(maps, rows, axis=0))
    rest = ids, names, ("train",) * len(names), np.arange(len(names)) % 2, np.zeros(len(names)), "toy"
    return LatentTable(source.astype(np.float32), *rest), LatentTable(target.astype(np.float32), *rest)


class TestCrossFit:
    @pytest.mark.parametrize("patient", ["p0", "p3", "p6"])
    def test_the_ridge_of_a_patient_does_not_know_that_patient(self, patient):
        source, target = tables()
        own = np.array(source.patients) == patient
        changed = replace(target, vectors=np.where(own[:, None], 100.0, target.vectors).astype(np.float32))
        fitted = cross_fit(source, target), cross_fit(source, changed)
        ids = [name for name, is_own in zip(source.ids, own, strict=True) if is_own]
        before, after = (each.move(source.vectors[own], ids) for each in fitted)
        assert np.array_equal(before, after)
        before, after = (each.move(source.vectors[own], ["stranger"] * len(ids)) for each in fitted)
        assert not np.allclose(before, after)

    def test_copies_of_a_scan_and_scans_of_a_patient_stay_together(self):
        fitted = cross_fit(*tables(patients=7))
        source, _ = tables(patients=7)
        assert len(fitted.without) == 5
        groups = {(patient, fitted.groups[name]) for patient, name in zip(source.patients, source.ids, strict=True)}
        assert len(groups) == 7

    def test_scans_of_one_patient_are_told_apart(self):
        fitted = cross_fit(*tables(patients=1, rows=8))
        assert sorted(fitted.groups.values()) == [0, 1, 2, 3]

    def test_one_scan_is_too_few(self):
        with pytest.raises(InputError, match="it needs two"):
            cross_fit(*tables(patients=1, rows=2))


# --- encoding what was drawn -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("times", [0.6, 3], ids=["coarser than the nodes", "finer"])
def test_a_draw_of_the_field_itself_is_found_again(dims, times):
    bundle = make_bundle(make_spec(dims))
    spec, engine = bundle.specs["source"], open_engine(bundle)
    working = WorkingGrid(tuple(step * spec.radius_mm / times for step in spec.spacing), 4)
    shape = working.shape(tuple(2 * half * spec.radius_mm for half in spec.half_extent))
    latents = random_latents(bundle, 3)
    lattice = centred_lattice(shape, [step / spec.radius_mm for step in working.spacing], spec.spacing)
    values = engine.decode("source", latents, lattice)
    coverage = np.ones_like(values)
    coverage[:, :, : shape[0] // 3] = 0  # not seen, and so of no weight
    found = encode_draws(engine, bundle.side("source"), working, np.concatenate([values * coverage, coverage], axis=1))
    apart = engine.decode("source", found, lattice) - values
    assert float(np.sqrt((apart**2).mean())) < 0.06 * float(values.std())


@pytest.mark.parametrize(("head", "channels"), [("identity", 1), ("sigmoid", 1), ("softmax", 3)])
def test_predicted_channels_stand_before_the_coverage(head, channels):
    bundle = make_bundle(make_spec(), make_spec(head=head, channels=channels))
    spec, engine = bundle.specs["target"], open_engine(bundle)
    working = WorkingGrid((3.0, 3.0), 16)  # reaches beyond the field's domain
    values = np.random.default_rng(0).random((2, 2, 32, 32)).astype(np.float32)
    values[:, 1, :5] = 0
    made = with_prediction(engine, bundle.side("target"), working, values, random_latents(bundle, 2, "target"))
    assert made.shape == (2, 2 + channels, 32, 32)
    assert np.array_equal(made[:, [0, -1]], values)
    assert not made[:, 1:-1, :5].any()
    if head == "softmax":
        assert np.allclose(made[:, 1:-1].sum(axis=1), values[:, 1], atol=1e-5)
    centre = engine.decode_points(
        "target", random_latents(bundle, 2, "target")[:1], np.array([[0.5, 0.5]]) * 3 / spec.radius_mm
    )
    assert np.allclose(made[0, 1:-1, 16, 16], centre[:, 0] * values[0, 1, 16, 16], atol=1e-4)


def test_the_contract_knows_of_a_condition():
    small = Config(widths=(8, 8), blocks=(0, 1), iterations=40, condition="latent")
    check_field_operator(Operator, small)

    class Greedy(Operator):
        def __init__(self, *args: object) -> None:
            super().__init__(*args)
            self.latent = torch.nn.Linear(2, 2)

    with pytest.raises(AssertionError, match="which is the ridge's"):
        check_field_operator(Greedy, small)


# --- the chain ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chain:
    recipe: Recipe
    data: Path
    bundle: Path

    def pairs(self, split: str) -> list[Pair]:
        return list(load_pairs(self.recipe, read_cohort(self.recipe, self.data).with_splits((split,)), lambda _: None))


def made_chain(write, folder: Path, *overrides: str) -> Chain:
    data, bundle = write(folder / "data"), folder / "toy"
    recipe = load_recipe(data / "recipe.yaml", (*LATENT, *overrides))
    fit_inr(recipe, data, bundle)
    train_operator(recipe, data, bundle)
    return Chain(recipe, data, bundle)


@pytest.fixture(scope="module", params=[write_pictures, write_volumes, write_signals], ids=["2-D", "3-D", "1-D"])
def chain(request, tmp_path_factory) -> Chain:
    return made_chain(request.param, tmp_path_factory.mktemp("condition"))


def seen_in_application(monkeypatch, bundle, pair: Pair, image=None) -> np.ndarray:
    """(B, C, *grid) that the field operator of a bundle is given."""
    engine, seen = open_engine(bundle), []
    operate = engine.operate_field
    monkeypatch.setattr(engine, "operate_field", lambda values, *rest: seen.append(values) or operate(values, *rest))
    translate_field(engine, bundle, image or pair.source, pair.scan_id)
    return seen[0]


def fitted_condition(chain: Chain, bundle) -> tuple[DrawnCondition, WorkingGrid]:
    alone = replace(bundle, arrays={side: bundle.arrays[side] for side in bundle.specs}, operator={})
    plain = bundle.operator["working"]
    working = WorkingGrid(tuple(plain["spacing"]), plain["multiple"])
    return fit_condition(chain.recipe, alone, open_engine(alone), working, chain.pairs("train")), working


class TestChain:
    def test_the_bundle_says_so_and_keeps_the_ridge_of_all(self, chain):
        bundle = load_bundle(chain.bundle)
        assert bundle.condition == "latent"
        drawn, _ = fitted_condition(chain, bundle)
        assert np.array_equal(bundle.arrays["operator"]["latent.weight"], drawn.ridges.whole.weight.astype(np.float32))
        assert bundle.operator["figures"]["latent_strength"] == drawn.ridges.whole.strength

    def test_training_and_application_see_the_same(self, chain, monkeypatch):
        bundle = load_bundle(chain.bundle)
        drawn, working = fitted_condition(chain, bundle)
        pair = chain.pairs("val")[0]
        stranger = [replace(pair, split="train")]  # to the ridges of groups
        trained = (
            CohortFields(chain.recipe, bundle, working, stranger, "cpu", condition=drawn).draw([0], 0).source.numpy()
        )
        applied = seen_in_application(monkeypatch, bundle, pair)
        assert trained.shape == applied.shape
        inner = np.minimum(trained[0, -1], applied[0, -1]) > 0.99
        there, here = (seen[0, 1:-1][:, inner] for seen in (trained, applied))
        assert np.sqrt(((there - here) ** 2).mean()) < 0.04 * (here.max() - here.min())

    def test_memory_and_disk_give_the_same(self, chain):
        bundle = load_bundle(chain.bundle)
        pairs = chain.pairs("train") + chain.pairs("val")
        again = fit_field_operator(chain.recipe, bundle, pairs)
        assert all(np.array_equal(again.arrays["operator"][n], a) for n, a in bundle.arrays["operator"].items())
        pair = chain.pairs("val")[0]
        found = [translate_field(open_engine(one), one, pair.source).values.values for one in (bundle, again)]
        assert np.array_equal(*found)

    def test_latents_at_hand_spare_the_encoding(self, chain):
        bundle = load_bundle(chain.bundle)
        engine, scan = open_engine(bundle), chain.pairs("val")[0].source
        encoded = encode_image(engine, bundle.side("source"), scan)
        found = [translate_field(engine, bundle, scan, encoded=known).values.values for known in (None, encoded)]
        assert np.array_equal(*found)

    def test_a_coarser_scan_has_nearly_the_same_prediction(self, chain, monkeypatch):
        bundle, pair = load_bundle(chain.bundle), chain.pairs("val")[0]
        grid = pair.source.grid
        coarse = resample(pair.source, grid.with_shape(tuple(max(1, n // 2) for n in grid.shape)))
        full, low = (seen_in_application(monkeypatch, bundle, pair, image)[:, 1:-1] for image in (pair.source, coarse))
        assert full.shape == low.shape
        assert np.sqrt(np.mean((full - low) ** 2)) < 0.1 * (full.max() - full.min())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Chain:
    return made_chain(write_pictures, tmp_path_factory.mktemp("pictures"))


def test_a_draw_does_not_show_what_the_target_of_its_patient_is(pictures):
    bundle = load_bundle(pictures.bundle)
    before, working = fitted_condition(pictures, bundle)
    pairs = pictures.pairs("train")
    own = pairs[0].patient
    inverted = [
        replace(pair, target=pair.target.with_values(1 - pair.target.values)) if pair.patient == own else pair
        for pair in pairs
    ]
    after = fit_condition(pictures.recipe, before.bundle, before.engine, working, inverted)
    ids = [pair.scan_id for pair in pairs]
    draws = CohortFields(pictures.recipe, bundle, working, pairs, "cpu").draw(range(len(pairs)), 1).source.numpy()
    same = np.abs(before.extend(draws, ids) - after.extend(draws, ids)).max(axis=(1, 2, 3)) == 0
    group = before.ridges.groups[ids[0]]
    assert same.tolist() == [before.ridges.groups[name] == group for name in ids]
    assert sum(same) < len(ids)


def test_without_a_condition_nothing_of_it_is_kept(tmp_path):
    data = write_pictures(tmp_path / "data")
    recipe = load_recipe(data / "recipe.yaml", (*TINY, "operator.iterations=2"))
    fit_inr(recipe, data, tmp_path / "b")
    train_operator(recipe, data, tmp_path / "b")
    bundle = load_bundle(tmp_path / "b")
    assert bundle.condition == "none"
    assert not [name for name in bundle.arrays["operator"] if name.startswith("latent.")]


def test_fields_that_are_no_splines(tmp_path):
    text = (write_pictures(tmp_path / "data") / "recipe.yaml").read_text()
    (tmp_path / "data" / "recipe.yaml").write_text(text.replace("{backbone: fpca, latent: 8}", SINE, 1) + FIT)
    recipe = load_recipe(tmp_path / "data" / "recipe.yaml", LATENT)
    fit_inr(recipe, tmp_path / "data", tmp_path / "b")
    report = train_operator(recipe, tmp_path / "data", tmp_path / "b")
    assert report.validation["result"]["dice"] > 0
    assert load_bundle(tmp_path / "b").condition == "latent"


@pytest.mark.parametrize("request_", [Request(), Request(folds="2", with_ridge=False)], ids=["split", "folds"])
def test_evaluation(pictures, tmp_path, request_):
    recipe = replace(pictures.recipe, evaluate=replace(pictures.recipe.evaluate, resolutions=(0.5, 1.0)))
    summary = evaluate(recipe, pictures.data, pictures.bundle, tmp_path / "out", request_)
    assert summary["results"]["result"]["dice"]["mean"] > 0.5


class TestTrouble:
    def apply_broken(self, pictures: Chain, folder: Path, **changes) -> None:
        bundle = load_bundle(pictures.bundle)
        save_bundle(replace(bundle, **changes), folder / "broken", force=True)
        apply(open_translator(folder / "broken"), pictures.pairs("val")[0].source, GridRequest())

    @pytest.mark.parametrize("name", ["latent.weight", "latent.bias"])
    @pytest.mark.parametrize("is_short", [False, True])
    def test_a_ridge_that_is_missing_or_of_another_size(self, pictures, tmp_path, name, is_short):
        arrays = dict(load_bundle(pictures.bundle).arrays)
        arrays["operator"] = dict(arrays["operator"])
        kept = arrays["operator"].pop(name)
        if is_short:
            arrays["operator"][name] = kept[:-1].copy()
        with pytest.raises(BundleError, match=rf"array {name} should be") as caught:
            self.apply_broken(pictures, tmp_path, arrays=arrays)
        assert len(str(caught.value).splitlines()) == 1

    def test_a_condition_from_the_future(self, pictures, tmp_path):
        facts = {**load_bundle(pictures.bundle).operator, "condition": "oracle"}
        with pytest.raises(BundleError, match="condition is 'oracle'"):
            self.apply_broken(pictures, tmp_path, operator=facts)

    def test_a_manifest_that_forgot_its_condition(self, pictures, tmp_path):
        facts = {key: value for key, value in load_bundle(pictures.bundle).operator.items() if key != "condition"}
        with pytest.raises(BundleError, match="do not fit"):
            self.apply_broken(pictures, tmp_path, operator=facts)

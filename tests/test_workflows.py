"""The whole chain on tiny cohorts: fit-inr, encode, train-operator, apply; deterministic, and stale parts refused."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from toy_cohorts import write_pictures, write_volumes

from nfops.bundle import load_bundle
from nfops.cohort import read_cohort, reading_of
from nfops.errors import BundleError, NfopsError, OutputError, RecipeError
from nfops.grid import Reorientation
from nfops.io import load_image
from nfops.latents import LatentTable, latents_dir
from nfops.metrics import dice
from nfops.progress import Step
from nfops.recipe import Recipe, load_recipe
from nfops.workflows.apply import GridRequest, apply, open_translator
from nfops.workflows.encode import encode, plan_encode
from nfops.workflows.fit_inr import fit_inr, plan_fit
from nfops.workflows.resample import open_reader, resample_through_field
from nfops.workflows.train_operator import plan_train, train_operator


@dataclass(frozen=True)
class Chain:
    """A trained bundle, and what training said."""

    recipe: Recipe
    data: Path
    bundle: Path
    validation: dict[str, dict[str, float]]
    steps: list[Step]


def run_chain(folder: Path, bundle: Path) -> Chain:
    recipe, steps = load_recipe(folder / "recipe.yaml"), []
    fit_inr(recipe, folder, bundle, on_step=steps.append)
    encode(recipe, folder, bundle, on_step=steps.append)
    report = train_operator(recipe, folder, bundle, on_step=steps.append)
    return Chain(recipe, folder, bundle, report.validation, steps)


@pytest.fixture(scope="module", params=[write_pictures, write_volumes], ids=["pictures", "volumes"])
def chain(request, tmp_path_factory) -> Chain:
    folder = tmp_path_factory.mktemp("chain")
    return run_chain(request.param(folder / "data"), folder / "toy")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Chain:
    folder = tmp_path_factory.mktemp("pictures")
    return run_chain(write_pictures(folder / "data"), folder / "toy")


class TestChain:
    def test_the_operator_beats_the_mean_and_stays_below_its_ceiling(self, chain):
        found = {kind: metrics.get("dice") for kind, metrics in chain.validation.items()}
        assert found["result"] > 0.8
        assert found["result"] > found["mean"] + 0.03
        assert found["result"] <= found["ceiling"] + 0.02

    def test_a_validation_scan_is_translated(self, chain):
        row = read_cohort(chain.recipe, chain.data).with_splits(("val",)).rows[0]
        reading = reading_of(chain.recipe, "source")
        scan, truth = load_image(row.source, reading), load_image(row.target, reading)
        drawn, latent, _ = apply(open_translator(chain.bundle), scan, GridRequest())
        image = drawn.image()
        assert image.grid.same_as(scan.grid)
        assert set(np.unique(image.values)) <= {0, 1, 2}
        assert dice(image.values[0] > 0, truth.values[0] > 0) > 0.75
        assert latent.vectors.shape == (1, chain.recipe.source.field.get("latent"))

    def test_any_shape_and_probabilities(self, chain):
        row = read_cohort(chain.recipe, chain.data).rows[0]
        scan = load_image(row.source, reading_of(chain.recipe, "source"))
        shape = (33, 27, 1)[: scan.header.ndim] if scan.grid.shape[2] == 1 else (17, 15, 13)
        soft = apply(open_translator(chain.bundle), scan, GridRequest(shape=shape), soft=True)[0].image()
        assert soft.grid.shape[:2] == shape[:2]
        assert 0 <= soft.values.min() <= soft.values.max() <= 1
        assert np.abs(soft.grid.corners_mm - scan.grid.corners_mm).max() < 1e-6
        if soft.channels > 1:
            assert np.abs(soft.values.sum(axis=0) - 1).max() < 1e-5

    def test_the_storage_order_of_the_scan_does_not_matter(self, chain):
        row = read_cohort(chain.recipe, chain.data).rows[0]
        scan = load_image(row.source, reading_of(chain.recipe, "source"))
        translator, how = open_translator(chain.bundle), Reorientation((2, 0, 1), (False, True, True))
        stored = scan.with_values(np.ascontiguousarray(how.apply(scan.values)), scan.grid.reoriented(how))
        one, other = (apply(translator, each, GridRequest(), soft=True)[0].image() for each in (scan, stored))
        assert other.grid.same_as(stored.grid)
        assert np.abs(how.inverse.apply(other.values) - one.values).max() < 1e-4

    def test_a_scan_is_read_through_its_own_field(self, chain):
        row = read_cohort(chain.recipe, chain.data).rows[0]
        scan = load_image(row.source, reading_of(chain.recipe, "source"))
        same = resample_through_field(open_reader(chain.bundle), scan, scan.grid).image()
        spread = scan.values.std()
        assert np.sqrt(((same.values - scan.values) ** 2).mean()) < 0.35 * spread

    def test_progress_counts_up_to_its_total(self, chain):
        last = {step.stage: step for step in chain.steps}
        assert {"reading scans", "source: sampling", "target: encoding", "validation"} <= set(last)
        assert all(step.done == step.total for step in last.values())
        assert all(0 <= step.done <= step.total for step in chain.steps)

    def test_tables_hold_every_scan_and_the_copies_of_training_scans(self, chain):
        table = LatentTable.load(latents_dir(chain.bundle) / "source.safetensors")
        cohort, copies = read_cohort(chain.recipe, chain.data), chain.recipe.augment.copies
        training = len(cohort.with_splits(("train",)).rows)
        assert len(table) == len(cohort.rows) + training * copies
        assert {s for s, c in zip(table.splits, table.copies, strict=True) if c > 0} <= {"train"}
        target = LatentTable.load(latents_dir(chain.bundle) / "target.safetensors")
        assert (table.ids, table.splits) == (target.ids, target.splits)
        assert np.array_equal(table.copies, target.copies)

    def test_latents_have_the_priors_spread(self, chain):
        bundle = load_bundle(chain.bundle)
        table = LatentTable.load(latents_dir(chain.bundle) / "source.safetensors")
        own = table.where(np.array(table.splits) == "train").vectors
        ratio = own.var(axis=0).sum() / bundle.arrays["source"]["prior_variance"].sum()
        assert 0.7 < ratio < 1.3


class TestDeterminism:
    def test_refitting_gives_the_same_bundle(self, pictures, tmp_path):
        again = run_chain(pictures.data, tmp_path / "again")
        one, other = load_bundle(pictures.bundle), load_bundle(again.bundle)
        for side in ("source", "target"):
            assert one.codec_digest(side) == other.codec_digest(side)
        assert one.digest == other.digest
        assert pictures.validation == again.validation

    def test_another_seed_gives_another_bundle(self, pictures, tmp_path):
        recipe = load_recipe(pictures.data / "recipe.yaml", ("seed=4",))
        fit_inr(recipe, pictures.data, tmp_path / "other")
        digests = {load_bundle(path).codec_digest("source") for path in (pictures.bundle, tmp_path / "other")}
        assert len(digests) == 2

    def test_validation_scans_do_not_reach_the_fields(self, pictures, tmp_path):
        folder = write_pictures(tmp_path / "data")
        for row in read_cohort(pictures.recipe, folder).with_splits(("val",)).rows:
            row.source.write_bytes((folder / "images" / "b0.png").read_bytes())
        fit_inr(pictures.recipe, folder, tmp_path / "b")
        assert load_bundle(tmp_path / "b").codec_digest("source") == load_bundle(pictures.bundle).codec_digest("source")


class TestWhatIsRefused:
    def fitted(self, tmp_path: Path, *overrides: str) -> tuple[Recipe, Path, Path]:
        folder = write_pictures(tmp_path / "data", count=20)
        recipe = load_recipe(folder / "recipe.yaml", ("augment.copies=0", *overrides))
        fit_inr(recipe, folder, tmp_path / "b")
        return recipe, folder, tmp_path / "b"

    def test_latents_of_other_fields(self, tmp_path):
        recipe, folder, bundle = self.fitted(tmp_path)
        encode(recipe, folder, bundle)
        recipe = load_recipe(folder / "recipe.yaml", ("augment.copies=1",))
        fit_inr(recipe, folder, bundle, force=True)
        with pytest.raises(BundleError, match=r"made by other fields.*encode --force"):
            train_operator(recipe, folder, bundle)
        with pytest.raises(BundleError, match="made by other fields"):
            plan_train(recipe, bundle)
        encode(recipe, folder, bundle, force=True)
        assert train_operator(recipe, folder, bundle).validation_scans == 6

    def test_training_before_encoding(self, tmp_path):
        recipe, folder, bundle = self.fitted(tmp_path)
        with pytest.raises(BundleError, match="run `nfops encode` first"):
            train_operator(recipe, folder, bundle)

    def test_applying_before_training(self, tmp_path):
        _, _, bundle = self.fitted(tmp_path)
        with pytest.raises(BundleError, match="no operator yet"):
            open_translator(bundle)

    @pytest.mark.parametrize(
        "verb",
        [
            fit_inr,
            encode,
            train_operator,
            plan_fit,
            plan_encode,
            lambda recipe, data, bundle: plan_train(recipe, bundle),
        ],
    )
    def test_what_is_there_already_is_kept(self, pictures, verb: Callable[[Recipe, Path, Path], object]):
        before = load_bundle(pictures.bundle).digest
        with pytest.raises(OutputError, match="already"):
            verb(pictures.recipe, pictures.data, pictures.bundle)
        assert load_bundle(pictures.bundle).digest == before

    def test_more_functions_than_samples(self, tmp_path):
        with pytest.raises(RecipeError, match=r"lower `latent` or raise `augment\.copies`"):
            self.fitted(tmp_path, "source.field.latent=30")
        assert not (tmp_path / "b").exists()

    def test_no_training_rows(self, tmp_path):
        with pytest.raises(RecipeError, match="no row has split"):
            self.fitted(tmp_path, "data.train=[learn]")

    def test_a_failing_scan_is_named_and_leaves_nothing(self, tmp_path):
        recipe, folder, bundle = self.fitted(tmp_path)
        (folder / "images" / "b7.png").write_bytes(b"\x89PNG not")
        with pytest.raises(NfopsError, match=r"b7\.png"):
            encode(recipe, folder, bundle)
        assert not latents_dir(bundle).exists()

    def test_a_bundle_says_what_it_was_made_of(self, pictures):
        bundle = load_bundle(pictures.bundle)
        assert (bundle.data["scans"], bundle.data["patients"]) == (18, 9)
        assert bundle.recipe["seed"] == 3
        assert {"python", "numpy", "torch", "nfops"} <= set(bundle.versions)
        text = (pictures.bundle / "manifest.json").read_text()
        assert '"b17' not in text  # no scan is named
        assert str(pictures.data) not in text


def test_softmax_labels_must_name_every_value(tmp_path):
    folder = write_volumes(tmp_path / "data")
    recipe = load_recipe(folder / "recipe.yaml", ("target.labels=[1, 2]",))
    with pytest.raises(RecipeError, match=r"target\.labels: the training scans also hold 0.*name every label"):
        fit_inr(recipe, folder, tmp_path / "b")


def test_rows_of_a_test_split_are_never_read(tmp_path):
    folder = write_pictures(tmp_path / "data", count=20)
    table = (folder / "split.csv").read_text()
    assert ",val" in table
    (folder / "split.csv").write_text(table.replace(",val", ",test", 2))
    recipe = load_recipe(folder / "recipe.yaml", ("augment.copies=0",))
    victims = [row for row in read_cohort(recipe, folder).rows if row.split == "test"]
    for row in victims:
        row.source.write_bytes(b"not a picture")
    fit_inr(recipe, folder, tmp_path / "b")
    encode(recipe, folder, tmp_path / "b")
    assert train_operator(recipe, folder, tmp_path / "b").validation_scans == 6 - len(victims)

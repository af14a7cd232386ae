"""Real cohorts, few of their scans and small fields: the shipped recipes learn something on each."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from nfops.cohort import read_cohort
from nfops.io import load_image
from nfops.metrics import dice
from nfops.recipe import Recipe, load_recipe
from nfops.workflows.apply import GridRequest, apply, open_translator
from nfops.workflows.encode import encode
from nfops.workflows.fit_inr import fit_inr
from nfops.workflows.resample import open_reader, resample_through_field
from nfops.workflows.train_operator import train_operator

RECIPES = Path(__file__).resolve().parents[1] / "recipes"


@dataclass(frozen=True)
class Trained:
    """A shipped recipe trained on part of its cohort."""

    recipe: Recipe
    data: Path
    bundle: Path
    validation: dict[str, dict[str, float]]


def train(name: str, shared: Path, folder: Path, wanted: dict[str, int], overrides: tuple[str, ...]) -> Trained:
    """wanted: how many rows of each split, the first ones."""
    root = load_recipe(RECIPES / f"{name}.yaml").data.root
    if not (shared / root).is_dir():
        pytest.skip(f"no {root} in {shared}")
    (folder / root).mkdir(parents=True)
    for path in (shared / root).iterdir():
        (folder / root / path.name).symlink_to(path)
    table = folder / root / "few.csv"
    with (shared / root / "split.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    kept = []
    for split, count in wanted.items():
        of_split = [row for row in rows if row["split"] == split]
        kept += of_split[:: max(1, len(of_split) // count)][:count]
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(kept)
    recipe = load_recipe(RECIPES / f"{name}.yaml", ("data.table=few.csv", *overrides))
    fit_inr(recipe, folder, folder / "bundle")
    encode(recipe, folder, folder / "bundle")
    report = train_operator(recipe, folder, folder / "bundle")
    return Trained(recipe, folder, folder / "bundle", report.validation)


def small(source: int, target: int, grid: str, copies: int = 1) -> tuple[str, ...]:
    latents = (f"source.field.latent={source}", f"target.field.latent={target}")
    return (*latents, f"geometry.grid.shape={grid}", f"augment.copies={copies}")


def test_lungs_are_found_better_than_by_the_mean_mask(shared_data, tmp_path):
    overrides = small(32, 24, "[32, 32]", copies=3)
    trained = train("cxr_lungs_latent", shared_data, tmp_path, {"train": 40, "val": 8}, overrides)
    found = {kind: metrics["dice"] for kind, metrics in trained.validation.items() if kind != "source_ceiling"}
    assert found["result"] > found["mean"] + 0.02
    assert found["ceiling"] > found["result"]
    assert found["ceiling"] > 0.9


def test_t2_is_nearer_than_the_mean_image(shared_data, tmp_path):
    overrides = (*small(32, 24, "[40, 40]"), "data.train=[train]")
    wanted = {"train": 60, "val": 12}
    trained = train("brain_t1t2_latent", shared_data, tmp_path, wanted, overrides)
    found = {kind: metrics["psnr"] for kind, metrics in trained.validation.items()}
    assert found["mean"] + 1 < found["result"] < found["ceiling"]


@pytest.fixture(scope="module")
def hippocampus(shared_data, tmp_path_factory) -> Trained:
    wanted = {"train": 30, "val": 6}
    folder = tmp_path_factory.mktemp("hippocampus")
    return train("hippocampus_latent", shared_data, folder, wanted, small(24, 16, "[16, 20, 16]"))


class TestHippocampus:
    def test_volumes_are_labelled_better_than_by_the_mean(self, hippocampus):
        found = {kind: metrics["dice"] for kind, metrics in hippocampus.validation.items() if "dice" in metrics}
        assert found["mean"] < found["result"] < found["ceiling"]

    def test_a_real_volume_comes_back_through_its_field(self, hippocampus):
        row = read_cohort(hippocampus.recipe, hippocampus.data).with_splits(("train",)).rows[0]
        scan = load_image(row.source)
        again = resample_through_field(open_reader(hippocampus.bundle), scan, scan.grid).image()
        assert again.grid.same_as(scan.grid)
        assert np.corrcoef(again.values.ravel(), scan.values.ravel())[0, 1] > 0.6

    def test_a_prediction_lies_where_its_scan_lies(self, hippocampus):
        row = read_cohort(hippocampus.recipe, hippocampus.data).with_splits(("val",)).rows[0]
        scan, truth = load_image(row.source), load_image(row.target)
        drawn, *_ = apply(open_translator(hippocampus.bundle), scan, GridRequest(spacing_mm=(2.0,)))
        image = drawn.image()
        assert np.allclose(image.grid.spacing_mm, 2.0)
        assert np.abs(image.grid.centre_mm - scan.grid.centre_mm).max() < 1e-3
        own = apply(open_translator(hippocampus.bundle), scan, GridRequest())[0].image()
        assert dice(own.values > 0, truth.values > 0) > 0.4

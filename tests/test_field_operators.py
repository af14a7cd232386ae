"""Operators on fields: the O-INR by itself, and the chain fit-inr, train-operator, apply with it."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_cohorts import write_pictures, write_signals, write_volumes

from nfops.bundle import load_bundle, save_bundle
from nfops.cohort import read_cohort, reading_of
from nfops.errors import BundleError, InputError, RecipeError
from nfops.field_contract import check_field_operator
from nfops.field_pairs import Window, WorkingGrid
from nfops.grid import Grid, Reorientation
from nfops.image import Image
from nfops.io import load_image
from nfops.metrics import dice
from nfops.operators.oinr import Config, Operator
from nfops.recipe import Recipe, load_recipe
from nfops.resampling import resample
from nfops.workflows.apply import GridRequest, apply, open_translator
from nfops.workflows.evaluate import Request, evaluate
from nfops.workflows.fit_inr import fit_inr
from nfops.workflows.train_operator import plan_train, train_operator

SMALL = ("operator.backend=oinr", "operator.widths=[8,8]", "operator.blocks=[1,1]", "operator.iterations=60")
FLIPPED = Reorientation((2, 0, 1), (True, False, True))


@dataclass(frozen=True)
class Chain:
    recipe: Recipe
    data: Path
    bundle: Path
    validation: dict[str, dict[str, float]]


@pytest.fixture(scope="module", params=[write_pictures, write_volumes, write_signals], ids=["2-D", "3-D", "1-D"])
def chain(request, tmp_path_factory) -> Chain:
    folder = tmp_path_factory.mktemp("fields")
    data, bundle = request.param(folder / "data"), folder / "toy"
    recipe = load_recipe(data / "recipe.yaml", SMALL)
    fit_inr(recipe, data, bundle)
    return Chain(recipe, data, bundle, train_operator(recipe, data, bundle).validation)


def first_scan(chain: Chain) -> tuple[Image, Image]:
    row = next(row for row in read_cohort(chain.recipe, chain.data).rows if row.split == "val")
    if not isinstance(row.source, Path):
        return row.source.image(), row.target.image()
    return load_image(row.source, reading_of(chain.recipe, "source")), load_image(
        row.target, reading_of(chain.recipe, "target")
    )


def translated(chain: Chain, image: Image, request: GridRequest | None = None, *, soft: bool = False) -> Image:
    return apply(open_translator(chain.bundle), image, request or GridRequest(), soft=soft)[0].image()


def like(grid: Grid) -> GridRequest:
    return GridRequest(like=Image(np.zeros((1, *grid.shape), np.float32), grid))


class TestOperator:
    window = Window((48.0, 48.0), (1.5, 1.5))

    def made(self, **changes) -> Operator:
        torch.manual_seed(2)
        operator = Operator(Config(**({"widths": (8, 8), "blocks": (1, 1)} | changes)), 2, 1, self.window)
        torch.nn.init.normal_(operator.last.weight, std=0.1)
        return operator.eval().requires_grad_(False)

    def run(self, operator: Operator, values: torch.Tensor, step: float = 1.5) -> torch.Tensor:
        axes = [(torch.arange(n) + 0.5 - n / 2) * step for n in values.shape[2:]]
        coords = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)[None]
        return operator(values, coords, torch.tensor([step, step]))

    @pytest.mark.parametrize("dims", [1, 3])
    def test_it_keeps_the_contract_in_other_dimensions(self, dims):
        check_field_operator(Operator, Config(widths=(8, 8), blocks=(1, 1), iterations=40), dims)

    def test_a_moved_scan_gives_a_moved_result(self):
        operator = self.made(frequencies=0)
        values = torch.zeros(1, 2, 64, 64)
        values[:, :, 26:34, 24:36] = torch.randn(1, 2, 8, 12)
        moved = values.roll((4, -6), (2, 3))  # whole cells of the coarsest lattice
        inner = slice(16, 48)
        found, wanted = self.run(operator, moved), self.run(operator, values).roll((4, -6), (2, 3))
        assert torch.allclose(found[..., inner, inner], wanted[..., inner, inner], atol=1e-5)

    def test_the_position_matters_where_it_is_encoded(self):
        values = torch.ones(1, 2, 32, 32)
        assert float(self.run(self.made(frequencies=2), values)[..., 8:24, 8:24].std()) > 1e-4

    def test_positions_are_encoded_alike_on_every_grid(self):
        operator = self.made()
        place = torch.tensor([[[3.0, -7.5]]])
        alone = operator.encoded(place[:, None])
        among = operator.encoded(torch.cat([place, 2 * place, -place], dim=1)[:, None])
        assert torch.equal(alone[..., 0], among[..., 0])

    def test_with_its_mirror_it_treats_both_sides_alike(self):
        operator = self.made(frequencies=0, mirror=(1,))
        values = torch.randn(1, 2, 32, 32)
        assert torch.allclose(self.run(operator, values.flip(3)), self.run(operator, values).flip(3), atol=1e-5)

    @pytest.mark.parametrize(("dims", "times"), [(1, 2), (2, 3), (3, 1)])
    def test_mirrors_of_images_are_in_memory_together(self, dims, times):
        """A volume's pass one after the other."""
        window = Window((12.0,) * dims, (1.5,) * dims)
        plain, mirrored = (
            Operator(Config(widths=(4, 4), blocks=(0, 1), mirror=mirror), 2, 1, window)
            for mirror in ((), tuple(range(min(dims, 2))))
        )
        assert mirrored.values_per_point == times * plain.values_per_point

    def test_volumes_are_mirrored_too(self):
        plain, mirrored = (Config(widths=(4, 4), blocks=(0, 1), mirror=mirror) for mirror in ((), (0, 2)))
        torch.manual_seed(2)
        operator = Operator(plain, 2, 1, Window((12.0,) * 3, (1.5,) * 3)).eval().requires_grad_(False)
        torch.nn.init.normal_(operator.last.weight, std=0.1)
        both = Operator(mirrored, 2, 1, Window((12.0,) * 3, (1.5,) * 3)).eval().requires_grad_(False)
        both.load_state_dict(operator.state_dict())
        values, coords, steps = torch.randn(2, 2, 8, 8, 8), torch.randn(2, 8, 8, 8, 3), torch.full((3,), 1.5)
        each = [operator(values.flip(axes), coords, steps).flip(axes) for axes in ((), (2,), (4,))]
        assert torch.allclose(both(values, coords, steps), torch.stack(each).mean(dim=0), atol=1e-6)

    def test_grids_that_do_not_fit_its_lattices_are_refused(self):
        operator = self.made(widths=(8, 8, 8), blocks=(0, 0, 1))
        with pytest.raises(ValueError, match="whole number of cells"):
            self.run(operator, torch.zeros(1, 2, 34, 32))
        with pytest.raises(ValueError, match="too coarse"):
            self.run(operator, torch.zeros(1, 2, 32, 32), step=3.0)

    def test_a_mirror_beyond_the_dimensions_is_refused(self):
        with pytest.raises(RecipeError, match=r"operator.mirror: expected axes below 2"):
            Operator(Config(mirror=(2,)), 2, 1, Window((24.0, 24.0), (1.5, 1.5)))

    def test_widths_and_blocks_go_together(self):
        with pytest.raises(ValueError, match="one number for each"):
            Config(widths=(8, 16), blocks=(1,))


def test_a_working_grid_covers_the_view_with_whole_coarse_cells():
    working = WorkingGrid((1.2, 2.0), 8)
    assert working.shape((230.4, 230.4)) == (192, 120)
    assert working.shape((231.0, 1.0)) == (200, 8)


class TestChain:
    def test_it_beats_the_mean(self, chain):
        found = {kind: next(iter(metrics.values())) for kind, metrics in chain.validation.items()}
        assert found["result"] > found["mean"]

    def test_needs_no_latents(self, chain):
        assert not chain.bundle.with_name(chain.bundle.name + ".latents").exists()
        assert load_bundle(chain.bundle).acts_on_fields

    def test_weights_are_stored_in_16_bits(self, chain):
        arrays = load_bundle(chain.bundle).arrays["operator"].values()
        assert {array.dtype for array in arrays if array.size >= 256} <= {np.dtype(np.float16)}
        assert {array.dtype for array in arrays if array.size < 256} == {np.dtype(np.float32)}

    def test_training_again_gives_the_same(self, chain, tmp_path):
        fit_inr(chain.recipe, chain.data, tmp_path / "again")
        train_operator(chain.recipe, chain.data, tmp_path / "again")
        before, after = (load_bundle(path).arrays["operator"] for path in (chain.bundle, tmp_path / "again"))
        assert all(np.array_equal(before[name], after[name]) for name in before)

    def test_the_storage_order_of_the_scan_does_not_matter(self, chain):
        image, _ = first_scan(chain)
        if chain.recipe.geometry.dims == 1:
            return  # a signal has one order
        stored = Image(FLIPPED.apply(image.values), image.grid.reoriented(FLIPPED), image.header)
        found, wanted = (translated(chain, one, soft=True) for one in (stored, image))
        assert np.allclose(FLIPPED.inverse.apply(found.values), wanted.values, atol=1e-4)

    def test_any_grid_shows_the_same_function(self, chain):
        image, _ = first_scan(chain)
        is_label = chain.recipe.side("target").head != "identity"
        own = translated(chain, image, soft=is_label)
        shape = tuple(2 * n if n > 1 else n for n in image.grid.shape)
        finer = translated(chain, image, like(image.grid.with_shape(shape)), soft=is_label)
        assert finer.grid.shape == shape
        back = resample(finer, image.grid, "cubic")
        spread = float(own.values.std())
        assert float(np.sqrt(np.mean((back.values - own.values) ** 2))) < 0.1 * spread

    def test_a_coarser_scan_gives_nearly_the_same(self, chain):
        image, _ = first_scan(chain)
        coarse = resample(image, image.grid.with_shape(tuple(max(1, n // 2) for n in image.grid.shape)))
        is_label = chain.recipe.side("target").head != "identity"
        own, seen = (translated(chain, one, like(image.grid), soft=is_label) for one in (image, coarse))
        assert float(np.sqrt(np.mean((own.values - seen.values) ** 2))) < 0.5 * float(own.values.std())

    def test_labels_and_probabilities(self, chain):
        if chain.recipe.side("target").head == "identity":
            return  # no labels
        image, truth = first_scan(chain)
        labels, soft = translated(chain, image), translated(chain, image, soft=True)
        assert set(np.unique(labels.values)) <= {0.0, 1.0, 2.0}
        assert soft.values.min() >= 0
        assert soft.values.max() <= 1
        if chain.recipe.side("target").head == "softmax":
            assert np.allclose(soft.values.sum(axis=0), 1, atol=1e-5)
        assert dice(labels.values[0] > 0, truth.values[0] > 0) > 0.5

    def test_beyond_the_scan_there_is_nothing(self, chain):
        if chain.recipe.geometry.dims == 1:
            return  # a signal ends
        image, _ = first_scan(chain)
        i, j, k = image.grid.shape
        wider = image.grid.affine.copy()
        wider[:3, 3] -= wider[:3, 0] * i
        beside = translated(chain, image, like(Grid((2 * i, j, k), wider)))
        assert beside.values[:, i:].any()
        assert not beside.values[:, :i].any()

    def test_a_plan_says_what_it_acts_on(self, chain):
        assert plan_train(chain.recipe, chain.bundle, force=True)["acts on"] == "fields"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trouble")
    data, bundle = write_pictures(folder / "data"), folder / "toy"
    recipe = load_recipe(data / "recipe.yaml", SMALL)
    fit_inr(recipe, data, bundle)
    return recipe, data, bundle


def read_summary(recipe: Recipe, data: Path, bundle: Path, out: Path, request: Request) -> dict:
    recipe = replace(recipe, evaluate=replace(recipe.evaluate, resolutions=(0.5, 1.0), metrics=("dice",)))
    return evaluate(recipe, data, bundle, out, request)


class TestEvaluation:
    def test_a_split(self, pictures, tmp_path):
        recipe, data, bundle = pictures
        report = train_operator(recipe, data, bundle, force=True)
        summary = read_summary(recipe, data, bundle, tmp_path / "out", Request())
        found = summary["results"]["result"]["dice"]["mean"]
        assert found == pytest.approx(report.validation["result"]["dice"], abs=1e-6)
        assert all(each["metrics"]["dice"]["mean"] > 0.5 for each in summary["resolutions"])

    def test_folds(self, pictures, tmp_path):
        recipe, data, bundle = pictures
        summary = read_summary(recipe, data, bundle, tmp_path / "out", Request(folds="2", with_ridge=False))
        assert summary["results"]["result"]["dice"]["mean"] > 0.5


class TestTrouble:
    def test_no_training_rows(self, pictures):
        _, data, bundle = pictures
        empty = load_recipe(data / "recipe.yaml", (*SMALL, "data.train=[nobody]"))
        with pytest.raises((InputError, BundleError), match="nobody"):
            train_operator(empty, data, bundle)

    def test_unknown_settings(self, pictures):
        _, data, bundle = pictures
        with pytest.raises(RecipeError, match="did you mean"):
            train_operator(load_recipe(data / "recipe.yaml", (*SMALL, "operator.width=[8]")), data, bundle, force=True)

    @pytest.mark.parametrize("working", [None, {"spacing": [1.0], "multiple": 2}, {"spacing": [0, 1], "multiple": 2}])
    def test_a_manifest_without_a_usable_working_grid(self, pictures, tmp_path, working):
        recipe, data, _ = pictures
        fit_inr(recipe, data, tmp_path / "b")
        quick = load_recipe(data / "recipe.yaml", (*SMALL, "operator.iterations=1"))
        train_operator(quick, data, tmp_path / "b")
        trained = load_bundle(tmp_path / "b")
        facts = {key: value for key, value in trained.operator.items() if key != "working"}
        broken = replace(trained, operator=facts if working is None else {**facts, "working": working})
        save_bundle(broken, tmp_path / "b", force=True)
        scan = load_image(data / "images" / "b0.png", reading_of(recipe, "source"))
        with pytest.raises(BundleError, match="working grid"):
            apply(open_translator(tmp_path / "b"), scan, GridRequest())

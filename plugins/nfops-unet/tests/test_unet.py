"""The contract of operators, what is special to a U-Net, and the chain fit-inr, train-operator, apply with it."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from nfops_unet.unet import Config, Operator
from PIL import Image

from nfops.cli.main import main
from nfops.field_contract import check_field_operator
from nfops.field_pairs import Window
from nfops.registry import load_component
from nfops.testing import check_operator

RECIPE = """
name: discs
seed: 3
data:
  table: split.csv
  source: "images/{id}.png"
  target: "masks/{id}.png"
  picture: {axes: [L, P], pixel_mm: 2.0}
geometry: {dims: 2, slice_axis: S, frame: physical, grid: {shape: [19, 23]}}
source: {intensity: {map: range, low: 0, high: 255}, field: {backbone: fpca, latent: 4}}
target: {head: sigmoid, field: {backbone: fpca, latent: 4}}
encode: {steps: 1, prior: 1.0e-4}
augment: {affine: {rotate_deg: 5, shift_mm: 2}, flip: [L], copies: 1}
operator: {backend: unet, widths: [8, 16], iterations: 200, learning_rate: 1.0e-2, mirror: [0]}
"""


def window(dims=2):
    return Window((48.0,) * dims, (1.5,) * dims)


def run(operator, values, step=1.5):
    axes = [(torch.arange(n) + 0.5 - n / 2) * step for n in values.shape[2:]]
    coords = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)[None].expand(len(values), *values.shape[2:], -1)
    return operator(values, coords, torch.full((len(axes),), step))


def made(**changes):
    torch.manual_seed(1)
    operator = Operator(Config(**({"widths": (8, 16)} | changes)), 2, 1, window())
    return operator.eval().requires_grad_(False)


class TestOperator:
    def test_contract(self):
        check_operator(Operator, Config(widths=(8, 16), iterations=30))

    @pytest.mark.parametrize("dims", [1, 3])
    def test_contract_in_other_dimensions(self, dims):
        check_field_operator(Operator, Config(widths=(8, 8), iterations=100), dims)

    def test_nfops_finds_it_by_its_entry_point(self):
        assert load_component("operator", "unet").cls is Operator

    def test_its_size_is_that_of_the_usual_one(self):
        assert sum(parameter.numel() for parameter in Operator(Config(), 2, 1, window()).parameters()) == 483_297

    def test_a_moved_scan_gives_a_moved_result(self):
        """It is told no position. Its norms see the whole view, whose border is far from what is moved."""
        operator, values = made(), torch.zeros(1, 2, 48, 48)
        values[:, :, 20:26, 18:28] = torch.randn(1, 2, 6, 10)
        found, wanted = run(operator, values.roll((4, -2), (2, 3))), run(operator, values).roll((4, -2), (2, 3))
        assert torch.allclose(found[..., 16:36, 16:36], wanted[..., 16:36, 16:36], atol=1e-4)

    def test_with_its_mirror_it_treats_both_sides_alike(self):
        operator, values = made(mirror=(1,)), torch.randn(1, 2, 32, 32)
        assert torch.allclose(run(operator, values.flip(3)), run(operator, values).flip(3), atol=1e-5)

    def test_odd_extents_are_covered_by_a_grid_that_can_be_halved(self):
        operator = Operator(Config(widths=(4, 4, 4)), 2, 1, Window((29.0, 21.0), (1.0, 1.0)))
        shape = operator.working_grid.shape((29.0, 21.0))
        assert shape == (32, 24)
        assert run(operator, torch.zeros(1, 2, *shape), step=1.0).shape == (1, 1, 32, 24)

    def test_spacing_of_the_working_grid(self):
        assert Operator(Config(spacing_mm=2.0), 2, 1, window()).working_grid.spacing == (2.0, 2.0)

    def test_grids_that_are_not_its_own_are_refused(self):
        with pytest.raises(ValueError, match="cannot be halved"):
            run(made(), torch.zeros(1, 2, 31, 32))
        with pytest.raises(ValueError, match="of spacing"):
            run(made(), torch.zeros(1, 2, 32, 32), step=3.0)

    def test_no_levels_are_refused(self):
        with pytest.raises(ValueError, match="at least one level"):
            Config(widths=())


def write_discs(folder, count=16):
    """Bright discs on noise, and where they are."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    place = np.stack(np.meshgrid(np.linspace(-1, 1, 23), np.linspace(-1, 1, 19), indexing="ij"), axis=-1)
    for number in range(count):
        disc = np.hypot(*np.moveaxis(place - rng.uniform(-0.4, 0.4, 2), -1, 0)) < rng.uniform(0.3, 0.5)
        seen = 60 + 120 * disc + rng.normal(0, 10, disc.shape)
        Image.fromarray(seen.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"d{number}.png")
        Image.fromarray((255 * disc).astype(np.uint8)).save(folder / "masks" / f"d{number}.png")
    rows = [f"d{number},{'val' if number < 3 else 'train'}" for number in range(count)]
    (folder / "split.csv").write_text("\n".join(["id,split", *rows]) + "\n")


def nfops(*argv):
    ran = CliRunner().invoke(main, [str(word) for word in (*argv, "-q")], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    return ran.stdout


def test_from_fit_inr_to_apply(tmp_path):
    write_discs(tmp_path)
    recipe = tmp_path / "discs.yaml"
    recipe.write_text(RECIPE)
    for verb in ("fit-inr", "train-operator"):
        report = nfops(verb, "-r", recipe, "--data", tmp_path, "--json")
    found = {kind: next(iter(metrics.values())) for kind, metrics in json.loads(report)["validation"].items()}
    assert found["result"] > max(0.9, found["mean"]), found
    truth = np.asarray(Image.open(tmp_path / "masks" / "d0.png")) > 0
    for times, shape in ((1, "19x23"), (2, "38x46")):  # columns, then rows
        out = tmp_path / f"{shape}.png"
        nfops("apply", "-r", recipe, tmp_path / "images" / "d0.png", "--out", out, "--shape", shape)
        found, wanted = np.asarray(Image.open(out)) > 0, truth.repeat(times, axis=0).repeat(times, axis=1)
        assert 2 * (found & wanted).sum() / (found.sum() + wanted.sum()) > 0.85

"""The contract of operators, Fourier's theorems, and the chain fit-inr, train-operator, apply with the operator."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from nfops_fno.fno import Config, Operator
from nfops_fno.spectral import Axis, SpectralConvolution, waves_at
from PIL import Image

from nfops.cli.main import main
from nfops.field_contract import check_field_operator
from nfops.field_pairs import Window
from nfops.registry import load_component
from nfops.testing import check_operator

SMALL = {"width": 8, "layers": 2, "modes": 4, "iterations": 60, "learning_rate": 1e-2}
PERIOD = 30.0

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
operator: {backend: fno, width: 12, layers: 2, modes: 8, iterations: 150, learning_rate: 1.0e-2, mirror: [0]}
"""


def places(count, step):
    return (torch.arange(count, dtype=torch.float64) + 0.5 - count / 2) * step


def periodic(shape, modes):
    """Axes of grids that cover one period."""
    return [
        Axis(waves_at(places(n, PERIOD / n)[None], PERIOD, k), torch.full((1, n), PERIOD / n, dtype=torch.float64))
        for n, k in zip(shape, modes, strict=True)
    ]


def convolution(inputs, outputs, modes):
    torch.manual_seed(4)
    return SpectralConvolution(inputs, outputs, modes).double().requires_grad_(False)


def by_fft(convolution, values, modes):
    """The same with complex numbers: the wave of signs s is multiplied by sum over turns of W prod(-i s)."""
    dims, result = len(modes), 0
    spectrum = torch.fft.fftn(values, dim=tuple(range(2, 2 + dims)))
    weight = convolution.weight.reshape(*modes, *(2,) * dims, *convolution.weight.shape[2:])
    kept = torch.zeros(len(values), weight.shape[-1], *values.shape[2:], dtype=torch.complex128)
    for wave in itertools.product(*(range(1 - k, k) for k in modes)):
        factor = 0
        for turned in itertools.product((0, 1), repeat=dims):
            turn = math.prod((-1j * np.sign(k)) ** t for k, t in zip(wave, turned, strict=True))
            factor = factor + complex(turn) * weight[(*(abs(k) for k in wave), *turned)]
        at = (slice(None), slice(None), *wave)
        kept[at] = spectrum[at] @ factor.to(torch.complex128)
    result = torch.fft.ifftn(kept, dim=tuple(range(2, 2 + dims)))
    assert float(result.imag.abs().max()) < 1e-9
    return result.real


class TestSpectralConvolution:
    @pytest.mark.parametrize(
        ("shape", "modes"), [((16,), (5,)), ((12, 15), (4, 6)), ((7, 8, 9), (2, 4, 3)), ((9, 1), (3, 1))]
    )
    def test_it_is_that_of_the_fft_on_a_periodic_grid(self, shape, modes):
        layer, values = convolution(3, 2, modes), torch.randn(2, 3, *shape, dtype=torch.float64)
        assert torch.allclose(layer(values, periodic(shape, modes)), by_fft(layer, values, modes), atol=1e-9)

    def test_waves_that_it_knows_pass_unchanged_and_others_not_at_all(self):
        layer, modes = convolution(1, 1, (4, 3)), (4, 3)
        layer.weight.zero_()
        layer.weight[:, 0] = 1  # no turns
        x, y = torch.meshgrid(places(12, PERIOD / 12), places(10, PERIOD / 10), indexing="ij")
        turn = 2 * torch.pi / PERIOD
        low = 2 + torch.cos(turn * (3 * x - 2 * y) + 1) + torch.sin(turn * x)
        high = torch.cos(turn * (4 * x + y)) + torch.sin(3 * turn * y)
        made = layer(torch.stack([low, high])[:, None], periodic((12, 10), modes))
        assert torch.allclose(made[0, 0], low)
        assert float(made[1].abs().max()) < 1e-12

    def test_finer_grids_show_the_same_function(self):
        layer = convolution(1, 2, (4,))
        coarse, fine = (
            layer(torch.exp(torch.sin(2 * torch.pi / PERIOD * places(n, PERIOD / n)))[None, None], periodic((n,), (4,)))
            for n in (24, 72)
        )
        assert torch.allclose(coarse, fine[..., 1::3], atol=1e-9)


def made(window, **changes):
    torch.manual_seed(5)
    return Operator(Config(**(SMALL | changes)), 2, 1, window).eval().requires_grad_(False)


def run(operator, values, *steps):
    axes = [places(n, step).float() for n, step in zip(values.shape[2:], steps, strict=True)]
    coords = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).expand(len(values), *values.shape[2:], -1)
    return operator(values, coords, torch.tensor(steps))


class TestOperator:
    window = Window((24.0, 36.0), (1.0, 1.5))

    def test_contract(self):
        check_operator(Operator, Config(**SMALL))

    @pytest.mark.parametrize("dims", [1, 3])
    def test_contract_in_other_dimensions(self, dims):
        check_field_operator(Operator, Config(**SMALL), dims)

    def test_nfops_finds_it_by_its_entry_point(self):
        assert load_component("operator", "fno").cls is Operator

    def test_its_size_does_not_depend_on_the_grid(self):
        sizes = set()
        for step in (0.5, 1.0):
            operator = Operator(Config(spacing_mm=step), 2, 1, Window((96.0, 96.0), (1.0, 1.0)))
            sizes.add(sum(parameter.numel() for parameter in operator.parameters()))
        assert sizes == {1_330_873}

    def test_no_more_waves_than_the_working_grid_shows(self):
        operator = made(Window((24.0, 12.0), (2.0, 2.0)), modes=20, margin=0.0)
        assert operator.modes == (6, 3)
        with pytest.raises(ValueError, match="too coarse"):
            run(operator, torch.zeros(1, 2, 4, 4), 6.0, 3.0)

    def test_what_lies_beyond_the_view_changes_nothing_within(self):
        operator, values = made(self.window), torch.rand(2, 2, 24, 24)
        wider = torch.rand(2, 2, 30, 28)
        wider[..., 3:27, 2:26] = values
        assert torch.allclose(
            run(operator, wider, 1.0, 1.5)[..., 3:27, 2:26], run(operator, values, 1.0, 1.5), atol=1e-6
        )

    def test_a_scan_of_a_part_of_the_view_is_one_that_is_unknown_elsewhere(self):
        operator, values = made(self.window), torch.rand(2, 2, 20, 11)
        whole = torch.zeros(2, 2, 24, 25)  # 25 cells of 1.5 mm share the centre of 11, and end beyond the view
        whole[..., 2:22, 7:18] = values
        found, wanted = run(operator, values, 1.0, 1.5), run(operator, whole, 1.0, 1.5)
        assert torch.allclose(found, wanted[..., 2:22, 7:18], atol=1e-6)

    def test_with_its_mirror_it_is_the_mean_of_both(self):
        operator, values = made(self.window), torch.rand(1, 2, 24, 24)
        both = made(self.window, mirror=(1,))
        alone = run(operator, values, 1.0, 1.5), run(operator, values.flip(3), 1.0, 1.5).flip(3)
        assert torch.allclose(run(both, values, 1.0, 1.5), sum(alone) / 2, atol=1e-6)


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

"""The modulated SIREN: the papers' sizes, its hand-made derivatives against autograd's, and its latents' basis."""

import math
from dataclasses import replace

import pytest
import torch

from nfops.backbones.siren import Backbone, Config
from nfops.sampling import Domain
from nfops.testing import check_backbone

DOMAINS = {d: Domain((1.0,) * d, (8,) * d) for d in (1, 2, 3)}
SMALL = Config(latent=5, width=12, depth=3, omega=8)
VARIANTS = {
    "plain": SMALL,
    "medfuncta paper": replace(SMALL, omega_last=16, first_modulated=2),
    "medfuncta code": replace(SMALL, omega_last=16, skips=True, output_offset=0.5),
    "functa": replace(SMALL, first_modulated=2, bias_init="zeros", modulation_init="functa", output_offset=0.5),
    "hidden": replace(SMALL, hyper_hidden=7, skips=True),
    "late": replace(SMALL, first_modulated=3, modulation_bias=False, modulation_init="phase", bias_init="torch"),
    "one layer": replace(SMALL, depth=1),
    "no latent": replace(SMALL, latent=0),
}


def make(config: Config, dims: int = 2, channels: int = 3, seed: int = 0) -> Backbone:
    """In double precision, its maps and biases large enough to matter."""
    torch.manual_seed(seed)
    backbone = Backbone(config, DOMAINS[dims], channels).double()
    for parameter in backbone.parameters():
        parameter.requires_grad_(False)
    return backbone


def inputs(config: Config, dims: int = 2, batch: int = 3, points: int = 11) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.rand(batch, points, dims).double() * 2 - 1, torch.randn(batch, config.latent).double()


def count(module: torch.nn.Module, part: str = "") -> int:
    return sum(p.numel() for name, p in module.named_parameters() if name.startswith(part))


class TestSizes:
    """`/work/shared/reference/peer-algorithms.md`, finding 3 and A1-A5: what the papers' networks weigh."""

    @pytest.mark.parametrize(
        ("config", "parameters"),
        [
            (Config(latent=2048, depth=14, omega=20, omega_last=400, first_modulated=2), 7_675_393),
            (Config(latent=2048, depth=14, omega=10, omega_last=75, skips=True, output_offset=0.5), 8_199_937),
            (Config(latent=2048, depth=14, width=512, first_modulated=2, modulation_init="functa"), 17_054_721),
            (Config(latent=2048, depth=9, width=512, omega=50, output_offset=0.5), 11_545_089),
        ],
        ids=["MedFuncta, paper", "MedFuncta, code", "Functa", "COIN++"],
    )
    def test_published(self, config, parameters):
        assert count(Backbone(config, DOMAINS[2], 1)) == parameters

    def test_noir(self):
        backbone = Backbone(Config(latent=64), DOMAINS[2], 1)
        assert count(backbone, "layers") == 329_985
        assert count(backbone, "modulation") == 99_840
        assert count(backbone) == 329_985 + 99_840

    def test_modulations_are_counted_once(self):
        wide = Backbone(replace(SMALL, hyper_hidden=7), DOMAINS[2], 1)
        assert count(wide, "hyper") == 7 * 5 + 7
        assert count(wide, "modulation") == (7 + 1) * 3 * 12
        assert count(Backbone(replace(SMALL, latent=0), DOMAINS[2], 1)) == count(wide, "layers")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("dims", "channels"), [(1, 1), (2, 3), (3, 2)])
def test_contract(variant, dims, channels):
    check_backbone(Backbone, VARIANTS[variant], DOMAINS[dims], channels)


@pytest.mark.parametrize("variant", VARIANTS)
class TestDerivatives:
    def test_jacobian_is_autograds(self, variant):
        backbone, (coords, latents) = make(VARIANTS[variant]), inputs(VARIANTS[variant])
        field, jacobian = backbone.jacobian(coords, latents)
        assert torch.allclose(field, backbone(coords, latents), atol=1e-12)
        for item in range(len(latents)):
            exact = torch.func.jacrev(lambda z, item=item: backbone(coords[item : item + 1], z[None])[0])(latents[item])
            assert torch.allclose(jacobian[item], exact, rtol=1e-9, atol=1e-9)

    def test_products_are_the_jacobians(self, variant):
        backbone, (coords, latents) = make(VARIANTS[variant]), inputs(VARIANTS[variant])
        field, jacobian = backbone.jacobian(coords, latents)
        torch.manual_seed(2)
        v, u = torch.randn_like(latents), torch.randn_like(field)
        same, outer, inner = backbone.factored_jacobian(coords, latents)
        assert torch.allclose(same, field, atol=1e-12)
        forward = torch.einsum("bncs,bs->bnc", outer, (inner @ v[..., None])[..., 0])
        assert torch.allclose(forward, torch.einsum("bncp,bp->bnc", jacobian, v), atol=1e-9)
        again, back = backbone.pull_back(coords, latents, lambda f: u + 0 * f)
        assert torch.allclose(again, field, atol=1e-12)
        assert torch.allclose(back, torch.einsum("bncp,bnc->bp", jacobian, u), atol=1e-9)

    def test_without_gradients_it_gives_the_same(self, variant):
        backbone, (coords, latents) = make(VARIANTS[variant]), inputs(VARIANTS[variant])
        kept = coords.clone(), latents.clone(), {k: v.clone() for k, v in backbone.state_dict().items()}
        slow = backbone(coords, latents)
        with torch.inference_mode():
            assert torch.allclose(backbone(coords, latents), slow, atol=1e-12)
            assert torch.allclose(backbone(coords[:1], latents[:1]), slow[:1], atol=1e-12)
            backbone.jacobian(coords, latents)
        assert torch.equal(coords, kept[0])
        assert torch.equal(latents, kept[1])
        assert all(torch.equal(v, kept[2][k]) for k, v in backbone.state_dict().items())

    def test_shared_coordinates_give_the_same(self, variant):
        backbone, (coords, latents) = make(VARIANTS[variant]), inputs(VARIANTS[variant])
        shared = coords[:1].expand(3, -1, -1)
        for call in (backbone, lambda *a: backbone.jacobian(*a)[1]):
            assert torch.allclose(call(shared, latents), call(shared.contiguous(), latents), atol=1e-10)

    def test_a_turned_basis_is_the_same_field(self, variant):
        config = VARIANTS[variant]
        backbone, (coords, latents) = make(config), inputs(config)
        before, torch_jacobian = backbone(coords, latents), backbone.jacobian(coords, latents)[1]
        torch.manual_seed(3)
        matrix = torch.linalg.qr(torch.randn(config.latent, config.latent).double())[0]
        backbone.set_prior(latents[0], torch.arange(1.0, config.latent + 1))
        mean, variance = backbone.prior()
        backbone.rotate(matrix)
        assert torch.allclose(backbone(coords, latents @ matrix), before, atol=1e-9)
        assert torch.allclose(backbone.jacobian(coords, latents @ matrix)[1], torch_jacobian @ matrix, atol=1e-8)
        turned, spread = backbone.prior()
        assert torch.allclose(torch.as_tensor(turned), torch.as_tensor(mean) @ matrix, atol=1e-12)
        assert math.isclose(spread.sum(), variance.sum(), rel_tol=1e-9, abs_tol=1e-12)


def test_only_orthogonal_turns_and_positive_variances():
    backbone = make(SMALL)
    with pytest.raises(ValueError, match="not orthogonal"):
        backbone.rotate(2 * torch.eye(5))
    with pytest.raises(ValueError, match="positive"):
        backbone.set_prior(torch.zeros(5), torch.zeros(5))


def test_gradients_of_gradients_flow():
    """Meta-learning differentiates a gradient step with respect to the weights."""
    backbone, (coords, latents) = make(SMALL, channels=1), inputs(SMALL)
    weight = backbone.layers[1].weight.requires_grad_()
    latents.requires_grad_()

    def after_a_step() -> torch.Tensor:
        loss = (backbone(coords, latents) ** 2).mean()
        (slope,) = torch.autograd.grad(loss, latents, create_graph=True)
        return (backbone(coords, latents - slope) ** 2).mean()

    (exact,) = torch.autograd.grad(after_a_step(), weight)
    move = torch.zeros_like(weight)
    move[2, 3] = 1e-5
    with torch.no_grad():
        weight += move
        up = after_a_step_value(backbone, coords, latents)
        weight -= 2 * move
        down = after_a_step_value(backbone, coords, latents)
    assert math.isclose(float(exact[2, 3]), (up - down) / 2e-5, rel_tol=1e-5, abs_tol=1e-9)


def after_a_step_value(backbone: Backbone, coords: torch.Tensor, latents: torch.Tensor) -> float:
    with torch.enable_grad():
        loss = (backbone(coords, latents) ** 2).mean()
        (slope,) = torch.autograd.grad(loss, latents)
    return float((backbone(coords, latents - slope) ** 2).mean())


class TestSettings:
    def test_omegas_lie_on_a_line_and_reach_the_last_layer(self):
        released = Config(depth=14, omega=10, omega_last=75)
        assert released.omegas == tuple(range(10, 81, 5))
        assert set(Config().omegas) == {30.0}
        assert Config(depth=1, omega=5, omega_last=9).omegas == (5.0, 9.0)

    def test_more_modulated_than_there_are_is_refused(self):
        with pytest.raises(ValueError, match="first_modulated"):
            Config(depth=3, first_modulated=4)

    def test_phase_init_moves_phases_by_a_radian(self):
        config = Config(latent=256, width=64, depth=4, omega=20, omega_last=200, modulation_init="phase")
        torch.manual_seed(0)
        backbone = Backbone(config, DOMAINS[2], 1)
        with torch.no_grad():
            moved = backbone.modulation(torch.randn(500, 256)).reshape(500, 4, 64)
            at_zero = backbone.modulation(torch.zeros(1, 256))
        radians = moved.std(dim=(0, 2)) * torch.tensor(config.omegas[:-1])
        assert torch.allclose(radians, torch.ones(4), atol=0.1)
        assert not at_zero.any()

    def test_the_latent_shifts_only_layers_from_the_first_modulated_on(self):
        for first in (1, 2, 3):
            config = replace(SMALL, first_modulated=first)
            backbone, (coords, latents) = make(config), inputs(config)
            outer = backbone.factored_jacobian(coords, latents)[1]
            assert outer.shape[-1] == (4 - first) * 12

    def test_output_offset_is_added(self):
        plain, offset = (make(replace(SMALL, output_offset=value)) for value in (0.0, 0.5))
        coords, latents = inputs(SMALL)
        assert torch.allclose(offset(coords, latents), plain(coords, latents) + 0.5)

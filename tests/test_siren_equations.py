"""MedFuncta's equation 3: a layer's frequency factor is a learning rate. Two fields whose layers have other omegas and
weights scaled against them are one function; gradient descent keeps them one exactly where tau_n / tau_m is
(omega_m / omega_n)^2.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nfops.backbones.siren import Backbone, Config
from nfops.contexts import Scans
from nfops.field_loss import FieldLoss
from nfops.heads import Head
from nfops.inner_loops import GradientSteps
from nfops.sampling import Domain

DOMAIN, DEPTH, LATENT, WIDTH = Domain((1.0, 1.0), (6, 6)), 3, 3, 8
OMEGAS = st.floats(2.0, 60.0)


def field(first: float, last: float) -> Backbone:
    torch.manual_seed(0)
    config = Config(latent=LATENT, width=WIDTH, depth=DEPTH, omega=first, omega_last=last)
    return Backbone(config, DOMAIN, 1).double()


def layers_of(backbone: Backbone) -> list[list[torch.nn.Parameter]]:
    """What is inside each layer's omega: weight and bias."""
    return [list(layer.parameters()) for layer in list(backbone.layers)[:-1]]


@torch.no_grad()
def same_function(backbone: Backbone, first: float, last: float) -> tuple[Backbone, list[float]]:
    """The same function with other omegas (equations 8 to 12), and omega_m / omega_n of each layer."""
    other = field(first, last)
    ratios = [old / new for old, new in zip(backbone.config.omegas, other.config.omegas, strict=True)][:DEPTH]
    other.load_state_dict(backbone.state_dict())
    for parameters, ratio in zip(layers_of(other), ratios, strict=True):
        for parameter in parameters:
            parameter.mul_(ratio)
    for number, ratio in enumerate(ratios):
        for parameter in other.modulation.parameters():
            parameter[number * WIDTH : (number + 1) * WIDTH] *= ratio
    return other, ratios


def shown() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(4)
    coords = torch.rand(2, 30, 2, generator=rng, dtype=torch.float64) * 2 - 1
    latents = torch.randn(2, LATENT, generator=rng, dtype=torch.float64) / 10
    return coords, latents, torch.rand(2, 30, 1, generator=rng, dtype=torch.float64)


def descend(
    backbone: Backbone, rates: list[float], optimizer: type[torch.optim.Optimizer], steps: int = 5
) -> torch.Tensor:
    """Train the layers with a rate each (the last, linear one with 0.01); what the field shows then."""
    coords, latents, values = shown()
    groups = [{"params": parameters, "lr": rate} for parameters, rate in zip(layers_of(backbone), rates, strict=True)]
    method = optimizer([*groups, {"params": list(backbone.layers)[-1].parameters(), "lr": 0.01}], lr=0.0)
    for _ in range(steps):
        method.zero_grad()
        ((backbone(coords, latents) - values) ** 2).mean().backward()
        method.step()
    return backbone(coords, latents).detach()


@settings(max_examples=15, deadline=None)
@given(first=OMEGAS, last=OMEGAS, other_first=OMEGAS, other_last=OMEGAS)
def test_other_omegas_and_scaled_weights_are_the_same_function(first, last, other_first, other_last):
    one = field(first, last)
    other, _ = same_function(one, other_first, other_last)
    coords, latents, _ = shown()
    assert torch.allclose(one(coords, latents), other(coords, latents), rtol=1e-8, atol=1e-10)


@settings(max_examples=15, deadline=None)
@given(first=OMEGAS, last=OMEGAS, other_first=OMEGAS, other_last=OMEGAS)
def test_equation_3_keeps_them_the_same_through_gradient_descent(first, last, other_first, other_last):
    one = field(first, last)
    other, ratios = same_function(one, other_first, other_last)
    rates = [1e-4 * ratio**2 for ratio in ratios]  # tau_n = tau_m (omega_m / omega_n)^2
    moved = descend(one, [1e-4] * DEPTH, torch.optim.SGD)
    assert torch.allclose(moved, descend(other, rates, torch.optim.SGD), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("power", [0, 1, 3])
def test_no_other_power_does(power):
    one = field(20.0, 20.0)
    other, ratios = same_function(one, 20.0, 60.0)
    moved = descend(one, [1e-4] * DEPTH, torch.optim.SGD)
    elsewhere = descend(other, [1e-4 * ratio**power for ratio in ratios], torch.optim.SGD)
    assert (moved - elsewhere).abs().max() > 1e-3 * (moved - field(20.0, 20.0)(*shown()[:2])).abs().max()


def test_a_rising_omega_slows_the_deeper_layers():
    """The phases of a layer with omega_n move (omega_n / omega_m)^2 as far in a step of one rate: what grows there is
    undone by a rate that shrinks.
    """
    moved = []
    for last in (20.0, 40.0):
        backbone = field(20.0, 20.0) if last == 20.0 else same_function(field(20.0, 20.0), 20.0, last)[0]
        coords, latents, values = shown()
        weight, omega = list(backbone.layers)[DEPTH - 1].weight, backbone.config.omegas[DEPTH - 1]
        (gradient,) = torch.autograd.grad(((backbone(coords, latents) - values) ** 2).mean(), weight)
        moved.append(omega * gradient)
    assert torch.allclose(moved[1], moved[0] * (40.0 / 20.0) ** 2, rtol=1e-8)


def test_with_adam_the_relation_is_not_squared():
    """MedFuncta trains with AdamW, whose steps do not grow with the gradient: there tau goes with 1 / omega."""
    one = field(20.0, 20.0)
    other, ratios = same_function(one, 20.0, 60.0)

    def adam(parameters, lr):
        return torch.optim.Adam(parameters, lr=lr, eps=1e-30)

    before = one(*shown()[:2]).detach()
    moved = descend(one, [1e-5] * DEPTH, adam)
    as_adam = descend(other, [1e-5 * ratio for ratio in ratios], adam)
    assert torch.allclose(moved, as_adam, rtol=1e-6, atol=1e-8)
    other, _ = same_function(field(20.0, 20.0), 20.0, 60.0)
    as_sgd = descend(other, [1e-5 * ratio**2 for ratio in ratios], adam)
    assert (moved - as_sgd).abs().max() > 1e-3 * (moved - before).abs().max()


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_a_step_of_the_latent_grows_with_omega_squared(factor):
    """With the shift's map as it is, the phase of a layer moves by omega (dL/dphase omega): alpha must be retuned
    whenever omegas change.
    """
    coords, _, values = shown()
    scans, moved = Scans(coords[0], values, None), []
    for omega in (10.0, 10.0 * factor):
        torch.manual_seed(0)
        backbone = Backbone(Config(latent=LATENT, width=WIDTH, depth=1, omega=10.0), DOMAIN, 1).double()
        with torch.no_grad():
            backbone.modulation.bias.zero_()
        kept = [parameter.clone() for parameter in backbone.layers[0].parameters()]
        if omega != 10.0:
            scaled = Backbone(Config(latent=LATENT, width=WIDTH, depth=1, omega=omega), DOMAIN, 1).double()
            scaled.load_state_dict(backbone.state_dict())
            with torch.no_grad():
                for parameter, old in zip(scaled.layers[0].parameters(), kept, strict=True):
                    parameter.copy_(old * 10.0 / omega)
            backbone = scaled
        loop = GradientSteps(torch.tensor(1e-3, dtype=torch.float64), 1000)
        latents = loop.solve(FieldLoss(backbone, Head("identity")), scans.at(None), 1)
        moved.append(omega * latents @ backbone.modulation.weight.T)
    assert torch.allclose(moved[1], moved[0] * factor**2, rtol=1e-7)

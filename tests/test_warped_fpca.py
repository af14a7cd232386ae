"""Functional PCA behind a warp: it starts as fpca, its derivatives are right, and it learns what fpca cannot say."""

import numpy as np
import pytest
import torch

from nfops.backbones import fpca, warped_fpca
from nfops.progress import silent
from nfops.sampling import Domain, FieldSamples

DOMAINS = [Domain((1.0,), (16,)), Domain((1.0, 0.75), (12, 10)), Domain((0.6, 1.0, 0.8), (6, 8, 7))]


def smooth(domain: Domain, channels: int = 1, count: int = 40) -> FieldSamples:
    rng = np.random.default_rng(0)
    coords = domain.lattice().points()[:, 0]
    waves = np.cos(coords @ rng.normal(size=(domain.dims, 30)) * 3 + rng.uniform(0, 6, 30))
    values = (rng.normal(size=(count, channels, 30)) @ waves.T).reshape(count, channels, *domain.nodes)
    return FieldSamples(values.astype(np.float32), np.ones((count, *domain.nodes), np.float32), domain, 0)


def started(domain: Domain, channels: int = 1, latent: int = 5) -> warped_fpca.Backbone:
    backbone = warped_fpca.Backbone(warped_fpca.Config(latent=latent, warp=4), domain, channels)
    backbone._start(smooth(domain, channels), silent)
    return backbone


def with_warp(backbone: warped_fpca.Backbone) -> warped_fpca.Backbone:
    torch.manual_seed(1)
    torch.nn.init.normal_(backbone.warp, std=0.02)
    return backbone


def drawn(domain: Domain, backbone, batch: int = 3, points: int = 20):
    rng = np.random.default_rng(1)
    coords = torch.from_numpy(
        rng.uniform(-0.9, 0.9, (batch, points, domain.dims)) * np.array(domain.half_extent)
    ).float()
    return coords, torch.from_numpy(rng.normal(size=(batch, backbone.latent))).float()


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("channels", [1, 3])
def test_it_starts_as_functional_pca(domain, channels):
    backbone = started(domain, channels)
    linear = fpca.Backbone(fpca.Config(latent=5), domain, channels)
    linear.fit(smooth(domain, channels))
    coords, latents = drawn(domain, backbone)
    expected = linear(coords, latents * linear.variance.sqrt())
    assert float((backbone(coords, latents) - expected).detach().abs().max()) < 0.02 * float(expected.abs().max())


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_jacobian_is_the_derivative(domain, channels):
    backbone = with_warp(started(domain, channels)).double()
    coords, latents = (part.double() for part in drawn(domain, backbone))
    values, jacobian = backbone.jacobian(coords, latents)
    assert torch.allclose(values, backbone(coords, latents), atol=1e-9)
    for item in range(len(coords)):
        one = slice(item, item + 1)
        expected = torch.autograd.functional.jacobian(lambda z, one=one: backbone(coords[one], z)[0], latents[one])
        assert torch.allclose(jacobian[item], expected[:, :, 0], atol=1e-8)


def test_shared_points_give_the_same_jacobian():
    backbone = with_warp(started(DOMAINS[1]))
    coords, latents = drawn(DOMAINS[1], backbone)
    shared = coords[:1].expand(3, -1, -1)
    for one, other in zip(
        backbone.jacobian(shared, latents), backbone.jacobian(shared.contiguous(), latents), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-6)


def test_a_turn_of_the_latents_changes_no_field():
    backbone = with_warp(started(DOMAINS[1]))
    coords, latents = drawn(DOMAINS[1], backbone)
    before = backbone(coords, latents).detach()
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))[0]
    backbone.rotate(turn)
    assert torch.allclose(backbone(coords, latents @ turn.float()), before, atol=1e-5)


def test_what_moves_is_said_with_fewer_numbers_than_fpca_needs():
    domain = Domain((1.0, 1.0), (20, 20))
    rng = np.random.default_rng(0)
    nodes = domain.lattice().points()[:, 0]
    centres, sizes = rng.uniform(-0.4, 0.4, (120, 2)), rng.uniform(0.25, 0.4, 120)
    far = ((nodes[None] - centres[:, None]) ** 2).sum(-1) / sizes[:, None] ** 2
    values = np.exp(-far).reshape(120, 1, 20, 20).astype(np.float32)
    ones = np.ones((120, 20, 20), np.float32)
    training, held = (FieldSamples(values[part], ones[part], domain, 0) for part in (slice(0, 90), slice(90, 120)))
    linear = fpca.Backbone(fpca.Config(latent=4), domain, 1)
    linear.fit(training)
    basis = (linear.basis.float() * linear.basis_scale[:, None, None, None]).reshape(4, -1).numpy()
    left = held.values.reshape(30, -1) - linear.mean.numpy().reshape(-1)
    left = left - left @ np.linalg.pinv(basis) @ basis
    config = warped_fpca.Config(latent=4, warp=5, iterations=60, batch=12, learning_rate=8e-3)
    backbone = warped_fpca.Backbone(config, domain, 1)
    backbone.fit(training)
    assert warped_loss(backbone, held) < 0.5 * float((left**2).mean())


def warped_loss(backbone, held) -> float:
    """The mean square that ten Gauss-Newton steps leave."""
    scans = warped_fpca._Scans(held)
    rows, latents = torch.arange(len(held.values)), torch.zeros(len(held.values), backbone.latent)
    for _ in range(10):
        latents, _ = backbone._step(scans, rows, latents)
    return float(scans.mean_square(backbone(scans.coords.expand(len(rows), -1, -1), latents), rows).detach())


def test_latents_have_the_prior_that_it_tells():
    samples = smooth(DOMAINS[1], count=80)
    backbone = warped_fpca.Backbone(warped_fpca.Config(latent=5, warp=4, iterations=20), DOMAINS[1], 1)
    backbone.fit(samples)
    scans, latents = warped_fpca._Scans(samples), torch.zeros(80, 5)
    for _ in range(6):
        latents, _ = backbone._step(scans, torch.arange(80), latents)
    mean, variance = backbone.prior()
    assert np.allclose(latents.mean(dim=0), mean, atol=0.05)
    covariance = np.cov(latents.numpy().T, bias=True)
    assert np.allclose(covariance, np.diag(variance), atol=0.05 * variance.max())
    assert (np.diff(variance) <= 0).all()


def test_what_is_not_covered_has_no_say():
    domain, samples = DOMAINS[1], smooth(DOMAINS[1])
    coverage = samples.coverage.copy()
    coverage[:, -3:] = 0
    spoilt = samples.values.copy()
    spoilt[:, :, -3:] = 99
    scans = warped_fpca._Scans(FieldSamples(spoilt, coverage, domain, 0))
    same = warped_fpca._Scans(FieldSamples(samples.values, coverage, domain, 0))
    backbone = with_warp(started(domain))
    one, other = (backbone._step(some, torch.arange(4), torch.zeros(4, 5)) for some in (scans, same))
    assert torch.allclose(one[0], other[0], atol=1e-5)
    assert torch.allclose(one[1], other[1], atol=1e-6)

"""Functional PCA: an orthonormal basis, eigenvalues that are variances, and gaps filled sensibly."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from nfops.backbones.fpca import Backbone, Config
from nfops.errors import RecipeError
from nfops.node import Mark, node_from_plain
from nfops.sampling import Domain, FieldSamples
from nfops.schema import read

DOMAIN = Domain((1.0, 0.8), (20, 16))
RANK = 4


def low_rank(count: int = 60, noise: float = 0.0, channels: int = 1) -> np.ndarray:
    """(N, C, *nodes): a mean and RANK smooth functions with falling variances."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(*(axis[:, 0] for axis in DOMAIN.lattice().axes), indexing="ij")
    functions = np.stack([np.cos(2 * x + y), np.sin(3 * y), np.cos(4 * x) * y, np.sin(5 * x - 2 * y)])
    weights = rng.normal(size=(count, channels, RANK)) * [1.0, 0.7, 0.4, 0.2]
    values = 0.5 + x + np.einsum("ncr,rij->ncij", weights, functions)
    return (values + noise * rng.normal(size=values.shape)).astype(np.float32)


def fitted(values: np.ndarray, latent: int = RANK, coverage: np.ndarray | None = None, seed: int = 0) -> Backbone:
    coverage = np.ones((len(values), *DOMAIN.nodes), np.float32) if coverage is None else coverage
    backbone = Backbone(Config(latent), DOMAIN, values.shape[1])
    backbone.fit(FieldSamples(values, coverage, DOMAIN, seed))
    return backbone


def basis_rows(backbone: Backbone) -> np.ndarray:
    basis = backbone.basis.numpy().reshape(backbone.latent, -1)
    return basis * backbone.basis_scale.numpy()[:, None]


def project(backbone: Backbone, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Latents by least squares, and the reconstruction (N, C * nodes)."""
    rows, mean = basis_rows(backbone), backbone.mean.numpy().reshape(-1)
    latents = np.linalg.lstsq(rows.T, (values.reshape(len(values), -1) - mean).T)[0].T
    return latents, mean + latents @ rows


@pytest.mark.parametrize("channels", [1, 2])
def test_the_basis_is_orthonormal_in_the_mean_square(channels):
    rows = basis_rows(fitted(low_rank(channels=channels), latent=RANK))
    gram = rows @ rows.T / rows.shape[1]
    assert np.abs(gram - np.eye(RANK)).max() < 0.01  # 8 bits


def test_more_components_reconstruct_better():
    values = low_rank(noise=0.05)
    errors = [((project(fitted(values, p), values)[1] - values.reshape(60, -1)) ** 2).mean() for p in (1, 2, 3, 4, 8)]
    assert all(more < fewer for fewer, more in pairwise(errors))
    assert errors[3] < 0.003


def test_prior_variances_are_the_latents_variances():
    values = low_rank(count=200)
    backbone = fitted(values)
    latents, _ = project(backbone, values)
    mean, variance = backbone.prior()
    assert np.allclose(mean, 0)
    assert np.allclose(latents.var(axis=0), variance, rtol=0.02)
    assert (np.diff(variance) <= 0).all()


def test_what_scans_do_not_cover_is_filled_in_from_the_others():
    values = low_rank(count=80)
    coverage = np.ones((80, *DOMAIN.nodes), np.float32)
    coverage[0::3, :7] = 0
    coverage[1::3, :, 11:] = 0
    holed = np.where(coverage[:, None] > 0, values, np.float32(99))  # what is not covered must not be looked at
    _, found = project(fitted(holed, coverage=coverage), values)
    _, best = project(fitted(values), values)
    spread = values.reshape(80, -1).var(axis=0).mean()
    error, floor = (((each - values.reshape(80, -1)) ** 2).mean() / spread for each in (found, best))
    assert floor < 1e-3
    assert error < 0.06
    naive = np.where(coverage > 0, values[:, 0], values[:, 0].mean(axis=0))  # each gap filled with the mean
    _, filled = project(fitted(naive[:, None]), values)
    assert error < 0.9 * ((filled - values.reshape(80, -1)) ** 2).mean() / spread


def test_a_node_that_no_scan_covers_is_finite():
    values, coverage = low_rank(), np.ones((60, *DOMAIN.nodes), np.float32)
    coverage[:, 0] = 0
    backbone = fitted(values, coverage=coverage)
    assert all(bool(torch.isfinite(tensor.float()).all()) for tensor in backbone.state_dict().values())


@pytest.mark.parametrize("count", [1, 4])
def test_too_few_samples_are_refused(count):
    with pytest.raises(RecipeError, match=f"{count} samples.*lower `latent`"):
        fitted(low_rank(count))


def test_a_latent_of_nothing_is_refused():
    with pytest.raises(RecipeError, match="latent"):
        read(Config, node_from_plain({"latent": 0}, Mark("recipe")))


def test_the_order_of_signs_does_not_depend_on_the_seed():
    values = low_rank(noise=0.01)
    one, other = (basis_rows(fitted(values, seed=seed)) for seed in (0, 1))
    assert np.abs(one - other).max() < 0.1


def test_forward_is_the_spline_through_the_nodes():
    values = low_rank()
    backbone = fitted(values)
    latents, reconstructed = project(backbone, values)
    coords = torch.from_numpy(DOMAIN.lattice().points()[:, 0]).float().expand(3, -1, -1)
    got = backbone(coords, torch.from_numpy(latents[:3]).float())[..., 0]
    assert np.abs(got.numpy() - reconstructed[:3]).max() < 1e-4


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("nodes", [(16,), (9, 7), (5, 6, 7)])
def test_points_shared_by_many_latents_give_the_same_field(nodes, channels):
    domain = Domain((1.0,) * len(nodes), nodes)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(12, channels, *nodes)).astype(np.float32)
    backbone = Backbone(Config(latent=4), domain, channels)
    backbone.fit(FieldSamples(values, np.ones((12, *nodes), np.float32), domain, 0))
    coords = torch.from_numpy(rng.uniform(-1.1, 1.1, (1, 5, len(nodes)))).float()
    latents = torch.from_numpy(rng.normal(size=(200, 4))).float()
    shared = coords.expand(200, -1, -1)
    assert backbone._few(shared)
    assert torch.allclose(backbone(shared, latents), backbone(shared.contiguous(), latents), atol=1e-4)

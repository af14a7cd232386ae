"""The inner loops of meta-learning: their gradients against autograd through everything, and against differences."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from nfops.backbones.siren import Backbone, Config
from nfops.contexts import Batch, Context, Scans, draw_points
from nfops.field_loss import FieldLoss
from nfops.heads import Head
from nfops.inner_loops import GaussNewtonStep, GradientSteps
from nfops.sampling import Domain, FieldSamples
from nfops.torch_heads import loss as head_loss

HEADS = {"identity": 2, "sigmoid": 1, "softmax": 3}
LATENT, SCANS, NODES, STEPS = 4, 3, 40, 3


class Modulated(nn.Module):
    """Two layers; the latent shifts the first. No `jacobian` of its own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.latent = LATENT
        self.first, self.shift, self.last = nn.Linear(2, 7), nn.Linear(LATENT, 7), nn.Linear(7, channels)

    def forward(self, coords, latents):
        return self.last(torch.sin(3 * self.first(coords) + 2 * self.shift(latents)[:, None]))


def field_of(head: str, kind: str = "plain") -> FieldLoss:
    torch.manual_seed(1)
    if kind == "plain":
        return FieldLoss(Modulated(HEADS[head]).double(), Head(head))
    config = Config(latent=LATENT, width=6, depth=3, omega=4, skips=kind == "skips", hyper_hidden=5 * (kind == "hyper"))
    return FieldLoss(Backbone(config, Domain((1.0, 1.0), (4, 4)), HEADS[head]).double(), Head(head))


def scans_of(head: str, partial: bool = True) -> Scans:
    """SCANS scans of random values; partial: a fifth of the nodes of each is unknown."""
    rng = torch.Generator().manual_seed(5)
    coords = torch.rand(NODES, 2, generator=rng, dtype=torch.float64) * 2 - 1
    values = torch.rand(SCANS, NODES, HEADS[head], generator=rng, dtype=torch.float64)
    if head == "softmax":
        values = nn.functional.one_hot(values.argmax(dim=-1), HEADS[head]).double()
    known = (torch.rand(SCANS, NODES, generator=rng) < 0.8).double()
    return Scans(coords, values, known if partial else None)


def batch_of(head: str, partial: bool = True) -> Batch:
    rng = torch.Generator().manual_seed(6)
    return Batch(scans_of(head, partial), [draw_points(SCANS, NODES, 11, rng) for _ in range(STEPS)], None)


def plain_losses(field: FieldLoss, where: Context, latents: torch.Tensor) -> torch.Tensor:
    output = field.backbone(where.coords, latents)
    return (head_loss(field.head, output, where.values) * where.weights).sum(dim=1)


def through_everything(field: FieldLoss, batch: Batch, rates: torch.Tensor) -> torch.Tensor:
    """The mean loss after the inner steps, with the graph of all of them: MedFuncta's eq. 28 and 29, word by word."""
    latents = torch.zeros(SCANS, LATENT, dtype=torch.float64, requires_grad=True)
    for points in batch.inner:
        losses = plain_losses(field, batch.scans.at(points), latents)
        (gradient,) = torch.autograd.grad(losses.sum(), latents, create_graph=True)
        latents = latents - rates * gradient
    return plain_losses(field, batch.scans.at(batch.outer), latents).mean()


def gradients(field: FieldLoss) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in field.backbone.parameters()])


@pytest.mark.parametrize("keeps_graphs", [False, True])
@pytest.mark.parametrize("block", [1000, 50, 7])
@pytest.mark.parametrize("head", HEADS)
def test_second_order_gradients_are_those_of_autograd_through_all_steps(head, block, keeps_graphs):
    """Whatever is computed at once: all scans, one, or a part of one."""
    field, batch = field_of(head), batch_of(head)
    rates = torch.full((LATENT,), 0.7, dtype=torch.float64, requires_grad=True)
    expected_loss = through_everything(field, batch, rates)
    expected_loss.backward()
    expected, expected_rates = gradients(field), rates.grad.clone()
    field.backbone.zero_grad()
    rates.grad = None
    _, losses = GradientSteps(rates, block, keeps_graphs).learn(field, batch)
    assert losses.mean().item() == pytest.approx(expected_loss.item(), rel=1e-12)
    assert torch.allclose(gradients(field), expected, rtol=1e-9, atol=1e-12)
    assert torch.allclose(rates.grad, expected_rates, rtol=1e-9, atol=1e-12)


def difference_along(field: FieldLoss, loss) -> tuple[float, float]:
    """A random direction's central difference of `loss()`, and what the weights' gradients say of it."""
    rng = torch.Generator().manual_seed(8)
    weights, step = list(field.backbone.parameters()), 1e-6
    along = [torch.randn(weight.shape, generator=rng, dtype=torch.float64) for weight in weights]
    said = sum(float((weight.grad * way).sum()) for weight, way in zip(weights, along, strict=True))
    found = []
    for sign in (1, -2):
        with torch.no_grad():
            for weight, way in zip(weights, along, strict=True):
                weight.add_(sign * step * way)
        found.append(loss().item())
    return (found[0] - found[1]) / (2 * step), said


def test_second_order_gradients_are_differences_of_the_loss():
    field, batch, rates = field_of("identity"), batch_of("identity"), torch.tensor(0.7, dtype=torch.float64)
    GradientSteps(rates, 100).learn(field, batch)
    measured, said = difference_along(field, lambda: through_everything(field, batch, rates))
    assert measured == pytest.approx(said, rel=1e-6)


# --- Gauss-Newton ------------------------------------------------------------------------------------------------


def ridge_step(field: FieldLoss, batch: Batch, damping: float) -> torch.Tensor:
    """One damped Gauss-Newton step from zero, scan by scan, with autograd's Jacobians; the curvature by its formula."""
    found = []
    for scan in range(SCANS):
        where = batch.scans.some(slice(scan, scan + 1)).at(batch.inner[0])

        def output(latent: torch.Tensor, where: Context = where) -> torch.Tensor:
            return field.backbone(where.coords, latent[None])[0]

        zero = torch.zeros(LATENT, dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(output, zero, create_graph=True)
        shown = output(zero)
        costs = torch.func.vmap(torch.func.hessian(lambda f, v: head_loss(field.head, f, v)))(shown, where.values[0])
        slopes = torch.func.vmap(torch.func.grad(lambda f, v: head_loss(field.head, f, v)))(shown, where.values[0])
        weights = where.weights[0]
        curvature = torch.einsum("n,ncp,ncd,ndq->pq", weights, jacobian, costs, jacobian)
        gradient = torch.einsum("n,nc,ncp->p", weights, slopes, jacobian)
        precision = damping * curvature.trace() / LATENT
        found.append(-torch.linalg.solve(curvature + precision * torch.eye(LATENT).double(), gradient))
    return torch.stack(found)


def newton_batch(head: str, partial: bool) -> Batch:
    shared = draw_points(1, NODES, 20, torch.Generator().manual_seed(6))[0]
    return Batch(scans_of(head, partial), [shared], draw_points(SCANS, NODES, 15, torch.Generator().manual_seed(2)))


@pytest.mark.parametrize("partial", [True, False])
@pytest.mark.parametrize("block", [1000, 7])
@pytest.mark.parametrize("kind", ["plain", "siren", "skips", "hyper"])
@pytest.mark.parametrize("head", HEADS)
def test_gradients_through_a_newton_step_are_those_of_autograd(head, kind, block, partial):
    field, batch = field_of(head, kind), newton_batch(head, partial)
    expected_latents = ridge_step(field, batch, 0.3)
    plain_losses(field, batch.scans.at(batch.outer), expected_latents).mean().backward()
    expected = gradients(field)
    field.backbone.zero_grad()
    latents, _ = GaussNewtonStep(0.3, block).learn(field, batch)
    assert torch.allclose(latents, expected_latents, rtol=1e-8, atol=1e-10)
    assert torch.allclose(gradients(field), expected, rtol=1e-7, atol=1e-10)


def test_gradients_through_a_newton_step_are_differences_of_the_loss():
    field, batch = field_of("softmax", "siren"), newton_batch("softmax", True)
    GaussNewtonStep(0.1, 1000).learn(field, batch)

    def loss() -> torch.Tensor:
        return plain_losses(field, batch.scans.at(batch.outer), ridge_step(field, batch, 0.1)).mean()

    measured, said = difference_along(field, loss)
    assert measured == pytest.approx(said, rel=1e-5)


@pytest.mark.parametrize("kind", ["plain", "siren"])
@pytest.mark.parametrize("head", HEADS)
def test_more_steps_find_the_minimum(head, kind):
    field, where = field_of(head, kind), scans_of(head).at(None)
    loop = GaussNewtonStep(0.2, 16)
    found = loop.solve(field, where, 80).requires_grad_()
    zero = torch.zeros(SCANS, LATENT, dtype=torch.float64)
    precision = 0.2 * field.linearise(where, zero)[2].diagonal(dim1=1, dim2=2).mean(dim=1) / 2
    objective = (plain_losses(field, where, found) + precision.detach() * (found**2).sum(dim=1)).sum()
    (gradient,) = torch.autograd.grad(objective, found)
    assert gradient.abs().max() < 1e-5


def test_more_steps_are_never_worse():
    field, where = field_of("sigmoid"), scans_of("sigmoid").at(None)
    loop = GaussNewtonStep(1e-3, 1000)
    losses = [
        float(plain_losses(field, where, loop.solve(field, where, steps)).detach().mean()) for steps in (1, 2, 4, 16)
    ]
    assert all(later <= earlier + 1e-9 for earlier, later in pairwise(losses))


def test_a_step_is_exact_where_the_field_is_linear():
    rng = torch.Generator().manual_seed(0)
    basis, values = (torch.rand(20, size, generator=rng, dtype=torch.float64) for size in (LATENT, 1))

    class Linear(nn.Module):
        latent = LATENT

        def forward(self, coords, latents):
            return (coords @ latents[..., None]) + 0.5

    where = Scans(basis, values[None], None).at(None)
    found = GaussNewtonStep(1e-9, 7).solve(FieldLoss(Linear(), Head("identity")), where, 1)
    assert torch.allclose(found[0], torch.linalg.lstsq(basis, values - 0.5).solution[:, 0], atol=1e-6)


def test_a_newton_step_does_not_depend_on_the_latents_units():
    field, where = field_of("identity", "siren"), scans_of("identity").at(None)
    before = GaussNewtonStep(0.1, 1000).solve(field, where, 3)
    scale = 37.0
    field.backbone.rescale(torch.full((LATENT,), scale, dtype=torch.float64))
    assert torch.allclose(GaussNewtonStep(0.1, 1000).solve(field, where, 3) * scale, before, rtol=1e-6)


def test_learned_rates_fold_into_the_field():
    """Plain steps on the rescaled latents are meta-SGD's steps on the old ones."""
    field, where = field_of("identity", "siren"), scans_of("identity").at(None)
    rates = torch.tensor([0.1, 0.2, 0.05, 0.4], dtype=torch.float64)
    learned = GradientSteps(rates, 100).solve(field, where, 4)
    shown = field.backbone(where.coords, learned).detach()
    scale = (rates / 0.1).sqrt()
    field.backbone.rescale(scale)
    plain = GradientSteps(torch.tensor(0.1, dtype=torch.float64), 100).solve(field, where, 4)
    assert torch.allclose(plain * scale, learned, rtol=1e-9)
    assert torch.allclose(field.backbone(where.coords, plain), shown, rtol=1e-9)


# --- contexts ----------------------------------------------------------------------------------------------------


def samples(scans: int = 4, channels: int = 2, nodes: tuple[int, ...] = (6, 5)) -> FieldSamples:
    rng = np.random.default_rng(0)
    values = rng.random((scans, channels, *nodes)).astype(np.float32)
    coverage = (rng.random((scans, *nodes)) < 0.8).astype(np.float32)
    return FieldSamples(values, coverage, Domain((1.0,) * len(nodes), nodes), 0)


def test_a_context_shows_values_where_they_are():
    given = samples()
    scans = Scans.of(given)
    points = draw_points(4, scans.nodes, 7, torch.Generator().manual_seed(3))
    shown = scans.at(points)
    lattice = given.domain.lattice().points()[:, 0]
    for scan in range(4):
        for number, node in enumerate(points[scan].tolist()):
            i, j = divmod(node, 5)
            assert np.allclose(shown.coords[scan, number], lattice[node])
            assert np.array_equal(shown.values[scan, number], given.values[scan, :, i, j])
            assert bool(shown.weights[scan, number] > 0) == bool(given.coverage[scan, i, j])
    assert torch.allclose(shown.weights.sum(dim=1), torch.ones(4))


def test_what_a_scan_does_not_cover_changes_nothing():
    one = samples()
    garbage = np.where(one.coverage[:, None] > 0, one.values, 1e6).astype(np.float32)
    other = FieldSamples(garbage, one.coverage, one.domain, 0)
    torch.manual_seed(0)
    field = FieldLoss(Backbone(Config(latent=3, width=8, depth=2), one.domain, 2), Head("identity"))
    losses = [field.losses(Scans.of(given).at(None), torch.zeros(4, 3)) for given in (one, other)]
    assert torch.equal(*losses)


@pytest.mark.parametrize(("nodes", "count"), [(100, 25), (97, 30), (64, 64), (10, 1)])
def test_draws_are_independent_and_even(nodes, count):
    drawn = [draw_points(50, nodes, count, torch.Generator().manual_seed(seed)) for seed in range(40)]
    if count == nodes:
        assert all(points is None for points in drawn)
        return
    every = torch.stack(drawn).flatten(0, 1)
    assert every.shape == (2000, count)
    assert 0 <= int(every.min()) <= int(every.max()) < nodes
    assert not torch.equal(every[0], every[1])
    seen = torch.bincount(every.flatten(), minlength=nodes).double() / 2000
    deviation = math.sqrt(count / nodes * (1 - count / nodes) / 2000)
    assert (seen - count / nodes).abs().max() < 5 * deviation


def test_a_draw_varies_less_than_a_free_one():
    smooth = torch.linspace(0, 1, 400) ** 2
    generator = torch.Generator().manual_seed(0)
    even = smooth[draw_points(500, 400, 20, generator)].mean(dim=1)
    free = smooth[torch.randint(400, (500, 20), generator=generator)].mean(dim=1)
    assert even.var() < free.var() / 20
    assert even.mean() == pytest.approx(smooth.mean().item(), abs=2e-3)

"""Problems of non-linear fields on a device: hand-made models against finite differences and against one another."""

import types

import numpy as np
import pytest
import torch

from nfops import torch_heads
from nfops.backbones.siren import Backbone, Config
from nfops.codec import Codec
from nfops.codec_spec import EncodeSettings
from nfops.engines import factored_curvature, torch_problem
from nfops.engines.torch_engine import TorchEngine
from nfops.engines.torch_problem import TorchProblem
from nfops.heads import Head
from nfops.sampling import Domain, Lattice, even_draw
from nfops.solvers import Prior, Products, solve

P = 4
CHANNELS = {"identity": 2, "sigmoid": 1, "softmax": 3}
CASES = [("identity", "all"), ("identity", "per image"), ("sigmoid", "shared"), ("softmax", "per image")]
PRIOR = Prior(np.full(P, 0.1), np.linspace(0.5, 2, P), 1e-3)


class Plain(torch.nn.Module):
    """A backbone that offers nothing but its values, as a plugin may."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.inside = backbone

    def forward(self, coords, latents):
        return self.inside(coords, latents)


class Whole(Plain):
    """One that gives its Jacobian in one piece."""

    def jacobian(self, coords, latents):
        return self.inside.jacobian(coords, latents)


def make_codec(head: str = "identity", wrapped: type[Plain] | None = None) -> Codec:
    torch.manual_seed(0)
    config = Config(latent=P, width=16, depth=3, omega=6, skips=True, hyper_hidden=6)
    backbone = Backbone(config, Domain((1.0, 1.0), (9, 7)), CHANNELS[head]).eval()
    spec = types.SimpleNamespace(form="torch", head=head, channels=CHANNELS[head])
    return Codec(wrapped(backbone) if wrapped else backbone, spec)


def make_problem(
    head: str = "identity", weights: str = "all", wrapped: type[Plain] | None = None, count: int = 3
) -> TorchProblem:
    """Cells of 2 sub-points each."""
    rng = np.random.default_rng(1)
    points = rng.uniform(-1, 1, (40, 2, 2))
    values = rng.random((count, 40, CHANNELS[head]))
    if head == "softmax":
        values = np.eye(3)[rng.integers(0, 3, (count, 40))]
    known = {"all": np.ones((1, 40)), "shared": rng.random((1, 40)) < 0.7, "per image": rng.random((count, 40)) < 0.7}
    parts = (torch.as_tensor(array, dtype=torch.float32) for array in (points, values, known[weights].astype(float)))
    return TorchProblem(make_codec(head, wrapped), *parts)


def latents_of(problem: TorchProblem) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(len(problem.values), P))


def close(one, other, tolerance: float = 2e-5) -> bool:
    one, other = np.broadcast_arrays(one, other)
    return bool(np.abs(one - other).max() <= tolerance * max(1.0, float(np.abs(other).max())))


@pytest.fixture(params=CASES, ids=" ".join)
def problem(request):
    return make_problem(*request.param)


def test_heads_on_tensors_are_those_on_arrays():
    rng = np.random.default_rng(3)
    for name, channels in CHANNELS.items():
        head, field = Head(name), rng.normal(size=(1, 9, channels)) * 3
        values = np.eye(3)[rng.integers(0, 3, (1, 9))] if name == "softmax" else rng.random(field.shape).round()
        jacobian, weights = rng.normal(size=(1, 9, channels, P)), rng.random((1, 9))
        tensors = [torch.as_tensor(array) for array in (field, values, jacobian, weights)]
        assert close(torch_heads.loss(head, *tensors[:2]).numpy(), head.loss(field, values), 1e-9)
        assert close(torch_heads.slope(head, *tensors[:2]).numpy(), head.slope(field, values), 1e-9)
        assert close(torch_heads.activate(head, tensors[0]).numpy(), head.activate(field), 1e-9)
        rows = torch_heads.curvature_rows(head, tensors[0], *tensors[2:])[0].numpy()
        assert close(rows.T @ rows, head.curve(field[0], jacobian[0], weights[0]), 1e-9)


def test_the_gradient_is_that_of_the_loss(problem):
    latents, step = latents_of(problem), 2e-2
    losses, gradient = problem.gradient(latents)
    assert close(losses, problem.loss(latents))
    for axis in range(P):
        move = step * np.eye(P)[axis]
        near = (problem.loss(latents + move) - problem.loss(latents - move)) / (2 * step)
        far = (problem.loss(latents + 2 * move) - problem.loss(latents - 2 * move)) / (4 * step)
        assert np.abs((4 * near - far) / 3 - gradient[:, axis]).max() < 2e-3 * np.abs(gradient).max()


def test_the_model_is_made_of_the_jacobian(problem):
    """Codec.jacobian and `heads` in NumPy, image by image."""
    latents, codec = latents_of(problem), problem.codec
    model = problem.linearise(latents)
    losses, gradient = problem.gradient(latents)
    assert close(model.loss, losses)
    assert close(model.gradient, gradient)
    for index, latent in enumerate(latents):
        field, jacobian = codec.jacobian(problem.points.numpy(), latent)
        weights = problem.weights[index % len(problem.weights)].numpy()
        curvature = codec.head.curve(field, jacobian, weights) / weights.sum()
        assert close(model.curvature[index], curvature)


def test_a_shared_start_is_the_model_of_each(problem):
    latent = latents_of(problem)[0]
    start, each = problem.start(latent), problem.linearise(np.tile(latent, (3, 1)))
    for part in ("loss", "gradient", "curvature"):
        assert close(getattr(start, part), getattr(each, part)), part


@pytest.mark.parametrize("stored", [1 << 30, 0])
def test_products_are_those_with_the_matrix(problem, monkeypatch, stored):
    latents, vectors = latents_of(problem), np.random.default_rng(4).normal(size=(3, P))
    dense = problem.linearise(latents)
    monkeypatch.setattr(torch_problem, "DENSE_LATENT", 1)
    monkeypatch.setattr(factored_curvature, "STORED_BYTES", stored)
    products = problem.linearise(latents)
    assert isinstance(products.curvature, Products)
    assert close(products.loss, dense.loss)
    assert close(products.gradient, dense.gradient)
    assert close(products.curvature.apply(vectors), np.einsum("bpq,bq->bp", dense.curvature, vectors))
    assert close(products.curvature.diagonal, np.einsum("bpp->bp", dense.curvature))


def test_blocks_and_groups_change_nothing(problem, monkeypatch):
    latents = latents_of(problem)
    whole = problem.linearise(latents), problem.gradient(latents)[1], problem.loss(latents)
    monkeypatch.setattr(torch_problem, "BLOCK_POINTS", {"cpu": 14})
    parts = problem.linearise(latents), problem.gradient(latents)[1], problem.loss(latents)
    assert all(close(getattr(parts[0], name), getattr(whole[0], name)) for name in ("loss", "gradient", "curvature"))
    assert close(parts[1], whole[1])
    assert close(parts[2], whole[2])


@pytest.mark.parametrize("wrapped", [Plain, Whole])
@pytest.mark.parametrize("head", CHANNELS)
def test_a_backbone_that_offers_less_gives_the_same(head, wrapped):
    able, other = make_problem(head), make_problem(head, wrapped=wrapped)
    latents = latents_of(able)
    wanted, found = able.linearise(latents), other.linearise(latents)
    assert close(found.curvature, wanted.curvature)
    assert close(other.gradient(latents)[1], wanted.gradient)


def test_an_item_is_alone(problem):
    latents = latents_of(problem)
    assert close(problem.item(1).loss(latents[1:2]), problem.loss(latents)[1])
    assert close(problem.item(1).linearise(latents[1:2]).gradient[0], problem.linearise(latents).gradient[1])


def test_a_subset_has_known_points_only_once_and_by_seed(problem):
    some = problem.subset(11, seed=3)
    assert some.points.shape == (11, 2, 2)
    assert len({tuple(point) for point in some.points[:, 0].tolist()}) == 11
    assert (some.weights > 0).any(dim=0).all()
    assert torch.equal(problem.subset(11, seed=3).points, some.points)
    assert not torch.equal(problem.subset(11, seed=4).points, some.points)
    known = int((problem.weights > 0).any(dim=0).sum())
    assert problem.subset(known, seed=0) is problem


@pytest.mark.parametrize(("size", "count"), [(100, 7), (10, 10), (11, 10), (1000, 999), (5, 1)])
def test_an_even_draw_takes_one_of_each_stretch(size, count):
    drawn = even_draw(size, count, seed=5)
    assert len(drawn) == count
    assert (np.diff(drawn) > 0).all()
    assert drawn.min() >= 0
    assert drawn.max() < size
    assert np.abs(drawn - np.arange(count) * size / count).max() <= size / count + 1


def own_values(count: int = 3) -> tuple[TorchProblem, np.ndarray]:
    """Images that the field can show exactly, with the latents that show them."""
    problem = make_problem("identity", count=count)
    latents = 0.4 * latents_of(problem)
    shown = problem.codec.field(problem.points, torch.as_tensor(latents, dtype=torch.float32)).detach()
    return TorchProblem(problem.codec, problem.points, shown, problem.weights), latents


@pytest.mark.parametrize("dense", [512, 1])
def test_gauss_newton_finds_what_the_field_can_show(monkeypatch, dense):
    for module in (torch_problem, __import__("nfops.solvers", fromlist=["solvers"])):
        monkeypatch.setattr(module, "DENSE_LATENT", dense)
    problem, latents = own_values()
    weak = Prior(np.zeros(P), np.ones(P), 1e-9)
    found, losses = solve(problem, weak, 3, EncodeSettings(steps=12))
    assert losses.max() < 1e-6
    assert np.abs(found - latents).max() < 1e-2


def test_sgd_is_the_papers_algorithm():
    problem = make_problem("identity")
    settings = EncodeSettings(steps=3, solver="sgd", learning_rate=0.3)
    z = torch.zeros(3, P)
    for _ in range(3):
        z.requires_grad_()
        field = problem.codec.field(problem.points, z)
        loss = ((field - problem.values) ** 2).mean(dim=(1, 2)).sum()
        z = (z - 0.3 * torch.autograd.grad(loss, z)[0]).detach()
    found, losses = solve(problem, Prior(np.full(P, 0.5), np.ones(P), 0.0), 3, settings)
    assert close(found, z.numpy())
    assert close(losses, problem.loss(found))


def test_sgd_draws_anew_for_each_step():
    problem = make_problem("identity")
    one, two = (solve(problem, PRIOR, 3, EncodeSettings(steps, 10, solver="sgd"))[0] for steps in (1, 2))
    _, gradient = problem.subset(10, seed=1).gradient(one.astype(float))
    assert close(two, one - 1e-2 * (gradient + PRIOR.slope(one)))


@pytest.mark.parametrize("head", ["sigmoid", "softmax"])
def test_encoding_lowers_the_objective_step_by_step(head):
    problem = make_problem(head)
    before = problem.loss(np.tile(PRIOR.mean, (3, 1)))
    for steps in (2, 4, 8):
        found, losses = solve(problem, PRIOR, 3, EncodeSettings(steps=steps))
        now = losses + PRIOR.cost(found)
        assert (now <= before + 1e-5).all()
        before = now


def test_the_engine_decodes_as_the_field_shows(monkeypatch):
    codec = make_codec("softmax")
    engine = object.__new__(TorchEngine)
    engine.device, engine._codecs = "cpu", {"source": codec}
    lattice, latents = Domain((1.0, 1.0), (9, 7)).lattice(), np.random.default_rng(0).normal(size=(3, P))
    with torch.no_grad():
        raw = codec.field(torch.as_tensor(lattice.points()).float(), torch.as_tensor(latents).float())
    wanted = np.moveaxis(torch.softmax(raw, dim=-1).numpy(), -1, 1).reshape(3, 3, 9, 7)
    for block in (1 << 16, 100, 17):
        monkeypatch.setattr("nfops.engines.torch_engine.BLOCK_POINTS", {"cpu": block})
        assert close(engine.decode("source", latents, lattice), wanted)
    assert close(engine.decode_points("source", latents[:1], lattice.points()[:, 0]), wanted[0].reshape(3, -1))


@pytest.mark.parametrize("kept", [1 << 20, 0])
def test_points_of_a_lattice_are_the_same_kept_or_made(monkeypatch, kept):
    axes = tuple(np.sort(np.random.default_rng(a).uniform(-1, 1, (n, q))) for a, (n, q) in enumerate([(5, 2), (4, 3)]))
    lattice, codec = Lattice(axes), make_codec()
    values = np.random.default_rng(0).random((2, 2, 5, 4))
    weights = np.random.default_rng(1).random((2, 5, 4))
    monkeypatch.setattr(torch_problem, "KEPT_POINTS", kept)
    monkeypatch.setattr(torch_problem, "BLOCK_POINTS", {"cpu": 30})
    problem, latents = TorchProblem.on_lattice(codec, lattice, values, weights), np.ones((2, P))
    flat = [torch.as_tensor(a, dtype=torch.float32) for a in (lattice.points(), values, weights)]
    known = TorchProblem(codec, flat[0], flat[1].movedim(1, -1).reshape(2, 20, 2), flat[2].reshape(2, 20))
    assert close(problem.loss(latents), known.loss(latents))
    assert close(problem.linearise(latents).curvature, known.linearise(latents).curvature)
    assert torch.equal(problem.subset(7, 0).points, known.subset(7, 0).points)

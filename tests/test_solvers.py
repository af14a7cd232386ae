"""Encoding as least squares: exact where linear, never uphill, and finite where labels are separable."""

import numpy as np
import pytest
from toy_bundles import make_bundle, make_spec, random_latents

from nfops import solvers
from nfops.codec_spec import CodecSpec, EncodeSettings
from nfops.engines.numpy_engine import NumpyEngine
from nfops.recipe_sections import Encode
from nfops.sampling import Domain
from nfops.solvers import Linearisation, Prior, Products, gauss_newton, solve


class Quadratic:
    """mean over points of (J z - y)^2, B images of one J (N, P)."""

    is_linear = True

    def __init__(self, jacobian: np.ndarray, values: np.ndarray) -> None:
        self.jacobian, self.values, self.points = jacobian, values, len(jacobian)

    def start(self, latents):
        rest = latents @ self.jacobian.T - self.values
        curvature = 2 * self.jacobian.T @ self.jacobian / self.points
        return Linearisation((rest**2).mean(axis=1), 2 * rest @ self.jacobian / self.points, curvature)

    linearise = start

    def loss(self, latents):
        return self.start(latents).loss


class Wavy:
    """One latent, one point: loss cos(3 z) + z^2 / 4, whose Gauss-Newton model is far too bold."""

    is_linear = False

    def linearise(self, latents):
        slope = -3 * np.sin(3 * latents) + latents / 2
        return Linearisation(self.loss(latents), slope, np.full((len(latents), 1, 1), 0.05))

    def start(self, latent):
        return self.linearise(latent[None])

    def subset(self, count, seed):
        return self

    def loss(self, latents):
        return (np.cos(3 * latents) + latents**2 / 4)[:, 0]


def quadratic(images: int = 3, points: int = 30, size: int = 5) -> Quadratic:
    rng = np.random.default_rng(0)
    return Quadratic(rng.normal(size=(points, size)), rng.normal(size=(images, points)))


def test_one_step_solves_a_linear_problem():
    problem, size = quadratic(), 5
    prior = Prior(np.linspace(-1, 1, size), np.linspace(0.5, 2, size), 0.01)
    latents, residual = gauss_newton(problem, prior, 3, steps=1)
    root = np.sqrt(0.01 / prior.variance)
    stacked = np.concatenate([problem.jacobian / np.sqrt(problem.points), np.diag(root)])
    for latent, values in zip(latents, problem.values, strict=True):
        wanted = np.concatenate([values / np.sqrt(problem.points), root * prior.mean])
        assert np.abs(latent - np.linalg.lstsq(stacked, wanted)[0]).max() < 1e-5
    assert np.abs(residual - problem.loss(latents.astype(np.float64))).max() < 1e-5


def test_a_strong_prior_gives_its_mean_and_a_weak_one_least_squares():
    problem, mean = quadratic(), np.full(5, 0.7)
    strong, _ = gauss_newton(problem, Prior(mean, np.ones(5), 1e9), 3, steps=1)
    weak, _ = gauss_newton(problem, Prior(mean, np.ones(5), 0.0), 3, steps=1)
    assert np.abs(strong - 0.7).max() < 1e-5
    assert np.abs(weak - np.linalg.lstsq(problem.jacobian, problem.values.T)[0].T).max() < 1e-5


def test_an_image_is_solved_alone():
    problem = quadratic()
    prior = Prior(np.zeros(5), np.ones(5), 1e-3)
    together, _ = gauss_newton(problem, prior, 3, steps=1)
    alone, _ = gauss_newton(Quadratic(problem.jacobian, problem.values[1:2]), prior, 1, steps=1)
    assert np.abs(together[1] - alone[0]).max() < 1e-6


@pytest.mark.parametrize("start", [-2.5, -0.3, 0.4, 1.9])
def test_damped_steps_never_raise_the_objective(start):
    problem, prior = Wavy(), Prior(np.array([start]), np.ones(1), 1e-3)
    before = problem.loss(np.array([[start]]))[0]
    for steps in range(2, 8):
        latents, _ = gauss_newton(problem, prior, 1, steps)
        after = float((problem.loss(latents) + prior.cost(latents))[0])
        assert after <= before + 1e-6
        before = after
    assert after < problem.loss(np.array([[start]]))[0] - 0.1


@pytest.mark.parametrize("head", ["sigmoid", "softmax"])
@pytest.mark.parametrize("strength", [1e-2, 1e-3, 1e-6])
def test_separable_masks_converge_with_a_prior(head, strength):
    """All of one label: without a prior the logits would run to infinity."""
    spec = make_spec(2, head, channels=1 if head == "sigmoid" else 3)
    bundle = make_bundle(spec)
    domain = Domain(spec.half_extent, (16, 14))
    masks = np.zeros((2, spec.channels, 16, 14), np.float32)
    masks[:, 0] = 1
    masks[1, 0, 8:] = 0
    if head == "softmax":
        masks[1, 1, 8:] = 1
    problem = NumpyEngine(bundle).pose("source", domain.lattice(), masks, None)
    prior = Prior(np.zeros(spec.latent), bundle.arrays["source"]["prior_variance"], strength)
    objectives = []
    for steps in (2, 4, 8, 16, 32):
        latents, losses = gauss_newton(problem, prior, 2, steps)
        assert np.isfinite(latents).all()
        objectives.append(losses + prior.cost(latents))
    assert (np.diff(objectives, axis=0) <= 1e-6).all()
    assert np.abs(objectives[-1] - objectives[-2]).max() < 1e-3
    assert (losses < problem.loss(np.zeros((2, spec.latent)))).all()


def test_at_the_optimum_the_gradient_vanishes():
    spec = make_spec(2, "sigmoid")
    bundle = make_bundle(spec)
    lattice = Domain(spec.half_extent, (16, 14)).lattice()
    engine = NumpyEngine(bundle)
    masks = (engine.decode("source", random_latents(bundle, 3), lattice) > 0.5).astype(np.float32)
    problem = engine.pose("source", lattice, masks, None)
    prior = Prior(np.zeros(spec.latent), bundle.arrays["source"]["prior_variance"], 1e-2)
    latents, _ = gauss_newton(problem, prior, 3, steps=20)
    gradient = problem.linearise(latents).gradient + 2 * latents * prior.precision
    assert np.abs(gradient).max() < 1e-4


class Factored(Quadratic):
    """The same problem, its curvature given as products only."""

    is_linear = False

    def loss(self, latents):
        return super().start(latents).loss

    def linearise(self, latents):
        model = super().start(latents)
        diagonal = np.tile(np.diag(model.curvature), (len(latents), 1))
        return Linearisation(model.loss, model.gradient, Products(lambda v: v @ model.curvature, diagonal))

    def start(self, latent):
        return self.linearise(np.tile(latent, (len(self.values), 1)))

    def subset(self, count, seed):
        return self


def test_products_solve_what_the_matrix_solves():
    problem, prior = quadratic(), Prior(np.linspace(-1, 1, 5), np.linspace(0.5, 2, 5), 0.01)
    exact, losses = gauss_newton(problem, prior, 3, steps=1)
    found, others = gauss_newton(Factored(problem.jacobian, problem.values), prior, 3, steps=6)
    assert np.abs(found - exact).max() < 1e-3
    assert np.abs(losses - others).max() < 1e-5


@pytest.mark.parametrize("damping", [0.0, 0.5, 100.0])
def test_damped_conjugate_gradients_are_the_damped_solution(damping, monkeypatch):
    monkeypatch.setattr(solvers, "CG_TOLERANCE", 1e-8)
    problem, prior = quadratic(), Prior(np.zeros(5), np.linspace(0.5, 2, 5), 0.01)
    z, much = np.ones((3, 5)), np.full(3, damping)
    dense = solvers._newton_step(problem.linearise(z), prior, z, much)
    products = solvers._newton_step(Factored(problem.jacobian, problem.values).linearise(z), prior, z, much)
    assert np.abs(dense - products).max() < 1e-6


def test_gradient_steps_on_a_spline_field():
    """sgd with many small steps from zero ends where the exact solution is."""
    spec = make_spec(2)
    bundle = make_bundle(spec)
    lattice = Domain(spec.half_extent, (16, 14)).lattice()
    engine = NumpyEngine(bundle)
    truth = random_latents(bundle, 3)
    problem = engine.pose("source", lattice, engine.decode("source", truth, lattice), None)
    prior = Prior(np.zeros(spec.latent), np.ones(spec.latent), 0.0)
    found, losses = solve(problem, prior, 3, EncodeSettings(steps=200, solver="sgd", learning_rate=0.3))
    assert losses.max() < 1e-5
    assert np.abs(found - truth).max() < 1e-2
    assert np.abs(problem.gradient(truth)[1] - problem.linearise(truth.astype(float)).gradient).max() < 1e-5


def test_an_unknown_solver_is_refused():
    with pytest.raises(ValueError, match="gauss-newton, sgd"):
        EncodeSettings(solver="adam")


def test_recipes_and_specs_have_the_same_settings():
    assert EncodeSettings(**vars(Encode())) == EncodeSettings()


def test_a_spec_from_before_there_were_solvers_loads():
    plain = make_spec(2).to_plain()
    del plain["encode"]["solver"], plain["encode"]["learning_rate"]
    assert CodecSpec.from_plain(plain) == make_spec(2)

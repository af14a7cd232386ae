"""The residual MLP starts at the ridge, goes beyond it where the map is not linear, and stops in time."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from latent_trials import open_operator

from nfops.bundle import Bundle
from nfops.codec import state_arrays
from nfops.errors import BundleError
from nfops.latents import LatentTable
from nfops.operators import linear, residual_mlp
from nfops.testing import ToyObjective

QUICK = residual_mlp.Config(width=48, depth=1, epochs=30, batch=32, dropout=0.0, learning_rate=5e-3)


def table(vectors: np.ndarray) -> LatentTable:
    names = tuple(f"p{row // 2}" for row in range(len(vectors)))
    rest = names, names, ("train",) * len(vectors), np.zeros(len(vectors)), np.zeros(len(vectors)), "toy"
    return LatentTable(vectors.astype(np.float32), *rest)


def curved(rows: int = 240, noise: float = 0.0, seed: int = 0) -> tuple[LatentTable, LatentTable]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 4)) * [5, 1, 0.2, 1] + [3, 0, 0, -1]
    z = (x - [3, 0, 0, -1]) / [5, 1, 0.2, 1]
    y = np.stack([z[:, 0] + z[:, 1] ** 2, np.sin(2 * z[:, 2]), 10 * z[:, 3] + z[:, 0] * z[:, 1]], axis=1)
    return table(x), table(y + noise * rng.normal(size=y.shape))


class Held(ToyObjective):
    """Scores on rows of its own."""

    def __init__(self, training, held):
        super().__init__(*training)
        self._held = [torch.from_numpy(part.vectors) for part in held]

    def score(self, predict):
        return -float(((predict(self._held[0]) - self._held[1]) ** 2).mean())


class Unchecked(ToyObjective):
    """A cohort without validation scans."""

    def score(self, predict):
        return float("nan")


def fit(config, training, objective) -> residual_mlp.Operator:
    torch.manual_seed(0)
    operator = residual_mlp.Operator(config, training[0].vectors.shape[1], training[1].vectors.shape[1])
    operator.fit(*training, objective)
    return operator


def error(operator, tables) -> float:
    source, target = tables
    with torch.no_grad():
        predicted = operator(torch.from_numpy(source.vectors)).numpy()
    return float(((predicted - target.vectors) ** 2).mean())


def test_before_training_it_is_the_ridge():
    training = curved()
    ridge = linear.Operator(linear.Config(), 4, 3)
    ridge.fit(*training, objective=None)

    class Never(ToyObjective):
        def score(self, predict):
            return 0.0 if getattr(predict, "__name__", "") == "_linear" else -1.0

    operator = fit(QUICK, training, Never(*training))
    latents = torch.from_numpy(training[0].vectors)
    assert torch.allclose(operator(latents), ridge(latents), atol=1e-4)
    assert operator.figures["epochs"] == 0


def test_what_ridge_leaves_is_learned():
    training, held = curved(), curved(seed=1)
    ridge = linear.Operator(linear.Config(), 4, 3)
    ridge.fit(*training, objective=None)
    operator = fit(QUICK, training, Held(training, held))
    assert error(operator, held) < 0.3 * error(ridge, held)


def test_from_random_weights_it_learns_the_linear_part_too():
    training, held = curved(), curved(seed=1)
    operator = fit(dataclasses.replace(QUICK, start="random", epochs=60), training, Held(training, held))
    assert error(operator, held) < 0.3 * held[1].vectors.var(axis=0).mean()
    assert not operator.weight.any()


def test_it_stops_at_the_best_validation_score():
    training, held = curved(40, noise=1.0), curved(200, seed=1)
    config = dataclasses.replace(QUICK, width=128, epochs=60, batch=8, patience=10)
    operator = fit(config, training, Held(training, held))
    assert operator.figures["score_members"] >= operator.figures["score_start"]
    assert operator.figures["epochs"] < 60
    assert np.isclose(-error(operator, held), operator.figures["score"], rtol=1e-5)


def test_without_validation_scans_it_trains_to_the_end():
    training = curved()
    operator = fit(QUICK, training, Unchecked(*training))
    assert operator.figures["epochs"] == QUICK.epochs
    assert error(operator, training) < 0.3 * training[1].vectors.var(axis=0).mean()


def test_members_differ_and_are_averaged():
    training = curved(noise=0.3)
    operator = fit(dataclasses.replace(QUICK, members=3, epochs=5), training, Unchecked(*training))
    latents = torch.from_numpy(training[0].vectors)
    standard = (latents - operator.centre) / operator.spread
    alone = torch.stack([member(standard) for member in operator.members])
    assert float((alone[0] - alone[1]).detach().abs().max()) > 1e-3
    expected = latents @ operator.weight.T + operator.bias + operator.scale * alone.mean(dim=0)
    assert torch.allclose(operator(latents), expected, atol=1e-5)


def test_a_latent_that_never_changes_does_no_harm():
    source, target = curved()
    flat = source.vectors.copy()
    flat[:, 2] = 4.0
    training = dataclasses.replace(source, vectors=flat), target
    operator = fit(QUICK, training, Unchecked(*training))
    assert np.isfinite(error(operator, training))


@pytest.mark.parametrize(("latent", "decoded"), [(1.0, 0.0), (0.0, 1.0)])
def test_each_error_is_asked_for_only_where_it_has_weight(latent, decoded):
    training = curved(60)
    asked = set()

    class Spy(ToyObjective):
        def latent(self, predictions, rows):
            asked.add("latent")
            return super().latent(predictions, rows)

        def decoded(self, predictions, rows):
            asked.add("decoded")
            return super().latent(predictions, rows)

    fit(dataclasses.replace(QUICK, epochs=1, latent_weight=latent, decoded_weight=decoded), training, Spy(*training))
    assert asked == ({"latent"} if latent else {"decoded"})


def test_a_loss_without_any_weight_is_refused():
    with pytest.raises(ValueError, match="one of them must be above 0"):
        residual_mlp.Config(latent_weight=0, decoded_weight=0)


@pytest.mark.parametrize("activation", ["silu", "relu"])
def test_numpy_gives_what_torch_gives(activation):
    training = curved(noise=0.3)
    config = dataclasses.replace(QUICK, members=2, depth=2, epochs=4, activation=activation)
    operator = fit(config, training, Unchecked(*training))
    operate = open_operator(bundle_of(operator, activation))
    with torch.no_grad():
        expected = operator(torch.from_numpy(training[0].vectors)).numpy()
    assert np.abs(operate(training[0].vectors) - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["bias", "members.0.last.weight", "members.0.first.weight", "members.0.widen.0.bias"])
def test_arrays_that_do_not_fit_are_refused(name):
    training = curved()
    bundle = bundle_of(fit(dataclasses.replace(QUICK, epochs=1), training, Unchecked(*training)), "silu")
    for broken in ({}, {name: bundle.arrays["operator"][name][:-1]}):
        arrays = {key: array for key, array in bundle.arrays["operator"].items() if key != name} | broken
        with pytest.raises(BundleError, match="operator"):
            open_operator(dataclasses.replace(bundle, arrays={"operator": arrays}))


def bundle_of(operator: residual_mlp.Operator, activation: str) -> Bundle:
    specs = {"source": SimpleNamespace(latent=4), "target": SimpleNamespace(latent=3)}
    recipe = {"operator": {"backend": "residual-mlp", "activation": activation}}
    return Bundle("toy", recipe, specs, {"operator": state_arrays(operator)}, operator={"form": "residual-mlp"})

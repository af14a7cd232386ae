"""Heads: derivatives are those of the loss, and the link undoes the activation up to its smoothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfops.heads import SMOOTHING, Head

HEADS = {"identity": 2, "sigmoid": 1, "softmax": 3}


def case(name: str, points: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A field (N, C) and values (N, C) that the head can have."""
    rng = np.random.default_rng(seed)
    channels = HEADS[name]
    field = rng.normal(size=(points, channels)) * 2
    if name == "softmax":
        return field, np.eye(channels)[rng.integers(0, channels, points)]
    return field, rng.random((points, channels)).round() if name == "sigmoid" else rng.normal(size=(points, channels))


@pytest.mark.parametrize("name", HEADS)
@given(seed=st.integers(0, 50))
@settings(max_examples=10, deadline=None)
def test_the_slope_is_the_derivative_of_the_loss(name, seed):
    head, (field, values) = Head(name), case(name, seed=seed)
    step = 1e-5
    for channel in range(field.shape[1]):
        move = np.eye(field.shape[1])[channel] * step
        difference = (head.loss(field + move, values) - head.loss(field - move, values)) / (2 * step)
        assert np.abs(difference - head.slope(field, values)[:, channel]).max() < 1e-6


@pytest.mark.parametrize("name", HEADS)
def test_the_curve_is_the_second_derivative_through_a_linear_field(name):
    head, (field, values) = Head(name), case(name)
    rng = np.random.default_rng(1)
    jacobian, weights, step = rng.normal(size=(*field.shape, 4)), rng.random(len(field)), 1e-5

    def gradient(latent):
        return np.einsum("n,nc,ncp->p", weights, head.slope(field + jacobian @ latent, values), jacobian)

    differences = [(gradient(step * e) - gradient(-step * e)) / (2 * step) for e in np.eye(4)]
    curve = head.curve(field, jacobian, weights)
    assert np.abs(np.stack(differences) - curve).max() < 1e-5 * np.abs(curve).max()
    assert np.linalg.eigvalsh(curve).min() > -1e-9 * np.abs(curve).max()


@pytest.mark.parametrize("channels", [2, 3, 10, 20, 64])
def test_a_softmax_link_is_undone_up_to_its_smoothing(channels):
    head, values = Head("softmax"), np.eye(channels)
    again = head.activate(head.link(values))
    assert np.isfinite(again).all()
    assert (again.argmax(axis=-1) == np.arange(channels)).all()
    smoothing = min(SMOOTHING, 0.5 / channels)
    assert np.allclose(again, smoothing + (1 - smoothing * channels) * values)


def test_a_sigmoid_link_is_undone_up_to_its_smoothing():
    head, values = Head("sigmoid"), np.linspace(0, 1, 11)[:, None]
    assert np.allclose(head.activate(head.link(values)), SMOOTHING + (1 - 2 * SMOOTHING) * values)


def test_the_identity_changes_nothing():
    head, values = Head("identity"), np.linspace(-3, 3, 11)[:, None]
    assert np.array_equal(head.link(values), values)
    assert np.array_equal(head.activate(values), values)


@pytest.mark.parametrize("name", HEADS)
def test_extreme_fields_stay_finite(name):
    head = Head(name)
    field = np.array([[1e4] + [-1e4] * (HEADS[name] - 1), [-1e4] + [1e4] * (HEADS[name] - 1)], np.float32)
    values = np.eye(2, HEADS[name], dtype=np.float32)
    assert np.isfinite(head.activate(field)).all()
    assert np.isfinite(head.loss(field, values)).all()
    assert np.isfinite(head.slope(field, values)).all()


@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
def test_the_loss_is_least_at_the_truth(name):
    head, (field, values) = Head(name), case(name)
    sure = 20 * (values - 0.5)
    assert (head.loss(sure, values) < 1e-3).all()
    assert (head.loss(sure, values) <= head.loss(field, values) + 1e-9).all()

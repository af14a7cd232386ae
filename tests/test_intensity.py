"""Intensity maps: exact percentiles, there and back, labels as channels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfops.errors import InputError
from nfops.intensity import IntensityMap, IntensitySettings, from_channels, intensity_map, to_channels


@given(st.integers(0, 10_000), st.sampled_from(["normal", "integers", "mostly zero", "sorted"]), st.floats(0, 49))
def test_percentiles_are_those_of_numpy(seed, kind, low):
    """Also where a sample finds their neighbourhood (more than 8192 values), with ties, and in order."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=int(rng.integers(3, 40_000))).astype(np.float32) * 100
    if kind == "integers":
        values = np.rint(values / 20)
    elif kind == "mostly zero":
        values[rng.random(len(values)) < 0.9] = 0
        values[:2] = -1000, 1000
    elif kind == "sorted":
        values.sort()
    wanted = np.percentile(values.astype(np.float64), [low, 100 - low])
    if wanted[0] >= wanted[1]:
        return
    found = intensity_map(values[None], IntensitySettings("percentile", low, 100 - low))
    assert np.allclose([found.low[0], found.high[0]], wanted, rtol=1e-5, atol=1e-5)


def test_values_between_the_ends_come_back():
    scale = IntensityMap(np.array([-50.0, 10]), np.array([250.0, 20]))
    values = np.random.default_rng(0).uniform(0, 1, (2, 4, 5)).astype(np.float32)
    assert np.abs(scale.forward(scale.inverse(values)) - values).max() < 1e-6


def test_what_lies_beyond_the_ends_is_clipped():
    scale = IntensityMap(np.array([0.0]), np.array([10.0]))
    assert np.array_equal(scale.forward(np.array([[-5.0, 5, 15]])), [[0, 0.5, 1]])
    assert np.array_equal(scale.inverse(np.array([[-0.5, 0.5, 1.5]])), [[0, 5, 10]])


def test_no_contrast_is_an_error():
    with pytest.raises(InputError, match="no contrast"):
        intensity_map(np.full((1, 8, 8), 3.0), IntensitySettings())


@pytest.mark.parametrize("settings", [("percentile", 60, 40), ("percentile", -1, 99), ("range", 5, 5)])
def test_ends_that_make_no_sense(settings):
    with pytest.raises(ValueError, match=r"below|percentiles"):
        IntensitySettings(*settings)


def test_labels_there_and_back():
    labels = np.array([[[0, 4, 7], [7, 0, 4]]], np.float32)
    channels = to_channels(labels, "softmax", (0, 4, 7))
    assert channels.shape == (3, 2, 3)
    assert np.array_equal(from_channels(channels, "softmax", (0, 4, 7)), labels)


def test_a_value_that_is_no_label_counts_as_the_first():
    assert np.array_equal(to_channels(np.array([[9.0]]), "softmax", (0, 1)), [[1], [0]])


def test_sigmoid_is_what_is_above_zero_or_one_of_the_labels():
    labels = np.array([[0, 1, 2, 255]], np.float32)
    assert np.array_equal(to_channels(labels, "sigmoid", ()), [[0, 1, 1, 1]])
    assert np.array_equal(to_channels(labels, "sigmoid", (2,)), [[0, 0, 1, 0]])
    assert np.array_equal(from_channels(np.array([[0.4, 0.6]]), "sigmoid", (2,)), [[0, 2]])


def test_only_a_channel_without_contrast_is_passed_as_constant():
    ramp = np.arange(64.0).reshape(8, 8)
    scale = intensity_map(np.stack([ramp, np.full((8, 8), 7.0)]), IntensitySettings(), pass_constant=True)
    assert scale.high[0] > 60
    assert (scale.forward(np.stack([ramp, np.full((8, 8), 7.0)]))[1] == 0).all()

"""Splines: exact at nodes, cubics stay cubics, and two ways of evaluating (and scipy) agree."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nfops import splines
from nfops.sampling import Domain, Lattice

DOMAIN = Domain((1.0, 0.7), (13, 9))
HALF = np.array(DOMAIN.half_extent)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def points_lattice(*axes: np.ndarray) -> Lattice:
    return Lattice(tuple(np.asarray(axis)[:, None] for axis in axes))


@given(st.integers(2, 40), st.floats(0.1, 5.0), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_nodes_keep_their_values(nodes, half, seed):
    domain, values = Domain((half,), (nodes,)), noise(3, nodes, seed=seed)
    assert np.array_equal(splines.evaluate(values, np.array([half]), domain.lattice()), values)
    at_nodes = splines.evaluate_points(values, np.array([half]), domain.lattice().points()[:, 0])
    assert np.abs(at_nodes - values).max() < 1e-5


def test_nodes_shifted_by_rounding_still_interpolate():
    values = noise(2, *DOMAIN.nodes)
    nearly = Lattice(tuple(axis + 3e-6 for axis in DOMAIN.lattice().axes))
    assert np.abs(splines.evaluate(values, HALF, nearly) - values).max() < 2e-4


def test_cubics_are_reproduced_in_the_interior():
    domain = Domain((2.0,), (60,))
    x = domain.lattice().axes[0][:, 0]
    cubic = np.polynomial.Polynomial([0.3, -1.0, 0.5, 0.25])
    inner = np.linspace(-1, 1, 77)
    got = splines.evaluate(cubic(x)[None], np.array([2.0]), points_lattice(inner))[0]
    assert np.abs(got - cubic(inner)).max() < 1e-5


@pytest.mark.parametrize("nodes", [9, 24])  # scipy's filter is approximate on shorter axes: 5e-4 with two nodes
def test_scipy_agrees_up_to_the_edge_of_the_domain(nodes):
    values = np.random.default_rng(1).normal(size=nodes)
    x = np.linspace(-1, 1, 41)
    index = (x + 1) * nodes / 2 - 0.5
    expected = ndimage.map_coordinates(values, index[None], order=3, mode="reflect")
    got = splines.evaluate(values[None], np.array([1.0]), points_lattice(x))[0]
    assert np.abs(got - expected).max() < 1e-5
    coefficients = splines.to_coefficients(nodes) @ values
    assert np.abs(coefficients - ndimage.spline_filter(values, mode="reflect")).max() < 1e-5


@pytest.mark.parametrize("nodes", [(11,), (11, 8), (11, 8, 6), (1,), (3, 2)])
def test_lattice_and_points_agree(nodes):
    dims = len(nodes)
    domain = Domain((1.0, 0.7, 0.4)[:dims], nodes)
    half, values = np.array(domain.half_extent), noise(2, *domain.nodes)
    rng = np.random.default_rng(3)
    lattice = points_lattice(*(np.sort(rng.uniform(-h, h, 7 - a)) for a, h in enumerate(domain.half_extent)))
    on_lattice = splines.evaluate(values, half, lattice)
    scattered = splines.evaluate_points(values, half, lattice.points()[:, 0])
    assert np.abs(on_lattice.reshape(2, -1) - scattered).max() < 1e-5


def test_a_cell_is_the_mean_of_the_finer_lattice():
    values = noise(3, *DOMAIN.nodes)
    rng = np.random.default_rng(4)
    cells = Lattice((rng.uniform(-1, 1, (5, 3)), rng.uniform(-0.7, 0.7, (4, 2))))
    fine = points_lattice(*(axis.reshape(-1) for axis in cells.axes))
    expected = splines.evaluate(values, HALF, fine).reshape(3, 5, 3, 4, 2).mean(axis=(2, 4))
    assert np.abs(splines.evaluate(values, HALF, cells) - expected).max() < 1e-5


def test_beyond_the_domain_the_edge_value_goes_on():
    values = noise(1, *DOMAIN.nodes)
    got = splines.evaluate(values, HALF, points_lattice([-1.0, -1.5, -9.0], [0.1]))[0]
    assert np.abs(got - got[0]).max() < 1e-6


def test_a_constant_stays_constant():
    got = splines.evaluate(np.full((1, *DOMAIN.nodes), 0.7), HALF, points_lattice(np.linspace(-1, 1, 9), [0.0, 0.69]))
    assert np.abs(got - 0.7).max() < 1e-6

"""Lattices: C order, sub-points that average to the centre, blocks and insides that lose nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfops.augment import AugmentSettings, Change, Voxels, Warp, changed, random_change, random_warp, sample_nodes
from nfops.frame import Frame
from nfops.grid import Grid
from nfops.sampling import Domain, Lattice, lattice_of

axes = st.tuples(st.integers(1, 6), st.integers(1, 3))


@st.composite
def lattices(draw) -> Lattice:
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return Lattice(tuple(rng.normal(size=draw(axes)) for _ in range(draw(st.integers(1, 3)))))


@given(lattices())
@settings(max_examples=40, deadline=None)
def test_points_run_in_c_order_with_their_sub_points(lattice):
    points = lattice.points()
    assert points.shape == (lattice.size, np.prod(lattice.cell_points), len(lattice.axes))
    cells = np.ndindex(*lattice.shape)
    for number, cell in enumerate(cells):
        for sub, part in enumerate(np.ndindex(*lattice.cell_points)):
            expected = [axis[i, q] for axis, i, q in zip(lattice.axes, cell, part, strict=True)]
            assert np.array_equal(points[number, sub], expected)


@given(lattices(), st.integers(1, 200))
@settings(max_examples=40, deadline=None)
def test_blocks_cover_every_cell_once(lattice, size):
    seen = np.zeros(lattice.shape, int)
    for block in lattice.blocks(size):
        seen[block] += 1
    assert (seen == 1).all()


@given(st.floats(0.1, 2.0), st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_the_nodes_of_a_domain_are_cell_centres(half, nodes):
    domain = Domain((half,), (nodes,))
    axis = domain.lattice().axes[0][:, 0]
    assert np.isclose(axis[0] - domain.spacing[0] / 2, -half)
    assert np.isclose(axis[-1] + domain.spacing[0] / 2, half)
    assert nodes == 1 or np.allclose(np.diff(axis), domain.spacing[0])


@pytest.mark.parametrize(("width_mm", "points"), [(0.4, 1), (1.0, 1), (1.4, 1), (1.6, 2), (3.0, 3)])
def test_a_wide_voxel_is_an_average_over_its_width(width_mm, points):
    grid = Grid((6, 1, 1), np.diag([width_mm, 1, 1, 1]))
    frame = Frame.of_scan(grid, 1, 10.0)
    lattice = lattice_of(grid, frame, (0.1,))  # a training spacing of 1 mm
    (axis,) = lattice.axes
    assert axis.shape == (6, points)
    assert np.allclose(axis.mean(axis=1) * 10, grid.points_mm()[:, 0, 0, 0] - grid.centre_mm[0])
    gaps = np.diff(axis.reshape(-1)) * 10
    assert np.allclose(gaps, width_mm / points)


def test_inside_keeps_what_the_domain_holds():
    lattice = Lattice((np.linspace(-2, 2, 9)[:, None], np.linspace(-1, 1, 5)[:, None]))
    part = lattice.inside(np.array([1.0, 0.4]))
    assert lattice[part].shape == (5, 1)
    assert np.abs(lattice[part].points()).max() <= 1.0
    assert lattice.inside(np.array([3.0, 3.0])) == (slice(0, 9), slice(0, 5))


def test_nothing_inside_is_an_empty_slice():
    assert Lattice((np.array([[3.0], [4.0]]),)).inside(np.array([1.0])) == (slice(0, 0),)


def test_a_copy_is_a_function_of_seed_scan_and_number():
    settings_ = AugmentSettings(10, 0.2, 5, flip=(0,), gamma=0.3)
    one, again = (random_warp(settings_, 2, 1, "scan", 3) for _ in range(2))
    assert np.array_equal(one.matrix, again.matrix)
    others = [random_warp(settings_, 2, *key).matrix for key in ((2, "scan", 3), (1, "scam", 3), (1, "scan", 4))]
    assert all(np.abs(one.matrix - other).max() > 1e-6 for other in others)


def test_the_zeroth_copy_is_the_scan_itself():
    values = np.random.default_rng(0).random((1, 12, 8)).astype(np.float32)
    warp = random_warp(AugmentSettings(10, 0.2, 5), 2, 1, "scan", 0)
    same, coverage = sample_nodes(Voxels(values, np.ones(2)), (12, 8), np.ones(2), warp)
    assert np.abs(same - values).max() < 1e-6
    assert (coverage == 1).all()


def test_coarse_nodes_are_means_and_what_is_outside_is_not_covered():
    values = np.random.default_rng(0).random((1, 12, 8)).astype(np.float32)
    means, coverage = sample_nodes(Voxels(values, np.ones(2)), (6, 6), np.full(2, 2.0), Warp.none(2))
    assert np.abs(means[0, :, 1:5] - values[0].reshape(6, 2, 4, 2).mean(axis=(1, 3))).max() < 1e-6
    assert (coverage[:, 1:5] == 1).all()
    assert (coverage[:, [0, 5]] == 0).all()


def test_a_warp_looks_where_it_says():
    x = np.arange(21) - 10.0
    ramp = np.broadcast_to(x[:, None] + 0.5 * x[None, :], (21, 21)).astype(np.float32)[None]
    warp = Warp(np.array([[0.9, -0.1], [0.1, 0.9]]), np.array([1.0, -0.5]))
    got, _ = sample_nodes(Voxels(ramp, np.ones(2)), (9, 9), np.ones(2), warp)
    nodes = np.stack(np.meshgrid(np.arange(9) - 4.0, np.arange(9) - 4.0, indexing="ij"), -1)
    where = nodes @ warp.matrix.T + warp.shift_mm
    assert np.abs(got[0] - (where[..., 0] + 0.5 * where[..., 1])).max() < 1e-4


def test_voxels_that_are_no_data_are_not_covered():
    known = np.ones((4, 4), np.float32)
    known[1, 2] = 0
    scan = Voxels(np.ones((1, 4, 4), np.float32), np.ones(2), known)
    _, coverage = sample_nodes(scan, (4, 4), np.ones(2), Warp.none(2))
    assert np.array_equal(coverage, known)


def test_an_exponent_keeps_the_sign():
    scan = Voxels(np.array([[[-1.0, -0.5], [0.25, 1.0]]], np.float32), np.ones(2))
    assert np.allclose(changed(scan, Change(exponent=2.0)).values[0], [[-1, -0.25], [0.0625, 1]])


def test_a_constant_bend_is_a_shift():
    values = np.random.default_rng(0).random((1, 12, 9)).astype(np.float32)
    scan, shift = Voxels(values, np.array([1.0, 1.5])), np.array([1.3, -0.7])
    bend = np.broadcast_to(shift[:, None, None], (2, 5, 5))
    bent, _ = sample_nodes(scan, (10, 8), np.array([1.0, 1.5]), Warp(np.eye(2), np.zeros(2), bend))
    shifted, _ = sample_nodes(scan, (10, 8), np.array([1.0, 1.5]), Warp(np.eye(2), shift))
    assert np.abs(bent - shifted).max() < 1e-5


@pytest.mark.parametrize("shape", [(24,), (12, 9), (6, 7, 8)])
def test_a_bend_moves_no_point_further_than_it_says(shape):
    settings_ = AugmentSettings(bend_mm=2.0)
    warp = random_warp(settings_, len(shape), 1, "scan", 1)
    spacing = np.full(len(shape), 1.5)
    ramps = np.indices(shape).astype(np.float32) * 1.5
    bent, _ = sample_nodes(Voxels(ramps, spacing), shape, spacing, warp)
    moved = (bent - ramps)[(slice(None), *[slice(2, -2)] * len(shape))]
    assert 0.1 < np.abs(moved).max() < 2.0 * 1.4  # a spline overshoots its nodes a little


def test_source_and_target_are_bent_alike_whatever_happens_to_intensities():
    plain, busy = (AugmentSettings(10, 0.2, 5, 3, gamma=g, noise=g, coarse=1 - g) for g in (0, 0.5))
    one, other = (random_warp(settings_, 2, 1, "scan", 3) for settings_ in (plain, busy))
    assert np.array_equal(one.bend_mm, other.bend_mm)
    assert np.array_equal(one.matrix, other.matrix)


def test_a_scan_of_less_detail_keeps_its_mean_and_its_field_of_view():
    values = np.random.default_rng(0).random((1, 30, 21)).astype(np.float32)
    scan = Voxels(values, np.array([1.0, 2.0]))
    seen = {}
    for number in range(8):
        coarse = changed(scan, Change(detail=0.4, seed=(number,)))
        assert np.allclose(coarse.spacing_mm * coarse.values.shape[1:], [30, 42])
        seen[bool(np.isin(coarse.values, values).all())] = coarse.values
    assert set(seen) == {True, False}  # point samples, and averages
    assert np.isclose(seen[False].mean(), values.mean(), atol=1e-6)


def test_means_over_cells_leave_out_what_is_unknown():
    known = np.ones((8, 8), np.float32)
    known[:, 3] = 0
    values = np.where(known, 2.0, 99.0).astype(np.float32)[None]
    scan = Voxels(values, np.ones(2), known)
    coarse = next(c for n in range(9) if (c := changed(scan, Change(detail=0.5, seed=(n,)))).known.min() > 0)
    assert np.allclose(coarse.values, 2.0)


def test_noise_has_the_deviation_that_was_drawn():
    scan = Voxels(np.zeros((1, 200, 200), np.float32), np.ones(2))
    assert np.isclose(changed(scan, Change(noise=0.1)).values.std(), 0.1, rtol=0.02)


def test_the_zeroth_copy_keeps_its_values():
    settings_ = AugmentSettings(gamma=0.5, noise=0.5, coarse=0.1)
    scan = Voxels(np.random.default_rng(0).random((1, 6, 5)).astype(np.float32), np.ones(2))
    assert np.array_equal(changed(scan, random_change(settings_, 1, "scan", 0)).values, scan.values)

"""Frames: a millimetre is a millimetre, the centre follows the scan, storage order does not matter."""

import itertools

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from nfops.frame import Frame
from nfops.grid import Grid, Reorientation

AXES = ("L", "P", "S")


def oblique(shape=(9, 6, 5), spacing=(0.9, 1.3, 2.6), angle=(0.2, -0.15, 0.1), centre=(30.0, -12.0, 7.0)) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angle).as_matrix() @ np.diag(spacing)
    affine[:3, 3] = np.array(centre) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def aligned(grid: Grid) -> Grid:
    return grid.reoriented(grid.reorientation(AXES))


@pytest.mark.parametrize("dims", [2, 3])
def test_the_centre_is_zero_and_a_radius_is_one(dims):
    grid = aligned(oblique())
    frame = Frame.of_scan(grid, dims, 40.0)
    assert np.abs(frame.coords(grid.centre_mm)).max() < 1e-12
    for axis in range(dims):
        there = grid.centre_mm + 40.0 * grid.directions[:, axis]
        assert np.allclose(frame.coords(there), np.eye(dims)[axis])


def test_a_unit_frame_reaches_the_edges():
    grid = aligned(oblique())
    coords = Frame.of_scan(grid, 3, None).coords(grid.corners_mm)
    assert np.allclose(np.abs(coords), 1)


@pytest.mark.parametrize("radius", [None, 25.0])
def test_axis_coords_are_the_coords_of_the_points(radius):
    grid = aligned(oblique())
    frame = Frame.of_scan(grid, 3, radius)
    other = grid.with_shape((5, 7, 3))
    product = np.stack(np.meshgrid(*frame.axis_coords(other), indexing="ij"), axis=-1)
    assert np.allclose(frame.coords(other.points_mm()), product)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_every_storage_order_has_the_same_frame(order):
    grid = oblique()
    expected = Frame.of_scan(aligned(grid), 3, 40.0)
    for flips in itertools.product((False, True), repeat=3):
        frame = Frame.of_scan(aligned(grid.reoriented(Reorientation(order, flips))), 3, 40.0)
        assert np.allclose(frame.origin_mm, expected.origin_mm)
        assert np.allclose(frame.directions, expected.directions)


def test_a_turned_grid_is_not_aligned():
    grid = aligned(oblique())
    frame = Frame.of_scan(grid, 3, 40.0)
    assert frame.is_aligned(grid.with_spacing((1.0, 1.0, 1.0)))
    turned = grid.affine.copy()
    turned[:3, :3] = Rotation.from_euler("z", 0.01).as_matrix() @ turned[:3, :3]
    assert not frame.is_aligned(Grid(grid.shape, turned))

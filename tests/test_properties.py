"""Hypothesis on grids and positions: what is written is read where it was, and no change of grid moves a voxel."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from nfops.grid import Grid
from nfops.image import Image
from nfops.io import load_image, save_image

sizes = st.tuples(*[st.integers(1, 7)] * 3)
spacings = st.tuples(*[st.floats(0.05, 12)] * 3)
angles = st.tuples(*[st.floats(-180, 180)] * 3)
origins = st.tuples(*[st.floats(-500, 500)] * 3)
shears = st.tuples(*[st.floats(-0.4, 0.4)] * 3)
AXES = [("R", "A", "S"), ("L", "P", "S"), ("P", "I", "R"), ("S", "L", "A"), ("A", "R", "I")]


@st.composite
def grids(draw, sheared: bool = True) -> Grid:
    """Oblique, anisotropic, flipped and sheared."""
    columns = np.eye(3)
    if sheared and draw(st.booleans()):
        columns[0, 1], columns[0, 2], columns[1, 2] = draw(shears)
    turned = Rotation.from_euler("xyz", draw(angles), degrees=True).as_matrix() @ columns
    affine = np.eye(4)
    affine[:3, :3] = turned * (np.array(draw(spacings)) * [draw(st.sampled_from((-1, 1))), 1, 1])
    affine[:3, 3] = draw(origins)
    return Grid(draw(sizes), affine)


def furthest(a: Grid, b: Grid) -> float:
    """In mm, between the same voxels of two grids."""
    return float(np.abs(a.points_mm() - b.points_mm()).max())


SHEARED_VOXEL = np.diag([-1.0, 1, 1, 1])
SHEARED_VOXEL[1, 2] = 0.15625


@settings(max_examples=60, deadline=None)
@given(grids(), st.sampled_from(["a.nii", "a.nii.gz"]))
@example(Grid((1, 1, 1), SHEARED_VOXEL), "a.nii")
def test_a_position_survives_writing_to_float32_accuracy(grid, name):
    values = np.arange(np.prod(grid.shape), dtype=np.float32).reshape(1, *grid.shape)
    with tempfile.TemporaryDirectory() as folder:
        save_image(Path(folder) / name, Image(values, grid))
        read = load_image(Path(folder) / name)
    assert np.array_equal(read.values, values)
    largest = np.abs(grid.corners_mm).max() + 1
    assert furthest(read.grid, grid) <= 4 * np.finfo(np.float32).eps * largest
    assert not read.header.warnings


@given(grids(), sizes)
def test_b20_another_shape_keeps_the_field_of_view(grid, shape):
    other = grid.with_shape(shape)
    assert np.abs(other.corners_mm - grid.corners_mm).max() < 1e-9
    assert other.with_shape(grid.shape).same_as(grid, 1e-9)


@given(grids(), spacings)
def test_b22_another_spacing_keeps_the_centre(grid, spacing):
    other = grid.with_spacing(spacing)
    assert np.allclose(other.spacing_mm, spacing, rtol=1e-12)
    assert np.allclose(other.centre_mm, grid.centre_mm, atol=1e-9)
    assert np.allclose(other.directions, grid.directions, atol=1e-9)
    grown = np.abs(other.extent_mm - grid.extent_mm)
    assert (grown < np.maximum(spacing, grid.spacing_mm) + 1e-9).all() or min(other.shape) == 1


@given(grids(sheared=False), st.sampled_from(AXES))
def test_other_axes_move_no_voxel(grid, axes):
    how = grid.reorientation(axes)
    there = grid.reoriented(how)
    assert np.allclose(how.apply(np.moveaxis(grid.points_mm(), -1, 0)), np.moveaxis(there.points_mm(), -1, 0))
    assert there.reoriented(how.inverse).same_as(grid, 1e-9)
    assert there.shape == tuple(grid.shape[axis] for axis in how.order)
    towards = [sign * there.directions["LRPAIS".index(a) // 2, k] for k, a in enumerate(axes) for sign in (_sign(a),)]
    assert min(towards) >= -1e-12
    assert there.reorientation(axes).order == (0, 1, 2)


def _sign(letter: str) -> int:
    return 1 if letter in "RAS" else -1


@given(grids(), st.data())
def test_a_slab_is_part_of_its_grid(grid, data):
    start = data.draw(st.integers(0, grid.shape[2] - 1))
    stop = data.draw(st.integers(start + 1, grid.shape[2]))
    assert np.allclose(grid.slab(start, stop).points_mm(), grid.points_mm()[:, :, start:stop], atol=1e-9)

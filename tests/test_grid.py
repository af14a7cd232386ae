"""Geometry: voxel edges stay, every storage order says the same, there and back is the same grid."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from nfops.errors import InputError
from nfops.grid import Grid, Reorientation
from nfops.image import Header, Image

sizes = st.tuples(*[st.integers(1, 40)] * 3)
angles = st.tuples(*[st.floats(-3.1, 3.1)] * 3)
spacings = st.tuples(*[st.floats(0.2, 6.0)] * 3)
origins = st.tuples(*[st.floats(-300, 300)] * 3)
ORIENTATIONS = [
    Reorientation(order, flips)
    for order in itertools.permutations(range(3))
    for flips in itertools.product((False, True), repeat=3)
]


def make_grid(shape, angle, spacing, origin) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angle).as_matrix() @ np.diag(spacing)
    affine[:3, 3] = origin
    return Grid(shape, affine)


grids = st.builds(make_grid, sizes, angles, spacings, origins)
OBLIQUE = make_grid((7, 5, 4), (0.3, -0.2, 0.15), (0.9, 1.3, 2.6), (-12.0, 30.0, 7.0))


@given(grids, sizes)
@settings(max_examples=60, deadline=None)
def test_b20b_corners_of_the_field_of_view_are_kept(grid, shape):
    assert np.abs(grid.with_shape(shape).corners_mm - grid.corners_mm).max() < 1e-9


@given(grids, sizes)
@settings(max_examples=60, deadline=None)
def test_b20c_there_and_back_is_the_same_affine(grid, shape):
    back = grid.with_shape(shape).with_shape(grid.shape)
    assert np.abs(back.affine - grid.affine).max() < 1e-9


@given(grids, sizes, st.sampled_from(ORIENTATIONS))
@settings(max_examples=60, deadline=None)
def test_b20d_resizing_and_flipping_commute(grid, shape, how):
    turned_shape = tuple(shape[a] for a in how.order)
    one, other = grid.with_shape(shape).reoriented(how), grid.reoriented(how).with_shape(turned_shape)
    assert np.abs(one.affine - other.affine).max() < 1e-9


@given(grids, spacings)
@settings(max_examples=60, deadline=None)
def test_b22_spacing_is_exact_and_the_centre_stays(grid, spacing):
    new = grid.with_spacing(spacing)
    assert np.allclose(new.spacing_mm, spacing, rtol=1e-12)
    assert np.abs(new.centre_mm - grid.centre_mm).max() < 1e-9
    assert (np.abs(new.extent_mm - grid.extent_mm) <= np.array(spacing) * (1 + 1e-9)).all()


@pytest.mark.parametrize("how", ORIENTATIONS, ids=lambda how: f"{how.order}{how.flips}")
def test_all_48_orientations_give_the_same_world_values(how):
    values = np.random.default_rng(0).normal(size=(2, *OBLIQUE.shape)).astype(np.float32)
    stored = Image(how.apply(values), OBLIQUE.reoriented(how))
    assert sorted(map(tuple, stored.grid.corners_mm.round(6))) == sorted(map(tuple, OBLIQUE.corners_mm.round(6)))
    assert stored.grid.reoriented(how.inverse).same_as(OBLIQUE)
    assert np.array_equal(how.inverse.apply(stored.values), values)
    for axes in (("R", "A", "S"), ("L", "P", "S"), ("I", "R", "P")):
        one, other = Image(values, OBLIQUE).reoriented(axes), stored.reoriented(axes)
        assert np.array_equal(one.values, other.values)
        assert one.grid.same_as(other.grid)
        assert other.grid.orientation == "".join(axes)


def test_points_are_voxel_centres_of_the_affine():
    index = np.array([6, 2, 3, 1])
    assert np.allclose(OBLIQUE.points_mm()[6, 2, 3], (OBLIQUE.affine @ index)[:3])
    assert np.allclose(OBLIQUE.corners_mm.mean(axis=0), OBLIQUE.centre_mm)


def test_c12_singular_or_nan_affines_are_refused():
    for entry in (0.0, np.nan):
        affine = np.eye(4)
        affine[1, 1] = entry
        with pytest.raises(InputError):
            Grid((2, 2, 2), affine)


def test_shear_is_seen():
    affine = np.eye(4)
    affine[1, 2] = 0.2
    sheared = Grid((3, 3, 3), affine)
    assert not sheared.is_orthogonal()
    assert sheared.is_orthogonal((0, 1))
    assert OBLIQUE.is_orthogonal()


def test_reorienting_an_image_keeps_track_of_its_slice_axis():
    image = Image(np.zeros((1, 4, 5, 6), np.float32), Grid((4, 5, 6), np.diag([1.0, 2, 3, 1])), Header(slice_axis=2))
    turned = image.reoriented(("S", "R", "A"))
    assert turned.header.slice_axis == 0
    assert turned.grid.spacing_mm[0] == 3

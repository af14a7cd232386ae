"""Resampling: ramps stay ramps, copies are exact, labels stay labels, edges are edges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from nfops import memory, resampling
from nfops.errors import MemoryLimitError, UsageError
from nfops.grid import Grid, Reorientation
from nfops.image import Header, Image
from nfops.resampling import choose_grid, find_slice_axis, looks_like_labels, resample

DIRECTION = np.array([1.0, 0.5, -0.7])


def make_grid(shape, angle=(0.0, 0.0, 0.0), spacing=(1.0, 1.0, 1.0), centre=(0.0, 0.0, 0.0)) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angle).as_matrix() @ np.diag(spacing)
    affine[:3, 3] = np.array(centre) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


SOURCE = make_grid((26, 21, 15), (0.3, 0.2, -0.4), (0.9, 1.3, 2.1), (-20.0, 5.0, 13.0))


def noise(grid=SOURCE, channels=1, seed=0) -> Image:
    values = np.random.default_rng(seed).normal(size=(channels, *grid.shape))
    return Image(values.astype(np.float32), grid)


def ramp(grid: Grid) -> np.ndarray:
    return (grid.points_mm() - SOURCE.centre_mm) @ DIRECTION


TARGETS = {
    "up": SOURCE.with_shape((61, 33, 22)),
    "down": SOURCE.with_shape((9, 21, 8)),
    "mixed odd": SOURCE.with_shape((51, 10, 15)),
    "spacing": SOURCE.with_spacing((1.0, 1.0, 1.0)),
    "oblique": make_grid((20, 24, 18), (-0.2, 0.5, 0.1), (1.0, 1.1, 1.2), (-20.0, 5.0, 13.0)),
    "oblique coarse": make_grid((8, 7, 6), (-0.2, 0.5, 0.1), (3.0, 3.5, 4.0), (-20.0, 5.0, 13.0)),
}


@pytest.mark.parametrize("method", ["cubic", "linear"])
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_b20a_a_ramp_is_reproduced(target, method):
    result = resample(Image(ramp(SOURCE)[None].astype(np.float32), SOURCE), target, method)
    index = (target.points_mm() - SOURCE.affine[:3, 3]) @ np.linalg.inv(SOURCE.affine[:3, :3]).T
    reach = np.abs(np.linalg.inv(SOURCE.affine[:3, :3]) @ target.affine[:3, :3]).sum(axis=1) / 2
    interior = ((index >= reach) & (index <= np.array(SOURCE.shape) - 1 - reach)).all(axis=-1)
    assert interior.sum() > 20
    assert np.abs(result.values[0] - ramp(target))[interior].max() < 1e-5


@pytest.mark.parametrize("method", resampling.METHODS)
def test_b20_the_same_grid_gives_the_same_values(method):
    image = noise(channels=2)
    nearly = Grid(SOURCE.shape, SOURCE.affine.astype(np.float32))
    for grid in (SOURCE, nearly):
        assert np.array_equal(resample(image, grid, method).values, image.values)


@pytest.mark.parametrize("method", resampling.METHODS)
def test_b20_swapped_flipped_and_cropped_axes_copy_exactly(method):
    image = noise()
    how = Reorientation((2, 0, 1), (True, False, True))
    assert np.array_equal(resample(image, SOURCE.reoriented(how), method).values, how.apply(image.values))
    affine = SOURCE.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [3, -1, 2]
    moved = resample(image, Grid((5, 6, 7), affine), method, fill=-9.0)
    assert np.array_equal(moved.values[:, :, 1:], image.values[:, 3:8, 0:5, 2:9])
    assert (moved.values[:, :, 0] == -9).all()


@pytest.mark.parametrize("method", resampling.METHODS)
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_b20d_storage_order_does_not_matter(target, method):
    image = noise()
    how, there = Reorientation((1, 2, 0), (True, True, False)), Reorientation((2, 1, 0), (False, True, True))
    turned = Image(how.apply(image.values), SOURCE.reoriented(how))
    one = there.apply(resample(image, target, method).values)
    other = resample(turned, target.reoriented(there), method).values
    assert np.abs(one - other).max() < 1e-5


@given(st.tuples(*[st.integers(1, 12)] * 3), st.tuples(*[st.integers(1, 12)] * 3), st.sampled_from(["cubic", "linear"]))
@settings(max_examples=40, deadline=None)
def test_b20d_flip_of_resize_is_resize_of_flip(shape_in, shape_out, method):
    image = noise(make_grid(shape_in))
    grid = image.grid.with_shape(shape_out)
    flipped = Image(image.values[:, ::-1, :, ::-1], image.grid)
    one = resample(image, grid, method).values[:, ::-1, :, ::-1]
    assert np.abs(one - resample(flipped, grid, method).values).max() < 1e-5


@pytest.mark.parametrize("method", ["cubic", "linear"])
@pytest.mark.parametrize("name", ["up", "down", "mixed odd", "spacing"])
def test_parallel_axes_by_matrices_agree_with_points(name, method, monkeypatch):
    image, target = noise(), TARGETS[name]
    by_axes = resample(image, target, method, fill=-5.0)
    monkeypatch.setattr(resampling, "ALIGNED_TOLERANCE", -1.0)
    by_points = resample(image, target, method, fill=-5.0)
    assert np.abs(by_axes.values - by_points.values).max() < 1e-6


def test_results_do_not_depend_on_the_slabs(monkeypatch):
    image = noise()
    whole = {(n, m): resample(image, t, m).values for n, t in TARGETS.items() for m in resampling.METHODS}
    slabs = resampling._slabs
    monkeypatch.setattr(resampling, "_slabs", lambda out, _=0: slabs(out, 1))
    for (name, method), values in whole.items():
        assert np.abs(resample(image, TARGETS[name], method).values - values).max() < 1e-6


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_b19_nearest_makes_no_new_label(target):
    labels = np.random.default_rng(1).choice([0, 3, 7, 100001], size=(1, *SOURCE.shape)).astype(np.float32)
    result = resample(Image(labels, SOURCE), target, "nearest", fill=0)
    assert set(np.unique(result.values)) <= {0, 3, 7, 100001}


def test_b19_ties_of_nearest_are_the_same_everywhere():
    image = Image(np.arange(40, dtype=np.float32).reshape(1, 40, 1, 1), make_grid((40, 1, 1)))
    assert resample(image, image.grid.with_shape((20, 1, 1)), "nearest").values.ravel().tolist() == list(
        range(1, 40, 2)
    )


def test_b23_coarser_grids_average_over_the_cell():
    image = noise(make_grid((12, 8, 6)))
    blocks = image.values.reshape(1, 6, 2, 4, 2, 2, 3).mean(axis=(2, 4, 6))
    for method in ("cubic", "linear"):
        assert np.abs(resample(image, image.grid.with_shape((6, 4, 2)), method).values - blocks).max() < 1e-5


@pytest.mark.parametrize("method", resampling.METHODS)
def test_b22_edge_value_inside_the_field_of_view_and_fill_outside(method):
    image = noise(make_grid((6, 1, 1)))
    grid = make_grid((81, 1, 1), spacing=(0.1, 1.0, 1.0))
    result = resample(image, grid, method, fill=77.0).values.ravel()
    place = grid.points_mm()[:, 0, 0, 0]
    assert (result[np.abs(place) > 3 + 1e-9] == 77).all()
    assert (result[np.abs(place) < 3 - 1e-9] != 77).all()
    assert np.allclose(result[(place > 2.5) & (place < 3 - 1e-9)], image.values[0, -1, 0, 0], atol=1e-6)


def test_cubic_interpolates_and_keeps_double_precision():
    image = Image(np.random.default_rng(2).normal(size=(1, 9, 8, 7)), make_grid((9, 8, 7)))
    result = resample(image, image.grid.with_shape((27, 24, 21)), "cubic")
    assert result.values.dtype == np.float64
    assert np.abs(result.values[:, 1::3, 1::3, 1::3] - image.values).max() < 1e-6


def test_header_slice_axis_follows_the_axes():
    image = Image(noise().values, SOURCE, Header(slice_axis=2))
    assert resample(image, SOURCE.with_shape((5, 5, 5))).header.slice_axis == 2
    turned = SOURCE.reoriented(Reorientation((2, 0, 1), (False, False, False)))
    assert resample(image, turned).header.slice_axis == 0


def test_unknown_method_is_refused():
    with pytest.raises(UsageError, match="cubic, linear, nearest"):
        resample(noise(), SOURCE, "lanczos")


def test_b21_two_numbers_are_in_plane():
    axial, sagittal = make_grid((64, 60, 20), spacing=(1, 1, 5)), make_grid((20, 64, 60), spacing=(5, 1, 1))
    assert choose_grid(axial, shape=(32, 30)).shape == (32, 30, 20)
    assert choose_grid(sagittal, shape=(32, 30)).shape == (20, 32, 30)
    assert choose_grid(axial, shape=(32, 30), slice_axis=1).shape == (32, 60, 30)
    assert choose_grid(axial, shape=(32, 30, 0)).shape == (32, 30, 20)
    assert choose_grid(sagittal, spacing_mm=(2, 2)).shape == (20, 32, 30)
    assert find_slice_axis(make_grid((1, 64, 64))) == 0
    assert find_slice_axis(make_grid((64, 64, 64))) == 2


def test_b22_like_copies_a_grid_and_nothing_keeps_it():
    assert choose_grid(SOURCE, like=TARGETS["oblique"]) is TARGETS["oblique"]
    assert choose_grid(SOURCE) is SOURCE
    with pytest.raises(UsageError, match="at most one"):
        choose_grid(SOURCE, shape=(3, 3, 3), spacing_mm=(1, 1, 1))


@pytest.mark.parametrize("shape", [(-1, 4), (0, 0), (256,), (2, 2, 2, 2), (np.nan, 2)])
def test_c60_sizes_without_sense(shape):
    with pytest.raises(UsageError, match="two or three"):
        choose_grid(SOURCE, shape=shape)


def test_c60_sizes_beyond_the_memory(monkeypatch):
    with pytest.raises(MemoryLimitError, match="GiB"):
        choose_grid(SOURCE, shape=(100000, 100000, 100000))
    with pytest.raises(MemoryLimitError):
        choose_grid(SOURCE, spacing_mm=(1e-9, 1e-9, 1e-9))
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000)
    with pytest.raises(MemoryLimitError):
        resample(noise(), SOURCE)


def test_like_another_part_of_space_is_refused():
    near, far = Grid((4, 4, 4), np.eye(4)), Grid((4, 4, 4), np.eye(4) + np.array([[0, 0, 0, 90.0]] + [[0] * 4] * 3))
    assert near.overlaps(near)
    assert not near.overlaps(far)
    with pytest.raises(UsageError, match="another part of space"):
        choose_grid(near, like=far)


@pytest.mark.parametrize(
    ("values", "dtype", "expected"), [(5, "uint8", True), (5, "float32", False), (200, "int16", False)]
)
def test_a_label_map_is_known_by_its_few_whole_numbers(values, dtype, expected):
    data = np.random.default_rng(0).integers(0, values, (1, 12, 12, 12)).astype(np.float32)
    assert looks_like_labels(Image(data, Grid((12, 12, 12), np.eye(4)), Header(file_dtype=dtype))) is expected

"""Encoding and decoding: what the field can show comes back, wherever and however the scan is stored."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from toy_bundles import (
    P,
    field_at,
    image_in_span,
    make_bundle,
    make_spec,
    random_latents,
    scan_grid,
    world_coords,
)

from nfops import rendering
from nfops.coding import encode_image
from nfops.engines import open_engine
from nfops.engines.numpy_engine import NumpyEngine
from nfops.errors import ComponentError, InputError
from nfops.grid import Grid, Reorientation
from nfops.image import Image
from nfops.intensity import IntensitySettings
from nfops.rendering import render

ORIENTATIONS = [
    Reorientation(order, flips)
    for order in itertools.permutations(range(3))
    for flips in itertools.product((False, True), repeat=3)
]


def stored_as(image: Image, how: Reorientation) -> Image:
    """The same scan in another storage order."""
    return image.with_values(np.ascontiguousarray(how.apply(image.values)), image.grid.reoriented(how))


def encode(bundle, image, **changes):
    return encode_image(NumpyEngine(bundle), side_of(bundle, **changes), image)


def side_of(bundle, **changes):
    side = bundle.side("source")
    return replace(side, spec=replace(side.spec, **changes))


def draw(bundle, latent, grid, units="output-range") -> Image:
    return render(NumpyEngine(bundle), bundle.side("source"), latent, grid, units).image()


@pytest.fixture(params=[2, 3], ids=["2-D", "3-D"])
def toy(request):
    """A bundle, the true latents and the scan that shows them."""
    bundle = make_bundle(make_spec(request.param))
    grid = scan_grid(request.param)
    vectors = random_latents(bundle, 1 if request.param == 3 else min(grid.shape))
    return bundle, vectors, image_in_span(bundle, vectors, grid)


class TestRoundTrip:
    def test_an_image_in_the_span_comes_back(self, toy):
        bundle, vectors, image = toy
        latent = encode(bundle, image)
        assert np.abs(latent.vectors - vectors).max() < 1e-3
        assert latent.residual.max() < 1e-6
        assert np.abs(draw(bundle, latent, image.grid).values - image.values).max() < 1e-3

    @pytest.mark.parametrize("head", ["sigmoid", "softmax"])
    def test_labels_come_back(self, head):
        spec = make_spec(3, head, channels=1 if head == "sigmoid" else 3)
        bundle = make_bundle(spec)
        grid = scan_grid(3).with_shape((22, 20, 18))
        truth = field_at(bundle, "source", random_latents(bundle, 1)[0], world_coords(spec, grid, grid.points_mm()))
        labels = truth.argmax(axis=0) if head == "softmax" else truth[0] > 0.5
        image = Image(labels[None].astype(np.float32), grid)
        redrawn = draw(bundle, encode(bundle, image), grid)
        assert set(np.unique(redrawn.values)) <= set(range(3))
        assert (redrawn.values == image.values).mean() > 0.97
        soft = draw(bundle, encode(bundle, image), grid, "probability").values
        assert soft.min() >= 0
        if head == "softmax":
            assert np.abs(soft.sum(axis=0) - 1).max() < 1e-5

    def test_own_units_come_back(self, toy):
        bundle, _, image = toy
        low, high = float(image.values.min()), float(image.values.max())
        in_unit = image.with_values((image.values - low) / (high - low))  # what the map below makes of the scan
        units = image.with_values(in_unit.values * 300 - 40)
        latent = encode(bundle, units, intensity=IntensitySettings("range", -40.0, 260.0))
        assert np.abs(latent.vectors - encode(bundle, in_unit).vectors).max() < 1e-4
        shown = np.clip(draw(bundle, latent, image.grid).values, 0, 1)
        assert np.abs(draw(bundle, latent, image.grid, "scan").values - (shown * 300 - 40)).max() < 1e-3

    def test_values_as_they_are_are_not_cut_to_0_and_1(self, toy):
        bundle, _, image = toy
        assert image.values.max() > 1
        assert draw(bundle, encode(bundle, image), image.grid).values.max() > 1

    def test_the_output_range_is_the_recipes(self, toy):
        bundle, _, image = toy
        latent = encode(bundle, image)
        side = side_of(bundle, range_low=(100.0,), range_high=(300.0,), intensity=IntensitySettings("range", 0.0, 1.0))
        scaled = render(NumpyEngine(bundle), side, latent, image.grid).image().values
        plain = draw(bundle, latent, image.grid).values
        assert np.abs(scaled - (np.clip(plain, 0, 1) * 200 + 100)).max() < 1e-3


class TestStorageOrder:
    def test_all_48_orientations_give_the_same_latents_and_world_values(self, toy):
        bundle, _, image = toy
        noisy = image.with_values(image.values + np.random.default_rng(0).random(image.values.shape, np.float32))
        changes = {"intensity": IntensitySettings("percentile", 1.0, 99.0)}
        expected = encode(bundle, noisy, **changes)
        drawn = draw(bundle, expected, noisy.grid, "scan").values
        for how in ORIENTATIONS:
            stored = stored_as(noisy, how)
            latent = encode(bundle, stored, **changes)
            assert np.abs(latent.vectors - expected.vectors).max() < 1e-5, how
            again = draw(bundle, latent, stored.grid, "scan").values
            assert np.abs(how.inverse.apply(again) - drawn).max() < 1e-4, how

    def test_a_scan_moved_in_the_world_has_the_same_latents(self, toy):
        bundle, vectors, image = toy
        affine = image.grid.affine.copy()
        affine[:3, 3] += (100, -50, 30)
        moved = Image(image.values, Grid(image.grid.shape, affine))
        assert np.abs(encode(bundle, moved).vectors - vectors).max() < 1e-3


class TestOutputGrid:
    def test_any_shape_has_the_right_world_values(self):
        bundle = make_bundle(make_spec(3))
        vectors = random_latents(bundle, 1)
        image = image_in_span(bundle, vectors, scan_grid(3))
        grid = image.grid.with_shape((25, 16, 21))
        spec = bundle.specs["source"]
        expected = field_at(bundle, "source", vectors[0], world_coords(spec, image.grid, grid.points_mm()))
        assert np.abs(draw(bundle, encode(bundle, image), grid).values - expected).max() < 2e-3

    def test_any_in_plane_shape_has_the_right_world_values(self):
        bundle = make_bundle(make_spec(2))
        vectors = random_latents(bundle, 3)
        image = image_in_span(bundle, vectors, scan_grid(2))
        grid = image.grid.with_shape((31, 3, 20))
        expected = image_in_span(bundle, vectors, grid).values
        assert np.abs(draw(bundle, encode(bundle, image), grid).values - expected).max() < 2e-3

    def test_a_turned_grid_has_the_right_world_values(self):
        bundle = make_bundle(make_spec(3))
        vectors = random_latents(bundle, 1)
        image = image_in_span(bundle, vectors, scan_grid(3))
        grid = turned(image.grid, 0.3)
        spec = bundle.specs["source"]
        coords = world_coords(spec, image.grid, grid.points_mm())
        expected = field_at(bundle, "source", vectors[0], coords)
        inside = (np.abs(coords) <= np.array(spec.half_extent)).all(axis=-1)
        drawn = draw(bundle, encode(bundle, image), grid).values
        assert 0.5 < inside.mean() < 1
        assert np.abs(drawn - expected)[:, inside].max() < 2e-3
        assert (drawn[:, ~inside] == 0).all()

    def test_scattered_points_and_the_lattice_coincide(self):
        bundle = make_bundle(make_spec(3))
        image = image_in_span(bundle, random_latents(bundle, 1), scan_grid(3))
        latent = encode(bundle, image)
        hardly_turned = turned(image.grid, 3e-5)
        assert not latent.frame.is_aligned(hardly_turned.reoriented(hardly_turned.reorientation(("L", "P", "S"))))
        difference = draw(bundle, latent, hardly_turned).values - draw(bundle, latent, image.grid).values
        assert np.abs(difference).max() < 1e-3

    def test_slabs_are_one_piece(self, toy, monkeypatch):
        bundle, _, image = toy
        latent = encode(bundle, image)
        for how in ORIENTATIONS[::7]:
            grid = image.grid.reoriented(how)
            whole = draw(bundle, latent, grid, "scan").values
            with monkeypatch.context() as patch:
                patch.setattr(rendering, "SLAB_VALUES", 2 * grid.shape[0] * grid.shape[1])
                drawn = render(NumpyEngine(bundle), bundle.side("source"), latent, grid, "scan")
                assert [slab.shape[3] for slab in drawn.slabs()][:-1] == [2] * ((grid.shape[2] - 1) // 2)
                assert np.abs(drawn.image().values - whole).max() < 1e-6

    @pytest.mark.parametrize("angle", [0.0, 0.3], ids=["aligned", "turned"])
    def test_slabs_outside_the_domain_are_empty(self, angle, monkeypatch):
        bundle = make_bundle(make_spec(3))
        image = image_in_span(bundle, random_latents(bundle, 1), scan_grid(3))
        latent = encode(bundle, image)
        monkeypatch.setattr(rendering, "SLAB_VALUES", 1)
        far = turned(image.grid, angle).affine.copy()
        far[:3, 3] += 60 * far[:3, 2] / np.linalg.norm(far[:3, 2])
        drawn = draw(bundle, latent, Grid(image.grid.shape, far)).values
        assert drawn[..., 0].any()
        assert not drawn[..., -1].any()

    def test_slices_in_other_places_are_read_between_the_scans(self):
        bundle = make_bundle(make_spec(2))
        vectors = random_latents(bundle, 3)
        image = image_in_span(bundle, vectors, scan_grid(2))
        latent = encode(bundle, image)
        own = draw(bundle, latent, image.grid).values
        halfway = image.grid.affine.copy()
        halfway[:3, 3] += halfway[:3, 1] / 2
        between = draw(bundle, latent, Grid((14, 2, 17), halfway)).values
        error = between - (own[:, :, :-1] + own[:, :, 1:]) / 2
        assert np.sqrt((error**2).mean()) < 0.02 * own.std()  # in plane, the drawn slices are read linearly

    def test_slices_across_the_scans_are_drawn(self):
        bundle = make_bundle(make_spec(2))
        latent = encode(bundle, image_in_span(bundle, random_latents(bundle, 3), scan_grid(2)))
        drawn = draw(bundle, latent, turned(scan_grid(2), 0.4))
        assert drawn.values.shape == (1, 14, 3, 17)
        assert np.isfinite(drawn.values).all()


def turned(grid: Grid, angle: float) -> Grid:
    """A grid turned about its own centre."""
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = grid.affine.copy()
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = grid.centre_mm - affine[:3, :3] @ ((np.array(grid.shape) - 1) / 2)
    return Grid(grid.shape, affine)


class TestResolution:
    @pytest.mark.parametrize("factor", [2, 3])
    def test_a_coarse_scan_of_a_smooth_field_has_nearly_the_same_latent(self, factor):
        bundle = make_bundle(make_spec(3))
        vectors = random_latents(bundle, 1)
        shape = tuple(6 * factor * n for n in (2, 2, 1))
        fine = image_in_span(bundle, vectors, scan_grid(3).with_shape(shape))
        means = fine.values.reshape(1, 4, 3 * factor, 4, 3 * factor, 2, 3 * factor).mean(axis=(2, 4, 6))
        coarse = Image(means, fine.grid.with_shape((4, 4, 2)))
        assert np.abs(encode(bundle, fine).vectors - vectors).max() < 1e-3
        assert np.abs(encode(bundle, coarse).vectors - vectors).max() < 0.02

    def test_as_a_point_it_would_be_worse(self):
        bundle = make_bundle(make_spec(3))
        vectors = random_latents(bundle, 1)
        fine = image_in_span(bundle, vectors, scan_grid(3).with_shape((24, 24, 12)))
        coarse = Image(fine.values.reshape(1, 4, 6, 4, 6, 2, 6).mean(axis=(2, 4, 6)), fine.grid.with_shape((4, 4, 2)))
        as_points = encode(bundle, coarse, spacing=(9.0,) * 3)
        good, bad = (np.abs(z.vectors - vectors).max() for z in (encode(bundle, coarse), as_points))
        assert bad > 3 * good


class TestWhatAScanMayHold:
    def test_c14_nan_is_refused_read_as_zero_or_left_out(self, toy):
        bundle, vectors, image = toy
        holes = image.values.copy()
        holes[np.random.default_rng(0).random(holes.shape) < 0.3] = np.nan
        holed = image.with_values(holes)
        with pytest.raises(InputError, match="NaN"):
            encode(bundle, holed)
        zeros = encode(bundle, image.with_values(np.nan_to_num(holes)))
        assert np.abs(encode(bundle, holed, nan="zero").vectors - zeros.vectors).max() < 1e-5
        assert np.abs(encode(bundle, holed, nan="keep").vectors - vectors).max() < 5e-3

    def test_mostly_nan_still_determines_what_it_can(self, toy):
        bundle, vectors, image = toy
        holes = image.values.copy()
        holes[np.random.default_rng(0).random(holes.shape) < 0.9] = np.nan
        assert np.abs(encode(bundle, image.with_values(holes), nan="keep").vectors - vectors).max() < 0.05

    def test_c14_an_infinite_value_is_no_number(self, toy):
        bundle, _, image = toy
        values = image.values.copy()
        values[0, 3, 1, 2] = np.inf
        with pytest.raises(InputError, match="1 voxels"):
            encode(bundle, image.with_values(values))

    def test_c15_a_constant_image_is_refused_or_passed(self, toy):
        bundle, _, image = toy
        constant = image.with_values(np.full_like(image.values, 7.0))
        changes = {"intensity": IntensitySettings("percentile", 1.0, 99.0)}
        with pytest.raises(InputError, match="no contrast"):
            encode(bundle, constant, **changes)
        latent = encode(bundle, constant, **changes, constant="pass")
        assert np.isfinite(latent.vectors).all()

    def test_a_scan_of_nothing_is_passed_if_the_recipe_says_so(self, toy):
        bundle, _, image = toy
        nothing = image.with_values(np.full_like(image.values, np.nan))
        percentiles = IntensitySettings("percentile", 1.0, 99.0)
        latent = encode(bundle, nothing, nan="keep", constant="pass", intensity=percentiles)
        assert np.abs(latent.vectors).max() < 1e-6

    def test_voxels_larger_than_the_domain_are_refused(self, toy):
        bundle, _, image = toy
        part = image.values[:, :2, :2, :2].copy()
        with pytest.raises(InputError, match="spacing in the file"):
            encode(bundle, Image(part, Grid((2, 2, 2), image.grid.affine @ np.diag([25, 25, 25, 1]))))

    def test_an_empty_slice_takes_the_scans_intensities(self):
        bundle = make_bundle(make_spec(2))
        image = image_in_span(bundle, random_latents(bundle, 3), scan_grid(2))
        values = image.values.copy()
        values[:, :, 1] = 0
        per_slice = IntensitySettings("percentile", 1.0, 99.0, over="slice")
        latent = encode(bundle, image.with_values(values), intensity=per_slice)
        assert len({float(scale.high[0]) for scale in latent.scales}) == 3

    def test_wrong_channels_are_refused(self, toy):
        bundle, _, image = toy
        with pytest.raises(InputError, match="expected 1 channel, got 2"):
            encode(bundle, image.with_values(np.repeat(image.values, 2, axis=0)))

    def test_a_single_row_is_refused(self, toy):
        bundle, _, image = toy
        with pytest.raises(InputError, match="1 sample"):
            encode(bundle, Image(image.values[:, :1], Grid((1, *image.grid.shape[1:]), image.grid.affine)))

    def test_b7_a_sheared_volume_is_refused(self):
        bundle = make_bundle(make_spec(3))
        image = image_in_span(bundle, random_latents(bundle, 1), scan_grid(3))
        with pytest.raises(InputError, match="sheared"):
            encode(bundle, Image(image.values, sheared(image.grid)))

    def test_tilted_slices_are_read_each_about_its_own_centre(self):
        """A gantry tilt shears a stack of slices: no slice is wrong, and none may be read off-centre."""
        bundle = make_bundle(make_spec(2))
        vectors = random_latents(bundle, 3)
        image = image_in_span(bundle, vectors, scan_grid(2))
        tilted = Image(image.values, sheared(image.grid))
        latent = encode(bundle, tilted)
        assert np.abs(latent.vectors - vectors).max() < 1e-3
        for part in (slice(0, 3), slice(1, 2)):
            affine = tilted.grid.affine.copy()
            affine[:3, 3] += affine[:3, 1] * part.start
            some = Grid((14, part.stop - part.start, 17), affine)
            assert np.abs(draw(bundle, latent, some).values - image.values[:, :, part]).max() < 2e-3


def sheared(grid: Grid) -> Grid:
    """The stack's second axis (its slices) leans by 20 degrees."""
    affine = grid.affine.copy()
    affine[:3, 1] += np.tan(np.deg2rad(20)) * grid.spacing_mm[1] * grid.directions[:, 0]
    return Grid(grid.shape, affine)


def test_unit_frames_follow_the_field_of_view():
    spec = make_spec(3, radius_mm=None, half_extent=(1.0, 1.0, 1.0), spacing=(0.2, 0.2, 0.2))
    bundle = make_bundle(spec)
    vectors = random_latents(bundle, 1)
    image = image_in_span(bundle, vectors, scan_grid(3))
    stretched = Image(image.values, Grid(image.grid.shape, image.grid.affine @ np.diag([1.3, 0.8, 2.0, 1])))
    for scan in (image, stretched):
        assert np.abs(encode(bundle, scan).vectors - vectors).max() < 1e-3


def test_what_is_outside_the_domain_does_not_count():
    bundle = make_bundle(make_spec(3))
    grid = scan_grid(3).with_spacing((5.0, 5.0, 5.0))
    shape = tuple(n + 16 for n in grid.shape)
    affine = grid.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ np.full(3, 8)
    large = Grid(shape, affine)
    vectors = random_latents(bundle, 1)
    image = image_in_span(bundle, vectors, large)
    outside = (np.abs(world_coords(bundle.specs["source"], large, large.points_mm())) > (1.0, 0.8, 0.7)).any(axis=-1)
    spoilt = image.with_values(np.where(outside, np.float32(50), image.values))
    latent = encode(bundle, spoilt)
    assert latent.vectors.shape == (1, P)
    assert np.abs(latent.vectors - vectors).max() < 1e-3
    assert (draw(bundle, latent, large).values[:, outside] == 0).all()


def test_what_codes_needs_no_operator_nor_its_plugin():
    base = make_bundle(make_spec(2))
    bundle = replace(base, operator={"form": "torch"}, recipe={**base.recipe, "operator": {"backend": "nobody"}})
    assert isinstance(open_engine(bundle.without_operator(), "cpu"), NumpyEngine)
    with pytest.raises(ComponentError, match="nobody"):
        open_engine(bundle, "cpu")

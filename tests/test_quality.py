"""What is said of one scan, and of which slices nothing is predicted."""

from dataclasses import replace

import numpy as np
import pytest
from graph_bundles import field_bundle, latent_bundle, siren, smooth_scan
from toy_bundles import RADIUS_MM, make_bundle, make_spec

from nfops.bundle import Bundle
from nfops.coding import encode_image, prepare
from nfops.cohort import Pair
from nfops.engines.numpy_engine import NumpyEngine
from nfops.engines.torch_engine import TorchEngine
from nfops.evaluation.model import Model
from nfops.grid import Grid
from nfops.image import Image
from nfops.intensity import IntensitySettings
from nfops.quality import judge_scan
from nfops.scoring import score_pair
from nfops.workflows.apply import GridRequest, Translator, apply, apply_to_each

PERCENTILE = IntensitySettings("percentile", 0.1, 99.9)
HOUNSFIELD = IntensitySettings("range", -1024.0, 3071.0)
GRID = Grid((64, 64, 3), np.diag([-1.0, -1.0, 3.0, 1.0]))


@pytest.mark.parametrize(("steps", "said"), [((6, 1, 1), True), ((1, 1, 6), False), ((2, 2, 2), False)])
def test_slices_of_another_plane_than_the_recipes_are_told_of(steps, said):
    """Thick sagittal slices, thick axial ones, and a volume that may be cut as one likes; the recipe's are axial."""
    shape = tuple(round(2 * RADIUS_MM / step) for step in steps)
    values = np.random.default_rng(0).random((1, *shape), np.float32)
    bundle, image = (
        make_bundle(make_spec(2)),
        Image(values, Grid(shape, np.diag([-steps[0], -steps[1], steps[2], 1.0]))),
    )
    encoded = encode_image(NumpyEngine(bundle), bundle.side("source"), image)
    reasons = judge_scan(bundle, image, encoded, None).reasons
    assert any("acquired in another plane" in reason for reason in reasons) == said


def scan(*slices: np.ndarray | float) -> Image:
    values = np.stack([np.broadcast_to(np.float32(each), (64, 64)) for each in slices], axis=-1)
    return Image(values[None].astype(np.float32), GRID.with_shape((64, 64, len(slices))))


def empty_slices(image: Image, intensity: IntensitySettings, **spec) -> list[bool]:
    return prepare(make_spec(spec.pop("dims", 2), intensity=intensity, **spec), image, "scan").is_empty.tolist()


class TestEmptySlices:
    random = np.random.default_rng(0)
    body = 1000 * random.random((64, 64))
    tissue = 40 + 42 * random.standard_normal((64, 64))
    air = -1000 + 15 * random.standard_normal((64, 64))

    def test_air_is_empty_and_soft_tissue_beside_bone_is_not(self):
        bone = np.where(np.indices((64, 64)).sum(axis=0) < 9, 1500, self.tissue)
        assert empty_slices(scan(self.tissue, bone, self.air), HOUNSFIELD) == [False, False, True]

    def test_a_small_bright_spot_is_something(self):
        spot = np.zeros((64, 64))
        spot[30:32, 30:33] = 900
        assert empty_slices(scan(self.body, spot, 20 * self.random.random((64, 64))), PERCENTILE) == [
            False,
            False,
            True,
        ]

    def test_a_slice_that_is_grey_all_over_is_not_empty(self):
        assert empty_slices(scan(self.body, 500, 0), PERCENTILE) == [False, False, True]

    @pytest.mark.parametrize("policy", ["zero", "keep"])
    def test_what_is_no_number_shows_nothing(self, policy):
        image = scan(self.body, np.where(self.tissue > 0, 0, np.nan), np.nan)
        assert empty_slices(image, PERCENTILE, nan=policy) == [False, True, True]

    def test_a_picture_that_is_flat_but_not_dark_is_not_empty(self):
        assert empty_slices(scan(0.4 + 0.003 * self.random.random((64, 64))), IntensitySettings("range", 0, 1)) == [
            False
        ]

    def test_volumes_signals_labels_and_values_as_they_are_have_none(self):
        image = scan(self.body, 0, 0)
        assert empty_slices(image, PERCENTILE, dims=3) == [False]
        assert empty_slices(image, IntensitySettings("none")) == [False] * 3
        labels = make_spec(2, "softmax", 3)
        assert not prepare(labels, scan(1, 0, 0), "scan").is_empty.any()


def with_air(image: Image) -> Image:
    values = image.values.copy()
    values[..., 1] = values.min()
    return image.with_values(values)


def of_percentiles(bundle: Bundle) -> Bundle:
    source = replace(bundle.specs["source"], intensity=PERCENTILE)
    return replace(bundle, specs={**bundle.specs, "source": source})


BUNDLES = {
    "latents": lambda: latent_bundle(siren(), siren()),
    "fields": field_bundle,
    "labels": lambda: field_bundle(2, "softmax", 3),
}


@pytest.fixture(params=BUNDLES)
def translator(request) -> Translator:
    bundle = of_percentiles(BUNDLES[request.param]())
    return Translator(bundle, TorchEngine(bundle, "cpu"))


class TestPredictions:
    def test_what_is_empty_stays_so_whatever_the_operator_makes_of_it(self, translator):
        image = with_air(smooth_scan(2))
        drawn, _, quality = apply(translator, image, GridRequest())
        values = drawn.image().values
        assert np.abs(values[..., 1]).max() < 1e-12  # on this oblique grid
        assert values[..., 0].std() > 1e-3
        assert (quality.slices, quality.empty_slices) == (3, 1)
        assert drawn.header.warnings[-1] == "1 of 3 slices show nothing and are left empty"

    def test_evaluation_sees_what_apply_gives(self, translator):
        whole = with_air(smooth_scan(2))
        drawn = apply(translator, whole, GridRequest())[0].image().values
        model = Model(translator.bundle, translator.engine)
        for k in range(3):
            cut = whole.with_values(whole.values[..., k : k + 1], whole.grid.slab(k, k + 1))
            pair = Pair("s", "p", "val", cut, cut, whole, whole)
            assert np.allclose(model.predict(pair).values[..., 0], drawn[..., k], atol=1e-3)

    def test_of_several_volumes_all_empty_slices_are_counted(self, translator):
        image = smooth_scan(2)
        values = np.concatenate([image.values, image.values, with_air(image).values])
        header = replace(image.header, ndim=4)
        drawn, _, quality = apply_to_each(translator, Image(values, image.grid, header), GridRequest())
        assert (quality.slices, quality.empty_slices) == (9, 1)
        assert drawn.header.warnings[-1] == "1 of 9 slices show nothing and are left empty"
        assert np.abs(drawn.image().values[2, ..., 1]).max() < 1e-12


def test_ceilings_and_the_mean_are_drawn_in_empty_slices_too():
    bundle, whole = of_percentiles(latent_bundle(siren(), siren())), with_air(smooth_scan(2))
    cut = whole.with_values(whole.values[..., 1:2], whole.grid.slab(1, 2))
    truth = cut.with_values(smooth_scan(2, seed=1).values[..., 1:2])
    found = score_pair(TorchEngine(bundle, "cpu"), bundle, Pair("s", "p", "val", cut, truth, whole, whole), np.ones(12))
    assert len({found.result["psnr"], found.ceiling["psnr"], found.mean["psnr"]}) == 3

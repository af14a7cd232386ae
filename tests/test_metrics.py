"""Metrics against their definitions: other computations of the same, what must not change them, what must."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import f1_score, roc_auc_score

from nfops.metrics import dice, iou, is_better_higher, nrmse, psnr, ssim
from nfops.probing import accuracy, macro_auc, macro_f1


def pair(shape, seed=0, noise=0.2):
    rng = np.random.default_rng(seed)
    truth = ndimage.gaussian_filter(rng.random(shape), [0, *[2] * (len(shape) - 1)])
    truth = (truth - truth.min()) / (truth.max() - truth.min())
    return truth + noise * rng.normal(size=shape), truth


def wang(predicted, truth, data_range):
    """SSIM of one channel from its formula, windows that reach over the edge left out."""

    def mean(values):
        return ndimage.gaussian_filter(values, 1.5, truncate=3.5)[(slice(5, -5),) * values.ndim]

    mx, my = mean(predicted), mean(truth)
    vx, vy, cov = mean(predicted**2) - mx**2, mean(truth**2) - my**2, mean(predicted * truth) - mx * my
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    return (((2 * mx * my + c1) * (2 * cov + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()


@pytest.mark.parametrize("shape", [(1, 40), (1, 23, 31), (3, 20, 16), (1, 14, 13, 17)])
@pytest.mark.parametrize("data_range", [1.0, 7.5])
def test_ssim_is_that_of_wang_et_al(shape, data_range):
    predicted, truth = pair(shape)
    expected = np.mean([wang(p, t, data_range) for p, t in zip(predicted, truth, strict=True)])
    assert ssim(predicted, truth, data_range) == pytest.approx(expected, abs=1e-9)


def test_ssim_of_the_truth_is_one_and_needs_a_whole_window():
    _, truth = pair((1, 16, 12))
    assert ssim(truth, truth, 1.0) == pytest.approx(1)
    assert np.isnan(ssim(truth[:, :, :10], truth[:, :, :10], 1.0))


def test_ssim_is_higher_with_less_noise_and_takes_the_range_as_stated():
    noisy, truth = pair((1, 32, 32), noise=0.2)
    better, _ = pair((1, 32, 32), noise=0.05)
    assert ssim(better, truth, 1.0) > ssim(noisy, truth, 1.0) + 0.05
    assert ssim(5 * noisy, 5 * truth, 5.0) == pytest.approx(ssim(noisy, truth, 1.0))
    assert ssim(noisy, truth, 10.0) > ssim(noisy, truth, 1.0)


@settings(deadline=None)
@given(st.floats(1e-3, 10), st.floats(0.5, 100))
def test_psnr_of_a_constant_error(error, data_range):
    truth = np.linspace(0, 1, 12).reshape(1, 3, 4)
    assert psnr(truth + error, truth, data_range) == pytest.approx(20 * np.log10(data_range / error), abs=1e-6)
    assert psnr(truth, truth, data_range) == float("inf")


@settings(deadline=None)
@given(st.floats(0.01, 50))
def test_nrmse_has_no_unit(scale):
    predicted, truth = pair((1, 9, 8))
    assert nrmse(scale * predicted, scale * truth) == pytest.approx(nrmse(predicted, truth))
    assert nrmse(1.25 * truth, truth) == pytest.approx(0.25)
    assert np.isnan(nrmse(truth, 0 * truth))


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1), st.floats(0, 1))
def test_dice_and_iou_say_the_same(seed, one, other):
    rng = np.random.default_rng(seed)
    a, b = rng.random((5, 6)) < one, rng.random((5, 6)) < other
    overlap = iou(a, b)
    assert dice(a, b) == pytest.approx(2 * overlap / (1 + overlap))
    assert (dice(a, b), iou(a, b)) == (dice(b, a), iou(b, a))
    assert iou(a, a) == dice(a, a) == 1


def test_only_of_errors_is_less_better():
    assert [is_better_higher(name) for name in ("psnr", "ssim", "dice_2", "nrmse")] == [True, True, True, False]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_macro_auc_and_f1_are_those_of_scikit_learn(seed, count):
    rng = np.random.default_rng(seed)
    classes = np.concatenate([np.arange(count), rng.integers(count, size=20)])
    scores = rng.integers(0, 6, size=(len(classes), count)) + 1e-9  # with ties
    scores = scores / scores.sum(axis=1, keepdims=True)
    columns = [roc_auc_score(classes == number, scores[:, number]) for number in range(count)]
    assert macro_auc(classes, scores) == pytest.approx(np.mean(columns))
    said = scores.argmax(axis=1)
    assert macro_f1(classes, scores) == pytest.approx(f1_score(classes, said, average="macro"))
    assert accuracy(classes, scores) == pytest.approx((said == classes).mean())


def test_macro_auc_leaves_out_classes_that_are_not_there():
    classes = np.array([0, 0, 1, 1])
    scores = np.array([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.2, 0.8, 0.0], [0.7, 0.3, 0.0]])
    assert macro_auc(classes, scores) == pytest.approx(0.75)
    assert np.isnan(macro_auc(np.zeros(4, int), scores))

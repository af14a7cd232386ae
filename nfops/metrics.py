"""How far a prediction is from the truth. Every function compares two arrays of one shape."""

import numpy as np

from nfops.arrays import Array

HIGHEST_PSNR = 100.0
"""dB that count for an exact prediction wherever a mean is taken."""

SSIM_SIGMA, SSIM_WINDOW = 1.5, 11
"""The Gaussian window of Wang et al. 2004: its standard deviation, and how many samples an axis needs for it."""


def psnr(predicted: Array, truth: Array, data_range: float) -> float:
    """Peak signal-to-noise ratio, dB, over all values; `data_range` is stated, never guessed."""
    error = float(np.mean((np.asarray(predicted, np.float64) - truth) ** 2))
    return float("inf") if error == 0 else float(10 * np.log10(data_range**2 / error))


def ssim(predicted: Array, truth: Array, data_range: float) -> float:
    """Structural similarity of (C, *shape), mean over positions and channels; NaN where an axis is below 11 samples.

    Gaussian window of sigma 1.5, population covariances, `data_range` stated (Wang et al. 2004), in one to three
    dimensions.
    """
    from skimage.metrics import structural_similarity

    if min(truth.shape[1:]) < SSIM_WINDOW:
        return float("nan")
    found = structural_similarity(
        np.asarray(truth, np.float64),
        np.asarray(predicted, np.float64),
        channel_axis=0,
        data_range=data_range,
        gaussian_weights=True,
        sigma=SSIM_SIGMA,
        use_sample_covariance=False,
    )
    return float(found)


def nrmse(predicted: Array, truth: Array) -> float:
    """Root mean squared error over the truth's root mean square; NaN for a truth of zeros."""
    size = float(np.mean(np.asarray(truth, np.float64) ** 2))
    error = float(np.mean((np.asarray(predicted, np.float64) - truth) ** 2))
    return float(np.sqrt(error / size)) if size > 0 else float("nan")


def dice(predicted: Array, truth: Array) -> float:
    """Dice similarity of two boolean masks; 1 where both are empty."""
    total = int(predicted.sum()) + int(truth.sum())
    return 1.0 if total == 0 else 2 * int((predicted & truth).sum()) / total


def iou(predicted: Array, truth: Array) -> float:
    """Intersection over union of two boolean masks; 1 where both are empty."""
    union = int((predicted | truth).sum())
    return 1.0 if union == 0 else int((predicted & truth).sum()) / union


def is_better_higher(metric: str) -> bool:
    """Whether more of a metric is better: all but the error."""
    return not metric.startswith("nrmse")

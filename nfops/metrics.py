"""How far a prediction is from the truth. Every function compares two arrays of one shape."""

import numpy as np

from nfops.arrays import Array


def psnr(predicted: Array, truth: Array, data_range: float) -> float:
    """Peak signal-to-noise ratio, dB, over all values; `data_range` is stated, never guessed."""
    error = float(np.mean((np.asarray(predicted, np.float64) - truth) ** 2))
    return float("inf") if error == 0 else float(10 * np.log10(data_range**2 / error))


def dice(predicted: Array, truth: Array) -> float:
    """Dice similarity of two boolean masks; 1 where both are empty."""
    total = int(predicted.sum()) + int(truth.sum())
    return 1.0 if total == 0 else 2 * int((predicted & truth).sum()) / total

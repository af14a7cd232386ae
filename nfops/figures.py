"""Pictures for people: drawn by matplotlib, without a display."""

from pathlib import Path

import numpy as np

from nfops.arrays import Array
from nfops.image import Image


def draw_comparison(path: Path, panels: dict[str, Image], slice_index: int, caption: str) -> None:
    """Source, prediction, truth and the error between the last two of one slice, as radiologists look at it.

    panels: title -> image, all on one grid; intensities share the scale of the last two. path: a PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = {title: _axial(image, slice_index) for title, image in panels.items()}
    predicted, truth = list(shown.values())[-2:]
    high = float(np.percentile(truth, 99.8))
    spacing = next(iter(panels.values())).reoriented(("L", "P", "S")).grid.spacing_mm
    figure, axes = pyplot.subplots(1, len(shown) + 1, figsize=(3.1 * (len(shown) + 1), 3.6), layout="constrained")
    for axis, (title, pixels) in zip(axes, shown.items(), strict=False):
        top = high if pixels is predicted or pixels is truth else float(np.percentile(pixels, 99.8))
        axis.imshow(pixels, cmap="gray", vmin=0, vmax=top, aspect=spacing[1] / spacing[0], interpolation="nearest")
        axis.set_title(title, fontsize=10)
    limit = high / 2
    error = axes[-1].imshow(predicted - truth, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect=spacing[1] / spacing[0])
    axes[-1].set_title("prediction - truth", fontsize=10)
    figure.colorbar(error, ax=axes[-1], shrink=0.62, pad=0.02)
    for axis in axes:
        axis.set_axis_off()
    figure.text(0.5, 0.02, caption, ha="center", va="bottom", fontsize=8)
    figure.get_layout_engine().set(rect=(0, 0.07, 1, 0.93))
    figure.savefig(path, dpi=130, format="png", metadata={"Software": "nfops"})
    pyplot.close(figure)


def _axial(image: Image, slice_index: int) -> Array:
    """(rows, columns) of one axial slice: the patient's left at the right, anterior at the top."""
    return np.asarray(image.reoriented(("L", "P", "S")).values[0, :, :, slice_index].T)

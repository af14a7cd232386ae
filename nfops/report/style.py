"""How figures look: small, light, without a display; colours that colour-blind readers tell apart."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COLOURS = {
    "result": "#0b5fa5",
    "target_ceiling": "#2a9d6f",
    "ridge_best": "#d9822b",
    "ridge": "#b8860b",
    "fpca": "#d9822b",
    "mean": "#8c8c8c",
    "source": "#7a4fa3",
    "truth": "#2a9d6f",
}
DPI = 160
RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.5,
}


@contextmanager
def figure(path: Path, width: float, height: float) -> Iterator[Any]:
    """A matplotlib figure of so many inches, saved to `path` at the end of the block."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(RC):
        made = Figure(figsize=(width, height), layout="constrained", dpi=DPI)
        yield made
        made.savefig(path, dpi=DPI, format="png", facecolor="white", metadata={"Software": "nfops"})

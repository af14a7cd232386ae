"""The size of a pixel, out of and into a picture file."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

MM_PER_INCH = 25.4
TEXT_KEY = "pixel_mm"
"""Our own text entry in a PNG: its density is a whole number of pixels per metre, 0.04 % off for 1.2 mm."""

NO_BODY_DPI = (1, 72, 90, 96, 100, 120, 144, 150, 180, 200, 240, 300, 350, 360, 400, 600, 720, 1200, 2400)
"""Densities of programs that know nothing: 1 is none in a TIFF, the others are paper and screens, not a body."""


def stored_pixel_mm(picture: "Picture") -> tuple[float, float] | None:
    """Spacing (along a row, down a column) in mm that a picture states, None if it states none that can be true."""
    text = picture.info.get(TEXT_KEY)
    if isinstance(text, str):
        return _plausible(_numbers(text))
    density = picture.info.get("dpi")
    if not density or any(not float(d) > 0 for d in density):
        return None
    if any(abs(float(d) - dpi) < 0.02 for d in density for dpi in NO_BODY_DPI):
        return None
    return _plausible([MM_PER_INCH / float(d) for d in density])


def save_settings(path: Path, pixel_mm: tuple[float, float]) -> dict[str, Any]:
    """What Pillow's `save` needs so that the spacing survives."""
    density = tuple(MM_PER_INCH / spacing for spacing in pixel_mm)
    if path.suffix.lower() != ".png":
        return {"dpi": density, "compression": "tiff_adobe_deflate"}
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text(TEXT_KEY, " ".join(f"{spacing:.9g}" for spacing in pixel_mm))
    return {"dpi": density, "pnginfo": text}


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split()]
    except ValueError:
        return []


def _plausible(spacing: list[float]) -> tuple[float, float] | None:
    if len(spacing) != 2 or not all(math.isfinite(s) and 1e-3 <= s <= 1e2 for s in spacing):
        return None
    return spacing[0], spacing[1]

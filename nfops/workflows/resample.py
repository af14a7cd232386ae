"""Read a scan on another grid through its continuous representation."""

from dataclasses import replace
from pathlib import Path

from nfops.bundle import load_bundle
from nfops.coding import encode_image
from nfops.engines import open_engine
from nfops.grid import Grid
from nfops.image import Image
from nfops.rendering import Rendering, render


def resample_through_field(
    bundle_dir: Path, image: Image, grid: Grid, *, device: str = "auto", where: object = "image"
) -> Rendering:
    """The scan's own values on another grid, read from the source field of a bundle."""
    bundle = load_bundle(bundle_dir)
    engine, source = open_engine(bundle.without_operator(), device), bundle.side("source")
    latent = encode_image(engine, source, image, where)
    drawn = render(engine, source, latent, grid, "scan")
    return replace(drawn, header=replace(image.header, is_scaled=False))

"""Read scans on other grids through their continuous representation."""

from dataclasses import dataclass, replace
from pathlib import Path

from nfops.bundle import Bundle, load_bundle
from nfops.coding import encode_image
from nfops.engines import Engine, open_engine, open_engine_to_apply
from nfops.grid import Grid
from nfops.image import Image
from nfops.rendering import Rendering, render


@dataclass(frozen=True, eq=False)
class FieldReader:
    """A bundle whose source field reads scans, opened once for all of them."""

    bundle: Bundle
    engine: Engine


def open_reader(bundle_dir: Path, device: str = "auto") -> FieldReader:
    """device: as for `open_engine`. The graphs of a bundle without a target are those of its source field."""
    bundle = load_bundle(bundle_dir)
    fields = bundle.without_operator()
    engine = open_engine(fields, device) if "target" in bundle.specs else open_engine_to_apply(fields, device)
    return FieldReader(bundle, engine)


def resample_through_field(reader: FieldReader, image: Image, grid: Grid, where: object = "image") -> Rendering:
    """The scan's own values on another grid, read from the source field."""
    source = reader.bundle.side("source")
    latent = encode_image(reader.engine, source, image, where)
    drawn = render(reader.engine, source, latent, grid, "scan")
    return replace(drawn, header=replace(image.header, is_scaled=False))

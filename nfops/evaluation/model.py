"""`Model`: a bundle with the engine that runs it, as evaluation uses it; a bundle without a target reconstructs."""

from dataclasses import dataclass, replace

from nfops.arrays import Array
from nfops.bundle import Bundle
from nfops.codec_spec import CodecSpec
from nfops.coding import encode_image, prepare
from nfops.cohort import Pair
from nfops.engines import Engine, open_engine
from nfops.field_translation import draw_translation, translate_field
from nfops.image import Image
from nfops.intensity import IntensityMap
from nfops.latents import Latent
from nfops.rendering import Units, render
from nfops.scoring import compare


@dataclass(frozen=True, eq=False)
class Model:
    """What is evaluated, and each baseline that is a bundle too."""

    bundle: Bundle
    engine: Engine

    @property
    def output(self) -> str:
        """The side whose images it makes: the "target", or the "source" itself where there is none."""
        return "target" if "target" in self.bundle.specs else "source"

    @property
    def spec(self) -> CodecSpec:
        """Of the images that it makes."""
        return self.bundle.specs[self.output]

    def encode(self, side: str, pair: Pair, seen: tuple[Image, Image] | None = None) -> Latent:
        """The latent of one side of a pair, or of another version of it (the image, and the whole scan)."""
        image, whole = seen or (pair.image(side), pair.scan(side))
        return encode_image(self.engine, self.bundle.side(side), image, pair.scan_id, whole)

    def operate(self, vectors: Array) -> Array:
        """Source latents (B, P) -> latents of the output."""
        return self.engine.operate(vectors) if self.output == "target" else vectors

    def draw(self, side: str, latent: Latent, pair: Pair, *, leaves_empty: bool = False) -> Image:
        """A latent of one side on the grid of that side's image; the source's in the scan's own units. leaves_empty: as
        for `render`.
        """
        units: Units = "scan" if side == "source" and not self.bundle.specs[side].is_label else "output-range"
        grid = pair.image(side).grid
        return render(self.engine, self.bundle.side(side), latent, grid, units, leaves_empty=leaves_empty).image()

    def translate(self, pair: Pair, seen: tuple[Image, Image] | None = None, encoded: Latent | None = None) -> Image:
        """The prediction of a field operator, at the full grid of the truth; encoded: latents that are at hand."""
        image, whole = seen or (pair.source, pair.source_scan)
        made = translate_field(self.engine, self.bundle, image, pair.scan_id, whole, encoded=encoded)
        return draw_translation(made, pair.image(self.output).grid).image()

    def predict(self, pair: Pair, seen: tuple[Image, Image] | None = None) -> Image:
        """The prediction for one pair, at the full grid of its truth."""
        if self.bundle.acts_on_fields:
            return self.translate(pair, seen)
        encoded = self.encode("source", pair, seen)
        moved = replace(encoded, vectors=self.operate(encoded.vectors))
        return self.draw(self.output, moved, pair, leaves_empty=self.output == "target")

    def judge(self, side: str, pair: Pair, drawn: Image, metrics: tuple[str, ...]) -> dict[str, float]:
        """Metrics of a drawn image of one side: a target in the output's units, a source on its own 0..1."""
        scale = self.scale(side, pair)
        return compare(self.bundle.specs[side], drawn, pair.image(side), metrics=metrics, scale=scale)

    def scale(self, side: str, pair: Pair) -> IntensityMap | None:
        """The map of a source scan's own units to 0..1; None for targets and labels."""
        spec = self.bundle.specs[side]
        if side == "target" or spec.is_label:
            return None
        return prepare(spec, pair.source, pair.scan_id, pair.source_scan).scales[0]


def open_model(bundle: Bundle, device: str = "auto") -> Model:
    """A bundle, on disk or in memory, ready to be evaluated."""
    return Model(bundle, open_engine(bundle, device))

"""`Reading`: what the user or the recipe says about files that leave something open."""

from dataclasses import dataclass

from nfops.errors import UsageError
from nfops.io.picture_frame import PictureFrame

MONOCHROME1 = ("auto", "invert", "keep", "error")
XFORMS = ("sform", "qform")
PADDING = ("keep", "min", "nan")


@dataclass(frozen=True)
class Reading:
    """How to read an image.

    picture: how pictures, which do not say it, lie in the body; None if nobody knows. xform: which affine of a NIfTI
    file counts where both are set, "sform" or "qform". All others are about DICOM.
    series: which series of a folder: its place in the list (from 1), its UID, or "#" and its number.
    untilt: put the shifted slices of a tilted gantry on a rectangular grid. resample_uniform: put slices at uneven
    distances, or with gaps, on even ones. modality: those that are allowed, () for any.
    monochrome1: what to do where small values mean bright: "auto" inverts radiographs and refuses CT, MR and PET.
    padding: what becomes of pixels outside the scanner's circle: kept, the smallest other value, or NaN.
    """

    picture: PictureFrame | None = None
    series: str | None = None
    untilt: bool = False
    resample_uniform: bool = False
    modality: tuple[str, ...] = ()
    monochrome1: str = "auto"
    padding: str = "keep"
    xform: str = "sform"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("monochrome1", self.monochrome1, MONOCHROME1),
            ("padding", self.padding, PADDING),
            ("xform", self.xform, XFORMS),
        ):
            if value not in known:
                raise UsageError(name, f"expected one of {', '.join(known)}, got {value!r}")

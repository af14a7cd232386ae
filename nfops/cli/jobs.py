"""`Job`: one input and the output that it becomes."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nfops.io import PipedScan
    from nfops.io.inputs import Scan

PICTURES = (".png", ".tif", ".tiff")


@dataclass(frozen=True)
class Job:
    """One input and the output that it becomes."""

    source: "Scan | PipedScan"
    output: Path

    @property
    def is_sent(self) -> bool:
        """Whether the output is "-", standard output."""
        return str(self.output) == "-"


def writes_picture(job: Job) -> bool:
    """Whether a job's output is a picture by its name."""
    return job.output.suffix.lower() in PICTURES

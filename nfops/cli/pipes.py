"""`-` as an image: NIfTI bytes from standard input and to standard output."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nfops.cli.dicom_output import DicomOutput
from nfops.cli.jobs import Job
from nfops.cli.options import Session
from nfops.cli.progress import say
from nfops.cli.scans import provenance_of, write_result

if TYPE_CHECKING:
    from nfops.io import PipedScan, SaveOptions
    from nfops.rendering import Rendering

DASH = "-"


def check_pipes(session: Session, inputs: Sequence[object], options: Mapping[str, Any]) -> None:
    """Refuse, before anything is read, what cannot go through standard input or output.

    options: those of `out`, `batch` and `like` that the command has.
    """
    from nfops.errors import UsageError

    words = [str(word) for word in inputs]
    if str(options.get("like")) == DASH:
        raise UsageError("--like", "takes the name of a file, standard input is for the scan")
    if DASH in words:
        _check_input(words, options)
    if str(options.get("out")) == DASH:
        if options.get("as_dicom"):
            raise UsageError("--dicom", "standard output takes NIfTI only", "name a folder with --out")
        if session.json:
            raise UsageError("--json", "standard output takes the image", "write it to a file, or leave --json out")
        if sys.stdout is None or sys.stdout.isatty():
            raise UsageError("--out", "standard output is a terminal", "redirect it, or pipe it on")


def _check_input(words: Sequence[str], options: Mapping[str, Any]) -> None:
    from nfops.errors import UsageError

    if str(options.get("batch")) == DASH:
        raise UsageError("--batch", "standard input is the scan already, it cannot be the list, too")
    if words.count(DASH) > 1:
        raise UsageError(DASH, "standard input can be read only once")
    if "out" in options and (len(words) > 1 or options.get("batch") or options.get("shard") or not options["out"]):
        raise UsageError(DASH, "standard input is one scan without a name", "give it alone, and say --out")
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError(DASH, "standard input is a terminal", "pipe a NIfTI file into it")


def received() -> "PipedScan":
    """All that comes through standard input."""
    from nfops.io.piped import spool

    return spool(sys.stdin.buffer)


def write_out(
    session: Session,
    job: Job,
    drawn: "Rendering",
    options: "SaveOptions",
    record: dict[str, Any],
    dicom: DicomOutput | None = None,
) -> dict[str, Any]:
    """As `scans.write_result`; what goes to standard output has no sidecar, with -v it is shown on stderr."""
    if not job.is_sent:
        return write_result(session, job, drawn, options, record, dicom)
    from nfops.io.piped import send
    from nfops.io.sidecar import document

    record.pop("picture_axes", None)
    slabs = drawn.in_file_order()
    sha256, warned = send(sys.stdout.buffer, drawn.grid, drawn.header, slabs, options, channels=drawn.channels)
    for warning in warned:
        say(session, f"{job.output}: warning: {warning}")
    if session.verbosity > 0:
        provenance = provenance_of(job, drawn, sha256, drawn.header.warnings, record)
        say(session, json.dumps(document(provenance, job.output)))
    return {"input": str(job.source), "output": DASH, "sha256": sha256}

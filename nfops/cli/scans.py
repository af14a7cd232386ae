"""One scan or many: what `apply` and `resample` do around the computing, and the bookkeeping of a batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfops.cli.errors import Terminated, complaint, exit_code
from nfops.cli.options import Session
from nfops.cli.progress import say, show_result
from nfops.errors import NfopsError

if TYPE_CHECKING:
    from nfops.io import SaveOptions
    from nfops.io.picture_frame import PictureFrame
    from nfops.rendering import Rendering

BATCH_FAILED = 8
STOPPED = 75


@dataclass(frozen=True)
class Job:
    """One input and the output that it becomes."""

    source: Path
    output: Path


def check_outputs(jobs: Sequence[Job], session: Session) -> None:
    """Refuse, before anything is computed, outputs and sidecars that exist or cannot be written."""
    from nfops.io import refuse_existing
    from nfops.io.formats import output_format
    from nfops.io.sidecar import sidecar_path

    for job in jobs:
        output_format(job.output)
    outputs = [path for job in jobs for path in (job.output, sidecar_path(job.output))]
    refuse_existing(outputs, [job.source for job in jobs], session.force)


def run_jobs(session: Session, jobs: Sequence[Job], work: Callable[[Job], dict[str, Any]], *, is_batch: bool) -> int:
    """Do every job and show what came of it; the exit code. A single job's error is raised, a batch goes on."""
    if not is_batch:
        result = work(jobs[0])
        show_result(session, result, [str(result["output"])])
        return 0
    results: list[dict[str, Any]] = []
    failed = 0
    for number, job in enumerate(jobs):
        try:
            results.append(work(job))
            say(session, f"[{number + 1}/{len(jobs)}] {job.output}")
        except (NfopsError, MemoryError, OSError) as error:
            if exit_code(error) == 1:
                raise
            failed += 1
            told = complaint(error)
            say(replace(session, verbosity=max(session.verbosity, 0)), told.text("nfops"))
            results.append({"input": str(job.source), **told.document()})
        except Terminated:
            say(session, f"stopped after {number} of {len(jobs)} scans; those are complete")
            return STOPPED
    lines = [f"{len(jobs) - failed} of {len(jobs)} scans done"] if jobs else ["no scans in this shard"]
    show_result(session, {"done": len(jobs) - failed, "failed": failed, "results": results}, lines)
    return BATCH_FAILED if failed else 0


def plan_only(session: Session, jobs: Sequence[Job], pictures: "PictureFrame | None") -> int:
    """What --dry-run shows: each input's header and the output it would become."""
    plan = [{"input": str(job.source), "output": str(job.output), **_header(job.source, pictures)} for job in jobs]
    show_result(session, {"plan": plan}, [f"{entry['input']} {entry['shape']} -> {entry['output']}" for entry in plan])
    return 0


def write_result(job: Job, drawn: "Rendering", options: "SaveOptions", record: dict[str, Any]) -> dict[str, Any]:
    """Write an output and its sidecar, whole or not at all; what `--json` says of it.

    record: fields of `Provenance` that only the command knows, with `source_grid` and `started`.
    """
    from nfops.io import save_slabs
    from nfops.io.sidecar import FileRecord, Provenance, write_sidecar

    slabs = drawn.slabs() if drawn.channels == 1 else iter(drawn.image().values)  # files hold channel after channel
    warned = save_slabs(job.output, drawn.grid, drawn.header, slabs, options, channels=drawn.channels)
    warnings = (*drawn.header.warnings, *warned, *record.pop("warnings", ()))
    source_grid, units = record.pop("source_grid"), record.pop("units", "")
    provenance = Provenance(
        inputs=(str(job.source),),
        sources=(FileRecord.of(job.source, source_grid),),
        output=FileRecord.of(job.output, drawn.grid, units),
        ended=datetime.now(UTC),
        warnings=warnings,
        **record,
    )
    write_sidecar(job.output, provenance, options.force)
    grid = drawn.grid
    return {
        "input": str(job.source),
        "output": str(job.output),
        "shape": list(grid.shape),
        "spacing_mm": grid.spacing_mm,
        "affine": grid.affine,
        "sha256": provenance.output.sha256,
        "seconds": round((provenance.ended - provenance.started).total_seconds(), 3),
        "warnings": list(warnings),
    }


def _header(path: Path, pictures: "PictureFrame | None") -> dict[str, Any]:
    from nfops.io import describe_image

    described = describe_image(path, pictures)
    return {key: described[key] for key in ("shape", "spacing_mm", "orientation")}

"""Doing one job or many: what a batch goes on after, what stops it, and what is shown of it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from nfops.cli.errors import Terminated, complaint, exit_code
from nfops.cli.jobs import Job
from nfops.cli.options import Session
from nfops.cli.progress import say, show_result
from nfops.errors import InputError, NfopsError

if TYPE_CHECKING:
    from nfops.io import Reading

BATCH_FAILED = 8
STOPPED = 75


def run_jobs(session: Session, jobs: Sequence[Job], work: Callable[[Job], dict[str, Any]], *, is_batch: bool) -> int:
    """Do every job and show what came of it; the exit code. A single job's error is raised, a batch goes on."""
    if not is_batch:
        result = work(jobs[0])
        if not jobs[0].is_sent:  # else standard output has the image
            show_result(session, result, [str(result["output"])])
        return 0
    results: list[dict[str, Any]] = []
    failed = 0
    is_stopped = False
    for number, job in enumerate(jobs):
        try:
            results.append(work(job))
            say(session, f"[{number + 1}/{len(jobs)}] {job.output}")
        except (NfopsError, MemoryError, OSError) as error:
            failed += 1
            results.append(_failure(session, job, _foreseen(job, error)))
        except Terminated:
            is_stopped = True
            say(session, f"stopped by a signal; {len(results)} of {len(jobs)} scans were tried")
            break
    done = len(results) - failed
    if failed or not jobs:
        say(session, f"{done} of {len(jobs)} scans done")
    lines = [str(result["output"]) for result in results if "output" in result]
    show_result(session, {"done": done, "failed": failed, "results": results}, lines)
    if is_stopped:
        return STOPPED
    return BATCH_FAILED if failed else 0


def _foreseen(job: Job, error: BaseException) -> BaseException:
    """A disk that fails in the middle of a batch is no bug, and no reason to end the batch."""
    if isinstance(error, OSError) and exit_code(error) == 1:
        return InputError(job.source, f"cannot be read or written: {error.strerror or error}")
    return error


def _failure(session: Session, job: Job, error: BaseException) -> dict[str, Any]:
    """Say what went wrong with one scan of many, `-q` or not; its entry in the document of `--json`."""
    told = complaint(error)
    say(replace(session, verbosity=max(session.verbosity, 0)), told.text(click.get_current_context().command_path))
    return {"input": str(job.source), **told.document()}


def plan_only(
    session: Session,
    jobs: Sequence[Job],
    reading: "Reading",
    check: Callable[[Job, dict[str, Any]], object],
    *,
    is_batch: bool,
) -> int:
    """What --dry-run shows: each input's header and the output it would become.

    check: raises for an input that the run would refuse, by what `describe_image` says of it.
    """
    from nfops.io import describe_image, refuse_image

    plan: list[dict[str, Any]] = []
    lines = []
    failed = 0
    for job in jobs:
        try:
            refuse_image(job.source, reading)
            described = describe_image(job.source, reading)
            check(job, described)
        except NfopsError as error:
            if not is_batch:
                raise
            failed += 1
            plan.append(_failure(session, job, error))
            continue
        header = {key: described[key] for key in ("shape", "spacing_mm", "orientation")}
        plan.append({"input": str(job.source), "output": str(job.output), **header})
        lines.append(f"{job.source} ({'x'.join(map(str, header['shape']))}) -> {job.output}")
    if any(job.is_sent for job in jobs):
        say(session, "\n".join(lines))
    else:
        show_result(session, {"plan": plan}, lines)
    return BATCH_FAILED if failed else 0

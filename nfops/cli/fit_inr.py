"""`nfops fit-inr`: fit the fields of a recipe to a cohort."""

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nfops.cli.errors import noting_signals
from nfops.cli.options import Session, bundle_option, data_option, recipe_option, session_options, set_option
from nfops.cli.places import find_places
from nfops.cli.progress import say, show_result, shown_progress
from nfops.errors import StoppedError
from nfops.stopping import Stop

if TYPE_CHECKING:
    from nfops.workflows.fit_inr import FitReport

EXAMPLES = [
    ("Fit source and target field of your own recipe", "nfops fit-inr --recipe knee_pd2t2.yaml --data /data"),
    ("With another latent size", "nfops fit-inr -r knee_pd2t2.yaml --set source.field.latent=128"),
    ("In a job that may be stopped and started again", "nfops fit-inr -r noir_fastmri --resume"),
]


@click.command()
@recipe_option
@data_option
@bundle_option
@set_option
@click.option("--resume", is_flag=True, help="Go on where a stopped training left off; from the start if none did.")
@session_options
def command(
    session: Session, recipe: str, data: Path | None, bundle: Path | None, settings: tuple[str, ...], resume: bool
) -> None:
    """Fit the neural fields of a recipe to a cohort.

    Source and target each get their own field, fitted to the training rows of the recipe's table; a field that is
    learned step by step keeps the weights that are best on the validation rows. The result is a bundle without an
    operator: `nfops encode` and `nfops train-operator` come next. A training that a signal stops leaves its state in
    BUNDLE.checkpoint.
    """
    places = find_places(recipe, settings, data, bundle, to_train=True)
    from nfops.workflows.fit_inr import fit_inr, plan_fit

    where = places.recipe, places.data, places.bundle
    options: dict[str, Any] = {"force": session.force, "resume": resume, "device": session.device}
    if session.dry_run:
        plan = plan_fit(*where, **options)
        show_result(session, plan, [f"{key}: {value}" for key, value in plan.items()])
        return
    stop = Stop()
    try:
        with noting_signals(stop), shown_progress(session) as on_step:
            report = fit_inr(*where, **options, stop=stop, on_step=on_step)
    except StoppedError as stopped:
        if stop.signal != signal.SIGINT:
            raise
        say(session, stopped.message)
        raise KeyboardInterrupt from stopped
    show_result(session, vars(report), _lines(report))


def _lines(report: "FitReport") -> list[str]:
    explained = ", ".join(f"{side} {100 * part:.1f} %" for side, part in report.explained.items())
    lines = [f"{report.bundle}: fields of {report.scans} scans, {report.patients} patients; variance held: {explained}"]
    for side, figures in report.training.items():
        told = (f"{name.replace('_', ' ')} {value:.4g}" for name, value in figures.items())
        lines.append(f"{side}: {', '.join(told)}")
    return lines

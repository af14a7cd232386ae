"""`nfops train-operator`: learn the map between two latent spaces, or from image to image."""

from pathlib import Path

import click

from nfops.cli.options import Session, bundle_option, data_option, recipe_option, session_options, set_option
from nfops.cli.places import find_places
from nfops.cli.progress import show_result, shown_progress

EXAMPLES = [
    ("After fit-inr and encode", "nfops train-operator --recipe knee_pd2t2.yaml --data /data"),
    ("An operator on fields, after fit-inr", "nfops train-operator -r brain_t1t2 --set operator.minutes=60"),
    ("With other candidates for the ridge", "nfops train-operator -r r.yaml --set operator.strengths=[0.1,1]"),
]


@click.command()
@recipe_option
@data_option
@bundle_option
@set_option
@session_options
def command(session: Session, recipe: str, data: Path | None, bundle: Path | None, settings: tuple[str, ...]) -> None:
    """Train the operator from source to target.

    One on latents learns from the training rows that `nfops encode` made; one on fields (oinr) from the scans
    themselves, after `nfops fit-inr` alone. It is added to the bundle, and is tried on the rows of every other split:
    its result beside the ceiling of operators on latents (the target's own encode-decode) and the mean.
    """
    places = find_places(recipe, settings, data, bundle, to_train=True)
    from nfops.workflows.train_operator import plan_train, train_operator

    if session.dry_run:
        plan = plan_train(places.recipe, places.bundle, device=session.device, force=session.force)
        show_result(session, plan, [f"{key}: {value}" for key, value in plan.items()])
        return
    with shown_progress(session) as on_step:
        report = train_operator(
            places.recipe, places.data, places.bundle, device=session.device, force=session.force, on_step=on_step
        )
    what = "scans" if report.operator["form"] == "field" else "latents"
    name = places.recipe.require_operator().component
    lines = [f"{report.bundle}: operator {name}, {report.operator['rows']} pairs of {what}"]
    for name in report.validation.get("result", {}):
        figures = ", ".join(f"{kind} {report.validation[kind][name]:.4g}" for kind in ("result", "ceiling", "mean"))
        lines.append(f"{report.validation_scans} validation scans, {name}: {figures}")
    show_result(session, vars(report), lines)

"""`nfops demo`: a real scan through a shipped bundle, in seconds."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nfops.cli.options import Session, device_option, force_option, nthreads_option, session_with
from nfops.cli.progress import say, show_result

if TYPE_CHECKING:
    from nfops.codec_spec import CodecSpec
    from nfops.image import Image
    from nfops.latents import Latent
    from nfops.workflows.apply import Translator

EXAMPLES = [
    ("Four files in the current folder: the scan, the prediction, the truth, a picture", "nfops demo"),
    ("The same, replacing those of an earlier demo", "nfops demo --force"),
]

RECIPE = "brain_t1t2"
ABOUT = (
    "T1 slices of a patient whom the operator did not learn from (msl04 of the cohort, who told it when to stop) were "
    "translated to T2 by continuous convolutions and drawn on the scan's own grid. Over {slices} slices the prediction "
    "reaches {result:.1f} dB PSNR against the real T2; the bundle's mean T2 image reaches {mean:.1f} dB."
)
CREDIT = "Data: Lesjak et al., Neuroinformatics 2016 and 2017 (Ljubljana MS sets), CC BY 4.0; cut and resampled."


@click.command()
@session_with(force_option, device_option, nthreads_option)
def command(session: Session) -> None:
    """Translate a small real T1 scan to T2.

    No training and no network: sample and bundle are part of nfops. Writes demo_t1.nii.gz (the scan), demo_t2.nii.gz
    (the prediction), demo_t2_truth.nii.gz and demo.png (source, prediction, truth, error) into the current folder.
    """
    from nfops.io import SaveOptions, load_image, publishing, refuse_existing, save_image
    from nfops.shipped import shipped_folder
    from nfops.workflows.apply import GridRequest, apply, open_translator

    names = ("demo_t1.nii.gz", "demo_t2.nii.gz", "demo_t2_truth.nii.gz", "demo.png")
    outputs = [Path(name) for name in names]
    refuse_existing(outputs, [], session.force)
    folder = shipped_folder()
    source, truth = (load_image(folder / "demo" / name) for name in ("t1.nii.gz", "t2.nii.gz"))
    translator = open_translator(folder / "bundles" / RECIPE, session.device)
    drawn, encoded, _ = apply(translator, source, GridRequest(), where="demo")
    predicted = drawn.image()
    figures = _figures(translator, encoded, predicted, truth)
    text = ABOUT.format(slices=len(encoded.vectors), **figures)
    options = SaveOptions(dtype="auto", force=session.force)
    for path, image in zip(outputs, (source, predicted, truth), strict=False):
        save_image(path, image, options)
    with publishing(outputs[3], session.force) as temporary:
        _draw(temporary, source, predicted, truth, figures)
    say(session, CREDIT)
    document = {"outputs": list(names), **figures, "about": text, "credit": CREDIT}
    show_result(session, document, [text, f"Wrote {', '.join(names)}."])


def _figures(translator: "Translator", encoded: "Latent", predicted: "Image", truth: "Image") -> dict[str, float]:
    """Mean PSNR over the slices of the prediction and of the mean image, dB."""
    import numpy as np

    from nfops.rendering import render

    target = translator.bundle.side("target")
    spec = target.spec
    blank = replace(encoded, vectors=np.zeros((len(encoded.vectors), spec.latent), np.float32))
    average = render(translator.engine, target, blank, truth.grid).image()
    return {"result": _mean_psnr(spec, predicted, truth), "mean": _mean_psnr(spec, average, truth)}


def _mean_psnr(spec: "CodecSpec", drawn: "Image", truth: "Image") -> float:
    """As `nfops train-operator` counts it: slice by slice, both clipped to the spec's range."""
    from nfops.scoring import compare

    cuts = range(truth.grid.shape[2])
    pairs = [
        [image.with_values(image.values[..., k : k + 1], image.grid.slab(k, k + 1)) for image in (drawn, truth)]
        for k in cuts
    ]
    return sum(compare(spec, *pair)["psnr"] for pair in pairs) / len(pairs)


def _draw(path: Path, source: "Image", predicted: "Image", truth: "Image", figures: dict[str, float]) -> None:
    from nfops.figures import draw_comparison

    panels = {"T1, the scan": source, "T2, predicted": predicted, "T2, the truth": truth}
    draw_comparison(path, panels, truth.grid.shape[2] // 2, f"nfops demo: {figures['result']:.1f} dB PSNR. {CREDIT}")

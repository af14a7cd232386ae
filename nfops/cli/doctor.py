"""`nfops doctor`: what of this installation works."""

import click

from nfops.cli.options import Session, session_with
from nfops.cli.progress import show_result

EXAMPLES = [
    ("Which devices, decoders and bundles work here?", "nfops doctor"),
    ("As JSON, for a report of a fault", "nfops doctor --json"),
]

MARKS = {True: "ok", False: "FAULT", None: "-"}


@click.command()
@session_with()
def command(session: Session) -> int:
    """Say what of this installation works.

    Versions; whether torch and onnxruntime compute on a GPU, found out by letting them (what onnxruntime lists as
    available says nothing of the machine); decoders of compressed DICOM; whether the shipped bundles run, and by which
    engine. What is absent and may be is marked '-'. Ends with 6 where something is there and does not work.
    """
    from nfops.diagnosis import examine
    from nfops.shipped import shipped_folder

    found = list(examine(shipped_folder() / "bundles"))
    lines = [f"{MARKS[each.is_fine]:<6} {each.topic:<36} {each.what}" for each in found]
    show_result(session, [vars(each) for each in found], lines)
    return 0 if all(each.is_fine is not False for each in found) else 6

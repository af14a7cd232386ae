"""`nfops plugins`: which backbones and operators are installed, and which of them are broken."""

import click

from nfops.cli.options import Session, session_with
from nfops.cli.progress import say, show_result

EXAMPLES = [
    ("List everything that a recipe may name", "nfops plugins"),
    ("List the operators as JSON", "nfops plugins operator --json"),
]

KINDS = ("backbone", "operator")
FIELDS = ("kind", "name", "distribution", "version", "error")


@click.command()
@click.argument("kind", type=click.Choice(KINDS), required=False)
@session_with()
def command(session: Session, kind: str | None) -> None:
    """List the backbones and operators that are installed.

    A plugin is a Python distribution with an entry point in the group nfops.operators. One that cannot be imported
    is listed with its error; it hurts only the recipes that name it.
    """
    from nfops.registry import list_components

    found = [component for each in ([kind] if kind else KINDS) for component in list_components(each)]
    lines = [f"{c.kind:<10} {c.name:<20} {c.distribution} {c.version}" for c in found if not c.error]
    for broken in (c for c in found if c.error):
        say(session, f"{broken.kind} {broken.name} ({broken.distribution}): {broken.error}")
    show_result(session, [{key: getattr(component, key) for key in FIELDS} for component in found], lines)

"""The command `nfops`: finds its subcommands by name and imports only the one that runs."""

import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from nfops import __version__
from nfops.cli.errors import guarded, raise_on_sigterm

SUMMARIES = {
    "apply": "Apply a trained operator to a scan",
    "demo": "Translate a small real T1 scan to T2",
    "doctor": "Say what of this installation works",
    "encode": "Turn a cohort of images into tables of latents",
    "evaluate": "Evaluate a recipe on scans whose truth is known",
    "export-onnx": "Write what apply needs of a trained bundle as ONNX graphs",
    "fit-inr": "Fit the neural fields of a recipe to a cohort",
    "info": "Say what an image, a bundle or a recipe is",
    "plugins": "List the backbones and operators that are installed",
    "recipes": "List, show and copy the shipped recipes",
    "resample": "Resample an image to another grid",
    "train-operator": "Train the operator from source to target",
}
"""Subcommand -> its one-line summary: `nfops --help` lists these without importing a single command."""

CITATIONS = """\
If nfops helps your work, please cite it and the papers whose methods you used:

nfops {version}: neural-field operators for medical images.
NOIR: Neural Operator Mapping for Implicit Representations. S. El Hadramy, N. Haouchine, M. Wehrli, P. C. Cattin.
MedFuncta: A Unified Framework for Learning Efficient Medical Neural Fields. P. Friedrich, F. Bieder, J. McGinnis,
  J. Wolleb, D. Rueckert, P. C. Cattin.
Operator-theoretic Implicit Neural Representation (O-INR)."""

CONTEXT_SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

EXAMPLES = [
    (
        "Make a T1 scan of the brain into a T2 scan of 256 x 256",
        "nfops apply -r brain_t1t2 t1.nii.gz --out t2.nii.gz --shape 256x256",
    ),
    ("Resample a scan to cubes of 1 mm", "nfops resample scan.nii.gz --out iso.nii.gz --spacing 1"),
]


def epilog(examples: Sequence[tuple[str, str]]) -> str:
    """The end of a help screen: the first two examples, each (what it does, command line)."""
    lines = [line for what, command in examples[:2] for line in (f"  # {what}", f"  {command}")]
    return "\n".join(("\b", "Examples:", *lines))


def load_module(name: str) -> ModuleType:
    """`nfops/cli/NAME.py`."""
    return importlib.import_module(f"nfops.cli.{name.replace('-', '_')}")


def load_command(name: str) -> click.Command:
    """The `command` of that module, with its `EXAMPLES` under its help."""
    module = load_module(name)
    command: click.Command = module.command
    command.epilog = epilog(module.EXAMPLES)
    return command


class LazyGroup(click.Group):
    """A group whose subcommands are files beside this one, imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """All names, in alphabetical order."""
        return list(SUMMARIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command, imported now."""
        return load_command(cmd_name) if cmd_name in SUMMARIES else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but a wrong name is met with the likeliest right ones."""
        if args[0] not in SUMMARIES and not args[0].startswith("-") and not ctx.resilient_parsing:
            import difflib

            close = difflib.get_close_matches(args[0], SUMMARIES)
            ctx.fail(f"no command '{args[0]}'" + (f"; did you mean {' or '.join(close)}?" if close else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list of commands, from their summaries."""
        with formatter.section("Commands"):
            formatter.write_dl(list(SUMMARIES.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names and summaries; at a Tab too, no command is imported."""
        names = [CompletionItem(name, help=text) for name, text in SUMMARIES.items() if name.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)


def _print_citations(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(CITATIONS.format(version=__version__))
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings=CONTEXT_SETTINGS,
    epilog=epilog(EXAMPLES),
)
@click.version_option(__version__, message="nfops %(version)s", help="Show the version and exit.")
@click.option(
    "--cite",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_citations,
    help="Show what to cite and exit.",
)
def main() -> None:
    """Learn operators between medical images as neural fields, and apply them to new scans."""


def invoke(argv: Sequence[str]) -> object:
    """Parse argv and run the command; click's own `main` would turn our errors into its codes."""
    with main.make_context("nfops", list(argv), obj=("nfops", *argv)) as ctx:
        return main.invoke(ctx)


def run() -> NoReturn:
    """The console entry point."""
    if "_NFOPS_COMPLETE" in os.environ:
        main(prog_name="nfops")  # click answers the shell and exits
    raise_on_sigterm()
    argv = sys.argv[1:]
    sys.exit(guarded(lambda: invoke(argv), argv, list(SUMMARIES)))

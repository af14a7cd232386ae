"""The man pages, made from the commands: `python -m nfops.cli.manual DIR` writes them, `--check DIR` compares."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from nfops import __version__
from nfops.cli import errors, main

FILES = (
    (
        "-",
        "As IN of apply, resample and info: NIfTI, plain or gzipped, from standard input. As --out of apply and "
        "resample: plain NIfTI-1 to standard output, NIfTI-2 where a size needs it; nothing is sent before the result "
        "is complete and checked. Such an output has no sidecar (-v shows its text on standard error), no --json, and "
        "does not go to a terminal.",
    ),
    (
        "*.nii.gz *.nii *.mgz *.mgh *.nrrd *.mha",
        "Images: the content of an input must fit its suffix, the suffix of an output is its format. NRRD and "
        "MetaImage have header and values in one file, raw or compressed. Only NIfTI holds a sheared grid. A fourth "
        "dimension is channels; in an NRRD it is an axis of the kind list. MGH stores uint8, int16, int32 and float32.",
    ),
    ("NAME.yaml", "A recipe, see nfops-recipe(5)."),
    ("bundles/NAME/", "A bundle: all that apply needs of a trained recipe, see nfops-bundle(5)."),
)

ENVIRONMENT = (
    ("NFOPS_DATA", "Where the data of a recipe lie, unless --data says so."),
    ("NFOPS_NTHREADS", "Threads to use, unless --nthreads says so."),
    ("SLURM_CPUS_PER_TASK", "Upper limit of the threads used when nobody says how many."),
    ("TMPDIR", "Where standard input and output are kept until they are whole."),
    ("CUDA_VISIBLE_DEVICES", "The devices that cuda:N counts."),
    ("NO_COLOR, TERM", "NO_COLOR: no colours; TERM=dumb: progress as plain lines."),
)


# --- roff --------------------------------------------------------------------------------------------------------


def roff(text: str) -> str:
    """`text` so that roff prints it as it stands, on one line."""
    escaped = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    escaped = "".join(char if char.isascii() else f"\\[u{ord(char):04X}]" for char in escaped)
    return f"\\&{escaped}" if escaped[:1] in {".", "'"} else escaped


def paragraphs(text: str) -> list[str]:
    """Paragraphs between blank lines; one that starts with click's backspace keeps its line breaks."""
    lines: list[str] = []
    for block in (block for block in text.strip().split("\n\n") if block.strip()):
        if block.startswith("\b"):
            lines += [".PP", ".nf", *(roff(line) for line in block.splitlines()[1:]), ".fi"]
        else:
            lines += [".PP", roff(block)]
    return lines[1:]  # a section begins a paragraph itself


def definitions(rows: Iterable[tuple[str, str]], font: str = "B") -> list[str]:
    """A list of terms and what they mean."""
    return [line for term, text in rows for line in (".TP", f'.{font} "{roff(term)}"', roff(text) or "\\&")]


def section(title: str, lines: Sequence[str]) -> list[str]:
    """A section, unless it is empty."""
    return [f'.SH "{title}"', *lines] if lines else []


def page(name: str, number: int, summary: str, *sections: Sequence[str]) -> str:
    """A whole page. It carries no date, so that the same commands give the same bytes."""
    head = [f'.TH "{roff(name.upper())}" "{number}" "" "nfops {__version__}" "nfops manual"']
    body = section("NAME", [f"{roff(name)} \\- {roff(summary)}"])
    return "\n".join([*head, *body, *(line for part in sections for line in part)]) + "\n"


# --- commands ----------------------------------------------------------------------------------------------------


def synopsis(ctx: click.Context) -> list[str]:
    """The usage line: the command bold, the rest as click words it."""
    return [f".B {roff(ctx.command_path)}", roff(" ".join(ctx.command.collect_usage_pieces(ctx)))]


def options(ctx: click.Context) -> list[str]:
    """The options with their help; a click.Argument explains itself in the description."""
    given = (p for p in ctx.command.get_params(ctx) if isinstance(p, click.Option))
    return definitions(record for param in given if (record := param.get_help_record(ctx)) is not None)


def subcommands(ctx: click.Context) -> list[str]:
    """The subcommands of a group: their summaries where each has its own page, else all about them."""
    group = ctx.command
    if isinstance(group, main.LazyGroup):
        return section("COMMANDS", definitions(main.SUMMARIES.items()))
    if not isinstance(group, click.Group):
        return []
    lines: list[str] = []
    for name in group.list_commands(ctx):
        child = click.Context(group.commands[name], info_name=name, parent=ctx)
        lines += [f'.SS "{roff(name)}"', *synopsis(child), ".PP", *_description(child.command), *options(child)]
    return section("COMMANDS", lines)


def _description(command: click.Command) -> list[str]:
    return paragraphs((command.help or "").partition("\f")[0])


def examples(rows: Iterable[tuple[str, str]]) -> list[str]:
    """What each example does, and its command line, indented and as it stands."""
    return [line for what, text in rows for line in (".TP", f"{roff(what)}:", ".EX", roff(text), ".EE")]


def command_page(ctx: click.Context, summary: str, rows: Sequence[tuple[str, str]], also: Sequence[str]) -> str:
    """The page of one command."""
    return page(
        ctx.command_path.replace(" ", "-"),
        1,
        summary,
        section("SYNOPSIS", synopsis(ctx)),
        section("DESCRIPTION", _description(ctx.command)),
        section("OPTIONS", options(ctx)),
        subcommands(ctx),
        section("EXIT STATUS", definitions((str(code), meaning) for code, (_, meaning) in errors.EXIT_CODES.items())),
        section("ENVIRONMENT", definitions(ENVIRONMENT)),
        section("FILES", definitions(FILES, font="I")),
        section("EXAMPLES", examples(rows)),
        section("SEE ALSO", [roff(", ".join(also))]),
    )


def _root_page() -> str:
    root = click.Context(main.main, info_name="nfops", **main.CONTEXT_SETTINGS)
    also = [*(f"nfops-{name}(1)" for name in main.SUMMARIES), "nfops-recipe(5)", "nfops-bundle(5)"]
    return command_page(root, "neural-field operators for medical images", main.EXAMPLES, also)


def _verb_page(name: str) -> str:
    root = click.Context(main.main, info_name="nfops", **main.CONTEXT_SETTINGS)
    command, module = main.load_command(name), main.load_module(name)
    ctx = click.Context(command, info_name=name, parent=root)
    also = ["nfops(1)", "nfops-recipe(5)", "nfops-bundle(5)"]
    return command_page(ctx, main.SUMMARIES[name], module.EXAMPLES, also)


# --- formats -----------------------------------------------------------------------------------------------------


def built_in() -> list[tuple[str, str]]:
    """(kind, name) of the components that nfops brings itself."""
    from nfops.registry import KINDS, list_components

    return [(kind, part.name) for kind in KINDS for part in list_components(kind) if part.distribution == "nfops"]


def recipe_page() -> str:
    """nfops-recipe(5): every key of a recipe, from its dataclasses."""
    from nfops.recipe import Recipe
    from nfops.schema import describe

    keys = [(f"{key.path} ({key.type})", _explained(key.doc, key.default)) for key in describe(Recipe)]
    intro = (
        "A recipe is a YAML file (YAML 1.2: 1e-3 is a number, no is a text) that says what to learn from which images. "
        "Keys that are not listed here are refused, all mistakes at once. "
        "The bundle's path is relative to the recipe, the data's to --data.\n\n"
        "field and operator name a component; their other keys are those of that component."
    )
    return page(
        "nfops-recipe",
        5,
        "the recipe of an operator",
        section("DESCRIPTION", paragraphs(intro)),
        section("KEYS", definitions(keys)),
        *(_component_section(kind, name) for kind, name in built_in()),
        section("SEE ALSO", [roff("nfops(1), nfops-recipes(1), nfops-bundle(5)")]),
    )


def _component_section(kind: str, name: str) -> list[str]:
    """The keys of one built-in component; those of plugins are in their own manuals."""
    from nfops.registry import load_component
    from nfops.schema import describe

    part = load_component(kind, name)
    keys = [(f"{key.path} ({key.type})", _explained(key.doc, key.default)) for key in describe(part.config)]
    about = (part.cls.__doc__ or "").strip().partition("\n")[0]
    return section(f"{kind} {name}".upper(), [*paragraphs(about), *definitions(keys)])


def _explained(doc: str, default: str) -> str:
    return f"{doc} [{f'default: {default}' if default else 'required'}]".strip()


def bundle_page() -> str:
    """nfops-bundle(5): what a trained recipe leaves behind."""
    from nfops.bundle_format import format_description

    return page(
        "nfops-bundle",
        5,
        "all that apply needs of a trained recipe",
        section("DESCRIPTION", paragraphs("\n\n".join(format_description()))),
        section("SEE ALSO", [roff("nfops(1), nfops-apply(1), nfops-recipe(5)")]),
    )


# --- writing -----------------------------------------------------------------------------------------------------


def manual() -> dict[str, str]:
    """Every page: file name -> roff."""
    verbs = {f"nfops-{name}.1": _verb_page(name) for name in main.SUMMARIES}
    return {"nfops.1": _root_page(), **verbs, "nfops-recipe.5": recipe_page(), "nfops-bundle.5": bundle_page()}


def stale(folder: Path, pages: dict[str, str]) -> list[str]:
    """Names of the pages in `folder` that are missing, differ, or are of no command."""
    found = {path.name: path.read_text(encoding="ascii", errors="replace") for path in folder.glob("*.[15]")}
    return sorted(name for name in found.keys() | pages.keys() if found.get(name) != pages.get(name))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--check", is_flag=True, help="Write nothing; exit 1 and name the pages that are stale.")
def command(folder: Path, check: bool) -> None:
    """Write the man pages into FOLDER."""
    pages = manual()
    if check:
        for name in (names := stale(folder, pages)):
            click.echo(f"stale: {folder / name}", err=True)
        sys.exit(1 if names else 0)
    folder.mkdir(parents=True, exist_ok=True)
    for name in stale(folder, pages):
        if name in pages:
            (folder / name).write_text(pages[name], encoding="ascii")
        else:
            (folder / name).unlink()


if __name__ == "__main__":
    command()

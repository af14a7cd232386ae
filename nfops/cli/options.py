"""The options that several commands share, each written once, and the `Session` that most of them make."""

import functools
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

import click

Function: TypeAlias = Callable[..., Any]
Decorator: TypeAlias = Callable[[Function], Function]

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)
"""What the numerical libraries read, once, when they are first imported."""


@dataclass(frozen=True)
class Session:
    """What the user wants of the run as a whole. verbosity: -1 quiet, 0 normal, 1 and more for each -v."""

    verbosity: int = 0
    json: bool = False
    debug: bool = False
    dry_run: bool = False
    force: bool = False
    device: str = "auto"
    nthreads: int = 1
    progress: str = "auto"


# --- what the words of an option must look like ------------------------------------------------------------------


class Parsed(click.ParamType):  # type: ignore[type-arg]
    """An option whose text one function turns into a value; the function says ValueError for what it refuses."""

    def __init__(self, name: str, parse: Callable[[str], Any], expected: str) -> None:
        self.name = name
        self.parse = parse
        self.expected = expected

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value of the text; a value that is none is taken as parsed already (a default)."""
        if not isinstance(value, str):
            return value
        try:
            return self.parse(value)
        except ValueError:
            self.fail(f"expected {self.expected}, got '{value}'", param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:  # noqa: ARG002
        """The form of the text."""
        return self.name


def _matched(pattern: str, text: str) -> re.Match[str]:
    found = re.fullmatch(pattern, text, re.ASCII)
    if found is None:
        raise ValueError
    return found


def _parse_shape(text: str) -> tuple[int, ...]:
    _matched(r"\d{1,9}([x×]\d{1,9}){0,2}", text)
    return tuple(int(size) for size in re.split("[x×]", text))


SHORTEST_MM, LONGEST_MM = 1e-3, 1e3
"""A spacing beyond these is a slip; no image with such a one is read either."""


def _parse_lengths(text: str) -> tuple[float, ...]:
    lengths = tuple(float(_matched(r"[0-9.]+(e[+-]?\d+)?", part)[0]) for part in re.split("[x×]", text))
    if len(lengths) > 3 or not all(SHORTEST_MM <= length <= LONGEST_MM for length in lengths):
        raise ValueError
    return lengths


def _parse_pixel(text: str) -> tuple[float, float]:
    lengths = _parse_lengths(text)
    if len(lengths) > 2:
        raise ValueError
    return lengths[0], lengths[-1]


def _parse_shard(text: str) -> tuple[int, int]:
    found = _matched(r"(\d{1,9})/(\d{1,9})", text)
    index, count = int(found[1]), int(found[2])
    if index >= count:
        raise ValueError
    return index, count


def _parse_device(text: str) -> str:
    return _matched(r"auto|cpu|cuda(:\d{1,3})?", text)[0]


def _parse_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


def _parse_path(text: str) -> Path:
    if not text:
        raise ValueError
    return Path(text)


def _parse_setting(text: str) -> str:
    return _matched(r"[^=\s]+=[\s\S]*", text)[0]


SHAPE = Parsed("I[xJ[xK]]", _parse_shape, "1 to 3 whole numbers such as 256x256 (0 keeps an axis)")
SPACING = Parsed("MM[xMM[xMM]]", _parse_lengths, "1 to 3 numbers from 0.001 to 1000 mm such as 0.7x0.7")
PIXEL = Parsed("MM[xMM]", _parse_pixel, "1 or 2 numbers from 0.001 to 1000 mm such as 4.8 or 4.8x3.2")
SHARD = Parsed("I/N", _parse_shard, "I/N with 0 <= I < N such as 0/16")
DEVICE = Parsed("auto|cpu|cuda[:N]", _parse_device, "auto, cpu, cuda or cuda:N")
NUMBER = Parsed("NUMBER", _parse_number, "a finite number")
SOURCE = Parsed("PATH", _parse_path, "the name of a file")
SETTING = Parsed("KEY=VALUE", _parse_setting, "KEY=VALUE")
DTYPES = ("auto", "same", "uint8", "int16", "uint16", "int32", "float32", "float64")


# --- threads -----------------------------------------------------------------------------------------------------


def available_threads() -> int:
    """The processors this process may use, and no more than Slurm gave the task or OMP_NUM_THREADS allows."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    shares = (os.environ.get(name, "") for name in ("SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS"))
    return min([count, *(int(share) for share in shares if share.isdecimal() and int(share) > 0)])


def _limit_threads(_ctx: click.Context, _param: click.Parameter, value: int | None) -> int:
    """Tell the numerical libraries; in time only if no module of a command imports numpy at its top."""
    nthreads = value or available_threads()
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(nthreads)))
    return nthreads


# --- the session -------------------------------------------------------------------------------------------------

quiet_option = click.option("-q", "--quiet", is_flag=True, help="Say nothing on standard error but errors.")
verbose_option = click.option("-v", "--verbose", count=True, help="Say more; twice for still more.")
debug_option = click.option("--debug", is_flag=True, help="Show where an error comes from.")
json_option = click.option("--json", is_flag=True, help="Print one JSON document, errors too, to standard output.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Check everything and say what would be done.")
force_option = click.option("-f", "--force", is_flag=True, help="Overwrite outputs that exist.")
device_option = click.option("--device", type=DEVICE, default="auto", show_default=True, help="Where to compute.")
nthreads_option = click.option(
    "-n",
    "--nthreads",
    type=click.IntRange(min=1),
    metavar="N",
    callback=_limit_threads,
    envvar="NFOPS_NTHREADS",
    show_envvar=True,
    help="Threads; else what affinity, Slurm and OMP_NUM_THREADS allow.",
)
progress_option = click.option(
    "--progress",
    type=click.Choice(["auto", "plain", "none"]),
    default="auto",
    show_default=True,
    help="Show progress: a bar on a terminal, plain lines, or not.",
)

ALWAYS = (quiet_option, verbose_option, debug_option, json_option)


def session_with(*options: Decorator) -> Decorator:
    """Give a command `-q -v --debug --json` and these, and pass it the `Session` first: for `info` and its like."""

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def command(**values: Any) -> Any:
            chosen = {f.name: values.pop(f.name) for f in fields(Session) if f.name in values}
            verbosity = -1 if values.pop("quiet") else 0
            return function(Session(verbosity=verbosity + values.pop("verbose"), **chosen), **values)

        return functools.reduce(lambda made, option: option(made), reversed((*options, *ALWAYS)), command)

    return decorate


session_options: Decorator = session_with(dry_run_option, force_option, device_option, nthreads_option, progress_option)
"""Give a command every option of the `Session`, and pass it the `Session` first: for commands that compute."""


# --- recipes, data, outputs --------------------------------------------------------------------------------------

A_DIRECTORY = click.Path(path_type=Path, file_okay=False)
A_PATH = click.Path(path_type=Path)

recipe_option = click.option(
    "-r", "--recipe", required=True, metavar="NAME|FILE", help="The recipe: a file, or the name of a shipped one."
)
data_option = click.option(
    "--data",
    type=A_DIRECTORY,
    metavar="DIR",
    envvar="NFOPS_DATA",
    show_envvar=True,
    help="Where the recipe's data lie; without it, the working directory.",
)
bundle_option = click.option("--bundle", type=A_DIRECTORY, metavar="DIR", help="Use this bundle, not the recipe's.")
set_option = click.option(
    "--set",
    "settings",
    type=SETTING,
    multiple=True,
    help="Change one value of the recipe, such as operator.epochs=10; may be repeated.",
)
shape_option = click.option(
    "--shape", type=SHAPE, help="Voxels of the output, 280 for a signal; the field of view stays, 0 keeps an axis."
)
spacing_option = click.option("--spacing", type=SPACING, help="Spacing of the output, exactly; same centre.")
like_option = click.option("--like", type=A_PATH, metavar="REF", help="Put the output on the grid of this image.")
shard_option = click.option("--shard", type=SHARD, help="Do part I of N of the inputs, from 0.")
batch_option = click.option(
    "--batch",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="LIST",
    help="Take the inputs from a list; '-' is stdin.",
)
null_option = click.option("-0", "--null", is_flag=True, help="Names of --batch end with NUL (print0).")
engine_option = click.option(
    "--engine",
    type=click.Choice(["auto", "numpy", "onnx", "torch"]),
    default="auto",
    metavar="NAME",
    help="numpy, onnx, torch; auto: the first that can.",
)
pixel_mm_option = click.option("--pixel-mm", type=PIXEL, help="Size of a pixel of a picture or radiograph.")
series_option = click.option(
    "--series",
    metavar="N|#N|UID|all",
    help="Of a DICOM folder: its place in the list, number, UID; `apply --out-dir`: or all.",
)
untilt_option = click.option("--untilt", is_flag=True, help="DICOM: straighten a tilted gantry's grid.")
uniform_option = click.option("--resample-uniform", is_flag=True, help="DICOM: even out uneven or missing slices.")
dicom_option = click.option("--dicom", "as_dicom", is_flag=True, help="Write a DICOM series, labels as a SEG.")
dtype_option = click.option(
    "--dtype", type=click.Choice(DTYPES), default="auto", show_default=True, help="Number type of the output file."
)


volume_option = click.option(
    "--volume", type=click.IntRange(min=0), help="Take this volume of a 4-D scan, counted from 0."
)
xform_option = click.option(
    "--xform", type=click.Choice(["sform", "qform"]), default="sform", help="NIfTI: what counts where both are set."
)


def scan_options(function: Function) -> Function:
    """`--series`, `--untilt`, `--resample-uniform` and `--volume`: which part of the input, and what it leaves open."""
    return series_option(untilt_option(uniform_option(volume_option(function))))


def grid_options(function: Function) -> Function:
    """`--shape`, `--spacing` and `--like`: three ways to name the output grid."""
    return shape_option(spacing_option(like_option(function)))

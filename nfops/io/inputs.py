"""Which files a command works on, and where each result goes: decided before anything starts."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO, TypeVar

from nfops.errors import InputError, NotFoundError, NothingMatchedError, UsageError
from nfops.io.formats import is_text, output_stem, suffix_of

Item = TypeVar("Item")


def list_inputs(
    inputs: Sequence[str],
    batch: str | None = None,
    stdin: TextIO | None = None,
    shard: tuple[int, int] | None = None,
    *,
    signals: bool = False,
) -> list[Path]:
    """The files to work on, sorted, each once.

    inputs: files, taken as given, and directories, whose image files (not hidden, not in folders below) are taken;
    signals: their text files too, which beside images are tables and notes.
    batch: a file with one path a line, or "-" for `stdin`; its directories are not looked into.
    shard: (index, count), this part of the sorted list only; it may be empty.

    Raises:
        NothingMatchedError: no input at all. NotFoundError: no such list. UsageError: an empty name.
    """
    names: set[str] = set()
    for name in inputs:
        if not name:
            raise NotFoundError("input", "an empty file name")
        path = Path(name)
        names.update(str(file) for file in _files_in(path, signals)) if path.is_dir() else names.add(str(path))
    if batch is not None:
        names.update(str(Path(line)) for line in _lines(batch, stdin))
    if not names:
        where = "standard input" if batch == "-" else batch or ", ".join(inputs)
        raise NothingMatchedError(where, "no input images", "" if where else "name files, folders or --batch LIST")
    return take_shard([Path(name) for name in sorted(names)], shard)


def parse_shard(text: str) -> tuple[int, int]:
    """Read "3/16" as (3, 16); UsageError unless 0 <= 3 < 16."""
    index, _, count = text.partition("/")
    if not (index.isascii() and index.isdigit() and count.isascii() and count.isdigit()):
        raise UsageError("--shard", f"expected INDEX/COUNT like 3/16, got {text!r}")
    shard = (int(index), int(count))
    _check_shard(shard)
    return shard


def take_shard(items: Sequence[Item], shard: tuple[int, int] | None) -> list[Item]:
    """Items I, I+N, I+2N... of a list for the shard (I, N); all of them without one."""
    if shard is None:
        return list(items)
    _check_shard(shard)
    return list(items[shard[0] :: shard[1]])


def plan_outputs(inputs: Sequence[Path], out: Path | None, out_dir: Path | None) -> list[tuple[Path, Path]]:
    """(input, output) for every input: `out` for a single one, else its own name and format in `out_dir`.

    An input whose name is none that nfops writes (a directory of slices) becomes NAME.nii.gz.

    Raises:
        UsageError: both or none given, several inputs for one `out`, or two outputs that would share a file or a
        sidecar.
    """
    if (out is None) == (out_dir is None):
        raise UsageError("output", "expected exactly one of --out and --out-dir")
    if out is not None:
        if len(inputs) != 1:
            raise UsageError("--out", f"takes one input, got {len(inputs)}", "use --out-dir")
        return [(inputs[0], out)]
    assert out_dir is not None  # noqa: S101
    plan = [(path, out_dir / _output_name(path)) for path in inputs]
    _refuse_clashes(plan)
    return plan


def _output_name(path: Path) -> str:
    return path.name if suffix_of(path) else f"{path.name}.nii.gz"


def _refuse_clashes(plan: Iterable[tuple[Path, Path]]) -> None:
    owners: dict[str, Path] = {}
    for source, output in plan:
        # by stem, for the sidecar; in lower case, because some file systems do not tell the cases apart
        stem = output_stem(output).lower()
        other = owners.setdefault(stem, source)
        if other is not source:
            raise UsageError(output, f"two inputs lead to this output or its sidecar: {other} and {source}")


def _check_shard(shard: tuple[int, int]) -> None:
    index, count = shard
    if not 0 <= index < count:
        raise UsageError("--shard", f"expected 0 <= INDEX < COUNT, got {index}/{count}")


def _files_in(directory: Path, signals: bool) -> list[Path]:
    try:
        entries = list(directory.iterdir())
    except OSError as error:
        raise InputError(directory, f"cannot be read: {error.strerror}") from error
    known = [entry for entry in entries if suffix_of(entry) and (signals or not is_text(entry))]
    return [entry for entry in known if not entry.name.startswith(".") and entry.is_file()]


def _lines(batch: str, stdin: TextIO | None) -> list[str]:
    """The paths of a list; names may hold spaces and bytes that are no UTF-8."""
    if batch == "-":
        if stdin is None:
            raise UsageError("--batch", "there is no standard input to read the list from")
        text = stdin.read()
    else:
        try:
            text = Path(batch).read_text(encoding="utf-8-sig", errors="surrogateescape")
        except FileNotFoundError as error:
            raise NotFoundError(batch, "no such file") from error
        except OSError as error:
            raise InputError(batch, f"cannot be read: {error.strerror}") from error
    return [line for line in text.split("\n") if line.strip()]

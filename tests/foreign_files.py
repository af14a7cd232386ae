"""What nfops makes of every file inside pydicom and nibabel. `python tests/foreign_files.py` writes the table anew."""

import csv
import importlib
from collections.abc import Iterator
from pathlib import Path

from nfops.errors import NfopsError
from nfops.io import load_image

TABLE = Path(__file__).with_suffix(".csv")
PACKAGES = {"pydicom": "data", "nibabel": ""}
CODE = (".py", ".pyc", ".pyi", ".so")


def foreign_files() -> Iterator[tuple[str, str, Path]]:
    """(package, name, path) of each file that is no code."""
    for package, folder in PACKAGES.items():
        root = Path(importlib.import_module(package).__file__).parent / folder
        for path in sorted(root.rglob("*")):
            if path.is_file() and path.suffix not in CODE:
                yield package, path.relative_to(root).as_posix(), path


def outcome(path: Path) -> str:
    """The shape of the values, or the message without the path."""
    try:
        return "x".join(map(str, load_image(path).values.shape))
    except NfopsError as error:
        return str(error).replace(str(path), "").lstrip(": ")


if __name__ == "__main__":
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("package", "file", "outcome"))
        rows.writerows((package, name, outcome(path)) for package, name, path in foreign_files())

"""The man pages: escaped, complete, the same each time, and without complaint from the formatters."""

import shutil
import subprocess
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfops.cli import errors, main, manual

SECTIONS = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "FILES", "EXAMPLES", "SEE ALSO"]


@pytest.fixture(scope="module")
def pages():
    return manual.manual()


def complaints(page: Path) -> str:
    """What the formatters on this machine say against a page."""
    said = ""
    if shutil.which("mandoc"):
        done = subprocess.run(
            ["mandoc", "-T", "lint", "-W", "warning", page], capture_output=True, text=True, check=False
        )
        # the date is left out on purpose: the same commands shall give the same bytes
        said += "".join(line for line in done.stdout.splitlines(True) if "missing date" not in line)
    if shutil.which("groff"):
        done = subprocess.run(
            ["groff", "-man", "-Tutf8", "-ww", "-z", page], capture_output=True, text=True, check=False
        )
        said += done.stderr
    return said


def test_there_is_a_page_for_every_command(pages):
    expected = {"nfops.1", "nfops-recipe.5", "nfops-bundle.5"} | {f"nfops-{name}.1" for name in main.SUMMARIES}
    assert set(pages) == expected


def test_every_command_page_is_complete(pages):
    for name, text in pages.items():
        if name.endswith(".1"):
            found = [line[5:-1] for line in text.splitlines() if line.startswith(".SH ")]
            assert [title for title in found if title != "COMMANDS"] == SECTIONS, name
            assert all(f'.B "{code}"' in text for code in errors.EXIT_CODES)


def test_the_recipe_page_lists_the_keys(pages):
    assert "data.source" in pages["nfops-recipe.5"]


def test_pages_are_ascii_and_deterministic(pages):
    assert all(text.isascii() for text in pages.values())
    assert pages == manual.manual()


@pytest.mark.skipif(
    not (shutil.which("mandoc") or shutil.which("groff")), reason="neither mandoc nor groff is installed"
)
def test_the_formatters_do_not_complain(pages, tmp_path):
    for name, text in pages.items():
        (tmp_path / name).write_text(text)
        assert complaints(tmp_path / name) == "", name


def test_the_checked_in_pages_are_fresh(pages):
    assert manual.stale(Path(__file__).parents[1] / "man", pages) == []


def test_every_option_is_in_its_page(pages):
    root = click.Context(main.main, info_name="nfops")
    for name in main.SUMMARIES:
        command = main.load_command(name)
        for param in command.get_params(click.Context(command, parent=root)):
            if isinstance(param, click.Option) and not param.hidden:
                assert manual.roff(param.opts[-1]) in pages[f"nfops-{name}.1"]


def test_roff():
    assert manual.roff(".dot 'quote") == "\\&.dot 'quote"
    assert manual.roff("--shape a\\b") == "\\-\\-shape a\\eb"
    assert manual.roff("256×256") == "256\\[u00D7]256"


@given(st.text())
def test_roff_is_one_ascii_line_that_is_no_request(text):
    line = manual.roff(text)
    assert line.isascii()
    assert len(line.splitlines()) <= 1
    assert line[:1] not in {".", "'"}


def test_paragraphs():
    assert manual.paragraphs("one\nline\n\nnext\n\n\b\na\n b") == [
        "one line", ".PP", "next", ".PP", ".nf", "a", "b", ".fi"
    ]  # fmt: skip


def test_a_page_with_odd_text_is_clean(tmp_path):
    text = manual.page(
        "nfops-x", 1, ".odd \\ 'summary'", manual.section("OPTIONS", manual.definitions([("-a", ""), ("'", '"')]))
    )
    (tmp_path / "x.1").write_text(text)
    assert complaints(tmp_path / "x.1") == ""


def test_stale_pages_are_named(tmp_path):
    (tmp_path / "same.1").write_text("a")
    (tmp_path / "other.1").write_text("b")
    (tmp_path / "gone.5").write_text("c")
    assert manual.stale(tmp_path, {"same.1": "a", "other.1": "x", "new.5": "y"}) == ["gone.5", "new.5", "other.1"]

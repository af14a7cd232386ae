"""How a run ends: the exit code, the line on stderr, the document on stdout."""

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfops import errors
from nfops.cli.errors import CODE_OF, EXIT_CODES, Terminated, complaint, escape, exit_code, guarded

TYPED = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, errors.NfopsError)]


def raising(error):
    def call():
        raise error

    return call


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("a", "b"), 2),
        (errors.NotFoundError("a", "b"), 2),
        (click.UsageError("b"), 2),
        (errors.InputError("a", "b"), 3),
        (errors.RecipeError("a", "b"), 4),
        (errors.ComponentError("a", "b"), 4),
        (errors.BundleError("a", "b"), 4),
        (errors.OutputError("a", "b"), 5),
        (OSError(errno.ENOSPC, "full"), 5),
        (errors.DeviceError("a", "b"), 6),
        (errors.MemoryLimitError("a", "b"), 6),
        (MemoryError(), 6),
        (errors.ResultError("a", "b"), 7),
        (errors.NothingMatchedError("a", "b"), 9),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 141),
        (ValueError("b"), 1),
        (OSError(errno.EACCES, "no"), 1),
    ],
)
def test_exit_codes(error, code):
    assert exit_code(error) == code
    assert code in EXIT_CODES


@pytest.mark.parametrize("cls", [cls for cls in TYPED if cls is not errors.NfopsError])
def test_every_typed_error_has_a_code(cls):
    assert exit_code(cls("where", "what")) in set(CODE_OF.values())


def test_one_line_says_where_what_and_hint(capsys):
    error = errors.InputError("scan.nii", "truncated", "copy it again")
    assert guarded(raising(error), ["apply", "scan.nii"], ["apply"]) == 3
    out, err = capsys.readouterr()
    assert (out, err) == ("", "nfops apply: error: scan.nii: truncated (copy it again)\n")


def test_json_adds_one_document(capsys):
    guarded(raising(errors.InputError("scan.nii", "truncated", "copy it")), ["apply", "--json"], ["apply"])
    out, err = capsys.readouterr()
    expected = {"code": 3, "kind": "input", "where": "scan.nii", "message": "truncated", "hint": "copy it"}
    assert json.loads(out) == {"error": expected}
    assert err.count("\n") == 1


def test_json_after_two_dashes_is_a_file_name(capsys):
    guarded(raising(errors.InputError("--json", "no image")), ["apply", "--", "--json"], ["apply"])
    assert capsys.readouterr().out == ""


def test_every_mistake_of_a_recipe_is_a_line(capsys):
    problems = ("r.yaml:1: a", "r.yaml:2: b")
    assert guarded(raising(errors.RecipeError("r.yaml", "2 mistakes", problems=problems)), ["--json"]) == 4
    out, err = capsys.readouterr()
    assert err == "nfops: error: r.yaml:1: a\nnfops: error: r.yaml:2: b\n"
    assert json.loads(out)["error"]["problems"] == list(problems)


def test_a_bug_shows_its_traceback_only_with_debug(capsys):
    assert guarded(raising(ValueError("odd")), ["apply"], ["apply"]) == 1
    err = capsys.readouterr().err
    assert err == "nfops apply: error: ValueError: odd (this is a bug in nfops; --debug shows where)\n"
    assert guarded(raising(ValueError("odd")), ["apply", "--debug"], ["apply"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_command_may_choose_its_exit_code():
    assert guarded(lambda: 8, []) == 8
    assert guarded(lambda: None, []) == 0


@given(st.text())
def test_escaped_text_is_one_printable_line(text):
    assert escape(text).isprintable()


def test_escape_keeps_what_can_be_read():
    assert escape("Schädel ×2.nii") == "Schädel ×2.nii"
    assert escape("a\nb\x1b[31m") == "a\\nb\\x1b[31m"
    assert escape(os.fsdecode(b"caf\xe9.nii")) == "caf\\xe9.nii"


def test_bad_parameters_are_named():
    option = click.Option(["--shape"])
    found = complaint(click.BadParameter("expected 256x256, got '-1'", param=option))
    assert (found.code, found.where, found.message) == (2, "--shape", "expected 256x256, got '-1'")


# --- whole processes ---------------------------------------------------------------------------------------------

ENTRY = """
import sys, time, tempfile, click
from nfops import errors
from nfops.cli import main
from nfops.cli.progress import show_result
@click.command()
@click.argument("path", required=False)
@click.option("--json", is_flag=True)
def command(path, json):
{body}
main.load_command = lambda name: command
main.run()
"""


def process(body, *argv, **settings):
    code = ENTRY.format(body=textwrap.indent(textwrap.dedent(body), "    "))
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | settings
    return subprocess.Popen([sys.executable, "-c", code, "apply", *argv], text=True, **settings)


def test_wrong_option():
    running = process("pass", "--jsn")
    out, err = running.communicate()
    assert (running.returncode, out) == (2, "")
    assert err.startswith("nfops apply: error: ")
    assert "--json" in err
    assert err.count("\n") == 1


def test_file_name_that_is_not_utf8():
    running = process("raise errors.InputError(path, 'bad')", b"caf\xe9\n.nii", "--json")
    out, err = running.communicate()
    assert running.returncode == 3
    assert err == "nfops apply: error: caf\\xe9\\n.nii: bad\n"
    assert os.fsencode(json.loads(out)["error"]["where"]) == b"caf\xe9\n.nii"


def test_full_stdout():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        running = process("click.echo('result')", stdout=full)
        _, err = running.communicate()
    assert running.returncode == 5
    assert err == "nfops apply: error: standard output: cannot write: No space left on device\n"


def test_closed_stdout_is_quiet():
    running = process("time.sleep(0.2)\nfor _ in range(10000): click.echo('result')")
    running.stdout.close()
    err = running.stderr.read()
    running.stderr.close()
    assert (running.wait(), err) == (141, "")


@pytest.mark.parametrize(
    ("sent", "code", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interr")]
)
def test_signals_clean_up(tmp_path, sent, code, word):
    body = f"""
    with tempfile.TemporaryDirectory(dir={str(tmp_path)!r}):
        click.echo('ready')
        time.sleep(30)
    """
    running = process(body)
    assert running.stdout.readline() == "ready\n"
    assert list(tmp_path.iterdir())
    running.send_signal(sent)
    _, err = running.communicate(timeout=10)
    assert running.returncode == code
    assert err.startswith(f"nfops apply: error: {word}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("signal_", "code"), [(Terminated, 143), (KeyboardInterrupt, 130)])
def test_c50_a_signal_while_a_class_is_made_is_no_bug(signal_, code):
    class Signalled:
        def __set_name__(self, owner, name):
            raise signal_

    assert guarded(lambda: type("Late", (), {"attribute": Signalled()}), []) == code

"""Progress and remarks on stderr, the result on stdout."""

import json
import math
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nfops.cli.options import Session
from nfops.cli.progress import PlainProgress, say, show_result, shown_progress
from nfops.progress import Step, silent


def lines_of(steps, capsys, clock=lambda: 0.0):
    show = PlainProgress(clock)
    for step in steps:
        show(step)
    return capsys.readouterr().err.splitlines()


def test_a_line_at_every_tenth(capsys):
    lines = lines_of((Step("fit", done, 1000, "loss 0.1") for done in range(1001)), capsys)
    assert len(lines) == 11
    assert lines[0] == "fit:   0 % (0/1000) loss 0.1"
    assert lines[-1] == "fit: 100 % (1000/1000) loss 0.1"


def test_each_stage_has_its_own_lines(capsys):
    steps = [Step(stage, done, 2) for stage in ("encode", "decode", "encode") for done in (1, 2)]
    assert [line.split(":")[0] for line in lines_of(steps, capsys)] == ["encode"] * 2 + ["decode"] * 2 + ["encode"] * 2


def test_a_minute_of_silence_is_broken(capsys):
    ticks = iter(range(0, 10_000, 25))
    lines = lines_of((Step("fit", done, 1000) for done in range(10)), capsys, clock=lambda: next(ticks))
    assert len(lines) == 4  # the first step, then every third


def test_unknown_total(capsys):
    assert lines_of([Step("read", 3, 0)], capsys) == ["read: 3"]


def test_control_characters_are_escaped(capsys):
    assert lines_of([Step("read", 1, 1, "\x1b[31m\r.nii")], capsys) == ["read: 100 % (1/1) \\x1b[31m\\r.nii"]


@pytest.mark.parametrize("session", [Session(verbosity=-1), Session(progress="none")])
def test_silence(session):
    with shown_progress(session) as on_step:
        assert on_step is silent


def test_a_file_gets_plain_lines(capsys):
    with shown_progress(Session()) as on_step:
        assert isinstance(on_step, PlainProgress)
        on_step(Step("fit", 1, 1))
    assert capsys.readouterr().err == "fit: 100 % (1/1)\n"


BARS = """
from nfops.cli.options import Session
from nfops.cli.progress import shown_progress
from nfops.progress import Step
with shown_progress(Session()) as on_step:
    for done in range(3):
        on_step(Step("fit [x]", done, 2, "loss [y]"))
"""


def on_terminal(**environment):
    """What a terminal receives on stderr."""
    ours, theirs = pty.openpty()
    env = os.environ | {"TERM": "xterm", "COLUMNS": "100"} | environment
    running = subprocess.Popen([sys.executable, "-c", BARS], stderr=theirs, env=env)
    os.close(theirs)
    received = b""
    try:
        while chunk := os.read(ours, 4096):
            received += chunk
    except OSError:  # Linux says EIO when the other side has closed
        pass
    os.close(ours)
    assert running.wait() == 0
    return received.decode()


def test_a_terminal_gets_a_bar():
    shown = on_terminal()
    assert "\x1b[" in shown
    assert "fit [x]" in shown
    assert "loss [y]" in shown


def test_no_colour():
    assert "\x1b[3" not in on_terminal(NO_COLOR="1")


def test_dumb_terminal_gets_plain_lines():
    assert on_terminal(TERM="dumb").splitlines()[-1] == "fit [x]: 100 % (2/2) loss [y]"


def test_say(capsys):
    say(Session(), "told")
    say(Session(), "not told", verbosity=1)
    say(Session(verbosity=1), "told\nmore", verbosity=1)
    say(Session(verbosity=-1), "not told")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "told\ntold\\nmore\n")


def test_result_as_text(capsys):
    show_result(Session(), {}, ["a", "b\x1b"])
    assert capsys.readouterr().out == "a\nb\\x1b\n"


def test_result_as_json(capsys):
    document = {
        "path": Path("a.nii"),
        "shape": np.array([1, 2]),
        "range": (np.float32(0.5), math.nan),
        "count": np.int64(3),
        "flag": np.bool_(True),
        "none": None,
    }
    show_result(Session(json=True), document, ["unused"])
    expected = {"path": "a.nii", "shape": [1, 2], "range": [0.5, None], "count": 3, "flag": True, "none": None}
    assert json.loads(capsys.readouterr().out) == expected

# ruff: noqa: F401, F811 (fixtures are imported)
"""`-`: NIfTI through standard input and output (A8), in this process and through real pipes."""

import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import nibabel
import numpy as np
import pytest
from cli_fixtures import ENVIRONMENT, OBLIQUE, Ran, names, nfops, nifti, save_nifti, shade, shades

from nfops.cli.errors import guarded
from nfops.cli.main import SUMMARIES, invoke

NFOPS = (sys.executable, "-m", "nfops")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a scan, and a temporary folder of its own."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.chdir(tmp_path)
    save_nifti(tmp_path / "a.nii.gz", shade(np.random.default_rng(0)))
    (tmp_path / "a.nii").write_bytes(gzip.decompress((tmp_path / "a.nii.gz").read_bytes()))
    yield tmp_path
    assert names(tmp_path / "tmp") == []


def piped(*argv: object, stdin: bytes = b"", terminal: bool = False) -> tuple[Ran, bytes]:
    """As `cli_fixtures.nfops`, with bytes for standard input and output; what came out, too."""
    words = [str(word) for word in argv]
    out, err = io.TextIOWrapper(io.BytesIO(), write_through=True), io.StringIO()
    source = io.TextIOWrapper(io.BytesIO(stdin))
    out.isatty = source.isatty = lambda: terminal
    with (
        mock.patch.multiple(sys, stdin=source, stdout=out, stderr=err),
        mock.patch.dict(os.environ),
    ):
        code = guarded(lambda: invoke(words), words, list(SUMMARIES))
    sent = out.buffer.getvalue()
    return Ran(code, sent.decode("latin-1"), err.getvalue()), sent


# --- in ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a8_info_reads_real_bytes_plain_or_gzipped(here, name):
    ran, _ = piped("info", "--json", "-", stdin=(here / name).read_bytes())
    expected = nfops("info", "--json", name).document
    assert ran.code == 0, ran.err
    assert ran.document == expected | {"path": "-"}


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a8_resample_from_a_pipe_is_resample_from_a_file(here, name):
    for source, out in ((name, "b.nii"), ("-", "c.nii")):
        ran, _ = piped("resample", source, "--out", out, "--shape", "9x11x4", stdin=(here / name).read_bytes())
        assert (ran.code, ran.out) == (0, f"{out}\n"), ran.err
    assert (here / "b.nii").read_bytes() == (here / "c.nii").read_bytes()
    sidecar, other = (json.loads((here / f"{stem}.json").read_text()) for stem in "cb")
    assert sidecar["GeneratedBy"][0]["Command"][1:4] == ["resample", "-", "--out"]
    assert sidecar["Sources"] == [other["Sources"][0] | {"name": "-"}]


def test_a8_apply_from_a_pipe_is_apply_from_a_file(here, shades):
    for source, out in (("a.nii", "b.nii.gz"), ("-", "c.nii.gz")):
        ran, _ = piped("apply", *shades.options(), source, "--out", out, stdin=(here / "a.nii").read_bytes())
        assert (ran.code, ran.out) == (0, f"{out}\n"), ran.err
    assert np.array_equal(nifti(here / "b.nii.gz")[0], nifti(here / "c.nii.gz")[0])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "nothing came through standard input"),
        (b"hello there\n" * 100, "only NIfTI comes through standard input, this is none"),
        (b"NRRD0004\ntype: short\n", "this is NRRD"),
        (bytes([0, 0, 0, 1]) + bytes(300), "this is MGH"),
        (b"\x89PNG\r\n\x1a\n" + bytes(300), "this is PNG"),
        (b"\x1f\x8b nonsense", "this is none"),
    ],
)
def test_a8_c7_only_nifti_comes_through_a_pipe(here, content, said):
    ran, _ = piped("info", "-", stdin=content)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (3, "", 1)
    assert ran.err.startswith("nfops info: error: -: ")
    assert said in ran.err


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_c3_c4_truncation_in_a_pipe_is_refused(here, name):
    whole = (here / name).read_bytes()
    for percent in range(15, 100, 5):
        ran, sent = piped("resample", "-", "--out", "-", stdin=whole[: len(whole) * percent // 100])
        assert (ran.code, sent, len(ran.err.splitlines())) == (3, b"", 1)
        assert "error: -: " in ran.err


# --- out ---------------------------------------------------------------------------------------------------------


def test_a8_out_is_plain_nifti_1_and_nothing_else(here):
    ran, sent = piped("resample", "a.nii.gz", "--out", "-", "--shape", "9x11x4")
    assert (ran.code, ran.err) == (0, "")
    assert nfops("resample", "a.nii.gz", "--out", "b.nii", "--shape", "9x11x4").code == 0
    assert sent == (here / "b.nii").read_bytes()
    assert sent[344:348] == b"n+1\0"
    assert names() == ["a.nii", "a.nii.gz", "b.json", "b.nii", "tmp"]


def test_a8_apply_sends_what_it_would_write(here, shades):
    ran, sent = piped("apply", *shades.options(), "-", "-o", "-", stdin=(here / "a.nii.gz").read_bytes())
    assert ran.code == 0, ran.err
    assert nfops("apply", *shades.options(), "a.nii.gz", "--out", "b.nii").code == 0
    assert sent == (here / "b.nii").read_bytes()


def test_a8_a10_no_sidecar_but_its_text_with_v(here):
    ran, sent = piped("resample", "a.nii.gz", "--out", "-", "-v")
    document = json.loads(ran.err.splitlines()[-1])
    assert document["Output"]["name"] == "-"
    assert document["GeneratedBy"][0]["Command"] == ["nfops", "resample", "INPUT[0]", "--out", "-", "-v"]
    import hashlib

    assert document["Output"]["sha256"] == hashlib.sha256(sent).hexdigest()


def test_b4_b24_warnings_and_bad_results_do_not_reach_stdout(here):
    sheared = OBLIQUE.copy()
    sheared[1, 2] += 2
    image = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.float32), sheared)
    image.set_sform(sheared, 1)
    image.to_filename("s.nii")
    ran, sent = piped("resample", "s.nii", "--out", "-")
    assert (ran.code, len(sent)) == (0, 352 + 256)
    assert "-: warning: the grid is sheared" in ran.err
    save_nifti(here / "n.nii", np.full((4, 4, 4), np.nan))
    ran, sent = piped("resample", "n.nii", "--out", "-")
    assert (ran.code, sent) == (3, b"")
    assert "error: n.nii: 64 of 64 voxels are NaN" in ran.err


def test_a13_dry_run_keeps_stdout_clean(here):
    ran, sent = piped("resample", "-", "--out", "-", "--dry-run", stdin=(here / "a.nii").read_bytes())
    assert (ran.code, sent) == (0, b"")
    assert "- (20x18x4) -> -" in ran.err


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["info", "-", "-"], "only once"),
        (["resample", "-", "--out", "b.nii", "--like", "-"], "--like: takes the name of a file"),
        (["resample", "a.nii", "--out", "-", "--json"], "--json: standard output takes the image"),
        (["apply", "-r", "brain_t1t2", "-", "-", "--out", "b.nii"], "only once"),
        (["apply", "-r", "brain_t1t2", "-", "a.nii", "--out-dir", "o"], "one scan without a name"),
        (["apply", "-r", "brain_t1t2", "-", "--out-dir", "o"], "one scan without a name"),
        (["apply", "-r", "brain_t1t2", "-", "--batch", "-", "--out", "b.nii"], "cannot be the list, too"),
        (["apply", "-r", "brain_t1t2", "-", "--batch", "l.txt", "--out", "b.nii"], "one scan without a name"),
        (["apply", "-r", "brain_t1t2", "-", "--shard", "1/2", "--out", "b.nii"], "one scan without a name"),
    ],
)
def test_a8_what_makes_no_sense_is_a_usage_error(here, words, said):
    ran, _ = piped(*words, stdin=(here / "a.nii").read_bytes())
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert said in ran.err
    assert names() == ["a.nii", "a.nii.gz", "tmp"]


def test_a8_a_terminal_is_refused(here):
    for words in (["info", "-"], ["resample", "a.nii", "--out", "-"]):
        ran, sent = piped(*words, terminal=True)
        assert (ran.code, sent) == (2, b"")
        assert "is a terminal" in ran.err


def test_c64_a_temporary_folder_that_is_missing_or_full(here, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(here / "none"))
    for words in (["info", "-"], ["resample", "a.nii", "--out", "-"]):
        ran, sent = piped(*words, stdin=(here / "a.nii").read_bytes())
        assert (ran.code, sent, len(ran.err.splitlines())) == (5, b"", 1)
        assert "none: no such directory, but TMPDIR names it" in ran.err
    monkeypatch.setenv("TMPDIR", str(here / "tmp"))
    monkeypatch.setattr("shutil.copyfileobj", mock.Mock(side_effect=OSError(28, "No space left")))
    ran, _ = piped("info", "-", stdin=(here / "a.nii").read_bytes())
    assert (ran.code, len(ran.err.splitlines())) == (5, 1)
    assert "tmp: cannot be written: the disk is full (TMPDIR names another)" in ran.err


# --- real pipes --------------------------------------------------------------------------------------------------


def shell(line: str) -> "subprocess.CompletedProcess[bytes]":
    line = line.replace("nfops ", f"{sys.executable} -m nfops ")
    environment = ENVIRONMENT | {"TMPDIR": os.environ["TMPDIR"]}
    words = ["bash", "-o", "pipefail", "-c", line]
    return subprocess.run(words, capture_output=True, env=environment, timeout=60, check=False)


def test_a8_one_command_into_the_next(here):
    done = shell("nfops resample - --out - --shape 9x11x4 < a.nii.gz | nfops info --json -")
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["shape"] == [9, 11, 4]


def test_a8_cat_into_apply_and_a_reader_that_goes_away(here):
    done = shell("cat a.nii | nfops apply -r brain_t1t2 - --out t2.nii.gz")
    assert (done.returncode, done.stdout) == (0, b"t2.nii.gz\n"), done.stderr
    assert nifti(here / "t2.nii.gz")[0].shape == (20, 18, 4)
    done = shell("nfops resample a.nii --out - --shape 256x256x8 | head -c 9 | wc -c")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (141, b"9", b"")


def test_c53_dev_full(here):
    done = shell("nfops resample a.nii --out - > /dev/full")
    assert (done.returncode, done.stderr.count(b"\n")) == (5, 1)
    assert b"standard output: cannot write" in done.stderr

"""Which inputs, in which order, to which outputs."""

import io
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from nfops.errors import NotFoundError, NothingMatchedError, OutputError, UsageError
from nfops.grid import Grid
from nfops.io import list_inputs, output_stem, parse_shard, plan_outputs, supported_suffixes, take_shard
from nfops.io.inputs import Wanted
from nfops.io.sidecar import FileRecord, Provenance, write_sidecar


@pytest.fixture
def folder(tmp_path):
    for name in ("b.nii.gz", "a b.nii", ".hidden.nii", "notes.txt", "p.PNG"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "c.nii").write_bytes(b"x")
    return tmp_path


def test_a16_a_directory_is_listed_but_not_descended(folder):
    assert [p.name for p in list_inputs([str(folder)])] == ["a b.nii", "b.nii.gz", "p.PNG"]


def test_files_are_taken_as_given_sorted_and_once(folder):
    names = [str(folder / "notes.txt"), str(folder / "b.nii.gz"), str(folder / "b.nii.gz")]
    assert list_inputs(names) == [folder / "b.nii.gz", folder / "notes.txt"]


def test_batch_list_from_stdin_and_file(folder):
    text = f"{folder}/deep\n\n  \n{folder}/a b.nii\n# x.nii\n{folder}/b.nii.gz"
    expected = [Path("# x.nii"), folder / "a b.nii", folder / "b.nii.gz", folder / "deep" / "c.nii"]
    assert list_inputs([], "-", io.StringIO(text)) == expected
    (folder / "list").write_text(text, encoding="utf-8")
    assert list_inputs([], str(folder / "list")) == expected


def test_c63_names_that_are_not_utf8(folder):
    (folder / "list").write_bytes(b"/data/\xff.nii\n")
    assert list_inputs([], str(folder / "list"))[0].name == b"\xff.nii".decode("utf-8", "surrogateescape")


def test_c21_no_inputs_at_all(folder):
    (folder / "empty").mkdir()
    for names in ([], [str(folder / "empty")]):
        with pytest.raises(NothingMatchedError):
            list_inputs(names)
    with pytest.raises(NothingMatchedError):
        list_inputs([], "-", io.StringIO("\n\n"))
    with pytest.raises(NotFoundError):
        list_inputs([], str(folder / "no list"))
    with pytest.raises(NotFoundError):
        list_inputs([""])


def test_a17_shards_part_the_list():
    names = [f"{n:02}.nii" for n in range(10)]
    parts = [list_inputs(names, shard=(i, 3)) for i in range(3)]
    assert sorted(path for part in parts for path in part) == list_inputs(names)
    assert [p.name for p in parts[1]] == ["01.nii", "04.nii", "07.nii"]
    assert list_inputs(names[:1], shard=(2, 3)) == []
    assert take_shard("abcde", (1, 2)) == ["b", "d"]


@pytest.mark.parametrize("text", ["16/16", "a/b", "0/0", "3", "-1/4", "1/2/3", "", "²/4"])
def test_c61_bad_shards(text):
    with pytest.raises(UsageError):
        parse_shard(text)


def test_c61_good_shard():
    assert parse_shard("3/16") == (3, 16)


def test_a16_outputs_keep_name_and_format(tmp_path):
    inputs = [Path("x/sub.1.nii.gz"), Path("y/series")]
    assert [o for _, o in plan_outputs(inputs, None, tmp_path)] == [
        tmp_path / "sub.1.nii.gz",
        tmp_path / "series.nii.gz",
    ]
    assert plan_outputs(inputs[:1], tmp_path / "o.png", None) == [(inputs[0], tmp_path / "o.png")]


@pytest.mark.parametrize("names", [("a/s.nii", "b/s.nii"), ("a/s.nii", "a/s.nii.gz"), ("a/s.png", "b/S.nii")])
def test_a16_clashes_are_found_before_the_start(names, tmp_path):
    with pytest.raises(UsageError, match="two inputs"):
        plan_outputs([Path(n) for n in names], None, tmp_path)


def test_out_takes_one_input(tmp_path):
    with pytest.raises(UsageError, match="--out-dir"):
        plan_outputs([Path("a.nii"), Path("b.nii")], tmp_path / "o.nii", None)
    for both in ((None, None), (tmp_path, tmp_path)):
        with pytest.raises(UsageError, match="exactly one"):
            plan_outputs([Path("a.nii")], *both)


def test_output_stem_strips_nii_gz_whole():
    assert output_stem(Path("d/sub.1.nii.gz")) == "sub.1"
    assert output_stem(Path("sub.1.NII")) == "sub.1"
    assert output_stem(Path("x.tar.gz")) == "x.tar"
    assert ".nii.gz" in supported_suffixes()


def test_a10_sidecar_says_how_and_leaks_no_path(tmp_path):
    out = tmp_path / "secret folder" / "t2.nii.gz"
    out.parent.mkdir()
    out.write_bytes(b"abc")
    record = FileRecord.of(out, Grid((2, 3, 4), np.eye(4)), "a.u.")
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    argv = ("nfops", "apply", "--recipe", "/home/x/r.yaml", "/p/scan.nii", f"--out={out}")
    path = write_sidecar(out, Provenance(argv, ("/p/scan.nii",), (record,), record, now, now, seed=3))
    text = path.read_text()
    found = json.loads(text)
    assert path.name == "t2.json"
    assert "secret" not in text
    assert "/home" not in text
    assert found["GeneratedBy"][0]["Command"] == ["nfops", "apply", "--recipe", "r.yaml", "INPUT[0]", "--out=OUTPUT"]
    assert found["Output"]["sha256"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert found["Output"]["orientation"] == "RAS"
    assert found["Seed"] == 3
    with pytest.raises(OutputError):
        write_sidecar(out, Provenance(argv, (), (), record, now, now))


def test_c52_what_a_killed_run_left_is_no_input(folder):
    for name in (".nfops-12ab34cd.b.nii.gz", ".nfops-12ab34cd.t2"):
        (folder / name).write_bytes(b"x")
    assert [p.name for p in list_inputs([str(folder)])] == ["a b.nii", "b.nii.gz", "p.PNG"]
    assert list_inputs([], "-", io.StringIO(str(folder))) == list_inputs([str(folder)])


def test_a_list_of_lines_read_as_nul_separated_is_said(folder):
    with pytest.raises(UsageError, match="leave -0 out"):
        list_inputs([], "-", io.StringIO("a.nii\nb.nii\n"), wanted=Wanted(is_null_separated=True))
    names = io.StringIO(f"{folder}/a b.nii\0{folder}/b.nii.gz\0")
    assert len(list_inputs([], "-", names, wanted=Wanted(is_null_separated=True))) == 2

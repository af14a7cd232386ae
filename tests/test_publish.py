"""Whole or nothing: no half files, no lost files, no clobbering."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from nfops.errors import OutputError, ResultError
from nfops.io.holding import signals_held
from nfops.io.publish import publishing, publishing_together, refuse_existing
from nfops.io.publish_folder import publishing_directory


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_publishes_with_its_name_and_suffix(tmp_path):
    target = tmp_path / "out.nii.gz"
    with publishing(target) as temporary:
        assert temporary.name.startswith(".nfops-")
        assert temporary.name.endswith("out.nii.gz")
        assert not target.exists()
        temporary.write_bytes(b"abc")
    assert names(tmp_path) == ["out.nii.gz"]
    assert target.read_bytes() == b"abc"
    umask = os.umask(0)
    os.umask(umask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("problem", [KeyboardInterrupt, SystemExit, ValueError, MemoryError])
@pytest.mark.parametrize("force", [False, True])
def test_c50_interruption_leaves_nothing_new_and_nothing_lost(tmp_path, problem, force):
    target = tmp_path / "out.nii"
    if force:
        target.write_bytes(b"old")

    def write():
        with publishing(target, force) as temporary:
            temporary.write_bytes(b"half")
            raise problem

    with pytest.raises(problem):
        write()
    assert names(tmp_path) == (["out.nii"] if force else [])
    assert not force or target.read_bytes() == b"old"


def test_c49_a_failed_check_publishes_nothing(tmp_path):
    def complain(path):
        raise ResultError(path, "not what was written")

    with pytest.raises(ResultError), publishing(tmp_path / "o.nii", verify=complain) as temporary:
        temporary.write_bytes(b"x")
    assert names(tmp_path) == []


def test_c44_existing_outputs_are_refused_before_and_at_the_end(tmp_path):
    target = tmp_path / "out.nii"
    target.write_bytes(b"old")
    with pytest.raises(OutputError, match="--force"):
        refuse_existing([target])
    with pytest.raises(OutputError, match="--force"), publishing(target):
        pass
    refuse_existing([target], force=True)
    with publishing(target, force=True) as temporary:
        temporary.write_bytes(b"new")
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["out.nii"]


@pytest.mark.parametrize("links", [True, False])
def test_c54_exactly_one_of_two_writers_wins(tmp_path, links, monkeypatch):
    if not links:
        monkeypatch.setattr(os, "link", raising(errno.EPERM))
    target = tmp_path / "out.nii"

    def race():
        with publishing(target) as slow:
            slow.write_bytes(b"slow")
            with publishing(target) as fast:
                fast.write_bytes(b"fast")

    with pytest.raises(OutputError, match="another process"):
        race()
    assert target.read_bytes() == b"fast"
    assert names(tmp_path) == ["out.nii"]


def raising(number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("kind", ["same", "dotted", "symlink", "hardlink"])
def test_c45_an_output_that_is_an_input_is_refused_even_with_force(tmp_path, kind):
    source = tmp_path / "in.nii"
    source.write_bytes(b"x")
    target = {"same": source, "dotted": tmp_path / "." / ".." / tmp_path.name / "in.nii"}.get(kind, tmp_path / "l.nii")
    if kind == "symlink":
        target.symlink_to(source)
    if kind == "hardlink":
        os.link(source, target)
    with pytest.raises(OutputError, match="input"):
        refuse_existing([target], [source], force=True)


def test_c46_directories_that_cannot_take_an_output(tmp_path, monkeypatch):
    with pytest.raises(OutputError, match="no such directory"):
        refuse_existing([tmp_path / "no" / "o.nii"])
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="is a file"):
        refuse_existing([tmp_path / "file" / "o.nii"])
    with pytest.raises(OutputError, match="is a directory"):
        refuse_existing([tmp_path], force=True)
    with pytest.raises(OutputError, match="name is too long"):
        refuse_existing([tmp_path / ("x" * 300 + ".nii")])
    refuse_existing([tmp_path / "fine.nii"])
    assert names(tmp_path) == ["file"]
    monkeypatch.setattr(os, "open", raising(errno.EROFS))
    with pytest.raises(OutputError, match="read-only"):
        refuse_existing([tmp_path / "o.nii"])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_c48_disk_trouble_is_one_line_and_leaves_nothing(tmp_path, number, monkeypatch):
    def write():
        with publishing(tmp_path / "o.nii") as temporary:
            temporary.write_bytes(b"x")
            raising(number)()

    with pytest.raises(OutputError, match="cannot be written"):
        write()
    monkeypatch.setattr(os, "fsync", raising(number))
    with pytest.raises(OutputError), publishing(tmp_path / "o.nii") as temporary:
        temporary.write_bytes(b"x")
    assert names(tmp_path) == []


def test_c48_a_real_file_size_limit(tmp_path):
    code = (
        "import resource, sys; from pathlib import Path; from nfops.io.publish import publishing\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "with publishing(Path(sys.argv[1])) as t: t.write_bytes(bytes(5000))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "o.nii"], capture_output=True, text=True, check=False)
    assert "OutputError" in done.stderr
    assert names(tmp_path) == []


def test_c50_a_real_ctrl_c_leaves_nothing(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from nfops.io.publish import publishing\n"
        "with publishing(Path(sys.argv[1])) as t: t.write_bytes(b'x'); os.kill(os.getpid(), signal.SIGINT)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "o.nii"], capture_output=True, check=False)
    assert done.returncode in (-signal.SIGINT, 130)
    assert names(tmp_path) == []


def test_long_names_keep_their_suffix(tmp_path):
    target = tmp_path / ("ä" * 120 + ".nii.gz")
    with publishing(target) as temporary:
        assert temporary.name.endswith(".nii.gz")
    assert target.exists()


def make(target, text, **options):
    with publishing_directory(target, **options) as temporary:
        (temporary / "manifest.json").write_text(text)
        (temporary / "deep").mkdir()
        (temporary / "deep" / "array").write_bytes(b"1")


def test_bundles_appear_whole_and_are_swapped_with_force(tmp_path):
    target = tmp_path / "bundle"
    make(target, "one")
    with pytest.raises(OutputError, match="--force"):
        make(target, "two")
    make(target, "three", force=True)
    assert (target / "manifest.json").read_text() == "three"
    assert names(tmp_path) == ["bundle"]


def test_an_interrupted_bundle_leaves_the_old_one(tmp_path):
    target = tmp_path / "bundle"
    make(target, "one")

    def interrupted():
        with publishing_directory(target, force=True) as temporary:
            (temporary / "manifest.json").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (target / "manifest.json").read_text() == "one"
    assert names(tmp_path) == ["bundle"]


def test_force_does_not_delete_a_directory_of_something_else(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years")
    with pytest.raises(OutputError, match="manifest"):
        make(tmp_path / "home", "x", force=True)
    assert names(tmp_path / "home") == ["thesis.tex"]
    (tmp_path / "empty").mkdir()
    make(tmp_path / "empty", "x", force=True)


def write_pair(folder, content, force=False):
    with publishing_together(force) as together:
        for name in ("out.nii", "out.json"):
            with publishing(folder / name, force, together=together) as temporary:
                temporary.write_bytes(content)
        assert not (folder / "out.nii").exists() or (folder / "out.nii").read_bytes() != content


def test_files_that_belong_together_appear_together(tmp_path):
    write_pair(tmp_path, b"one")
    with pytest.raises(OutputError, match="exists already"):
        write_pair(tmp_path, b"two")
    write_pair(tmp_path, b"three", force=True)
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"three"}
    assert names(tmp_path) == ["out.json", "out.nii"]


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("force", [True, False])
def test_where_the_second_of_two_files_fails_the_first_is_what_it_was(tmp_path, monkeypatch, force, links):
    if force:
        write_pair(tmp_path, b"old")
    if not links:
        monkeypatch.setattr(os, "link", raising(errno.EPERM))
    replace = type(tmp_path).replace
    link = os.link

    def failing_replace(path, target):
        if target.name == "out.nii" and path.read_bytes() != b"old":
            raising(errno.EIO)()
        return replace(path, target)

    def failing_link(source, target):
        if target.name == "out.nii":
            raising(errno.EIO)()
        link(source, target)

    monkeypatch.setattr(type(tmp_path), "replace", failing_replace)
    if links:
        monkeypatch.setattr(os, "link", failing_link)
    with pytest.raises(OutputError, match="failed while writing"):
        write_pair(tmp_path, b"new", force)
    assert {path.read_bytes() for path in tmp_path.iterdir()} == ({b"old"} if force else set())
    assert names(tmp_path) == (["out.json", "out.nii"] if force else [])


def test_a_held_signal_comes_at_the_end_of_the_block():
    done = []

    def hold():
        with signals_held():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("after the signal")
        done.append("never")

    with pytest.raises(KeyboardInterrupt):
        hold()
    assert done == ["after the signal"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

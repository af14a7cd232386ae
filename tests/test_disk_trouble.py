"""C46, C48: a disk that is full or closed, by real ones: exit code 5, one line, and nothing half done."""

import hashlib
import json
import os
import resource
import subprocess
from pathlib import Path

import numpy as np
import pytest
from cli_fixtures import names, save_nifti
from trials import Ended, in_child, nfops_run

PAGE = 4096
OLD = {"out.nii": b"an output of last week", "out.json": b'{"GeneratedBy": [{"Name": "nfops"}]}'}


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> Path:
    values = np.random.default_rng(0).normal(size=(14, 13, 12))
    return save_nifti(tmp_path_factory.mktemp("scans") / "scan.nii.gz", values)


@pytest.fixture
def disk(tmp_path):
    """A file system of 1 MiB, or None where this process may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        yield None
        return
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def resample(scan: Path, folder: Path, log: Path, *words: str, most_bytes: int | None = None) -> Ended:
    run = nfops_run(["resample", scan, "--out", folder / "out.nii", *words])

    def limited() -> int:
        if most_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
        return run()

    return in_child(limited, log)


def check_whole(ended: Ended, folder: Path, was: dict[str, bytes]) -> bool:
    """Whether it was written; fails where anything is neither new and whole nor as it was."""
    if ended.code == 0:
        content = (folder / "out.nii").read_bytes()
        told = json.loads((folder / "out.json").read_text())
        assert told["Output"]["sha256"] == hashlib.sha256(content).hexdigest()
        assert names(folder) == ["out.json", "out.nii"]
        return True
    assert ended.code == 5, ended
    assert ended.err.startswith("nfops resample: error: ")
    assert ended.err.count("\n") == 1
    assert "cannot be written" in ended.err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == was
    return False


def emptied(folder: Path, was: dict[str, bytes]) -> None:
    for path in folder.iterdir():
        path.unlink()
    for name, content in was.items():
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("was", [{}, OLD], ids=["new", "force"])
def test_c48_a_disk_that_is_full_at_any_page(scan, disk, tmp_path, was):
    """Where nothing can be mounted, the largest size of a file is the limit: it hits at the same places."""
    folder = disk or tmp_path / "disk"
    written = []
    for free_pages in range(13):
        emptied(folder, was)
        filler = tmp_path / "disk" / "filler"
        if disk:
            total = os.statvfs(disk)
            filler.write_bytes(bytes((total.f_bavail - free_pages) * total.f_bsize))
        most = None if disk else 300 + free_pages * 900
        ended = resample(scan, folder, tmp_path / "log", *(["--force"] if was else []), most_bytes=most)
        filler.unlink(missing_ok=True)
        if ended.code:
            assert "disk is full" in ended.err or not disk
        written.append(check_whole(ended, folder, was))
    assert written == sorted(written)
    assert {*written} == {True, False}


@pytest.mark.parametrize("was", [{}, OLD], ids=["new", "force"])
def test_c48_a_file_that_grows_too_large_at_any_byte(scan, tmp_path, was):
    folder = tmp_path / "out"
    folder.mkdir()
    written = []
    for most_bytes in (300, 347, 352, 1500, 5000, 9000, 1 << 20):  # the line on stderr needs some too
        emptied(folder, was)
        words = ["--force"] if was else []

        ended = resample(scan, folder, tmp_path / "log", *words, most_bytes=most_bytes)
        written.append(check_whole(ended, folder, was))
    assert written == [False] * 6 + [True]


@pytest.mark.parametrize("was", [{}, OLD], ids=["new", "force"])
def test_c46_a_read_only_folder(scan, disk, tmp_path, was):
    folder = disk or tmp_path / "disk"
    emptied(folder, was)
    if disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    else:
        folder.chmod(0o555)
    is_closed = disk is not None or os.geteuid() != 0
    place = folder if is_closed else Path("/proc")  # root may write anywhere, but not there
    ended = resample(scan, place, tmp_path / "log", *(["--force"] if was else []))
    folder.chmod(0o755) if disk is None else None
    assert ended.code == 5
    assert ended.err.startswith(f"nfops resample: error: {place}: cannot be written: ")
    assert ended.err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == was

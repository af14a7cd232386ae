"""C44 to C54: whatever stops a run, its output and sidecar are the old ones or the new ones, and whole."""

import hashlib
import json
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from cli_fixtures import save_nifti, shade, shades  # noqa: F401
from trials import Ended, after, in_child, nfops_run, signalled_at

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
PUBLISHING = (
    "nfops/io/publish.py",
    "nfops/io/publish_folder.py",
    "nfops/io/holding.py",
    "nfops/io/sidecar.py",
    "nfops/cli/scans.py",
    "contextlib.py",
)
OLD = b"an output of last week"
OLD_SIDECAR = b'{"GeneratedBy": [{"Name": "nfops", "Version": "0.0"}]}'


@dataclass(frozen=True)
class Scene:
    """A folder with a scan, the words of a run, and, with --force, what is there already."""

    folder: Path
    words: tuple[object, ...]
    force: bool

    def prepare(self) -> "Scene":
        for path in self.folder.glob("*"):
            if path.name != "scan.nii.gz":
                path.unlink()
        for path in self.folder.glob(".nfops-*"):
            path.unlink()
        if self.force:
            (self.folder / "out.nii.gz").write_bytes(OLD)
            (self.folder / "out.json").write_bytes(OLD_SIDECAR)
        return self

    def run(self, ready: Path | None = None):
        force = ["--force"] if self.force else []
        return nfops_run([*self.words, "-q", "--out", self.folder / "out.nii.gz", *force], ready)

    def check(self, ended: Ended, number: int) -> str:
        """Which outcome it was; fails where it is none of those allowed."""
        told = f"{ended.code}: {ended.err}"
        assert ended.code in (0, CODES[number]), told
        assert len(ended.err.splitlines()) == (ended.code != 0), told
        found = sorted(path.name for path in self.folder.iterdir())
        if found == ["scan.nii.gz"]:
            assert not self.force, told
            assert ended.code, told
            return "nothing new"
        assert found == ["out.json", "out.nii.gz", "scan.nii.gz"], told
        content, sidecar = ((self.folder / name).read_bytes() for name in ("out.nii.gz", "out.json"))
        if self.force and content == OLD:
            assert sidecar == OLD_SIDECAR, told
            assert ended.code, told
            return "old kept"
        assert json.loads(sidecar)["Output"]["sha256"] == hashlib.sha256(content).hexdigest(), told
        return "new" if ended.code == 0 else "new, stopped after it"


@pytest.fixture(params=["resample", "resample --force", "apply", "apply --force"])
def scene(request, tmp_path_factory) -> Scene:
    folder = tmp_path_factory.mktemp("scene")
    scan = save_nifti(folder / "scan.nii.gz", shade(np.random.default_rng(0)))
    verb, _, force = request.param.partition(" ")
    if verb == "resample":
        words = ("resample", scan, "--shape", "61x53x7")
    else:
        trained = request.getfixturevalue("shades")
        words = ("apply", "--recipe", trained.recipe, scan, "--shape", "57x51", "--bundle", trained.bundle)
    return Scene(folder, words, bool(force)).prepare()


def test_an_undisturbed_trial_is_a_whole_run(scene, tmp_path):
    assert scene.check(in_child(scene.run(), tmp_path / "log"), signal.SIGINT) == "new"


def random_moments(scene: Scene, log: Path, count: int, seed: int) -> dict[str, int]:
    """Outcome -> how often, of runs that are stopped at random moments of their time."""
    rng, ready = random.Random(seed), log.with_name("ready")
    began = time.monotonic()
    assert in_child(scene.run(), log).code == 0
    lasts = time.monotonic() - began
    outcomes: dict[str, int] = {}
    for _ in range(count):
        number = rng.choice(list(CODES))
        scene.prepare()
        disturb = after(rng.random() * lasts, number, ready)
        outcome = scene.check(in_child(scene.run(ready), log, disturb), number)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return outcomes


def test_c50_a_signal_at_a_few_random_moments(scene, tmp_path):
    assert sum(random_moments(scene, tmp_path / "log", 3, 1).values()) == 3


@pytest.mark.slow
def test_c50_a_signal_at_many_random_moments(scene, tmp_path):
    outcomes = random_moments(scene, tmp_path / "log", 150, 2)
    print(outcomes)  # noqa: T201 - with -s
    assert outcomes.keys() & {"nothing new", "old kept"}


def steps_of(scene: Scene, log: Path) -> int:
    """How many lines of the publishing code an undisturbed run goes through."""
    ended = in_child(signalled_at(-1, signal.SIGINT, PUBLISHING, scene.run()), log)
    assert ended.code == 0, ended.err
    return int(ended.err)


def at_steps(scene: Scene, log: Path, steps) -> dict[str, int]:
    """Outcome -> how often, of runs that are stopped before these lines."""
    outcomes: dict[str, int] = {}
    for step in steps:
        number = (signal.SIGINT, signal.SIGTERM)[step % 2]
        scene.prepare()
        ended = in_child(signalled_at(step, number, PUBLISHING, scene.run()), log)
        try:
            outcome = scene.check(ended, number)
        except AssertionError as error:
            raise AssertionError(f"before line {step} of those: {error}") from error
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return outcomes


def test_c50_a_signal_before_a_few_lines_of_the_publishing(scene, tmp_path):
    count = steps_of(scene, tmp_path / "log")
    steps = random.Random(3).sample(range(1, count + 1), 10)
    outcomes = at_steps(scene, tmp_path / "log", steps)
    assert sum(outcomes.values()) == 10


@pytest.mark.slow
def test_c50_a_signal_before_every_line_of_the_publishing(scene, tmp_path):
    count = steps_of(scene, tmp_path / "log")
    steps = range(1, count + 1, 5 if "apply" in scene.words else 1)  # both publish by the same code
    outcomes = at_steps(scene, tmp_path / "log", steps)
    print(outcomes)  # noqa: T201 - with -s
    assert sum(outcomes.values()) == len(steps)
    assert outcomes.keys() == {"old kept" if scene.force else "nothing new", "new, stopped after it"}

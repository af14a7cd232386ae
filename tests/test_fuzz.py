"""Damaged files: a proper result or an NfopsError, in 10 s, and never wrong values where a checksum would tell.

A format is one more line in SUBJECTS. Cases are reproducible: `damaged(content, count, SEED)`.
"""

import hashlib
import json
import re
import resource
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from damage import TEXT, WORDS, damaged, edited
from nifti_files import OBLIQUE, make, stored
from PIL import Image as Picture
from toy_bundles import make_bundle, make_spec, scan_grid
from trials import in_child

from nfops.bundle import save_bundle
from nfops.errors import NfopsError, RecipeError
from nfops.image import Header, Image
from nfops.io import load_image, save_image
from nfops.recipe import load_recipe
from nfops.schema import to_plain
from nfops.shipped import shipped_recipes
from nfops.workflows.apply import GridRequest, apply, open_translator
from nfops.yaml_tree import read_yaml

SEED = 20260
LIMIT_S = 10
MEMORY = 4 << 30
GREY = np.random.default_rng(0).integers(0, 4000, (23, 19)).astype(np.uint16)


class HungError(BaseException):
    """No result in time."""


@dataclass(frozen=True)
class Subject:
    """make: writes a good file into a folder and returns it. read: (file) -> what was read, as text.

    is_checked: a checksum tells of every change, so that only the same or an error may come of it. words: what
    damages it in particular. damage: the ways to.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], str]
    is_checked: bool = False
    words: tuple[bytes, ...] = WORDS
    damage: Callable[..., Iterator[tuple[str, bytes]]] = damaged


def digest(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def read_image(path: Path) -> str:
    image = load_image(path)
    assert image.values.shape[1:] == image.grid.shape
    assert image.values.dtype in (np.float32, np.float64)
    return digest(image.values, image.grid.affine)


def read_recipe(path: Path) -> str:
    """Every line that an error names must be one of the file."""
    try:
        return json.dumps(to_plain(load_recipe(path)), sort_keys=True)
    except RecipeError as error:
        lines = [int(number) for number in re.findall(rf"^{re.escape(str(path))}:(\d+)", error.message, re.MULTILINE)]
        count = len(path.read_bytes().splitlines())
        if not all(1 <= line <= count + 1 for line in lines):
            raise ValueError(f"of {count} lines: {error.message}") from error
        raise


def read_bundle(path: Path) -> str:
    """It is also applied: a manifest that was edited must not crash what comes after the loading."""
    grid = scan_grid(2)
    values = np.random.default_rng(1).random((1, *grid.shape)).astype(np.float32)
    folder = path if path.is_dir() else path.parent
    drawn, encoded, _ = apply(open_translator(folder, "cpu"), Image(values, grid), GridRequest(shape=(12, 9)))
    return digest(drawn.image().values, encoded.vectors)


def nifti(name: str, kind: type = nibabel.Nifti1Image, dtype: str = "int16") -> Callable[[Path], Path]:
    return lambda folder: make(folder / name, shape=(9, 8, 5), kind=kind, dtype=dtype)


def nifti_big_endian(folder: Path) -> Path:
    good = stored((9, 8, 5), "float32")
    swapped = nibabel.Nifti1Image(np.asarray(good.dataobj), OBLIQUE, good.header.as_byteswapped(">"))
    swapped.to_filename(folder / "big.nii")
    return folder / "big.nii"


def picture(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        if name == "colour.png":
            Picture.fromarray(np.stack([GREY.astype(np.uint8)] * 3, axis=-1)).save(folder / name)
            return folder / name
        image = Image(GREY.astype(np.float32)[None, ..., None], scan_grid(3).with_shape((23, 19, 1)), Header())
        from nfops.io import SaveOptions

        save_image(folder / name, image, SaveOptions(dtype="uint16"))
        return folder / name

    return write


def signal_file(folder: Path) -> Path:
    lines = [f"{i / 250:.3f},{np.sin(i / 9):.5f},{i * 3}" for i in range(60)]
    (folder / "s.csv").write_text("\n".join(["time [s],ecg,beat", *lines, ""]))
    return folder / "s.csv"


def recipe_file(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / f"{name}.yaml").write_bytes(shipped_recipes()[name].read_bytes())
        return folder / f"{name}.yaml"

    return write


def recipe_as_json(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        plain = read_yaml(shipped_recipes()[name]).plain()
        (folder / "r.yaml").write_text(json.dumps(plain, indent=1))
        return folder / "r.yaml"

    return write


def bundle_file(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        save_bundle(make_bundle(make_spec(2), make_spec(2, "softmax", 3)), folder / "toy", force=False)
        return folder / "toy" / name

    return write


def dicom(name: str) -> Callable[[Path], Path]:
    """A small real file out of pydicom's own tests."""

    def copy(folder: Path) -> Path:
        content = (Path(pydicom.__file__).parent / "data" / "test_files" / name).read_bytes()
        (folder / "slice.dcm").write_bytes(content)
        return folder / "slice.dcm"

    return copy


def dicom_series(folder: Path) -> Path:
    """One slice of a series of five; the others stay whole."""
    dataset = pydicom.dcmread(dicom("MR_small.dcm")(folder))
    (folder / "slice.dcm").unlink()
    (folder / "series").mkdir()
    for number in range(5):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.{number + 1}"
        dataset.ImagePositionPatient = [-80.0, -90.0, 4.5 * number]
        dataset.InstanceNumber = number + 1
        dataset.save_as(folder / "series" / f"{number}.dcm")
    return folder / "series" / "2.dcm"


def read_series(path: Path) -> str:
    return read_image(path.parent)


SUBJECTS = {
    "dicom": Subject(dicom("MR_small.dcm"), read_image),
    "dicom implicit": Subject(dicom("MR_small_implicit.dcm"), read_image),
    "dicom big-endian": Subject(dicom("MR_small_bigendian.dcm"), read_image),
    "dicom RLE": Subject(dicom("MR_small_RLE.dcm"), read_image),
    "dicom JPEG-LS": Subject(dicom("MR_small_jpeg_ls_lossless.dcm"), read_image),
    "dicom JPEG 2000": Subject(dicom("MR_small_jp2klossless.dcm"), read_image),
    "dicom frames": Subject(dicom("rtdose.dcm"), read_image),
    "dicom series": Subject(dicom_series, read_series),
    "nii": Subject(nifti("a.nii"), read_image),
    "nii float64": Subject(nifti("a.nii", dtype="float64"), read_image),
    "nii big-endian": Subject(nifti_big_endian, read_image),
    "nii 2": Subject(nifti("a.nii", nibabel.Nifti2Image), read_image),
    "nii.gz": Subject(nifti("a.nii.gz"), read_image, is_checked=True),
    "png": Subject(picture("a.png"), read_image, is_checked=True),
    "colour png": Subject(picture("colour.png"), read_image, is_checked=True),
    "tiff": Subject(picture("a.tif"), read_image),
    "csv": Subject(signal_file, read_image, words=TEXT),
    "recipe": Subject(recipe_file("knee_pd2t2"), read_recipe, words=TEXT),
    "siren recipe": Subject(recipe_file("noir_oasis"), read_recipe, words=TEXT),
    "manifest": Subject(bundle_file("manifest.json"), read_bundle, words=TEXT),
    "edited manifest": Subject(bundle_file("manifest.json"), read_bundle, damage=edited),
    "edited recipe": Subject(recipe_as_json("knee_pd2t2"), read_recipe, damage=edited),
    "edited siren recipe": Subject(recipe_as_json("noir_oasis"), read_recipe, damage=edited),
    "field": Subject(bundle_file("source.safetensors"), read_bundle, is_checked=True),
    "target field": Subject(bundle_file("target.safetensors"), read_bundle, is_checked=True),
    "operator": Subject(bundle_file("operator.safetensors"), read_bundle, is_checked=True),
}


def try_all(subject: Subject, folder: Path, count: int) -> dict[str, str]:
    """What was done -> what came of it: "same", "other" (read as something else), "refused", or what went wrong."""
    path = subject.make(folder)
    content, good = path.read_bytes(), subject.read(path)
    log = folder / "outcomes"

    def work() -> int:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        signal.signal(signal.SIGALRM, _hung)
        with log.open("w") as file:
            for name, damage in subject.damage(content, count, SEED, subject.words):
                file.write(f"{name}\t")
                file.flush()
                path.write_bytes(damage)
                file.write(f"{_outcome(subject, path, good)}\n")
        return 0

    ended = in_child(work, folder / "log", limit_s=600)
    outcomes = dict(line.split("\t") for line in log.read_text().splitlines())
    if ended.code:
        outcomes[next(reversed(outcomes))] = f"ended the process: {ended.code} {ended.err[-300:]}"
    return outcomes


def _hung(*_args: object) -> None:
    raise HungError


def _outcome(subject: Subject, path: Path, good: str) -> str:
    signal.alarm(LIMIT_S)
    try:
        return "same" if subject.read(path) == good else "other"
    except NfopsError as error:
        return "refused" if error.message.strip() else "refused without a word"
    except BaseException as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    finally:
        signal.alarm(0)


def check(subject: Subject, outcomes: dict[str, str]) -> None:
    allowed = {"same", "refused"} if subject.is_checked else {"same", "refused", "other"}
    wrong = {name: outcome for name, outcome in outcomes.items() if outcome not in allowed}
    told = "\n".join(f"{name}: {outcome}" for name, outcome in list(wrong.items())[:20])
    assert not wrong, f"{len(wrong)} of {len(outcomes)} cases\n{told}"
    assert "refused" in outcomes.values()


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_few_damaged_files(name, tmp_path):
    check(SUBJECTS[name], try_all(SUBJECTS[name], tmp_path, 18))


@pytest.mark.slow
@pytest.mark.parametrize("name", SUBJECTS)
def test_many_damaged_files(name, tmp_path):
    outcomes = try_all(SUBJECTS[name], tmp_path, 2000)
    kinds = sorted(set(outcomes.values()))
    print(name, len(outcomes), {kind: list(outcomes.values()).count(kind) for kind in kinds})  # noqa: T201 - with -s
    check(SUBJECTS[name], outcomes)

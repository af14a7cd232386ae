# ruff: noqa: F401, F811 (fixtures are imported)
"""`nfops apply` as a user meets it: outputs, positions, sidecars, refusals and exit codes."""

import errno
import gzip
import hashlib
import itertools
import json
import os
import platform
import shutil
import signal
import struct
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import nibabel
import numpy as np
import pytest
from cli_fixtures import (
    ENVIRONMENT,
    OBLIQUE,
    SHADES_RECIPE,
    balls,
    blobs,
    corners,
    leftovers,
    names,
    nfops,
    nifti,
    save_nifti,
    shade,
    shades,
    start,
    train,
    write_shades,
)
from PIL import Image as Picture

from nfops.cli.errors import Terminated
from nfops.engines.numpy_engine import NumpyEngine
from nfops.errors import InputError
from nfops.rendering import Rendering

GRID_OF_ANOTHER = np.array([[0, 0, 3.0, -20], [-2.2, 0, 0, 30], [0, 1.7, 0, -25], [0, 0, 0, 1.0]])


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def scan(here):
    """A volume that the recipe `shades` has never seen."""
    return save_nifti(here / "scan.nii.gz", shade(np.random.default_rng(77)))


def in_other_orientation(values, affine, order, flips):
    """The same volume stored with its axes in another order and flipped; (values, affine, old voxel of new one)."""
    stored, move = values.transpose(order), np.zeros((4, 4))
    move[3, 3] = 1
    for new, old in enumerate(order):
        move[old, new] = 1
    for axis in range(3):
        if flips[axis]:
            stored, flip = np.flip(stored, axis), np.eye(4)
            flip[axis, axis], flip[axis, 3] = -1, stored.shape[axis] - 1
            move = move @ flip
    return stored, affine @ move, move


ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product((False, True), repeat=3)))
SOME_ORIENTATIONS = ORIENTATIONS[3::6]


# --- what it makes -----------------------------------------------------------------------------------------------


def test_a_picture_becomes_a_mask_of_0_and_255(blobs, here):
    source = blobs.data / "images" / "b20.png"
    ran = nfops("apply", *blobs.options(), source, "--out", "mask.png")
    assert (ran.code, ran.out, ran.err) == (0, "mask.png\n", "")
    mask, truth = np.asarray(Picture.open("mask.png")), np.asarray(Picture.open(blobs.data / "masks" / "b20.png"))
    assert mask.shape == (24, 20)
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 255}
    both = ((mask > 0) & (truth > 0)).sum()
    assert 2 * both / ((mask > 0).sum() + (truth > 0).sum()) > 0.8


def test_a_picture_may_become_a_volume_and_lies_where_the_recipe_says(blobs, here):
    assert nfops("apply", *blobs.options(), blobs.data / "images" / "b3.png", "--out", "m.nii.gz").code == 0
    values, affine = nifti(here / "m.nii.gz")
    assert (values.shape[:2], values.dtype) == ((20, 24), np.uint8)
    assert set(np.unique(values)) == {0, 1}
    assert np.allclose(affine, [[-2, 0, 0, 19], [0, -2, 0, 23], [0, 0, 1, 0], [0, 0, 0, 1]])


def test_soft_gives_probabilities(blobs, here):
    assert nfops("apply", *blobs.options(), blobs.data / "images" / "b3.png", "--out", "p.nii", "--soft").code == 0
    values, _ = nifti(here / "p.nii")
    assert values.dtype == np.float32
    assert 0 <= values.min() < 0.1
    assert 0.9 < values.max() <= 1
    assert len(np.unique(values)) > 20
    assert json.loads((here / "p.json").read_text())["Output"]["units"] == "probability"


def test_labels_of_a_volume_are_whole_numbers_of_the_recipe(balls, here):
    assert nfops("apply", *balls.options(), balls.data / "images" / "v12.nii.gz", "--out", "l.nii.gz").code == 0
    values, affine = nifti(here / "l.nii.gz")
    truth, place = nifti(balls.data / "labels" / "v12.nii.gz")
    assert values.dtype == np.uint8
    assert set(np.unique(values)) <= {0, 1, 2}
    assert (values == truth).mean() > 0.85
    assert np.allclose(affine, place, atol=1e-6)
    assert nfops("apply", *balls.options(), balls.data / "images" / "v12.nii.gz", "--out", "s.nii", "--soft").code == 0
    soft, _ = nifti(here / "s.nii")
    assert soft.shape[-1] == 3
    assert np.allclose(soft.sum(axis=-1), 1, atol=1e-5)


def test_an_intensity_image_is_in_the_units_that_the_sidecar_states(shades, scan, here):
    assert nfops("apply", *shades.options(), scan, "--out", "t.nii.gz").code == 0
    predicted, affine = nifti(here / "t.nii.gz")
    values, place = nifti(scan)
    assert predicted.dtype == np.float32
    assert np.abs(predicted - (450 - values / 3)).mean() < 15
    assert np.array_equal(affine, place)
    assert json.loads((here / "t.json").read_text())["Output"]["units"] == "training range 0 to 500"


def test_a_slice_stored_as_a_2d_image_stays_one(shades, here):
    save_nifti(here / "flat.nii", shade(np.random.default_rng(1))[:, :, 2])
    assert nfops("apply", *shades.options(), "flat.nii", "--out", "t.nii").code == 0
    values, affine = nifti(here / "t.nii")
    assert values.shape == (20, 18)
    assert np.allclose(affine, OBLIQUE, atol=1e-6)


def test_a_single_time_point_is_a_volume(shades, here):
    save_nifti(here / "one.nii", shade(np.random.default_rng(1))[..., None])
    assert nfops("apply", *shades.options(), "one.nii", "--out", "t.nii").code == 0


@pytest.mark.parametrize(("order", "flips"), SOME_ORIENTATIONS)
def test_one_volume_stored_in_other_orientations_gives_the_same_world_values(shades, scan, here, order, flips):
    values, affine = nifti(scan)
    stored, place, move = in_other_orientation(values, affine, order, flips)
    save_nifti(here / "other.nii", stored, place)
    assert nfops("apply", *shades.options(), scan, "--out", "a.nii").code == 0
    assert nfops("apply", *shades.options(), "other.nii", "--out", "b.nii").code == 0
    expected, _ = nifti(here / "a.nii")
    got, where = nifti(here / "b.nii")
    assert np.allclose(where, place, atol=1e-5)
    voxels = np.stack(np.meshgrid(*map(np.arange, stored.shape), indexing="ij"), axis=-1)
    old = np.rint(voxels @ move[:3, :3].T + move[:3, 3]).astype(int)
    assert np.allclose(got, expected[tuple(np.moveaxis(old, -1, 0))], atol=1e-2)


@pytest.mark.parametrize(("order", "flips"), SOME_ORIENTATIONS[::3])
def test_the_grid_of_another_image_is_kept_whatever_the_orientation_of_the_scan(shades, scan, here, order, flips):
    save_nifti(here / "like.nii", np.zeros((21, 25, 9)), GRID_OF_ANOTHER)
    stored, place, _ = in_other_orientation(*nifti(scan), order, flips)
    save_nifti(here / "other.nii", stored, place)
    for source, out in ((scan, "a.nii"), ("other.nii", "b.nii")):
        assert nfops("apply", *shades.options(), source, "--out", out, "--like", "like.nii").code == 0
    (expected, _), (got, affine) = nifti(here / "a.nii"), nifti(here / "b.nii")
    assert got.shape == (21, 25, 9)
    assert np.allclose(affine, GRID_OF_ANOTHER, atol=1e-5)
    assert np.allclose(got, expected, atol=1e-2)
    assert got.std() > 10


def test_shape_keeps_the_field_of_view_from_edge_to_edge(shades, scan, here):
    assert nfops("apply", *shades.options(), scan, "--out", "t.nii", "--shape", "31x14").code == 0
    values, affine = nifti(here / "t.nii")
    assert values.shape == (31, 14, 4)
    assert np.allclose(corners(values.shape, affine), corners((20, 18, 4), nifti(scan)[1]), atol=1e-4)


def test_shape_is_in_plane_where_slices_are_stored_first(shades, scan, here):
    stored, place, _ = in_other_orientation(*nifti(scan), (2, 0, 1), (False, True, False))
    save_nifti(here / "other.nii", stored, place)
    assert nfops("apply", *shades.options(), "other.nii", "--out", "t.nii", "--shape", "31x14").code == 0
    values, affine = nifti(here / "t.nii")
    assert values.shape == (4, 31, 14)
    assert np.allclose(corners(values.shape, affine), corners(stored.shape, place), atol=1e-4)


@pytest.mark.parametrize(
    ("text", "spacing"), [("1.5", (1.5, 1.5, 6)), ("1.5x3", (1.5, 3, 6)), ("1x2x3", (1, 2, 3)), ("1×2", (1, 2, 6))]
)
def test_spacing_is_exact_and_the_centre_stays(shades, scan, here, text, spacing):
    assert nfops("apply", *shades.options(), scan, "--out", "t.nii", "--spacing", text).code == 0
    values, affine = nifti(here / "t.nii")
    assert np.allclose(nibabel.affines.voxel_sizes(affine), spacing, atol=1e-5)
    centres = [corners(shape, place).mean(axis=0) for shape, place in ((values.shape, affine), ((20, 18, 4), OBLIQUE))]
    assert np.allclose(*centres, atol=1e-4)


def test_pixel_mm_overrides_the_recipe_and_is_written_into_the_picture(blobs, here):
    source = blobs.data / "images" / "b3.png"
    assert nfops("apply", *blobs.options(), source, "--out", "m.png", "--pixel-mm", "1.5x1.2").code == 0
    assert nfops("info", "--json", "m.png").document["spacing_mm"][:2] == pytest.approx([1.5, 1.2], rel=1e-3)


# --- the sidecar (A10) -------------------------------------------------------------------------------------------


def test_a10_the_sidecar_says_how_it_was_made_and_holds_no_path(shades, scan, here):
    out = here / "t.nii.gz"
    nfops("apply", *shades.options(), scan, f"--out={out}", "--bundle", shades.bundle, "--shape", "31x14")
    text = (here / "t.json").read_text()
    found = json.loads(text)
    assert "/" not in "".join(word for word in text.split('"') if "sha256" not in word)
    (by,) = found["GeneratedBy"]
    words = ["apply", "--recipe", "recipe.yaml", "INPUT[0]", "--out=OUTPUT", "--bundle", "shades", "--shape", "31x14"]
    assert by["Command"] == ["nfops", *words]
    assert [source["name"] for source in found["Sources"]] == ["scan.nii.gz"]
    assert found["Sources"][0]["sha256"] == hashlib.sha256(scan.read_bytes()).hexdigest()
    assert found["Output"]["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert np.allclose(found["Output"]["affine"], nifti(out)[1], atol=1e-5)
    assert found["Output"]["shape"] == [31, 14, 4]
    assert found["Bundle"] == hashlib.sha256((shades.bundle / "manifest.json").read_bytes()).hexdigest()
    assert (found["Recipe"]["name"], found["Seed"], found["Device"], found["Warnings"]) == ("shades", 3, "cpu", [])
    assert found["Recipe"]["sha256"] == hashlib.sha256(shades.recipe.read_bytes()).hexdigest()
    assert found["Precision"] == "float32"
    assert found["Sources"][0]["shape"] == [20, 18, 4]
    assert np.allclose(found["Sources"][0]["affine"], nifti(scan)[1], atol=1e-5)
    start, end = (datetime.fromisoformat(found[key]) for key in ("Start", "End"))
    assert start.tzinfo is not None
    assert start <= end


def test_a10_versions_are_of_what_was_used(shades, scan, here):
    words = ["apply", *map(str, shades.options()), "scan.nii.gz", "--out", "t.nii"]
    for before in ("", "import torch"):
        code = f"{before}\nfrom nfops.cli.main import invoke\ninvoke({[*words, '--force']!r})"
        subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, env=ENVIRONMENT, check=True)
        versions = json.loads((here / "t.json").read_text())["Versions"]
        assert versions.keys() == {"python", "nfops", "numpy", "nibabel", *(["torch"] if before else [])}
        assert versions["python"] == platform.python_version()
        assert all(versions.values())


def test_b45_nothing_about_the_patient_is_written(shades, scan, here):
    image = nibabel.load(scan)
    image.header["descrip"], image.header["db_name"] = b"Doe^Jane 1970-01-01", b"PID4711"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"left hand"))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("xcede", b"<name>Doe^Jane PID4711</name>"))
    (here / "jane_doe").mkdir()
    image.to_filename(here / "jane_doe" / "s.nii")
    ran = nfops("apply", *shades.options(), here / "jane_doe" / "s.nii", "--out", "t.nii", "--json")
    assert ran.code == 0
    sidecar, output = (here / "t.json").read_text(), (here / "t.nii").read_bytes()
    for word in ("Doe", "4711", "1970", "jane_doe"):
        assert word not in sidecar
        assert word.encode() not in output
    assert "XCEDE" in sidecar
    assert b"left hand" in output


def test_a10_a_sidecar_of_a_batch_names_no_other_scan(blobs, here):
    sources = [blobs.data / "images" / f"b{n}.png" for n in (3, 4, 5)]
    assert nfops("apply", *blobs.options(), *sources, "--out-dir", "o").code == 0
    text = (here / "o" / "b4.json").read_text()
    assert "b4.png" in text
    assert "b3.png" not in text


@pytest.mark.parametrize("words", [(), ("--force",)])
def test_where_the_sidecar_cannot_be_written_there_is_no_new_output_and_the_old_one_stays(
    blobs, here, monkeypatch, words
):
    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device", "m.json")

    if words:
        (here / "m.png").write_bytes(b"old")
    monkeypatch.setattr("nfops.io.sidecar.write_sidecar", full)
    ran = nfops("apply", *blobs.options(), blobs.data / "images" / "b3.png", "--out", "m.png", *words)
    assert (ran.code, ran.err) == (5, "nfops apply: error: m.json: cannot write: No space left on device\n")
    assert names() == (["m.png"] if words else [])
    assert not words or (here / "m.png").read_bytes() == b"old"


def test_json_describes_the_output(shades, scan, here):
    found = nfops("apply", *shades.options(), scan, "--out", "t.nii", "--json").document
    keys = {"input", "output", "shape", "spacing_mm", "affine", "sha256", "seconds", "warnings", "quality"}
    assert found.keys() == keys
    assert found["sha256"] == hashlib.sha256((here / "t.nii").read_bytes()).hexdigest()


# --- refusals before anything is computed ------------------------------------------------------------------------


@pytest.fixture
def no_computing(monkeypatch):
    def never(*_args, **_options):
        raise AssertionError("it computed")

    monkeypatch.setattr("nfops.workflows.apply.apply", never)


@pytest.mark.parametrize("name", ["t.nii", "t.json"])
def test_a5_c44_an_output_or_sidecar_that_exists_is_refused(shades, scan, here, no_computing, name):
    mine = '{"GeneratedBy": [{"Name": "nfops"}]}'
    (here / name).write_text(mine)
    ran = nfops("apply", *shades.options(), scan, "--out", "t.nii")
    assert (ran.code, len(ran.err.splitlines())) == (5, 1)
    assert f"{name}: exists already (use --force" in ran.err
    assert (here / name).read_text() == mine
    assert names() == ["scan.nii.gz", name]


def test_a5_force_replaces_an_output(shades, scan, here):
    (here / "t.nii").write_text("mine")
    assert nfops("apply", *shades.options(), scan, "--out", "t.nii", "-f").code == 0
    assert nifti(here / "t.nii")[0].shape == (20, 18, 4)


@pytest.mark.parametrize("kind", ["same", "hard", "soft"])
def test_c45_an_output_that_is_the_input_is_refused_even_with_force(shades, scan, here, no_computing, kind):
    before = scan.read_bytes()
    out = here / f"{kind}.nii.gz" if kind != "same" else scan
    if kind == "hard":
        os.link(scan, out)
    elif kind == "soft":
        out.symlink_to(scan)
    ran = nfops("apply", *shades.options(), scan, "--out", out, "--force")
    assert ran.code == 5
    assert "also an input" in ran.err
    assert scan.read_bytes() == before


@pytest.mark.parametrize(
    ("out", "code", "said"),
    [
        ("none/t.nii", 5, "none: no such directory (create it first)"),
        ("scan.nii.gz/t.nii", 5, "scan.nii.gz: is a file, expected a directory"),
        (f"{'x' * 300}.nii", 5, "the name is too long"),
        ("t.tmp", 2, "t.tmp: unknown suffix for an output (supported: .nii.gz, .nii, .mgz, .mgh, "),
        ("t", 2, "t: unknown suffix"),
    ],
)
def test_c46_c47_places_that_cannot_be_written_to(shades, scan, here, no_computing, out, code, said):
    ran = nfops("apply", *shades.options(), scan, "--out", out)
    assert (ran.code, len(ran.err.splitlines())) == (code, 1)
    assert said in ran.err
    assert names() == ["scan.nii.gz"]


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_c46_a_file_in_the_way_of_the_folder(shades, scan, here, dry):
    ran = nfops("apply", *shades.options(), scan, "--out-dir", "scan.nii.gz/t", *dry)
    assert (ran.code, len(ran.err.splitlines())) == (5, 1)


@pytest.mark.parametrize(
    "options",
    [
        ["--shape", "0x0"],
        ["--shape", "-1"],
        ["--shape", "256"],
        ["--shape", "256x256x256x2"],
        ["--shape", "1e3x2"],
        ["--spacing", "0x1"],
        ["--spacing", "nan"],
        ["--spacing", "1e9"],
        ["--pixel-mm", "0"],
        ["--shape", "3x3", "--spacing", "1"],
        ["--shape", "3x3", "--like", "scan.nii.gz"],
        ["--like", "none.nii"],
        ["--dtype", "float16"],
        ["--shard", "0/1", "--out-dir", "o"],
        ["--nthreads", "0"],
        ["--shpae", "3x3"],
    ],
)
def test_c60_options_that_make_no_sense(shades, scan, here, options):
    ran = nfops("apply", *shades.options(), scan, "--out", "t.nii", *options)
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert names() == ["scan.nii.gz"]


def test_c60_an_absurd_shape_is_a_matter_of_memory(shades, scan, here):
    ran = nfops("apply", *shades.options(), scan, "--out", "t.nii", "--shape", "1000000x1000000")
    assert (ran.code, len(ran.err.splitlines())) == (6, 1)
    assert "GiB" in ran.err
    assert names() == ["scan.nii.gz"]


def test_c56_a_device_that_is_not_there_is_refused_before_the_scan_is_read(shades, here):
    (here / "broken.nii").write_bytes(b"")
    ran = nfops("apply", *shades.options(), "broken.nii", "--out", "t.nii", "--device", "cuda:99")
    assert (ran.code, len(ran.err.splitlines())) == (6, 1)
    assert "CUDA" in ran.err


def test_without_a_bundle_one_line_says_how_to_train_it(scan, here):
    ran = nfops("apply", "--recipe", "knee_pd2t2", scan, "--out", "t.nii")
    assert (ran.code, len(ran.err.splitlines())) == (4, 1)
    assert "no trained bundle at bundles/knee_pd2t2 (train it: nfops fit-inr --recipe knee_pd2t2" in ran.err


def test_a_bundle_without_an_operator_says_what_is_missing(shades, scan, here):
    shutil.copytree(shades.bundle, "half")
    manifest = json.loads((here / "half" / "manifest.json").read_text())
    manifest["files"].pop("operator.safetensors")
    (here / "half" / "manifest.json").write_text(json.dumps(manifest))
    ran = nfops("apply", *shades.options(), scan, "--out", "t.nii", "--bundle", "half")
    assert ran.code == 4
    assert "train-operator" in ran.err


def test_a_bundle_of_another_recipe_is_warned_about(shades, balls, here):
    source = balls.data / "images" / "v1.nii.gz"
    ran = nfops("apply", *shades.options(), source, "--out", "t.nii", "--bundle", balls.bundle)
    assert "the bundle was trained by recipe balls, not shades" in ran.err


def damage(bundle, how):
    source, manifest = bundle / "source.safetensors", bundle / "manifest.json"
    if how == "changed":
        source.write_bytes(source.read_bytes()[:-1] + b"x")
    elif how == "cut":
        source.write_bytes(source.read_bytes()[:100])
    elif how == "missing":
        (bundle / "operator.safetensors").unlink()
    elif how == "newer":
        manifest.write_text(manifest.read_text().replace('"format_version": 1', '"format_version": 9'))
    elif how == "no json":
        manifest.write_text("{")
    elif how == "other":
        manifest.write_text("[]")
    elif how == "empty":
        shutil.rmtree(bundle)
        bundle.mkdir()


@pytest.mark.parametrize("how", ["changed", "cut", "missing", "newer", "no json", "other", "empty"])
def test_c36_c39_a_damaged_bundle_is_refused_by_name(shades, scan, here, how):
    shutil.copytree(shades.bundle, "damaged")
    damage(here / "damaged", how)
    ran = nfops("apply", *shades.options(), scan, "--out", "t.nii", "--bundle", "damaged")
    assert (ran.code, len(ran.err.splitlines())) == (4, 1)
    assert "damaged" in ran.err
    assert names() == ["damaged", "scan.nii.gz"]


def test_c40_a_checkpoint_is_never_unpickled(shades, scan, here):
    (here / "model.pt").write_bytes(b"\x80\x04")
    ran = nfops("apply", *shades.options(), scan, "--out", "t.nii", "--bundle", "model.pt")
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)


# --- broken scans: one line, the exit code, nothing left ---------------------------------------------------------


def make_broken(here, kind):
    """A scan that cannot be used, by what is wrong with it."""
    values, path = shade(np.random.default_rng(5)).astype(np.float32), here / "bad.nii.gz"
    bent = OBLIQUE @ np.array([[1, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    if kind in {"nan", "inf"}:
        values[3, 4, 1] = np.nan if kind == "nan" else np.inf
    values = {"constant": np.full_like(values, 3), "zero": np.zeros_like(values), "one row": values[:1]}.get(
        kind, values
    )
    values = {"two times": np.stack([values] * 2, -1), "shape": values[0, 0]}.get(kind, values)
    save_nifti(path, values, bent if kind == "sheared" else OBLIQUE)
    raw = path.read_bytes()
    if kind == "cut gzip":
        path.write_bytes(raw[: len(raw) // 2])
    elif kind == "bad crc":
        path.write_bytes(raw[:-8] + bytes(4) + raw[-4:])
    elif kind == "not gzip":
        path.write_bytes(gzip.decompress(raw))
    elif kind in {"gzip in nii", "cut nii", "bomb", "huge spacing"}:
        path.unlink()
        path = here / "bad.nii"
        plain = bytearray(gzip.decompress(raw))
        if kind == "bomb":
            struct.pack_into("<4h", plain, 40, 3, 32767, 32767, 32767)
        if kind == "huge spacing":
            struct.pack_into("<4f", plain, 280, 1e9, 0, 0, 0)
        path.write_bytes({"gzip in nii": raw, "cut nii": plain[:-9]}.get(kind, plain))
    elif kind in {"empty", "text", "lfs", "html"}:
        start = {"text": b"a,b\n", "lfs": b"version https://git-lfs.github.com/spec/v1\n", "html": b"<!DOCTYPE html>"}
        path.write_bytes(start.get(kind, b""))
    elif kind == "folder":
        path.unlink()
        path.mkdir()
        (path / "notes.txt").write_text("no image")
    elif kind == "pipe":
        path.unlink()
        os.mkfifo(path)
    return path


BROKEN = {
    "nan": (3, "1 voxels are NaN"),
    "inf": (3, "1 voxels are NaN or infinite"),
    "constant": (3, "no contrast"),
    "zero": (3, "no contrast"),
    "one row": (3, "has 1 sample"),
    "two times": (3, "expected 1 channel, got 2"),
    "sheared": (3, "sheared grid"),
    "cut gzip": (3, "gzip stream ends early"),
    "bad crc": (3, "CRC mismatch"),
    "not gzip": (3, "rename it to bad.nii"),
    "gzip in nii": (3, "rename it to bad.nii.gz"),
    "cut nii": (3, "is truncated"),
    "huge spacing": (3, ""),
    "bomb": (6, "GiB"),
    "empty": (3, "empty file"),
    "text": (3, "text file"),
    "lfs": (3, "git lfs pull"),
    "html": (3, "web page"),
    "folder": (9, "no input images"),
    "pipe": (3, "not a regular file"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_c2_c14_c15_c16_c17_c30_a_broken_scan_is_one_line_and_leaves_nothing(shades, here, kind):
    path = make_broken(here, kind)
    code, said = BROKEN[kind]
    ran = nfops("apply", *shades.options(), path.name, "--out", "t.nii")
    assert (ran.code, len(ran.err.splitlines()), ran.out) == (code, 1, "")
    assert ran.err.startswith(f"nfops apply: error: {path.name}: ")
    assert said in ran.err
    assert names() == [path.name]


def test_c1_a_missing_scan_is_met_with_the_nearest_name(shades, scan, here):
    ran = nfops("apply", *shades.options(), "scna.nii.gz", "--out", "t.nii")
    assert (ran.code, ran.err) == (
        2,
        "nfops apply: error: scna.nii.gz: no such file (did you mean scan.nii.gz?)\n",
    )


@pytest.mark.parametrize("kind", ["garbage", "unoriented"])
def test_c6_c13_what_is_only_odd_is_a_warning_on_stderr_and_in_the_sidecar(shades, scan, here, kind):
    if kind == "garbage":
        scan.write_bytes(scan.read_bytes() + b"garbage")
    else:
        image = nibabel.load(scan)
        image.set_sform(None, 0)
        image.set_qform(None, 0)
        image = nibabel.Nifti1Image(np.asarray(image.dataobj), None, image.header)
        image.to_filename(scan)
    ran = nfops("apply", *shades.options(), scan, "--out", "t.nii", "--json")
    assert ran.code == 0
    first, *rest = ran.document["warnings"]
    assert ("trailing garbage" if kind == "garbage" else "no orientation") in first
    assert all("unlike" in warning for warning in rest)  # without an orientation it may lie otherwise than in training
    assert all(f"warning: {warning}" in ran.err for warning in (first, *rest))
    assert json.loads((here / "t.json").read_text())["Warnings"] == [first, *rest]


def test_c17_a_colour_picture_is_refused_by_a_grey_recipe(blobs, here):
    Picture.fromarray(np.random.default_rng(0).integers(0, 255, (24, 20, 3)).astype(np.uint8)).save("c.png")
    ran = nfops("apply", *blobs.options(), "c.png", "--out", "m.png")
    assert ran.code == 3
    assert "expected 1 channel, got 3" in ran.err


def test_several_slices_do_not_become_a_picture(shades, scan, here):
    ran = nfops("apply", *shades.options(), scan, "--out", "t.png")
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert "a picture holds one slice, the image is 20x18x4" in ran.err
    assert names() == ["scan.nii.gz"]


def test_b24_a_result_that_is_not_a_number_is_not_published(shades, scan, here, monkeypatch):
    decode = NumpyEngine.decode
    monkeypatch.setattr(NumpyEngine, "decode", lambda *args: decode(*args) * np.float32("nan"))
    ran = nfops("apply", *shades.options(), scan, "--out", "t.nii")
    assert (ran.code, len(ran.err.splitlines())) == (7, 1)
    assert "nothing was written" in ran.err
    assert names() == ["scan.nii.gz"]


def test_values_that_do_not_fit_the_type_asked_for_are_not_published(shades, scan, here):
    ran = nfops("apply", *shades.options(), scan, "--out", "t.nii", "--dtype", "uint8")
    assert ran.code == 7
    assert "do not fit uint8" in ran.err
    assert names() == ["scan.nii.gz"]


# --- many scans (A16, C51, C61, C62) -----------------------------------------------------------------------------


def copies(folder, count=5):
    folder.mkdir()
    rng = np.random.default_rng(8)
    return [save_nifti(folder / f"s{n}.nii.gz", shade(rng)) for n in range(count)]


def test_a16_one_bad_scan_does_not_stop_the_others(shades, here):
    paths = copies(here / "in", 3)
    paths[1].write_bytes(b"")
    ran = nfops("apply", *shades.options(), "in", "--out-dir", "out/deep", "--json")
    assert ran.code == 8
    assert (ran.document["done"], ran.document["failed"]) == (2, 1)
    assert ran.document["results"][1]["error"]["code"] == 3
    assert "nfops apply: error: in/s1.nii.gz: empty file\n" in ran.err
    assert names("out/deep") == ["s0.json", "s0.nii.gz", "s2.json", "s2.nii.gz"]


def test_a16_quiet_still_tells_errors(shades, here):
    copies(here / "in", 2)[0].write_bytes(b"")
    ran = nfops("apply", *shades.options(), "in", "--out-dir", "out", "-q")
    assert (ran.code, ran.err) == (8, "nfops apply: error: in/s0.nii.gz: empty file\n")


def test_a16_a_list_may_come_from_a_file_or_standard_input(shades, here):
    copies(here / "in", 3)
    text = "in/s2.nii.gz\n\nin/s0.nii.gz\n"
    (here / "list").write_text(text)
    for out, source, stdin in (("a", "list", ""), ("b", "-", text)):
        ran = nfops("apply", *shades.options(), "--batch", source, "--out-dir", out, stdin=stdin)
        assert (ran.code, ran.out.split()) == (0, [f"{out}/s0.nii.gz", f"{out}/s2.nii.gz"])
        assert names(out) == ["s0.json", "s0.nii.gz", "s2.json", "s2.nii.gz"]


def test_a16_folders_in_a_list_give_their_images_and_empty_ones_are_counted(shades, here):
    copies(here / "in", 1)
    (here / "in" / "deep").mkdir()
    ran = nfops("apply", *shades.options(), "--batch", "-", "--out-dir", "out", stdin="in\nin/deep\n")
    assert ran.code == 0
    assert "1 folders without images were skipped" in ran.err
    assert (here / "out" / "s0.nii.gz").is_file()


def test_c62_two_inputs_for_one_output_are_refused_before_the_start(shades, here, no_computing):
    copies(here / "a", 1)
    copies(here / "b", 1)
    ran = nfops("apply", *shades.options(), "a", "b", "--out-dir", "out")
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert "a/s0.nii.gz and b/s0.nii.gz" in ran.err


def test_an_output_of_a_batch_that_exists_is_refused_before_the_start(shades, here, no_computing):
    copies(here / "in", 3)
    (here / "out").mkdir()
    (here / "out" / "s2.nii.gz").write_text("mine")
    assert nfops("apply", *shades.options(), "in", "--out-dir", "out").code == 5
    assert names("out") == ["s2.nii.gz"]


def test_a_folder_of_outputs_that_is_the_folder_of_inputs_is_refused(shades, here, no_computing):
    copies(here / "in", 1)
    assert nfops("apply", *shades.options(), "in", "--out-dir", "in", "-f").code == 5


@pytest.mark.parametrize(("stdin", "batch"), [("", ["--batch", "-"]), ("", [])])
def test_no_input_at_all_is_exit_code_9(shades, here, stdin, batch):
    ran = nfops("apply", *shades.options(), *batch, "--out-dir", "out", stdin=stdin)
    assert (ran.code, len(ran.err.splitlines())) == (9, 1)
    assert "no input images" in ran.err


@pytest.mark.parametrize("outputs", [[], ["--out", "a.nii", "--out-dir", "o"], ["--out", "a.nii"]])
def test_a1_many_inputs_need_exactly_one_folder(shades, here, outputs):
    copies(here / "in", 2)
    assert nfops("apply", *shades.options(), "in", *outputs).code == 2


def test_c61_the_shards_of_a_list_are_all_of_it_once(shades, here):
    copies(here / "in", 5)
    for shard in range(3):
        ran = nfops("apply", *shades.options(), "in", "--out-dir", f"o{shard}", "--shard", f"{shard}/3", "-q")
        assert ran.code == 0
    parts = [{name for name in names(f"o{shard}") if name.endswith(".gz")} for shard in range(3)]
    assert parts == [{"s0.nii.gz", "s3.nii.gz"}, {"s1.nii.gz", "s4.nii.gz"}, {"s2.nii.gz"}]


def test_c61_an_empty_shard_is_done_and_says_so(shades, here):
    copies(here / "in", 2)
    ran = nfops("apply", *shades.options(), "in", "--out-dir", "o", "--shard", "5/7")
    assert (ran.code, ran.out) == (0, "")
    assert "0 of 2 scans" in ran.err


@pytest.mark.parametrize("shard", ["16/16", "a/b", "0/0", "3", "-1/4"])
def test_c61_a_wrong_shard_is_a_usage_error(shades, scan, here, shard):
    ran = nfops("apply", *shades.options(), scan, "--out-dir", "o", "--shard", shard)
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert names() == ["scan.nii.gz"]


@pytest.mark.parametrize(
    "name", ["a b.nii.gz", "sub.1.nii.gz", "-lead.nii.gz", "new\nline.nii.gz", "ü.nii.gz", "\udcff.nii.gz"]
)
def test_c63_odd_file_names(shades, scan, here, name):
    scan.rename(name)
    ran = nfops("apply", *shades.options(), "--out-dir", "o", "--", name)
    assert ran.code == 0
    assert len(ran.err.splitlines()) == 1
    assert names("o") == sorted([name, name.removesuffix(".nii.gz") + ".json"])
    json.loads((here / "o" / (name.removesuffix(".nii.gz") + ".json")).read_text())


def test_c18_a_scan_in_other_units_than_the_recipe_declares_is_warned_about(here):
    folder = write_shades(here / "data")
    recipe = folder / "recipe.yaml"
    recipe.write_text(SHADES_RECIPE.replace("{map: percentile, low: 0, high: 100}", "{map: range, low: 0, high: 1200}"))
    trained = train(folder, "shades")
    values = shade(np.random.default_rng(77))
    for factor, is_told in ((1.0, False), (1e-3, True), (3.0, False), (-1.0, True)):
        save_nifti(here / "s.nii", factor * values)
        ran = nfops("apply", *trained.options(), "s.nii", "--out", "t.nii", "--force")
        assert ran.code == 0
        assert ("the recipe declares 0 to 1200" in ran.err) == is_told
        assert any("right units" in text for text in json.loads((here / "t.json").read_text())["Warnings"]) == is_told
    recipe.write_text(recipe.read_text().replace("high: 1200}", "high: 1200, strict: true}"))
    shutil.rmtree(folder / "bundles")
    trained = train(folder, "shades")
    save_nifti(here / "s.nii", 1e-3 * values)
    ran = nfops("apply", *trained.options(), "s.nii", "--out", "u.nii")
    assert (ran.code, len(ran.err.splitlines())) == (3, 1)
    assert "the recipe declares 0 to 1200" in ran.err
    assert not (here / "u.nii").exists()


# --- dry runs (A13) ----------------------------------------------------------------------------------------------


def test_a13_a_dry_run_shows_the_plan_and_writes_nothing(shades, here, no_computing):
    copies(here / "in", 2)
    ran = nfops("apply", *shades.options(), "in", "--out-dir", "o/p", "--dry-run")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[0] == "in/s0.nii.gz (20x18x4) -> o/p/s0.nii.gz"
    assert names() == ["in"]
    plan = nfops("apply", *shades.options(), "in", "--out-dir", "o/p", "--dry-run", "--json").document["plan"]
    assert [entry["output"] for entry in plan] == ["o/p/s0.nii.gz", "o/p/s1.nii.gz"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["scan.nii.gz", "--out", "scan.nii.gz"], 5),
        (["scan.nii.gz", "--out", "none/t.nii"], 5),
        (["none.nii.gz", "--out", "t.nii"], 2),
        (["scan.nii.gz", "--out", "t.nii", "--device", "cuda:99"], 6),
        (["scan.nii.gz", "--out", "t.nii", "--bundle", "none"], 4),
        (["scan.nii.gz", "--out", "t.nii", "--like", "none.nii"], 2),
        (["scan.nii.gz", "none.nii.gz", "--out-dir", "o"], 2),
    ],
)
def test_a13_a_dry_run_ends_as_the_real_run_would(shades, scan, here, words, code):
    assert nfops("apply", *shades.options(), *words, "--dry-run").code == code
    assert names() == ["scan.nii.gz"]
    assert nfops("apply", *shades.options(), *words).code == code


# --- the ways to be stopped (C50, C51, C53, C58) -----------------------------------------------------------------


def stop_while_writing(monkeypatch, error):
    """The first slab is written, then comes the error."""
    made = Rendering.__init__

    def init(self, grid, header, channels, slabs):
        def failing():
            yield next(iter(slabs()))[..., :1]
            raise error

        made(self, grid, header, channels, failing)

    monkeypatch.setattr(Rendering, "__init__", init)


@pytest.mark.parametrize(
    ("error", "code", "word"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (Terminated(), 143, "terminated"),
        (MemoryError(), 6, "not enough memory"),
        (OSError(errno.ENOSPC, "No space left on device"), 5, "disk is full"),
        (InputError("scan.nii.gz", "changed"), 3, "changed"),
        (ValueError("oops"), 1, "this is a bug in nfops"),
    ],
)
def test_c48_c50_c58_whatever_stops_the_writing_leaves_no_file(shades, scan, here, monkeypatch, error, code, word):
    stop_while_writing(monkeypatch, error)
    ran = nfops("apply", *shades.options(), scan, "--out", "t.nii.gz")
    assert (ran.code, len(ran.err.splitlines())) == (code, 1)
    assert word in ran.err
    assert names() == ["scan.nii.gz"]


def test_c50_a_signal_right_after_the_temporary_file_is_made_leaves_none(shades, scan, here, monkeypatch):
    close = os.close

    def close_and_stop(descriptor):
        close(descriptor)
        if names() != ["scan.nii.gz"]:
            raise Terminated

    monkeypatch.setattr("nfops.io.publish.os.close", close_and_stop)
    ran = nfops("apply", *shades.options(), scan, "--out", "t.nii")
    monkeypatch.undo()
    assert ran.code == 143
    assert names(here) == ["scan.nii.gz"]


def test_c51_a_batch_that_is_terminated_keeps_what_is_done(shades, here, monkeypatch):
    copies(here / "in", 3)
    seen = []

    def second_is_stopped(*args, **options):
        seen.append(1)
        if len(seen) == 2:
            raise Terminated
        return real(*args, **options)

    from nfops.workflows import apply as module

    real = module.apply
    monkeypatch.setattr(module, "apply", second_is_stopped)
    ran = nfops("apply", *shades.options(), "in", "--out-dir", "o", "--json")
    assert ran.code == 75
    assert "stopped by a signal; 1 of 3 scans" in ran.err
    assert ran.document["done"] == 1
    assert names("o") == ["s0.json", "s0.nii.gz"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGHUP"])
def test_c51_signals_leave_no_temporary_file(shades, scan, here, name):
    words = ["apply", "--recipe", shades.recipe, scan, "--out", "big.nii", "--shape", "3000x3000"]
    running = start(*words)
    deadline = time.monotonic() + 20
    while not list(here.glob(".nfops-*big.nii")) and time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.01)
    assert leftovers(here)
    running.send_signal(getattr(signal, name))
    _, err = running.communicate(timeout=20)
    assert (running.returncode, err) == (143, "nfops apply: error: terminated\n")
    assert names() == ["scan.nii.gz"]


def test_c53_a_full_standard_output_is_an_output_error_and_the_result_stays(shades, scan, here):
    words = ["apply", "--recipe", shades.recipe, scan, "--out", "t.nii"]
    with Path("/dev/full").open("w") as full:
        running = start(*words, stdout=full)
        _, err = running.communicate(timeout=20)
    assert (running.returncode, len(err.splitlines())) == (5, 1)
    assert nifti(here / "t.nii")[0].shape == (20, 18, 4)


def test_apply_imports_no_torch(shades, scan, here):
    code = f"""
import sys
from nfops.cli.main import invoke
invoke(["apply", "--recipe", {str(shades.recipe)!r}, "scan.nii.gz", "--out", "t.nii"])
sys.exit("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, env=ENVIRONMENT, check=False)
    assert done.returncode == 0


def test_b10_c17_a_recipe_may_take_a_4d_scan_volume_by_volume(shades, here):
    scans = [nibabel.load(shades.data / "source" / f"s{n}.nii.gz") for n in (0, 1)]
    both = np.stack([np.asarray(scan.dataobj) for scan in scans], axis=-1)
    image = nibabel.Nifti1Image(both, scans[0].affine)
    image.header.set_zooms((*scans[0].header.get_zooms()[:3], 2.5))
    image.to_filename(here / "both.nii.gz")
    ran = nfops("apply", *shades.options(), "both.nii.gz", "--out", "no.nii.gz")
    assert (ran.code, len(ran.err.splitlines())) == (3, 1)
    assert "expected 1 channel, got 2" in ran.err
    assert "data.map: t" in ran.err
    mapped = shades.recipe.with_name("mapped.yaml")
    mapped.write_text(shades.recipe.read_text().replace("data:\n", "data:\n  map: t\n"))
    assert nfops("apply", "--recipe", mapped, "both.nii.gz", "--out", "t.nii.gz", "-q").code == 0
    written = nibabel.load(here / "t.nii.gz")
    assert written.shape == both.shape
    assert written.header.get_zooms()[3] == 2.5
    for t in (0, 1):
        nibabel.Nifti1Image(both[..., t], scans[0].affine).to_filename(here / "one.nii.gz")
        assert nfops("apply", "--recipe", mapped, "one.nii.gz", "--out", "o.nii.gz", "-fq").code == 0
        assert np.allclose(np.asarray(nibabel.load(here / "o.nii.gz").dataobj), np.asarray(written.dataobj)[..., t])


@pytest.mark.parametrize(
    ("series", "code", "said"),
    [
        ("philips_enhanced_fmap", 3, "holds 2 series"),
        ("ct_philips_tilt", 3, "has the modality CT, the recipe takes MR"),
        ("ge_epi_small", 3, "--volume"),
    ],
)
def test_a13_a_dry_run_refuses_what_the_run_refuses(here, shared_data, series, code, said):
    for dry in ((), ("--dry-run",)):
        folder = shared_data / "dicom" / series / "dcm"
        ran = nfops("apply", "-r", "brain_t1t2", folder, "--out", "o.nii.gz", *dry)
        assert (ran.code, len([line for line in ran.err.splitlines() if "error" in line])) == (code, 1)
        assert said in ran.err
    assert list(here.iterdir()) == []


def test_an_output_within_an_input_folder_is_refused(here, shared_data):
    shutil.copytree(shared_data / "dicom" / "siemens_hfs" / "dcm", here / "mine")
    ran = nfops("apply", "-r", "brain_t1t2", "mine", "--out", "mine/t2.nii.gz")
    assert (ran.code, len(ran.err.splitlines())) == (5, 1)
    assert "lies in the input" in ran.err

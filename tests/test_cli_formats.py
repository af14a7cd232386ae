# ruff: noqa: F401, F811 (fixtures are imported)
"""MGH, NRRD and MetaImage through the commands: each keeps its format, or becomes another."""

import json

import numpy as np
import pytest
from cli_fixtures import OBLIQUE, names, nfops, nifti, save_nifti, shade, shades
from other_formats import by_others

SUFFIXES = (".mgz", ".mgh", ".nrrd", ".mha")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with one scan in each format."""
    monkeypatch.chdir(tmp_path)
    save_nifti(tmp_path / "a.nii.gz", np.rint(shade(np.random.default_rng(0))), dtype="int16")
    for suffix in SUFFIXES:
        ran = nfops("resample", "a.nii.gz", "--out", f"a{suffix[1:]}{suffix}")
        assert (ran.code, ran.err) == (0, "")
    return tmp_path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_info_says_of_each_what_it_says_of_nifti(here, suffix):
    expected = nfops("info", "--json", "a.nii.gz").document
    found = nfops("info", "--json", f"a{suffix[1:]}{suffix}").document
    assert found.keys() == expected.keys()
    assert np.allclose(found.pop("affine"), expected["affine"], atol=1e-4)
    assert np.allclose(found.pop("spacing_mm"), expected["spacing_mm"])
    kind = "mgh" if suffix.startswith(".mg") else suffix[1:]
    assert (found.pop("kind"), found.pop("path")) == (kind, f"a{suffix[1:]}{suffix}")
    assert found == {key: expected[key] for key in found}
    assert found["dtype"] == "int16"  # no grid was asked for: not one value changed


@pytest.mark.parametrize(("source", "out"), [("amgz.mgz", "b.nrrd"), ("anrrd.nrrd", "b.mha"), ("amha.mha", "b.mgz")])
def test_resample_is_the_same_in_every_format(here, source, out):
    assert nfops("resample", "a.nii.gz", "--out", "r.nii.gz", "--spacing", "3x3x3").code == 0
    ran = nfops("resample", source, "--out", out, "--spacing", "3x3x3")
    assert (ran.code, ran.err) == (0, "")
    values, place = by_others(here / out)
    expected, affine = nifti(here / "r.nii.gz")
    assert np.allclose(values[0], expected, atol=1e-2)
    assert np.allclose(place, affine, atol=1e-4)
    assert json.loads((here / "b.json").read_text())["Sources"][0]["name"] == source


def test_apply_reads_one_format_and_writes_another(here, shades):
    assert nfops("apply", *shades.options(), "a.nii.gz", "--out", "r.nii").code == 0
    ran = nfops("apply", *shades.options(), "amha.mha", "--out", "y.mgz")
    assert ran.code == 0, ran.err
    values, place = by_others(here / "y.mgz")
    assert np.allclose(values[0], nifti(here / "r.nii")[0], atol=1e-2)
    assert np.allclose(place, OBLIQUE, atol=1e-4)


def test_out_dir_keeps_each_format(here, shades):
    ran = nfops("apply", *shades.options(), ".", "--out-dir", "o")
    assert ran.code == 0, ran.err
    assert names("o") == sorted(
        [f"a{suffix[1:]}{end}" for suffix in SUFFIXES for end in (suffix, ".json")] + ["a.json", "a.nii.gz"]
    )
    expected = nifti(here / "o" / "a.nii.gz")[0]
    for suffix in SUFFIXES:
        assert np.allclose(by_others(here / "o" / f"a{suffix[1:]}{suffix}")[0][0], expected, atol=1e-2)


def test_refusals_have_their_exit_codes(here):
    (here / "amha.mha").rename("x.nii")
    (here / "t.nrrd").write_bytes((here / "anrrd.nrrd").read_bytes()[:-9])
    sheared = OBLIQUE.copy()
    sheared[1, 2] += 2
    save_nifti(here / "s.nii", np.zeros((4, 4, 4)), sheared)
    for words, code, said in (
        (["info", "x.nii"], 3, "rename it to x.mha"),
        (["info", "t.nrrd"], 3, "ends early"),
        (["resample", "a.nii.gz", "--out", "b.mgz", "--dtype", "uint16"], 2, "cannot store uint16"),
        (["resample", "a.nii.gz", "--out", "a.nhdr"], 2, "unknown suffix"),
        (["resample", "s.nii", "--out", "s.mha"], 2, "sheared"),
    ):
        ran = nfops(*words)
        errors = [line for line in ran.err.splitlines() if "warning" not in line]
        assert (ran.code, len(errors), ran.out) == (code, 1, ""), ran.err
        assert said in errors[0]
    assert not list(here.glob("b.*"))

"""Signals: text files of numbers, rows of a table, fields in one dimension, recipes without a target."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from cli_fixtures import nfops
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from toy_bundles import RADIUS_MM, field_at, make_bundle, make_spec, random_latents
from toy_cohorts import write_pictures, write_signals

from nfops.bundle import load_bundle
from nfops.coding import encode_image
from nfops.cohort import load_pairs, read_cohort
from nfops.engines.numpy_engine import NumpyEngine
from nfops.engines.torch_engine import TorchEngine
from nfops.errors import InputError, RecipeError, ResultError, UsageError
from nfops.grid import Grid
from nfops.image import Header, Image
from nfops.io import SaveOptions, describe_image, list_inputs, load_image, save_image
from nfops.io.inputs import Wanted
from nfops.io.signal import signal_image
from nfops.latents import LatentTable
from nfops.recipe import load_recipe
from nfops.rendering import render
from nfops.resampling import choose_grid, resample

HEADER = Header(format="signal", ndim=1, is_oriented=False)


def write(folder: Path, text: str, name: str = "signal.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def read(folder: Path, text: str, name: str = "signal.csv") -> Image:
    return load_image(write(folder, text, name))


class TestReading:
    @pytest.mark.parametrize(
        "text",
        [
            "1.5,10\n-2,20\n0.25,30\n",
            "1.5,10\r\n-2,20\r\n0.25,30",
            "lead I,lead II\n1.5,10\n-2,20\n0.25,30\n\n\n",
            '"lead, I",b\n1.5,10\n-2,20\n0.25,30\n',
            "1.5;10\n-2;20\n0.25;30\n",
            "1.5\t10\n-2\t20\n0.25\t30\n",
            "  1.5   10\n -2.0e0 20\n 0.25 +30\n",
            "# I II\n1.5 10\n-2 20\n0.25 30\n",
            "\ufeff1.5,10\n-2,20\n0.25,30\n",
        ],
    )
    def test_separators_names_and_line_ends_change_nothing(self, tmp_path, text):
        image = read(tmp_path, text)
        assert image.values.shape == (2, 3, 1, 1)
        assert np.array_equal(image.values[..., 0, 0], [[1.5, -2, 0.25], [10, 20, 30]])
        assert image.grid.same_as(Grid((3, 1, 1), np.eye(4)))

    @pytest.mark.parametrize("name", ["t", "time", "Time (s)", "time [ms]", "x_mm", "X"])
    def test_a_column_of_its_axis_says_where_the_samples_lie(self, tmp_path, name):
        image = read(tmp_path, f"{name},v\n2,5\n2.5,6\n3,7\n3.5,8\n")
        assert image.channels == 1
        assert image.grid.spacing_mm[0] == 0.5
        assert np.allclose(image.grid.points_mm()[:, 0, 0, 0], [2, 2.5, 3, 3.5])

    @pytest.mark.parametrize("name", ["x_acc", "temperature", "t2", "lead"])
    def test_other_columns_are_channels(self, tmp_path, name):
        assert read(tmp_path, f"{name},v\n2,5\n4,6\n7,7\n").channels == 2

    def test_a_single_column_is_a_channel_whatever_its_name(self, tmp_path):
        assert read(tmp_path, "t\n3\n1\n2\n").values[0, :, 0, 0].tolist() == [3, 1, 2]

    def test_rounded_times_are_evenly_spaced(self, tmp_path):
        place = np.arange(500) / 360
        image = read(tmp_path, "t v\n" + "".join(f"{t:.4f} 1\n" for t in place), "a.txt")
        assert abs(image.grid.spacing_mm[0] - 1 / 360) < 1e-6

    @pytest.mark.parametrize(
        ("text", "what"),
        [
            ("1,2\n3\n", r"signal\.csv:2: 1 columns, the first line has 2"),
            ("a,b\n1,2\n3,x\n", r"signal\.csv:3: expected a number, got 'x'"),
            ("1\n2\nnan\n", r"signal\.csv:3: expected a finite number, got nan"),
            ("1\n1e999\n", r"signal\.csv:2: expected a finite number"),
            ("1,2\n3,\n", r"signal\.csv:2: an empty cell"),
            ("1\n\n2\n", r"signal\.csv:2: a blank line"),
            ("1,2\n\n3,4\n", r"signal\.csv:2: a blank line"),
            ("\n1,2\n3,4\n", r"signal\.csv:1: a blank line"),
            ("a" * 140000 + ",b\n1,2,3\n", r"signal\.csv:2: 3 columns, the first line has 2"),
            ("1\n1_000\n", r"signal\.csv:2: expected a number"),
            ("1,5;2\n2,5;3\n", r"signal\.csv:1: neither names nor numbers.*decimal point"),
            ("a;b\n1,5;2\n", r"signal\.csv:2: expected a number, got '1,5' \(write a decimal point"),
            ("a,1\n2,3\n", r"signal\.csv:1: neither names nor numbers"),
            ("a,a\n2,3\n", r"signal\.csv:1: two columns share a name"),
            ("a,b\n", "names of columns, but no line with numbers"),
            ("\n\n", "no line with a number"),
            ("", "empty file"),
            ("t,v\n0,1\n1,1\n3,1\n4,1\n", r"signal\.csv:4: column 't' is not evenly spaced.*: 3 where 2\.66667 fits"),
            ("t,v\n3,1\n2,1\n1,1\n", "not evenly spaced and rising"),
            ("t,v\n1,1\n1,1\n", "not evenly spaced and rising"),
            ("<html><body>404</body></html>", "web page"),
            ("version https://git-lfs.github.com/spec/v1\noid x\n", "git-lfs pointer"),
        ],
    )
    def test_what_is_no_signal_is_refused_by_its_line(self, tmp_path, text, what):
        with pytest.raises(InputError, match=what):
            read(tmp_path, text)

    def test_bytes_that_are_no_text_are_refused(self, tmp_path):
        (tmp_path / "a.csv").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xff")
        with pytest.raises(InputError, match="is a PNG file"):
            load_image(tmp_path / "a.csv")

    @given(st.text(st.characters(codec="utf-8"), max_size=40))
    @settings(max_examples=60, deadline=None)
    def test_any_text_is_a_signal_or_refused(self, tmp_path_factory, text):
        try:
            image = read(tmp_path_factory.mktemp("any"), text)
        except InputError:
            return
        assert np.isfinite(image.values).all()

    def test_a_text_file_that_claims_to_be_an_image_is_still_refused(self, tmp_path):
        with pytest.raises(InputError, match="is a text file, not an image"):
            read(tmp_path, "1\n2\n", "a.nii")

    def test_info_says_what_it_is(self, tmp_path):
        found = describe_image(write(tmp_path, "t,a,b\n0,1,2\n0.5,3,4\n"))
        assert {key: found[key] for key in ("kind", "shape", "channels", "intensity_range", "orientation")} == {
            "kind": "signal",
            "shape": [2, 1, 1],
            "channels": 2,
            "intensity_range": [1.0, 4.0],
            "orientation": None,
        }
        assert found["spacing_mm"][0] == 0.5


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


class TestWriting:
    @given(
        values=arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(2, 9)), elements=finite),
        start=st.floats(-1e3, 1e3),
        step=st.floats(1e-3, 1e3),
        suffix=st.sampled_from([".csv", ".txt"]),
    )
    @settings(max_examples=60, deadline=None)
    def test_what_was_written_is_read_back(self, tmp_path_factory, values, start, step, suffix):
        path = tmp_path_factory.mktemp("trip") / f"a{suffix}"
        image = signal_image(values, start, step, HEADER)
        save_image(path, image)
        again = load_image(path)
        assert again.values.dtype == np.float32
        assert np.array_equal(again.values, values[..., None, None])
        assert np.allclose(again.grid.affine, image.grid.affine, rtol=1e-9, atol=1e-8)

    @pytest.mark.parametrize(
        "text", ["0.1\n-2.5\n", "a,b\n0.1,7.0\n1e-07,2.5\n", "t,v\n0.25,1.5\n0.75,2.5\n", "3\n-4\n"]
    )
    def test_a_file_comes_back_as_it_was(self, tmp_path, text):
        image = read(tmp_path, text)
        save_image(tmp_path / "b.csv", image, SaveOptions(dtype="same"))
        assert (tmp_path / "b.csv").read_text() == text

    def test_digits_that_float32_does_not_hold_are_kept(self, tmp_path):
        image = read(tmp_path, "0.123456789012\n1.5\n")
        assert image.values.dtype == np.float64
        save_image(tmp_path / "b.csv", image)
        assert (tmp_path / "b.csv").read_text().startswith("0.123456789012\n")

    def test_a_resampled_signal_says_where_its_samples_lie(self, tmp_path):
        image = read(tmp_path, "v\n1\n2\n3\n4\n")
        finer = resample(image, choose_grid(image.grid, shape=(8,)), "linear")
        save_image(tmp_path / "b.csv", finer)
        lines = (tmp_path / "b.csv").read_text().splitlines()
        assert lines[:2] == ["x,v", "-0.25,1.0"]
        back = resample(load_image(tmp_path / "b.csv"), image.grid, "linear")
        assert np.allclose(back.values[0, 1:-1], image.values[0, 1:-1])  # a shift would show here

    def test_an_image_is_no_signal(self, tmp_path):
        with pytest.raises(UsageError, match="samples along one axis, the image is 3x2x1"):
            save_image(tmp_path / "b.csv", Image(np.zeros((1, 3, 2, 1), np.float32), Grid((3, 2, 1), np.eye(4))))

    def test_a_result_that_is_not_finite_is_not_published(self, tmp_path):
        with pytest.raises(ResultError, match="NaN"):
            save_image(tmp_path / "b.csv", signal_image(np.array([[1.0, np.nan]], np.float32), 0, 1, HEADER))
        assert list(tmp_path.iterdir()) == []

    def test_nifti_holds_the_same(self, tmp_path):
        image = read(tmp_path, "t,a,b\n2,1.5,7\n2.5,0.25,8\n3,9,9\n")
        save_image(tmp_path / "s.nii.gz", image)
        assert nibabel.load(tmp_path / "s.nii.gz").shape == (3, 1, 1, 2)
        save_image(tmp_path / "c.csv", load_image(tmp_path / "s.nii.gz"))
        again = load_image(tmp_path / "c.csv")
        assert np.array_equal(again.values, image.values)
        assert again.grid.same_as(image.grid)

    def test_a_nifti_file_of_one_dimension_is_a_signal(self, tmp_path):
        raw = nibabel.Nifti1Image(np.arange(5, dtype=np.float32), np.eye(4))
        raw.header["pixdim"][1:4] = 0.5, 0, 0
        raw.header["sform_code"] = 0
        nibabel.save(raw, tmp_path / "s.nii")
        image = load_image(tmp_path / "s.nii")
        assert image.grid.shape == (5, 1, 1)
        assert image.values[0, :, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_a_folder_of_scans_may_hold_tables_and_notes(tmp_path):
    for name in ("a.nii.gz", "split.csv", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in list_inputs([str(tmp_path)])] == ["a.nii.gz"]
    assert len(list_inputs([str(tmp_path)], wanted=Wanted(signals=True))) == 3
    assert [path.name for path in list_inputs([str(tmp_path / "split.csv")])] == ["split.csv"]


class TestRowsOfATable:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return write_signals(tmp_path / "data", count=8)

    def cohort(self, folder: Path, *overrides: str):
        recipe = load_recipe(folder / "recipe.yaml", overrides)
        return recipe, read_cohort(recipe, folder)

    def test_columns_are_taken_in_natural_order(self, folder):
        """The table has s31 first; and `split` and `id` are no samples though s* would match one of them."""
        pair = next(load_pairs(*self.cohort(folder), lambda done: None))
        assert pair.source.values.shape == (1, 32, 1, 1)
        assert np.allclose(pair.target.values, 2 * pair.source.values, atol=1e-4)
        assert pair.source.grid.spacing_mm[0] == 0.5

    def test_a_range_is_taken_in_the_tables_order(self, folder):
        pair = next(load_pairs(*self.cohort(folder, "data.source.columns=s31..s0"), lambda done: None))
        assert np.allclose(pair.target.values[:, ::-1], 2 * pair.source.values, atol=1e-4)

    def test_a_list_of_patterns_is_as_many_channels(self, folder):
        recipe, cohort = self.cohort(folder, "data.source.columns=[s*, t*]")
        pair = next(load_pairs(recipe, cohort, lambda done: None))
        assert pair.source.channels == 2
        assert np.allclose(pair.source.values[1], pair.target.values[0])

    @pytest.mark.parametrize(
        ("columns", "what"),
        [
            ("q*", r"waves\.csv: `columns: q\*` names 0 columns, a signal needs at least 2 \(it has s31, s30"),
            ("s3", "names 1 columns"),
            ("s0..u9", r"no column 'u9' \(`columns: s0\.\.u9`\)"),
            ("s0..s31", "names 0 columns"),
            ("[s*, t0..t5]", r"channels differ in their number of samples: s\*: 32, t0\.\.t5: 6"),
        ],
    )
    def test_columns_that_are_not_there_are_named(self, folder, columns, what):
        with pytest.raises(InputError, match=what):
            self.cohort(folder, f"data.source.columns={columns}")

    @pytest.mark.parametrize(("cell", "what"), [("abc", "got 'abc'"), ("", "an empty cell"), ("nan", "got nan")])
    def test_a_cell_that_is_no_number_is_named_by_line_and_column(self, folder, cell, what):
        table = folder / "waves.csv"
        lines = table.read_text().splitlines()
        cells = lines[3].split(",")
        cells[4] = cell
        lines[3] = ",".join(cells)
        table.write_text("\n".join(lines))
        with pytest.raises(InputError, match=rf"waves\.csv:4: column s29: .*{what}"):
            self.cohort(folder)

    def test_columns_hold_signals_and_nothing_else(self, folder):
        with pytest.raises(RecipeError, match=r"columns hold signals, geometry\.dims is 2"):
            load_recipe(folder / "recipe.yaml", ["geometry={dims: 2, grid: {shape: 8x8}}"])

    @pytest.mark.parametrize(
        ("override", "what"),
        [
            ("geometry.axes=[L]", "a list of 2 to 3 directions"),
            ("geometry.axes=[L, P]", "a signal runs along its own axis"),
            ("geometry.grid.shape=[8, 8]", "2 sizes, dims is 1"),
            ("augment.flip=[L]", "a signal lies along no axis of the body"),
            ("data.picture={}", "pictures have two dimensions, geometry.dims is 1"),
            ("data.central_slices=3", "only where geometry.dims is 2"),
        ],
    )
    def test_what_a_signal_has_not_is_refused(self, folder, override, what):
        with pytest.raises(RecipeError, match=what):
            load_recipe(folder / "recipe.yaml", [override])


def oblique(shape: tuple[int, int, int], own: int, step: float) -> Grid:
    """A grid whose axis `own` points backwards along an oblique direction."""
    turn, _ = np.linalg.qr(np.array([[1.0, 0.4, 0.1], [-0.3, 1, 0.2], [0.1, -0.2, 1]]))
    affine = np.eye(4)
    affine[:3, :3] = -turn
    affine[:3, own] *= step
    affine[:3, 3] = (12, -7, 30)
    return Grid(shape, affine)


class TestFields:
    @pytest.fixture(params=["identity", "softmax"])
    def bundle(self, request):
        return make_bundle(make_spec(1, request.param, channels=3 if request.param == "softmax" else 1))

    @pytest.mark.parametrize("engine", [NumpyEngine, TorchEngine])
    @pytest.mark.parametrize("own", [0, 1, 2])
    def test_a_signal_of_the_fields_span_is_found_whatever_its_axis(self, engine, own):
        """Own axis forwards, wherever it points in the world and whichever of the three it is."""
        bundle = make_bundle(make_spec(1, radius_mm=None))
        (vector,) = random_latents(bundle, 1)
        count = 50
        coords = ((np.arange(count) + 0.5) / count * 2 - 1)[:, None]
        shape = tuple(count if axis == own else 1 for axis in range(3))
        values = field_at(bundle, "source", vector, coords).astype(np.float32)
        image = Image(values.reshape(1, *shape), oblique(shape, own, 0.7))
        latent = encode_image(engine(bundle), bundle.side("source"), image)
        assert np.abs(field_at(bundle, "source", latent.vectors[0], coords) - values).max() < 3e-3

    def coords(self, grid: Grid, scan: Grid) -> np.ndarray:
        """(I, 1) coordinates of a grid's samples in the frame of a scan."""
        return (grid.points_mm()[:, 0, 0] - scan.centre_mm) @ scan.directions[:, :1] / RADIUS_MM

    def test_any_grid_shows_the_fields_values(self, bundle):
        side = bundle.side("source")
        (vector,) = random_latents(bundle, 1)
        grid = oblique((40, 1, 1), 0, 2 * RADIUS_MM / 40)  # the domain, edge to edge
        values = field_at(bundle, "source", vector, self.coords(grid, grid))
        if side.spec.is_label:
            values = values.argmax(axis=0)[None]
        image = Image(values.astype(np.float32).reshape(1, 40, 1, 1), grid)
        engine = NumpyEngine(bundle)
        latent = encode_image(engine, side, image)
        finer = choose_grid(grid, shape=(111,))
        drawn = render(engine, side, latent, finer, "probability").image()
        expected = field_at(bundle, "source", latent.vectors[0], self.coords(finer, grid))
        assert np.abs(drawn.values[..., 0, 0] - expected).max() < 1e-4
        turned = render(engine, side, latent, Grid((1, 111, 1), finer.affine[:, [1, 0, 2, 3]]), "probability").image()
        assert np.abs(turned.values[:, 0, :, 0] - drawn.values[..., 0, 0]).max() < 1e-4

    def test_a_picture_is_no_signal(self):
        bundle = make_bundle(make_spec(1))
        image = Image(np.random.default_rng(0).random((1, 8, 6, 1)).astype(np.float32), Grid((8, 6, 1), np.eye(4)))
        with pytest.raises(InputError, match=r"expected a signal, of one axis, got an image of shape \(8, 6, 1\)"):
            encode_image(NumpyEngine(bundle), bundle.side("source"), image)

    def test_one_number_is_a_length_of_a_signal_only(self):
        assert choose_grid(oblique((1, 20, 1), 1, 2.0), shape=(7,)).shape == (1, 7, 1)
        assert choose_grid(oblique((1, 20, 1), 1, 2.0), spacing_mm=(1.0,)).shape == (1, 40, 1)
        with pytest.raises(UsageError, match="two or three"):
            choose_grid(oblique((2, 20, 1), 1, 2.0), shape=(7,))


@pytest.fixture(scope="module")
def waves(tmp_path_factory) -> Path:
    """A chain of signals with a target, trained by the command line."""
    folder = write_signals(tmp_path_factory.mktemp("waves") / "data")
    for verb in ("fit-inr", "encode", "train-operator"):
        ran = nfops(verb, "-r", folder / "recipe.yaml", "--data", folder, "-q")
        assert ran.code == 0, ran.err
    return folder


def wave_file(folder: Path, path: Path) -> np.ndarray:
    """A validation wave as a file with its axis; the samples."""
    recipe = load_recipe(folder / "recipe.yaml")
    cohort = read_cohort(recipe, folder).with_splits(("val",))
    save_image(path, next(load_pairs(recipe, cohort, lambda done: None)).source)
    return load_image(path).values[0, :, 0, 0]


class TestWithATarget:
    def test_apply_writes_the_doubled_signal(self, waves, tmp_path):
        samples = wave_file(waves, tmp_path / "in.csv")
        ran = nfops("apply", "-r", waves / "recipe.yaml", tmp_path / "in.csv", "--out", tmp_path / "out.csv")
        assert ran.code == 0, ran.err
        made = load_image(tmp_path / "out.csv")
        assert np.allclose(made.values[0, :, 0, 0], 2 * samples, atol=0.1)
        assert made.grid.same_as(load_image(tmp_path / "in.csv").grid)

    @pytest.mark.parametrize(("words", "count"), [(["--shape", "80"], 80), (["--spacing", "0.25"], 64)])
    def test_apply_at_another_grid(self, waves, tmp_path, words, count):
        samples = wave_file(waves, tmp_path / "in.csv")
        ran = nfops("apply", "-r", waves / "recipe.yaml", tmp_path / "in.csv", "--out", tmp_path / "o.csv", *words)
        assert ran.code == 0, ran.err
        made = load_image(tmp_path / "o.csv")
        assert made.grid.shape == (count, 1, 1)
        place = load_image(tmp_path / "in.csv").grid.points_mm()[:, 0, 0, 0]
        at_samples = np.interp(place, made.grid.points_mm()[:, 0, 0, 0], made.values[0, :, 0, 0])
        assert np.allclose(at_samples[2:-2], 2 * samples[2:-2], atol=0.15)

    def test_a_folder_of_signals(self, waves, tmp_path):
        (tmp_path / "in").mkdir()
        wave_file(waves, tmp_path / "in" / "w.csv")
        wave_file(waves, tmp_path / "in" / "v.txt")
        ran = nfops("apply", "-r", waves / "recipe.yaml", tmp_path / "in", "--out-dir", tmp_path / "out", "--json")
        assert ran.document["done"] == 2
        assert {path.name for path in (tmp_path / "out").iterdir()} == {"w.csv", "w.json", "v.txt", "v.json"}


NO_TARGET = """
name: alone
data:
  table: split.csv
  source: "images/{id}.png"
geometry: {dims: 2, frame: unit, grid: {shape: 20x24}}
source: {field: {backbone: fpca, latent: 6}}
encode: {steps: 1, prior: 1.0e-6}
augment: {affine: {shift_mm: 1}, copies: 1}
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    folder = write_pictures(tmp_path_factory.mktemp("alone") / "data")
    (folder / "alone.yaml").write_text(NO_TARGET)
    for verb in ("fit-inr", "encode"):
        ran = nfops(verb, "-r", folder / "alone.yaml", "--data", folder, "-q")
        assert ran.code == 0, ran.err
    return folder


class TestWithoutATarget:
    def run(self, alone: Path, verb: str, *words: object):
        return nfops(verb, "-r", alone / "alone.yaml", *words)

    def test_one_field_and_one_table_are_made(self, alone):
        bundle = load_bundle(alone / "bundles" / "alone")
        assert set(bundle.specs) == set(bundle.arrays) == {"source"}
        assert [path.name for path in (alone / "bundles" / "alone.latents").iterdir()] == ["source.safetensors"]
        table = LatentTable.load(alone / "bundles" / "alone.latents" / "source.safetensors")
        assert len(table) == 24 + 18

    def test_a_scan_is_decoded_by_its_field(self, alone, tmp_path):
        scan, out = alone / "images" / "b3.png", tmp_path / "o.nii.gz"
        ran = self.run(alone, "resample", scan, "--method", "field", "--out", out)
        assert ran.code == 0, ran.err
        truth = load_image(scan).values
        assert np.corrcoef(load_image(out).values.ravel(), truth.ravel())[0, 1] > 0.9

    @pytest.mark.parametrize(
        ("verb", "words"),
        [
            ("train-operator", []),
            ("train-operator", ["--dry-run"]),
            ("apply", ["x.png", "--out", "y.png"]),
        ],
    )
    def test_what_needs_a_target_says_so_in_one_line(self, alone, verb, words):
        ran = self.run(alone, verb, *words)
        assert ran.code == 4
        assert ran.err == (
            f"nfops {verb}: error: alone: this recipe has no target, so nothing is predicted "
            "(nfops resample --method field decodes what its field encodes)\n"
        )

    def test_a_bundle_without_a_target_is_applied_by_no_other_recipe(self, alone):
        words = ("--bundle", alone / "bundles" / "alone", alone / "images" / "b3.png", "--out", alone / "no.png")
        ran = nfops("apply", "-r", alone / "recipe.yaml", *words)
        assert ran.code == 4
        assert "this bundle has no target" in ran.err

    def test_it_is_evaluated_by_what_comes_back(self, alone, tmp_path):
        ran = self.run(alone, "evaluate", "--data", alone, "--out-dir", tmp_path / "report", "-q", "--json")
        assert ran.code == 0, ran.err
        assert (tmp_path / "report" / "report.html").is_file()

    def test_info_and_dry_runs_read_well(self, alone):
        assert self.run(alone, "fit-inr", "--data", alone, "--dry-run", "-f").out.splitlines()[0] == "scans: 18"
        assert self.run(alone, "encode", "--data", alone, "--dry-run", "-f").code == 0
        assert nfops("info", alone / "bundles" / "alone").code == 0
        assert nfops("info", alone / "alone.yaml").code == 0

    @pytest.mark.parametrize(
        ("more", "line", "missing"),
        [
            ("operator: {backend: linear}\n", "operator", "data.target and target"),
            ("target: {field: {backbone: fpca}}\n", "target", "data.target and operator"),
            ("target: {field: {backbone: fpca}}\noperator: {backend: linear}\n", "target", "data.target"),
        ],
    )
    def test_half_a_target_is_refused_at_its_line(self, tmp_path, more, line, missing):
        path = write(tmp_path, NO_TARGET.strip() + "\n" + more, "r.yaml")
        with pytest.raises(RecipeError, match=rf"r\.yaml:9: {line}: needs {missing} too"):
            load_recipe(path)


@pytest.fixture(scope="module")
def ecg(shared_data, tmp_path_factory) -> Path:
    if not (shared_data / "ecg").is_dir():
        pytest.skip(f"no ecg in {shared_data}")
    bundle = tmp_path_factory.mktemp("ecg") / "bundle"
    for verb in ("fit-inr", "encode"):
        ran = nfops(verb, "-r", "ecg", "--data", shared_data, "--bundle", bundle, "-q")
        assert ran.code == 0, ran.err
    return bundle


class TestHeartbeats:
    """The shipped recipe on the real table."""

    def test_unseen_heartbeats_come_back(self, ecg, shared_data, tmp_path):
        recipe = load_recipe(Path(__file__).resolve().parents[1] / "recipes" / "ecg.yaml")
        cohort = read_cohort(recipe, shared_data).with_splits(("val",))
        bundle = load_bundle(ecg)
        engine, side, left = NumpyEngine(bundle), bundle.side("source"), []
        for pair in load_pairs(recipe, cohort, lambda done: None):
            drawn = render(engine, side, encode_image(engine, side, pair.source), pair.source.grid, "scan").image()
            left.append(np.mean((drawn.values - pair.source.values) ** 2) / pair.source.values.var())
        assert len(left) == 60
        assert np.median(left) < 0.05

    def test_a_heartbeat_of_ones_own_at_twice_the_rate(self, ecg, shared_data, tmp_path):
        recipe = load_recipe(Path(__file__).resolve().parents[1] / "recipes" / "ecg.yaml")
        cohort = read_cohort(recipe, shared_data).with_splits(("val",))
        save_image(tmp_path / "beat.csv", next(load_pairs(recipe, cohort, lambda done: None)).source)
        words = ("--method", "field", "-r", "ecg", "--bundle", ecg, "--shape", "280", "--out", tmp_path / "o.csv")
        ran = nfops("resample", tmp_path / "beat.csv", *words)
        assert ran.code == 0, ran.err
        assert load_image(tmp_path / "o.csv").grid.shape == (280, 1, 1)

"""Bundles: what was saved comes back, and whatever is not exactly that is refused by name."""

import json
import pickle
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from toy_bundles import make_bundle, make_spec

from nfops.bundle import MANIFEST, Bundle, load_bundle, save_bundle
from nfops.codec_spec import CodecSpec
from nfops.errors import BundleError, OutputError
from nfops.latents import LatentTable
from nfops.recipe import load_recipe
from nfops.recipe_changes import refuse_other_recipe
from nfops.schema import to_plain


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_bundle(make_bundle(make_spec(2), make_spec(2, "softmax", 3)), tmp_path / "toy", force=False)
    return tmp_path / "toy"


def edit_manifest(directory: Path, edit) -> None:
    path = directory / MANIFEST
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))


def _safetensors(offsets: dict[str, list[int]], size: int) -> bytes:
    """A file of one-byte numbers whose header says these offsets, with `size` bytes behind it."""
    arrays = {
        name: {"dtype": "U8", "shape": [end - start], "data_offsets": [start, end]}
        for name, (start, end) in offsets.items()
    }
    header = json.dumps(arrays).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


def replace_array(directory: Path, part: str, name: str, array) -> None:
    """Put another array into a file, with a manifest that agrees."""
    import hashlib

    path = directory / f"{part}.safetensors"
    arrays = load_file(path)
    arrays.pop(name) if array is None else arrays.update({name: array})
    save_file(arrays, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    edit_manifest(directory, lambda manifest: manifest["files"].update({path.name: digest}))


class TestRoundTrip:
    def test_all_that_was_saved_comes_back(self, saved):
        before, after = make_bundle(make_spec(2), make_spec(2, "softmax", 3)), load_bundle(saved)
        assert after.specs == before.specs
        assert after.recipe == before.recipe
        assert after.operator == before.operator
        assert after.path == saved
        for part, arrays in before.arrays.items():
            assert set(after.arrays[part]) == set(arrays)
            for name, array in arrays.items():
                assert after.arrays[part][name].dtype == array.dtype
                assert np.array_equal(after.arrays[part][name], array)
        assert after.codec_digest("target") == before.codec_digest("target")
        assert after.digest

    def test_a_spec_survives_json(self):
        for spec in (make_spec(3, "softmax", 3), make_spec(2, radius_mm=None), make_spec(2, channels=2)):
            assert CodecSpec.from_plain(json.loads(json.dumps(spec.to_plain()))) == spec

    def test_a_bundle_without_operator_may_be_loaded(self, tmp_path):
        bundle = make_bundle(make_spec(2))
        arrays = {side: bundle.arrays[side] for side in ("source", "target")}
        save_bundle(replace(bundle, arrays=arrays, operator={}), tmp_path / "b", force=False)
        assert not load_bundle(tmp_path / "b").has_operator

    def test_saving_twice_gives_the_same_bytes(self, saved, tmp_path):
        save_bundle(make_bundle(make_spec(2), make_spec(2, "softmax", 3)), tmp_path / "again", force=False)
        for path in saved.iterdir():
            assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()

    def test_a_codec_digest_changes_with_spec_and_arrays(self):
        bundle = make_bundle(make_spec(2))
        other_spec = replace(bundle, specs={**bundle.specs, "source": make_spec(2, radius_mm=41.0)})
        arrays = {**bundle.arrays["source"], "prior_mean": np.ones(6, np.float32)}
        other_arrays = replace(bundle, arrays={**bundle.arrays, "source": arrays})
        assert len({each.codec_digest("source") for each in (bundle, other_spec, other_arrays)}) == 3


class TestWhatIsRefused:
    def refused(self, directory: Path, match: str) -> None:
        with pytest.raises(BundleError, match=match) as caught:
            load_bundle(directory)
        assert str(directory) in str(caught.value)

    def test_c36_no_bundle(self, tmp_path):
        self.refused(tmp_path / "nothing", "no bundle here")

    @pytest.mark.parametrize("name", ["source.safetensors", "target.safetensors", "operator.safetensors"])
    def test_c36_a_missing_file(self, saved, name):
        (saved / name).unlink()
        self.refused(saved, f"{name}.*missing")

    def test_c39_a_changed_file(self, saved):
        path = saved / "operator.safetensors"
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)
        self.refused(saved, "operator.safetensors: damaged or changed")

    def test_c39_a_truncated_file(self, saved):
        path = saved / "source.safetensors"
        path.write_bytes(path.read_bytes()[:100])
        self.refused(saved, "damaged or changed")

    @pytest.mark.parametrize("version", [2, "1", None, 1.5])
    def test_c40_a_newer_format(self, saved, version):
        edit_manifest(saved, lambda manifest: manifest.update(format_version=version))
        self.refused(saved, "format version")

    @pytest.mark.parametrize(
        ("part", "name", "array"),
        [
            ("source", "field.basis", np.zeros((6, 1, 16, 13), np.int8)),
            ("target", "prior_variance", np.ones(5, np.float32)),
            ("source", "field.mean", None),
            ("operator", "weight", np.zeros((6, 7), np.float32)),
        ],
    )
    def test_c43_wrong_shapes(self, saved, part, name, array):
        replace_array(saved, part, name, array)
        self.refused(saved, f"array {name} should be")

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_c43_weights_that_are_no_numbers(self, saved, value):
        weight = load_bundle(saved).arrays["operator"]["weight"].copy()
        weight[2, 3] = value
        replace_array(saved, "operator", "weight", weight)
        self.refused(saved, "weight holds NaN or infinity")

    def test_a_pickled_checkpoint_is_never_read(self, tmp_path):
        class Evil:
            def __reduce__(self):
                return (Path(tmp_path / "owned").touch, ())

        (tmp_path / "model.pt").write_bytes(pickle.dumps(Evil()))
        self.refused(tmp_path / "model.pt", "pickled checkpoints are never read")
        assert not (tmp_path / "owned").exists()

    @pytest.mark.parametrize("name", ["decoder.onnx", "w.pkl", "w.pt", "w.PTH", "w.joblib", "w.npy", "w.npz"])
    def test_c40_c41_other_kinds_of_model_beside_it(self, saved, name):
        (saved / name).write_bytes(b"")
        self.refused(saved, f"{name}: is no part of a bundle")

    @pytest.mark.parametrize("name", ["decoder.onnx", "../../weights.onnx", "operator.npy"])
    def test_c41_other_kinds_of_model_that_the_manifest_names(self, saved, name):
        edit_manifest(saved, lambda manifest: manifest["files"].update({name: "0"}))
        self.refused(saved, f"{name}: is no part of a bundle")

    @pytest.mark.parametrize("kind", ["zip", "tar", "gztar"])
    def test_c42_an_archive_is_not_opened(self, saved, tmp_path, kind):
        path = Path(shutil.make_archive(str(tmp_path / "packed"), kind, saved))
        self.refused(path, "archive; a bundle is a directory")

    @pytest.mark.parametrize(
        "header",
        [
            b"\xff" * 8 + b"{}",
            struct.pack("<Q", 100 << 20) + b"{}",
            struct.pack("<Q", 2) + b"[]",
            _safetensors({"a": [0, 8], "b": [4, 12]}, 12),
            _safetensors({"a": [0, 8]}, 4),
            _safetensors({"a": [0, 1 << 40]}, 8),
            struct.pack("<Q", 50_000) + b"[" * 50_000,
        ],
    )
    def test_c43_a_safetensors_file_that_lies_about_its_sizes(self, saved, header):
        import hashlib

        (saved / "operator.safetensors").write_bytes(header)
        digest = hashlib.sha256(header).hexdigest()
        edit_manifest(saved, lambda manifest: manifest["files"].update({"operator.safetensors": digest}))
        self.refused(saved, "operator.safetensors: not a safetensors file")

    def test_a_pickle_under_another_name_is_never_read(self, saved, tmp_path):
        import hashlib

        content = pickle.dumps({"weight": np.zeros(3)})
        (saved / "operator.safetensors").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        edit_manifest(saved, lambda manifest: manifest["files"].update({"operator.safetensors": digest}))
        self.refused(saved, "not a safetensors file")

    @pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"format": "other"}', "[" * 100_000])
    def test_a_manifest_that_is_not_one(self, saved, content):
        (saved / MANIFEST).write_text(content)
        self.refused(saved, "not JSON|not the manifest")

    @pytest.mark.parametrize("key", ["specs", "files", "recipe", "operator", "data", "versions", "name", "nfops"])
    def test_a_manifest_without_a_key(self, saved, key):
        edit_manifest(saved, lambda manifest: manifest.pop(key))
        self.refused(saved, "not complete")

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("spacing", [0, 0]),
            ("spacing", ["a", "b"]),
            ("spacing", [0.1]),
            ("half_extent", None),
            ("latent", "six"),
            ("channels", -1),
            ("intensity", {"map": "percentile", "low": 9, "high": 1}),
            ("intensity", 3),
            ("surprise", 1),
            ("labels", [0, 1]),
            ("radius_mm", float("nan")),
            ("axes", ["L", "P", "X"]),
            ("head", "tanh"),
            ("dims", 4),
            ("encode", {"steps": 1, "tolerance": 0}),
        ],
    )
    def test_a_spec_that_makes_no_sense(self, saved, key, value):
        side = "target" if key == "labels" else "source"
        edit_manifest(saved, lambda manifest: manifest["specs"][side].update({key: value}))
        self.refused(saved, "not complete|should be")

    @pytest.mark.parametrize(("part", "key"), [("operator", "operator"), ("target", "target")])
    def test_a_recipe_that_does_not_say_what_a_part_is(self, saved, part, key):
        edit_manifest(saved, lambda manifest: manifest["recipe"].pop(key))
        with pytest.raises(BundleError, match=f"does not say what its {part} is"):
            load_bundle(saved).section(part)

    def test_a_file_that_is_not_a_part(self, saved):
        edit_manifest(saved, lambda manifest: manifest["files"].update({"../../etc/passwd": "0"}))
        self.refused(saved, "expected a source, perhaps a target")


YOUNGER = """
name: toy
data: {source: "a/{id}.nii", target: "b/{id}.nii"}
geometry: {dims: 2, grid: {shape: 8x9}}
source: {field: {backbone: fpca}}
target: {field: {backbone: fpca}}
operator: {backend: linear}
"""


class TestOtherRecipes:
    @pytest.fixture
    def plain(self, tmp_path: Path) -> dict:
        (tmp_path / "r.yaml").write_text(YOUNGER)
        return to_plain(load_recipe(tmp_path / "r.yaml"))

    def test_a_key_younger_than_the_bundle_had_its_default(self, plain):
        old = {**plain, "augment": {"copies": 0}}
        del old["evaluate"], old["encode"]
        refuse_other_recipe(replace(make_bundle(make_spec(2)), recipe=old), plain)

    def test_another_value_is_refused_by_its_key(self, plain):
        bundle = replace(make_bundle(make_spec(2)), recipe={**plain, "augment": {"copies": 3}})
        with pytest.raises(BundleError, match=r"fitted with augment\.copies 3, the recipe says 0"):
            refuse_other_recipe(bundle, plain)

    def test_a_recipe_without_the_target_is_another(self, plain):
        alone = {**plain, "target": None, "operator": None, "data": {**plain["data"], "target": None}}
        with pytest.raises(BundleError, match=r"fitted with data\.target"):
            refuse_other_recipe(replace(make_bundle(make_spec(2)), recipe=plain), alone)


class TestWriting:
    def test_an_existing_bundle_is_kept_without_force(self, saved):
        before = {path.name: path.read_bytes() for path in saved.iterdir()}
        with pytest.raises(OutputError, match="exists already"):
            save_bundle(make_bundle(make_spec(3)), saved, force=False)
        assert {path.name: path.read_bytes() for path in saved.iterdir()} == before

    def test_force_replaces_it_whole(self, saved):
        (saved / "stray.txt").write_text("left over")
        save_bundle(make_bundle(make_spec(3)), saved, force=True)
        assert load_bundle(saved).specs["source"].dims == 3
        assert not (saved / "stray.txt").exists()

    def test_nothing_half_written_is_left(self, tmp_path, monkeypatch):
        written = []

        def fails_second(path: Path, content: bytes) -> int:
            written.append(path)
            if len(written) == 2:
                raise KeyboardInterrupt
            with path.open("wb") as file:
                return file.write(content)

        monkeypatch.setattr(Path, "write_bytes", fails_second)
        with pytest.raises(KeyboardInterrupt):
            save_bundle(make_bundle(make_spec(2)), tmp_path / "b", force=False)
        assert len(written) == 2
        assert list(tmp_path.iterdir()) == []

    def test_a_recipe_that_json_cannot_hold_leaves_nothing(self, tmp_path):
        bundle: Bundle = replace(make_bundle(make_spec(2)), recipe={"seed": object()})
        with pytest.raises(TypeError):
            save_bundle(bundle, tmp_path / "b", force=False)
        assert list(tmp_path.iterdir()) == []


class TestLatentTables:
    def table(self) -> LatentTable:
        vectors = np.arange(12, dtype=np.float32).reshape(4, 3)
        ids, patients, splits = ("a", "b", "a", "ü#1"), ("p", "q", "p", "r"), ("train", "val", "train", "test")
        return LatentTable(vectors, ids, patients, splits, np.array([0, 0, 1, 0]), np.arange(4.0), "digest")

    def test_a_table_comes_back(self, tmp_path):
        before = self.table()
        before.save(tmp_path / "t.safetensors")
        after = LatentTable.load(tmp_path / "t.safetensors")
        assert (after.ids, after.patients, after.splits, after.codec) == (
            before.ids,
            before.patients,
            before.splits,
            before.codec,
        )
        assert np.array_equal(after.vectors, before.vectors)
        assert np.array_equal(after.copies, before.copies)
        assert np.array_equal(after.residual, before.residual)

    def test_rows_stay_together(self):
        kept = self.table().where(np.array([False, True, True, False]))
        assert len(kept) == 2
        assert (kept.ids, kept.patients, kept.splits) == (("b", "a"), ("q", "p"), ("val", "train"))
        assert np.array_equal(kept.vectors[:, 0], [3, 6])

    def test_a_missing_or_damaged_table_is_refused(self, tmp_path):
        with pytest.raises(BundleError, match="nfops encode"):
            LatentTable.load(tmp_path / "t.safetensors")
        (tmp_path / "t.safetensors").write_bytes(b"not a table")
        with pytest.raises(BundleError, match="not a latent table"):
            LatentTable.load(tmp_path / "t.safetensors")
        save_file({"vectors": np.zeros((2, 2), np.float32)}, tmp_path / "t.safetensors")
        with pytest.raises(BundleError, match="not a latent table"):
            LatentTable.load(tmp_path / "t.safetensors")

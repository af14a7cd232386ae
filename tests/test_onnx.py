"""ONNX graphs: they are what torch computes, they run without torch, and a bundle takes no other ones."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from cli_fixtures import ENVIRONMENT, nfops, save_nifti
from graph_bundles import ensemble_of_fields, field_bundle, fields_of, smooth_scan
from toy_bundles import make_bundle, make_spec

from nfops.bundle import MANIFEST, Bundle, load_bundle, save_bundle
from nfops.bundle_graphs import DECODE, GRAPHS, OPERATOR
from nfops.engines import open_engine_to_apply
from nfops.engines.numpy_engine import NumpyEngine
from nfops.engines.onnx_engine import OnnxEngine
from nfops.engines.onnx_sessions import CPU, GraphSession, cuda_fault
from nfops.engines.torch_engine import TorchEngine
from nfops.errors import BundleError, DeviceError, MemoryLimitError, OutputError, ResultError, UsageError
from nfops.graph_parity import checked, predicted
from nfops.onnx_export import export_part
from nfops.onnx_files import graph_fault
from nfops.onnx_runtime import onnxruntime
from nfops.operators import oinr
from nfops.testing import check_export
from nfops.workflows.export_onnx import ExportSettings, export_onnx, exportable_parts, plan_export

FIELD_CASES = [
    (1, "identity", 1),
    (2, "softmax", 3),
    *(pytest.param(case, marks=pytest.mark.slow) for case in ((2, "identity", 1), (3, "sigmoid", 1))),
]


def with_graphs(bundle: Bundle, storage: str = "float32") -> Bundle:
    graphs = {name: export_part(bundle, name, storage) for name in exportable_parts(bundle)}
    return replace(bundle, graphs=graphs)


@pytest.fixture(scope="module", params=FIELD_CASES, ids=lambda case: f"{case[0]}-D {case[1]}")
def field(request) -> Bundle:
    slow_to_export = {"blocks": [0, 0, 1], "mirror": []} if request.param[0] == 3 else {}
    return with_graphs(field_bundle(*request.param, **slow_to_export))


@pytest.fixture(scope="module")
def plain_field() -> Bundle:
    return with_graphs(field_bundle())


@pytest.fixture
def saved(plain_field, tmp_path) -> Path:
    save_bundle(plain_field, tmp_path / "b", force=False)
    return tmp_path / "b"


def model_of(bundle: Bundle, name: str) -> onnx.ModelProto:
    return onnx.load_from_string(bundle.graphs[name].content)


class TestFieldOperator:
    def test_it_is_what_torch_computes_on_grids_of_any_size(self, field):
        here, there = OnnxEngine(field, "cpu"), TorchEngine(field, "cpu")
        spec, working = field.specs["source"], field.operator["working"]
        random = np.random.default_rng(0)
        for cells in ((1, 1, 1), (3, 2, 4), (4, 5, 3)):
            shape = [working["multiple"] * n for n in cells[: spec.dims]]
            values = random.random((len(cells), 2, *shape), np.float32)
            coords = random.normal(scale=20, size=(*shape, spec.dims)).astype(np.float32)
            one, other = (e.operate_field(values, coords, np.array(working["spacing"]))[0] for e in (here, there))
            assert one.shape == other.shape
            assert np.abs(one - other).max() <= 1e-4 * np.abs(other).max()

    def test_whole_images_agree_to_a_ten_thousandth_of_the_range(self, field):
        image = smooth_scan(field.specs["source"].dims)
        one, other = (predicted(field, make(field, "cpu"), image) for make in (OnnxEngine, TorchEngine))
        assert other.std() > 1e-3
        assert np.abs(one - other).max() <= 1e-4

    @pytest.mark.parametrize("head", ["identity", pytest.param("softmax", marks=pytest.mark.slow)])
    def test_an_ensemble_tells_how_far_its_members_lie_apart(self, head):
        member = {"backend": "oinr", "widths": [8, 8], "blocks": [0, 0], "spacing_mm": 5.0, "frequencies": 0}
        bundle = ensemble_of_fields([member, member], 2, head, 1 if head == "identity" else 3)
        exported = replace(bundle, graphs={OPERATOR: export_part(bundle, OPERATOR)})
        checked(exported, [])
        fed = fields_of(bundle, 3)
        (one, apart), (other, expected) = (e(exported, "cpu").operate_field(*fed) for e in (OnnxEngine, TorchEngine))
        assert np.abs(one - other).max() <= 1e-4
        assert np.abs(apart - expected).max() <= 1e-4
        assert expected.mean() > 0.01

    @pytest.mark.gpu
    def test_cuda_gives_what_the_cpu_gives(self, field):
        here, there = (OnnxEngine(field, device).operate_field(*fields_of(field))[0] for device in ("cpu", "cuda"))
        assert np.abs(here - there).max() <= 1e-3 * np.abs(here).max()

    def test_many_slices_pass_some_at_a_time(self, plain_field, monkeypatch):
        whole = predicted(plain_field, OnnxEngine(plain_field, "cpu"), smooth_scan(2))
        monkeypatch.setattr("nfops.engines.onnx_engine.POINTS_AT_ONCE", {"cpu": 1})
        assert np.allclose(predicted(plain_field, OnnxEngine(plain_field, "cpu"), smooth_scan(2)), whole, atol=1e-6)

    def test_its_kernels_are_made_for_the_spacing_that_it_is_given(self, field):
        here, there = OnnxEngine(field, "cpu"), TorchEngine(field, "cpu")
        spec, working = field.specs["source"], field.operator["working"]
        random, seen = np.random.default_rng(0), []
        for finer in (
            (1, 1, 1),
            (2, 1, 2),
            (1, 3, 1),
            (1.5, 2, 1.5),
        ):  # of 1.5, 3 points are a cell of the next lattice
            shape = [round(2 * working["multiple"] * times) for times in finer[: spec.dims]]
            spacing = np.array(working["spacing"]) / finer[: spec.dims]
            values = random.random((2, 2, *shape), np.float32)
            axes = [(np.arange(n) + 0.5 - n / 2) * step for n, step in zip(shape, spacing, strict=True)]
            coords = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).astype(np.float32)
            one, other = (e.operate_field(values, coords, spacing)[0] for e in (here, there))
            assert np.abs(one - other).max() <= 1e-4 * np.abs(other).max()
            seen.append(other.std())
        assert min(seen) > 1e-3
        broken = spacing / 1.05  # of which cells of the next lattice are no whole number
        for engine, error in ((here, BundleError), (there, ValueError)):
            with pytest.raises(error, match=r"cannot run it|whole number of cells"):
                engine.operate_field(values, coords, broken)

    def test_a_spacing_that_the_graph_is_not_made_for_is_refused(self, plain_field, monkeypatch):
        fed = np.zeros((1, 2, 8, 8)), np.zeros((8, 8, 2))
        with pytest.raises(BundleError, match=r"of spacing \[5.0, 5.0\] or finer, got \[5.0, 6.0\]"):
            OnnxEngine(plain_field, "cpu").operate_field(*fed, np.array([5.0, 6.0]))
        monkeypatch.setattr("nfops.operators.oinr.Operator.graph_takes_spacing", False)
        bound = replace(plain_field, graphs={OPERATOR: export_part(plain_field, OPERATOR)})
        engines = OnnxEngine(bound, "cpu"), OnnxEngine(plain_field, "cpu")
        one, other = (engine.operate_field(*fields_of(plain_field))[0] for engine in engines)
        assert np.abs(one - other).max() <= 1e-5
        with pytest.raises(BundleError, match=r"of spacing \[5.0, 5.0\], got \[2.5, 5.0\]"):
            engines[0].operate_field(*fed, np.array([2.5, 5.0]))

    def test_c57_short_of_memory_it_tries_again_slice_by_slice(self, plain_field, monkeypatch):
        run, sizes = GraphSession.run, []

        def tight(self, wanted, inputs):
            sizes.append(len(inputs["field"]))
            if sizes[-1] > 1:
                raise MemoryLimitError("operator.onnx", "not enough memory")
            return run(self, wanted, inputs)

        whole = predicted(plain_field, OnnxEngine(plain_field, "cpu"), smooth_scan(2))
        monkeypatch.setattr(GraphSession, "run", tight)
        assert np.allclose(predicted(plain_field, OnnxEngine(plain_field, "cpu"), smooth_scan(2)), whole, atol=1e-6)
        assert sizes == [3, 1, 1, 1]

    def test_c57_what_onnxruntime_says_of_memory_becomes_an_error_of_memory(self, plain_field, monkeypatch):
        session = GraphSession(plain_field.graphs[OPERATOR].content, "operator.onnx")

        class Full:
            def run(self, *_):
                raise RuntimeError("BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer")

        monkeypatch.setattr(session, "_session", Full())
        with pytest.raises(MemoryLimitError, match="not enough memory on cpu"):
            session.run(["values"], {})


class TestTheGraphItself:
    def test_c67_it_has_the_standards_operators_only_and_whole_weights(self, field):
        for name in field.graphs:
            model = model_of(field, name)
            onnx.checker.check_model(model, full_check=True)
            assert {node.domain for node in model.graph.node} == {""}
            assert not {"Loop", "DFT", "GridSample", "Scan"} & {node.op_type for node in model.graph.node}
            assert graph_fault(field.graphs[name].content) == ""
            assert not any(node.metadata_props for node in model.graph.node)

    def test_halved_weights_are_cast_on_the_way_in(self, plain_field):
        halved = with_graphs(plain_field, "float16")
        sizes = [len(bundle.graphs[OPERATOR].content) for bundle in (plain_field, halved)]
        assert sizes[1] < sizes[0]
        one, other = (predicted(bundle, OnnxEngine(bundle, "cpu"), smooth_scan(2)) for bundle in (plain_field, halved))
        assert 0 < np.abs(one - other).max() < 2e-2


class TestParity:
    def test_c67_it_is_told_for_random_and_real_input_and_the_image(self, plain_field):
        for scans, real in (([smooth_scan(2)], "scans"), ([], "drawn from the source field")):
            facts = checked(plain_field, scans).graphs[OPERATOR].facts
            assert facts["real_input"] == real
            assert set(facts["parity"]) == {"random", "real", "image"}
            assert all(0 <= parity["relative"] < 1e-4 for parity in facts["parity"].values())

    def test_c67_a_graph_of_something_else_is_not_published(self, plain_field, tmp_path):
        other = with_graphs(field_bundle(blocks=[0, 1, 1]))
        wrong = replace(plain_field, graphs=other.graphs)
        with pytest.raises(ResultError, match="it differs from torch"):
            checked(wrong, [])

    @pytest.mark.parametrize(
        ("change", "message"),
        [(torch.linalg.qr, "torch cannot export it"), (torch.fft.rfft2, "it needs DFT, which no GPU computes")],
    )
    def test_c67_what_cannot_be_exported_is_said_and_nothing_is_written(self, change, message, tmp_path, monkeypatch):
        bundle = replace(field_bundle(), graphs={})
        save_bundle(bundle, tmp_path / "b", force=False)

        def forward(self, values, coords, spacing):
            changed = change(values[:, :1])
            return changed.real if isinstance(changed, torch.Tensor) else changed[1]

        monkeypatch.setattr("nfops.operators.oinr.Operator.forward", forward)
        before = sorted(path.name for path in (tmp_path / "b").iterdir())
        with pytest.raises(ResultError, match=message):
            export_onnx(tmp_path / "b")
        assert sorted(path.name for path in (tmp_path / "b").iterdir()) == before
        assert not load_bundle(tmp_path / "b").graphs

    def test_c67_a_part_that_says_it_cannot_is_believed(self, monkeypatch):
        monkeypatch.setattr("nfops.operators.oinr.Operator.exportable", False, raising=False)
        monkeypatch.setattr("nfops.operators.oinr.Operator.why_not_exportable", "it has an FFT", raising=False)
        with pytest.raises(ResultError, match="oinr is not exportable: it has an FFT"):
            export_part(field_bundle(), OPERATOR)
        monkeypatch.setattr("nfops.contract_checks.exported", None)  # not called
        check_export(oinr.Operator, oinr.Config(widths=(4, 4), blocks=(0, 0), iterations=2))


class TestBundle:
    def test_graphs_come_back_and_are_checked(self, saved, plain_field):
        loaded = load_bundle(saved)
        assert loaded.graphs[OPERATOR].content == plain_field.graphs[OPERATOR].content
        assert loaded.graphs[OPERATOR].facts == plain_field.graphs[OPERATOR].facts

    def refused(self, folder: Path, match: str) -> None:
        with pytest.raises(BundleError, match=match):
            load_bundle(folder)

    def test_c39_a_graph_that_changed_or_is_gone(self, saved):
        content = (saved / OPERATOR).read_bytes()
        (saved / OPERATOR).write_bytes(content[:-1])
        self.refused(saved, "operator.onnx: damaged or changed")
        (saved / OPERATOR).unlink()
        self.refused(saved, "operator.onnx: .*missing")

    @pytest.mark.parametrize("name", [*GRAPHS[:1], "other.onnx"])
    def test_c41_a_graph_that_the_manifest_does_not_name(self, saved, name):
        (saved / name).write_bytes((saved / OPERATOR).read_bytes())
        self.refused(saved, f"{name}: is no part of a bundle")

    @pytest.mark.parametrize("name", ["other.onnx", "../operator.onnx"])
    def test_c41_a_graph_of_another_name(self, saved, name):
        self.rename(saved, name)
        self.refused(saved, "is no part of a bundle")

    @staticmethod
    def rename(folder: Path, name: str) -> None:
        manifest = json.loads((folder / MANIFEST).read_text())
        manifest["graphs"][name] = manifest["graphs"].pop(OPERATOR)
        (folder / MANIFEST).write_text(json.dumps(manifest))

    def put(self, folder: Path, content: bytes) -> None:
        (folder / OPERATOR).write_bytes(content)
        manifest = json.loads((folder / MANIFEST).read_text())
        manifest["graphs"][OPERATOR]["sha256"] = hashlib.sha256(content).hexdigest()
        (folder / MANIFEST).write_text(json.dumps(manifest))

    def test_c41_weights_in_other_files(self, saved, plain_field, tmp_path):
        model = model_of(plain_field, OPERATOR)
        onnx.save_model(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=64)
        self.put(saved, (tmp_path / "m.onnx").read_bytes())
        self.refused(saved, "operator.onnx: points to other files")

    def test_c41_weights_in_other_files_deep_inside(self):
        constant = onnx.helper.make_tensor("c", onnx.TensorProto.FLOAT, [1], [1.0])
        constant.ClearField("float_data")
        constant.data_location = onnx.TensorProto.EXTERNAL
        constant.external_data.add(key="location", value="/etc/passwd")
        inner = onnx.helper.make_graph([onnx.helper.make_node("Constant", [], ["y"], value=constant)], "in", [], [])
        body = onnx.helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
        model = onnx.helper.make_model(onnx.helper.make_graph([body], "out", [], []))
        assert graph_fault(model.SerializeToString()) == "points to other files for its weights"

    def test_c41_operators_of_a_library_elsewhere(self, saved, plain_field):
        model = model_of(plain_field, OPERATOR)
        model.graph.node[0].domain = "com.example"
        self.put(saved, model.SerializeToString())
        self.refused(saved, "needs operators of 'com.example'")

    @pytest.mark.parametrize(
        "content", [b"", b"\x00" * 50, b"PK\x03\x04" + b"x" * 90, b"\x3a\xff\xff\xff\xff\x7f", b"\xff" * 20]
    )
    def test_c41_what_is_no_onnx_file(self, saved, content):
        self.put(saved, content)
        self.refused(saved, "operator.onnx: is not an ONNX file")

    def test_c41_a_standard_newer_than_the_runtime(self, saved, plain_field):
        model = model_of(plain_field, OPERATOR)
        model.opset_import[0].version = 999
        self.put(saved, model.SerializeToString())
        with pytest.raises(BundleError, match=r"operator.onnx: onnxruntime does not take it: .*999"):
            open_engine_to_apply(load_bundle(saved), "cpu", "onnx")

    def test_a_new_operator_leaves_the_graphs_of_the_old_one_behind(self, saved, plain_field):
        trained = plain_field.with_operator(plain_field.recipe, plain_field.arrays["operator"], plain_field.operator)
        save_bundle(trained, saved, force=True)
        assert not load_bundle(saved).graphs
        assert not (saved / OPERATOR).exists()

    def test_the_numbers_of_protobuf_fields_are_onnxs(self):
        numbers = {
            "ModelProto": {"graph": 7, "opset_import": 8, "training_info": 20, "functions": 25},
            "GraphProto": {"node": 1, "initializer": 5, "sparse_initializer": 15},
            "NodeProto": {"attribute": 5, "domain": 7},
            "AttributeProto": {"t": 5, "g": 6, "tensors": 10, "graphs": 11, "sparse_tensor": 22, "sparse_tensors": 23},
            "TensorProto": {"external_data": 13, "data_location": 14},
            "SparseTensorProto": {"values": 1, "indices": 2},
            "FunctionProto": {"node": 7, "opset_import": 9, "attribute_proto": 11},
            "TrainingInfoProto": {"initialization": 1, "algorithm": 2},
            "OperatorSetIdProto": {"domain": 1},
        }
        for message, fields in numbers.items():
            known = getattr(onnx, message).DESCRIPTOR.fields_by_name
            assert {name: known[name].number for name in fields} == fields


def test_onnxruntime_reports_to_nobody(plain_field, tmp_path):
    """Its wheels would: they leave a file of their session behind, and send to their maker."""
    save_bundle(plain_field, tmp_path / "toy", force=False)
    (tmp_path / "tmp").mkdir()
    words = "from pathlib import Path; from nfops.bundle import load_bundle; from nfops.engines import *; import os;"
    words += "open_engine_to_apply(load_bundle(Path('toy')), 'cpu', 'onnx'); print(os.environ['ORT_DISABLE_TELEMETRY'])"
    settings = {key: value for key, value in ENVIRONMENT.items() if key != "ORT_DISABLE_TELEMETRY"}
    settings |= {"TMPDIR": str(tmp_path / "tmp"), "HOME": str(tmp_path / "tmp")}
    ran = subprocess.run([sys.executable, "-c", words], cwd=tmp_path, env=settings, capture_output=True, check=True)
    assert (ran.stdout, list((tmp_path / "tmp").iterdir())) == (b"1\n", [])


class TestChoosingAnEngine:
    def test_numpy_comes_first_then_graphs_then_torch(self, plain_field):
        assert isinstance(open_engine_to_apply(make_bundle(make_spec(2))), NumpyEngine)
        assert isinstance(open_engine_to_apply(plain_field, "cpu"), OnnxEngine)
        assert open_engine_to_apply(replace(plain_field, graphs={}), "cpu").name == "torch"

    def test_an_explicit_engine_is_honoured_or_refused(self, plain_field):
        assert open_engine_to_apply(plain_field, "cpu", "torch").name == "torch"
        with pytest.raises(BundleError, match="NumPy does not know its operator"):
            open_engine_to_apply(plain_field, "cpu", "numpy")
        with pytest.raises(BundleError, match=r"it has no operator\.onnx"):
            open_engine_to_apply(replace(plain_field, graphs={}), "cpu", "onnx")
        with pytest.raises(BundleError, match="it has no ONNX graphs"):
            open_engine_to_apply(make_bundle(make_spec(2)), "cpu", "onnx")
        with pytest.raises(UsageError, match="expected one of auto, numpy"):
            open_engine_to_apply(plain_field, "cpu", "tensorflow")

    def test_numpy_has_no_gpu(self):
        with pytest.raises(DeviceError, match="on the CPU only"):
            open_engine_to_apply(make_bundle(make_spec(2)), "cuda", "numpy")

    @pytest.mark.skipif(not cuda_fault("cuda"), reason="this machine has CUDA")
    @pytest.mark.parametrize("device", ["cuda", "cuda:1"])
    def test_cuda_that_does_not_load_is_refused_and_named(self, plain_field, device, capfd):
        with pytest.raises(DeviceError, match=rf"{device} was asked for, but .*(onnxruntime|lib)"):
            open_engine_to_apply(plain_field, device, "onnx")
        assert capfd.readouterr() == ("", "")

    def test_a_session_that_would_run_on_the_cpu_is_no_session_on_cuda(self, plain_field, monkeypatch):
        monkeypatch.setattr("nfops.engines.onnx_sessions._providers", lambda device: [CPU])
        with pytest.raises(DeviceError, match="would run on the CPU"):
            GraphSession(plain_field.graphs[OPERATOR].content, "operator.onnx", "cuda:0")

    def test_c65_both_distributions_of_onnxruntime_are_a_clash(self, monkeypatch):
        monkeypatch.setattr("nfops.engines.onnx_sessions._is_installed", lambda name: True)
        assert "both installed" in cuda_fault("cuda")

    def test_c59_float32_is_not_shortened_on_a_gpu(self):
        from nfops.engines import onnx_sessions

        (name, options), after = onnx_sessions._providers("cuda:3")
        assert (name, after) == ("CUDAExecutionProvider", CPU)
        assert options == {"device_id": "3", "use_tf32": "0"}

    def test_what_keeps_tensors_on_a_device_gives_the_same(self, plain_field, monkeypatch):
        """The way of inputs and outputs to a GPU, on the CPU's own memory."""
        session = GraphSession(plain_field.graphs[OPERATOR].content, "operator.onnx")
        fed = zip(("field", "positions", "spacing"), fields_of(plain_field), strict=True)
        inputs = {name: array.astype(np.float32) for name, array in fed}
        (wanted,) = session.run(["values"], inputs)
        make = onnxruntime.OrtValue.ortvalue_from_numpy
        placed = {name: make(array, "cpu", 0) for name, array in inputs.items()}
        (found,) = session._run_bound(["values"], placed)
        assert np.array_equal(found, wanted)


BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "onnx", "onnxscript"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
from nfops.cli.main import run
sys.argv[0] = "nfops"
run()
"""

RECIPE = """
name: toy
bundle: b
data: {table: none.csv, source: "{id}.nii.gz", target: "{id}.nii.gz"}
geometry: {dims: 2, slice_axis: S, axes: [L, P], frame: physical, grid: {shape: [16, 14]}}
source: {intensity: {map: none}, field: {backbone: fpca, latent: 6}}
target: {intensity: {map: none}, field: {backbone: fpca, latent: 6}}
operator: {backend: oinr}
"""


class TestCommandLine:
    @pytest.fixture
    def recipe(self, saved) -> Path:
        path = saved.parent / "toy.yaml"
        path.write_text(RECIPE)
        image = smooth_scan(2)
        save_nifti(saved.parent / "scan.nii.gz", image.values[0], image.grid.affine)
        return path

    def test_it_is_applied_where_torch_cannot_be_imported(self, recipe):
        folder = recipe.parent
        words = ["apply", "-r", recipe, folder / "scan.nii.gz", "--out", folder / "out.nii.gz"]
        argv = [sys.executable, "-c", BLOCKED, *map(str, words)]
        ran = subprocess.run(argv, check=False, capture_output=True, text=True, env=ENVIRONMENT)
        assert ran.returncode == 0, ran.stderr
        sidecar = json.loads((folder / "out.json").read_text())
        assert (sidecar["Engine"], sidecar["Device"]) == ("onnx", "cpu")
        assert sidecar["Versions"]["onnxruntime"] == onnxruntime.__version__
        assert "torch" not in sidecar["Versions"]
        there = nfops(*words[:-1], folder / "t.nii.gz", "--engine", "torch")
        assert there.code == 0, there.err
        import nibabel

        one, other = (nibabel.load(folder / name).get_fdata() for name in ("out.nii.gz", "t.nii.gz"))
        assert np.abs(one - other).max() <= 1e-4 * (other.max() - other.min())

    @pytest.mark.skipif(not cuda_fault("cuda"), reason="this machine has CUDA")
    def test_a_gpu_that_is_not_there_is_exit_6(self, recipe):
        ran = nfops("apply", "-r", recipe, "x.nii.gz", "--out", "y.nii.gz", "--device", "cuda", "--engine", "onnx")
        assert ran.code == 6
        assert "cuda was asked for, but" in ran.err

    def test_export_onnx_adds_graphs_and_says_how_near_they_are(self, recipe):
        folder = recipe.parent
        again = nfops("export-onnx", "-r", recipe)
        assert (again.code, "operator.onnx: exists already" in again.err) == (5, True)
        ran = nfops("export-onnx", "-r", recipe, folder / "scan.nii.gz", "--out", folder / "other", "--json", "-q")
        assert ran.code == 0, ran.err
        assert ran.document["graphs"]["operator.onnx"]["parity"]["image"]["relative"] < 1e-4
        assert set(load_bundle(folder / "other").graphs) == {OPERATOR}
        planned = nfops("export-onnx", "-r", recipe, "--dry-run", "-f")
        assert planned.out.startswith("graphs: operator.onnx")

    def test_what_a_bundle_has_no_use_for_is_refused(self, saved):
        with pytest.raises(UsageError, match=r"no use for decode\.onnx"):
            plan_export(saved, ExportSettings(("decode.onnx",)))
        with pytest.raises(OutputError, match="exists already"):
            plan_export(saved, ExportSettings())

    def test_a_shipped_bundle_is_not_written_to(self):
        ran = nfops("export-onnx", "-r", "brain_t1t2")
        assert (ran.code, "stays as it is" in ran.err) == (2, True)


def test_a_broken_onnxruntime_is_passed_over_unless_it_was_asked_for(plain_field, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("nfops.engines.onnx", "nfops.onnx_runtime"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nfops.onnx_runtime", None)
    assert open_engine_to_apply(plain_field, "auto").name == "torch"
    with pytest.raises(DeviceError, match="cannot be imported"):
        open_engine_to_apply(plain_field, "cpu", "onnx")


def test_where_onnxruntime_has_no_cuda_torch_is_asked_for_it(plain_field, monkeypatch):
    monkeypatch.setattr("nfops.engines.onnx_sessions.cuda_fault", lambda device: "libcublas is missing")
    with pytest.raises(DeviceError, match="torch"):  # which has none here, and says so
        open_engine_to_apply(plain_field, "cuda")


def test_an_engine_whose_graphs_play_no_part_is_refused():
    bundle = make_bundle(make_spec(2))
    graphs = {DECODE: export_part(bundle, DECODE)}
    with pytest.raises(BundleError, match="no graph would run"):
        open_engine_to_apply(replace(bundle, graphs=graphs), "cpu", "onnx")

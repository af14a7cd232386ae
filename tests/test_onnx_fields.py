"""Fields as graphs: a solver's step, the decoder, and the whole way of a scan through them, as torch goes it."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_fixtures import nifti, save_nifti
from graph_bundles import latent_bundle, siren, smooth_scan
from toy_bundles import P, make_bundle, make_spec

from nfops.bundle import Bundle, load_bundle, save_bundle
from nfops.bundle_graphs import APPLY, DECODE, ENCODE_STEP
from nfops.codec_spec import EncodeSettings
from nfops.coding import encode_image
from nfops.engines import open_engine_to_apply
from nfops.engines.graph_field import GraphField
from nfops.engines.onnx_engine import OnnxEngine
from nfops.engines.onnx_sessions import GraphSession
from nfops.engines.torch_engine import TorchEngine
from nfops.errors import BundleError, ResultError, UsageError
from nfops.graph_modules import solved
from nfops.graph_parity import checked, predicted
from nfops.grid import Grid
from nfops.intensity import IntensitySettings
from nfops.io import load_image
from nfops.onnx_export import export_part
from nfops.resampling import resample
from nfops.solvers import gauss_newton
from nfops.workflows.apply import GridRequest, apply, open_translator
from nfops.workflows.export_onnx import ExportSettings, export_onnx, exportable_parts
from nfops.workflows.resample import FieldReader, resample_through_field

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = """
import runpy, sys
sys.modules["nfops"] = sys.modules["torch"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0])
"""
"""Code that runs a script where there is neither nfops nor torch."""
WARPED = {"backbone": "warped-fpca", "latent": 6, "warp": 3}
CASES = {
    "2-D": (siren(), siren(skips=True), 2, "identity", 1),
    "3-D, labels, hypernetwork": (siren(hyper_hidden=6), siren(first_modulated=2), 3, "softmax", 3),
    "1-D, one label": (siren(omega=3.0), siren(latent=5), 1, "sigmoid", 1),
    "two channels": (siren(), siren(), 2, "identity", 2),
    "warped": (WARPED, WARPED, 2, "identity", 1),
}


def with_graphs(bundle: Bundle) -> Bundle:
    return replace(bundle, graphs={name: export_part(bundle, name) for name in exportable_parts(bundle)})


@pytest.fixture(scope="module", params=[*list(CASES)[:-1], pytest.param("warped", marks=pytest.mark.slow)])
def bundle(request) -> Bundle:
    return with_graphs(latent_bundle(*CASES[request.param]))


@pytest.fixture(scope="module")
def sirens() -> Bundle:
    return with_graphs(latent_bundle(siren(), siren()))


def test_c67_every_graph_is_as_torch_computes(bundle):
    facts = checked(bundle, [smooth_scan(bundle.specs["source"].dims)]).graphs
    for name, graph in facts.items():
        found = {kind: one["relative"] for kind, one in graph.facts["parity"].items()}
        assert set(found) == {"random", "real", "image"}
        assert max(found.values()) < 1e-4, (name, found)


def test_whole_images_agree_to_a_ten_thousandth_of_the_range(bundle):
    engine, image = open_engine_to_apply(bundle, "cpu"), smooth_scan(bundle.specs["source"].dims)
    assert isinstance(engine, OnnxEngine)
    one, other = (predicted(bundle, each, image) for each in (engine, TorchEngine(bundle, "cpu")))
    assert one.std() > 1e-3
    assert np.abs(one - other).max() <= 1e-4


@pytest.mark.gpu
def test_cuda_gives_what_the_cpu_gives(bundle):
    image = smooth_scan(bundle.specs["source"].dims)
    here, there = (predicted(bundle, OnnxEngine(bundle, device), image) for device in ("cpu", "cuda"))
    assert np.abs(here - there).max() <= 1e-2


@pytest.mark.parametrize(
    "settings",
    [
        EncodeSettings(solver="sgd", steps=5, points=300, learning_rate=0.5, prior=0.1),
        EncodeSettings(steps=1, prior=0.1),
        EncodeSettings(steps=6, points=100, prior=0.1),
    ],
    ids=["sgd", "one step", "few points"],
)
def test_every_solver_finds_the_same_latents(sirens, settings):
    specs = {side: replace(spec, encode=settings) for side, spec in sirens.specs.items()}
    bundle = replace(sirens, specs=specs)
    engines = OnnxEngine(bundle, "cpu"), TorchEngine(bundle, "cpu")
    one, other = (encode_image(engine, bundle.side("source"), smooth_scan(2)) for engine in engines)
    assert np.abs(one.vectors - other.vectors).max() <= 1e-3 * np.abs(other.vectors).max()
    assert np.allclose(one.residual, other.residual, rtol=1e-3)


def test_long_latents_are_encoded_with_products(monkeypatch):
    bundle = with_graphs(latent_bundle(siren(latent=40), siren()))
    for place in ("nfops.solvers", "nfops.engines.graph_field", "nfops.engines.torch_problem"):
        monkeypatch.setattr(f"{place}.DENSE_LATENT", 20)
    engines = OnnxEngine(bundle, "cpu"), TorchEngine(bundle, "cpu")
    one, other = (encode_image(engine, bundle.side("source"), smooth_scan(2)) for engine in engines)
    assert np.allclose(one.residual, other.residual, rtol=1e-2)


def test_scans_with_holes_and_of_few_points_agree(sirens):
    image = smooth_scan(2)
    values = image.values.copy()
    values[0, 3:9, 4:12] = np.nan
    specs = {side: replace(spec, nan="keep") for side, spec in sirens.specs.items()}
    bundle = replace(sirens, specs=specs)
    holed = image.with_values(values)
    one, other = (predicted(bundle, make(bundle, "cpu"), holed) for make in (OnnxEngine, TorchEngine))
    assert np.abs(one - other).max() <= 1e-4


def test_blocks_do_not_change_what_is_computed(sirens, monkeypatch):
    whole = predicted(sirens, OnnxEngine(sirens, "cpu"), smooth_scan(2))
    monkeypatch.setattr("nfops.engines.graph_field.BLOCK_POINTS", {"cpu": 50})
    monkeypatch.setattr("nfops.engines.graph_field.KEPT_POINTS", 10)
    assert np.abs(predicted(sirens, OnnxEngine(sirens, "cpu"), smooth_scan(2)) - whole).max() < 1e-5


def test_scattered_points_are_decoded(sirens):
    points = np.random.default_rng(0).uniform(-0.7, 0.7, (5000, 2))
    latents = np.random.default_rng(1).normal(size=(1, 12)).astype(np.float32)
    one, other = (make(sirens, "cpu").decode_points("target", latents, points) for make in (OnnxEngine, TorchEngine))
    assert one.shape == other.shape == (1, 5000)
    assert np.abs(one - other).max() < 1e-5


def test_a_spline_field_stays_with_numpy_beside_graphs():
    bundle = latent_bundle(siren(), {"backbone": "fpca", "latent": P})
    bundle = replace(bundle, arrays={**bundle.arrays, "target": make_bundle(make_spec(2)).arrays["target"]})
    graphs = {ENCODE_STEP: export_part(bundle, ENCODE_STEP)}
    assert bundle.graphs_to_apply == (ENCODE_STEP,)
    engine = open_engine_to_apply(replace(bundle, graphs=graphs), "cpu")
    assert isinstance(engine, OnnxEngine)
    one, other = (predicted(bundle, each, smooth_scan(2)) for each in (engine, TorchEngine(bundle, "cpu")))
    assert np.abs(one - other).max() <= 1e-4


def test_spline_fields_have_graphs_too_for_other_programs():
    bundle = with_graphs(make_bundle(make_spec(2), make_spec(2, "sigmoid")))
    parity = checked(bundle, [smooth_scan(2)]).graphs[DECODE].facts["parity"]
    assert max(one["relative"] for one in parity.values()) < 1e-4


RESAMPLED = """
import sys
sys.modules["torch"] = None
import numpy as np
from pathlib import Path
from nfops.io import load_image
from nfops.workflows.resample import open_reader, resample_through_field
reader, scan = open_reader(Path(sys.argv[1]), "cpu"), load_image(Path(sys.argv[2]))
np.save(sys.argv[3], resample_through_field(reader, scan, scan.grid).image().values)
print(reader.engine.name)
"""


def test_without_a_target_and_torch_a_scan_is_read_through_its_field(tmp_path):
    base = latent_bundle(siren(), siren())
    alone = {"specs": {"source": base.specs["source"]}, "arrays": {"source": base.arrays["source"]}, "operator": {}}
    bundle = with_graphs(replace(base, **alone, recipe={"seed": 1, "source": base.recipe["source"]}))
    save_bundle(bundle, tmp_path / "b", force=False)
    scan = save_nifti(tmp_path / "scan.nii.gz", smooth_scan(2).values[0], smooth_scan(2).grid.affine)
    words = [sys.executable, "-c", RESAMPLED, tmp_path / "b", scan, tmp_path / "found.npy"]
    ran = subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True)
    assert ran.stdout == "onnx\n"
    image, found = load_image(scan), np.load(tmp_path / "found.npy")
    expected = resample_through_field(FieldReader(bundle, TorchEngine(bundle, "cpu")), image, image.grid).image().values
    assert found.std() > 1e-3
    assert np.abs(found - expected).max() <= 1e-4 * np.ptp(expected)


def test_a_graph_that_is_not_there_is_named(sirens):
    field = GraphField(sirens.specs["target"], None, None)
    with pytest.raises(BundleError, match=r"no graph encode_step\.onnx"):
        field.pose(sirens.specs["target"].domain.lattice(), np.zeros((1, 1, 16, 14)), None)
    with pytest.raises(BundleError, match=r"no graph decode\.onnx"):
        field.decode_points(np.zeros((1, 12)), np.zeros((3, 2)))


class TestApplyAsOneGraph:
    def test_c67_it_is_its_module_and_finds_what_the_engines_find(self, sirens):
        bundle = replace(sirens, graphs={**sirens.graphs, APPLY: export_part(sirens, APPLY)})
        found = checked(bundle, []).graphs[APPLY].facts["parity"]
        assert max(found[kind]["relative"] for kind in ("random", "real")) < 1e-4
        lattice, engine = bundle.specs["source"].domain.lattice(), TorchEngine(bundle, "cpu")
        drawn = engine.decode("source", 0.1 * np.ones((1, 12), np.float32), lattice)
        prior, settings = bundle.side("source").prior, bundle.specs["source"].encode
        latents, _ = gauss_newton(engine.pose("source", lattice, drawn, None), prior, 1, settings.steps)
        expected = engine.decode("target", engine.operate(latents), lattice)[0].reshape(-1)
        session = GraphSession(bundle.graphs[APPLY].content, APPLY)
        inputs = {"points": lattice.points(), "values": drawn.reshape(-1, 1), "weights": np.ones(lattice.size)}
        placed = {name: session.place(array) for name, array in inputs.items()}
        (predicted_there,) = session.run(["predicted"], {**placed, "output_points": placed["points"]})
        assert np.abs(predicted_there[:, 0] - expected).max() < 1e-2 * np.ptp(expected)

    def test_the_example_gives_what_nfops_gives_without_it(self, tmp_path):
        bundle = make_bundle(make_spec(2, intensity=IntensitySettings("percentile", 0.0, 100.0)))
        whole = replace(bundle, graphs={APPLY: export_part(bundle, APPLY)})
        image = smooth_scan(2)
        affine = np.diag([2.0, 2.5, 6.0, 1.0])
        affine[:2, 3] = -30, -25
        scan = save_nifti(tmp_path / "scan.nii.gz", image.values[0], affine)
        save_bundle(whole, tmp_path / "b", force=False)
        words = [ROOT / "examples" / "apply_onnx.py", tmp_path / "b", scan, tmp_path / "out.nii.gz"]
        subprocess.run([sys.executable, "-c", EXAMPLE, *map(str, words)], check=True)
        drawn = apply(open_translator(tmp_path / "b"), load_image(scan), GridRequest())[0].image().values[0]
        found, _ = nifti(tmp_path / "out.nii.gz")
        assert np.abs(found - drawn).max() < 1e-3 * np.ptp(drawn)

    @pytest.mark.parametrize("condition", [1.0, 1e4, 1e7])
    def test_products_alone_solve_what_the_encoder_must(self, condition):
        random = np.random.default_rng(0)
        turn = np.linalg.qr(random.normal(size=(40, 40)))[0]
        matrix = (turn * np.geomspace(1, condition, 40)) @ turn.T
        wanted = random.normal(size=40)
        found = solved(torch.from_numpy(matrix).float(), torch.from_numpy(matrix @ wanted).float()).numpy()
        assert np.abs(matrix @ (found - wanted)).max() < 1e-4 * np.abs(matrix @ wanted).max()


def test_the_shipped_operator_on_fields_is_applied_without_nfops(tmp_path):
    bundle, scan = ROOT / "recipes" / "bundles" / "brain_t1t2", load_image(ROOT / "recipes" / "demo" / "t1.nii.gz")
    middle = scan.with_values(scan.values[..., 3:5], scan.grid.slab(3, 5))
    coarse = resample(middle, middle.grid.with_shape((101, 160, 2)), "cubic")  # one axis coarser than 1.2 mm, one finer
    path = save_nifti(tmp_path / "scan.nii.gz", coarse.values[0], coarse.grid.affine)
    words = [ROOT / "examples" / "apply_field_onnx.py", bundle, path, tmp_path / "out.nii.gz"]
    subprocess.run([sys.executable, "-c", EXAMPLE, *map(str, words)], check=True)
    found = load_image(tmp_path / "out.nii.gz").reoriented(("L", "P", "S")).values
    drawn = apply(open_translator(bundle, "cpu", "torch"), coarse, GridRequest())[0].image().values
    apart = np.abs(found - drawn) / np.ptp(drawn)
    assert apart.max() < 1e-2  # at the border of the view, where splines end in other ways
    assert np.median(apart) < 1e-6


def test_one_graph_may_come_alone_and_joins_the_others(sirens, tmp_path):
    save_bundle(replace(sirens, graphs={}), tmp_path / "b", force=False)
    for name in (DECODE, ENCODE_STEP):
        made = export_onnx(tmp_path / "b", ExportSettings((name,)), [smooth_scan(2)])
        assert list(made.graphs) == [name]
    kept = load_bundle(tmp_path / "b").graphs
    assert set(kept) == {DECODE, ENCODE_STEP}
    assert "image" not in kept[DECODE].facts["parity"]  # not all that apply needs is there


@pytest.mark.slow
def test_the_whole_as_one_graph_is_compared_with_the_solver_of_apply(sirens, tmp_path):
    save_bundle(make_bundle(make_spec(2)), tmp_path / "splines", force=False)
    made = export_onnx(tmp_path / "splines", ExportSettings((APPLY,)), [smooth_scan(2)])
    assert made.graphs[APPLY]["parity"]["image"]["relative"] < 1e-4
    save_bundle(replace(sirens, graphs={}), tmp_path / "b", force=False)
    with pytest.raises(ResultError, match="in the image it differs"):  # random weights: the descents part ways
        export_onnx(tmp_path / "b", ExportSettings((APPLY,)), [smooth_scan(2)])


def test_engines_are_compared_on_the_same_points_of_large_scans():
    """More than a step of the solver looks at: of these every engine would draw its own."""
    bundle = with_graphs(make_bundle(make_spec(2)))
    facts = checked(bundle, [smooth_scan(2).with_values(np.ones((1, 90, 80, 1), np.float32), large_grid())]).graphs
    assert facts[ENCODE_STEP].facts["parity"]["real"]["relative"] < 1e-4


def large_grid() -> Grid:
    grid = smooth_scan(2).grid
    return grid.with_shape((90, 80, 1))


@pytest.mark.parametrize(("encode", "said"), [({"solver": "sgd"}, "encodes by sgd"), ({}, "starts from the linked")])
def test_a_descent_that_the_graph_would_do_otherwise_is_refused(tmp_path, encode, said):
    bundle = make_bundle(make_spec(2, "identity" if encode else "sigmoid"), make_spec(2))
    spec = bundle.specs["source"]
    spec = replace(spec, encode=replace(spec.encode, **encode))
    save_bundle(replace(bundle, specs={**bundle.specs, "source": spec}), tmp_path / "b", force=False)
    with pytest.raises(UsageError, match=said):
        export_onnx(tmp_path / "b", ExportSettings((APPLY,)))

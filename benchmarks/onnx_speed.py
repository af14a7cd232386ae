"""`apply` by onnxruntime, NumPy and torch, side by side in one run: time, start-up, memory, megabytes imported.

python benchmarks/onnx_speed.py [--runs 9] [--device cuda] [--json FILE]: needs nfops installed and its shipped bundles;
no data. On a GPU: 1., the differences of 3., and which provider runs how many nodes of each graph.

1. One 256x256 slice in-process, after loading: the shipped operator on fields; a chain of two SIRENs (6 layers of 256,
   P = 64, random weights, Gauss-Newton as its recipe would); the shipped chain of spline fields.
2. A fresh process until it can apply (import, load, open), until its first slice, its peak memory, and the size of the
   files that it imported or mapped.
3. The same slice by both engines: the largest difference, as a part of the output's range. And by float16 weights.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the libraries, and for the processes below

import numpy as np
import torch

from nfops.backbones.siren import Backbone, Config
from nfops.bundle import Bundle, load_bundle, save_bundle
from nfops.codec import state_arrays
from nfops.codec_spec import EncodeSettings
from nfops.engines import open_engine_to_apply
from nfops.engines.onnx_sessions import _providers
from nfops.image import Image
from nfops.io import load_image
from nfops.onnx_export import export_part
from nfops.onnx_runtime import onnxruntime
from nfops.shipped import shipped_folder
from nfops.workflows.apply import GridRequest, Translator, apply
from nfops.workflows.export_onnx import exportable_parts

CHILD = """
import json, sys, time
start = time.perf_counter()
from pathlib import Path
from nfops.io import load_image
from nfops.workflows.apply import GridRequest, apply, open_translator
translator = open_translator(Path(sys.argv[1]), "cpu", sys.argv[2])
opened = time.perf_counter() - start
scan = load_image(Path(sys.argv[3]))
apply(translator, scan, GridRequest())[0].image()
done = time.perf_counter() - start
files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
files |= {line.split()[-1] for line in open("/proc/self/maps") if "/" in line}
size = sum(Path(file).stat().st_size for file in files if file and Path(file).is_file())
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
print(json.dumps({"open_s": opened, "first_slice_s": done, "peak_mb": peak, "imported_mb": size / 1e6}))
"""


def slice_256() -> Image:
    """The middle slice of the demo's head, at 256x256 across its field of view."""
    from nfops.resampling import resample

    scan = load_image(shipped_folder() / "demo" / "t1.nii.gz")
    middle = scan.grid.shape[2] // 2
    cut = scan.with_values(scan.values[..., middle : middle + 1], scan.grid.slab(middle, middle + 1))
    grid = cut.grid.with_shape((256, 256, 1))
    return resample(cut, grid, "cubic")


def siren_bundle() -> Bundle:
    """Two SIRENs of the papers' size with random weights in place of the fields of the shipped chain."""
    base = load_bundle(shipped_folder() / "bundles" / "brain_t1t2_latent")
    settings = EncodeSettings(solver="gauss-newton", steps=4, points=4096, prior=1e-2)
    plain = {"backbone": "siren", "latent": 64, "width": 256, "depth": 6}
    specs, arrays = {}, {}
    for seed, (side, spec) in enumerate(base.specs.items()):
        torch.manual_seed(seed)
        state = state_arrays(Backbone(Config(latent=64), spec.domain, 1), "field.")
        prior = {"prior_mean": np.zeros(64, np.float32), "prior_variance": np.ones(64, np.float32)}
        specs[side] = replace(spec, backbone="siren", form="torch", latent=64, encode=settings)
        arrays[side] = state | prior
    weight = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32) / 8
    arrays["operator"] = {"weight": weight, "bias": np.zeros(64, np.float32)}
    recipe = {**base.recipe, "operator": {"backend": "linear"}}
    recipe |= {side: {**base.recipe[side], "field": plain} for side in specs}
    return with_graphs(Bundle("sirens", recipe, specs, arrays, operator={"form": "affine"}))


def with_graphs(bundle: Bundle, storage: str = "float32") -> Bundle:
    return replace(bundle, graphs={name: export_part(bundle, name, storage) for name in exportable_parts(bundle)})


def side_by_side(calls: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """Median milliseconds of each, run in turn after one warm-up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for run in range(runs + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if run:
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def in_process(bundle: Bundle, engines: tuple[str, ...], scan: Image, runs: int, device: str = "cpu") -> dict[str, Any]:
    translators = {name: Translator(bundle, open_engine_to_apply(bundle, device, name)) for name in engines}

    def call(name: str) -> Callable[[], Any]:
        return lambda: apply(translators[name], scan, GridRequest())[0].image().values

    images = {name: call(name)() for name in engines}
    spread = float(np.ptp(images["torch"]))
    apart = {name: float(np.abs(image - images["torch"]).max()) / spread for name, image in images.items()}
    found: dict[str, Any] = {"ms": side_by_side({name: call(name) for name in engines}, runs)}
    first = next(iter(engines))
    found["torch / " + first] = found["ms"]["torch"] / found["ms"][first]
    return found | {"from torch, of the range": apart}


def processes(folder: Path, engines: tuple[str, ...], scan: Path, runs: int) -> dict[str, dict[str, float]]:
    """Medians over fresh processes, in turn."""
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in engines}
    for _ in range(runs + 1):
        for name in engines:
            words = [sys.executable, "-c", CHILD, str(folder), name, str(scan)]
            ran = subprocess.run(words, check=True, capture_output=True, text=True)
            seen[name].append(json.loads(ran.stdout))
    return {
        name: {key: statistics.median(one[key] for one in each[1:]) for key in each[0]} for name, each in seen.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = on_cpu(options.runs) if options.device == "cpu" else on_device(options.runs, options.device)
    text = json.dumps(found, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


def on_device(runs: int, device: str) -> dict[str, Any]:
    """Field operator and SIRENs on a GPU; the torch of this comparison is on the same device."""
    scan, field = slice_256(), load_bundle(shipped_folder() / "bundles" / "brain_t1t2")
    found: dict[str, Any] = {"machine": {"device": torch.cuda.get_device_name(device), **machine()}}
    for name, bundle in (("operator on fields", field), ("two SIRENs", siren_bundle())):
        found[f"one slice, {name}"] = in_process(bundle, ("onnx", "torch"), scan, runs, device)
        on_cpu, there = (
            apply(Translator(bundle, open_engine_to_apply(bundle, where, "onnx")), scan, GridRequest())[0].image()
            for where in ("cpu", device)
        )
        apart = np.abs(on_cpu.values - there.values).max() / np.ptp(on_cpu.values)
        found[f"{name}, from the CPU, of the range"] = float(apart)
        nodes = {graph: nodes_by_provider(part.content, device) for graph, part in bundle.graphs.items()}
        found[f"{name}, nodes by provider"] = nodes
    return found


def nodes_by_provider(content: bytes, device: str) -> dict[str, int]:
    """How many nodes of a graph each provider was given."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = onnxruntime.InferenceSession(content, options, providers=_providers(device))
    counts: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        counts[part.ep_name] += len(part.get_nodes())
    return dict(counts)


def machine() -> dict[str, Any]:
    """Whose figures these are."""
    versions = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
    threads = os.environ.get("OMP_NUM_THREADS")
    return {"cpus": os.cpu_count(), "threads": threads, "python": platform.python_version(), "versions": versions}


def on_cpu(runs: int) -> dict[str, Any]:
    """All that the docstring says."""
    scan, bundles = slice_256(), shipped_folder() / "bundles"
    field, spline, sirens = (
        load_bundle(bundles / "brain_t1t2"),
        load_bundle(bundles / "brain_t1t2_latent"),
        siren_bundle(),
    )
    found: dict[str, Any] = {
        "machine": machine(),
        "one slice, operator on fields": in_process(field, ("onnx", "torch"), scan, runs),
        "one slice, two SIRENs": in_process(sirens, ("onnx", "torch"), scan, runs),
        "one slice, spline fields": in_process(spline, ("numpy", "torch"), scan, runs),
    }
    halved = with_graphs(sirens, "float16")
    whole, half = (
        apply(Translator(each, open_engine_to_apply(each, "cpu", "onnx")), scan, GridRequest())[0].image().values
        for each in (sirens, halved)
    )
    found["float16 weights of the SIRENs"] = {
        "from float32, of the range": float(np.abs(half - whole).max() / np.ptp(whole)),
        "bytes": [sum(len(graph.content) for graph in each.graphs.values()) for each in (sirens, halved)],
    }
    with tempfile.TemporaryDirectory() as name:
        from nfops.io import SaveOptions, save_image

        path = Path(name) / "scan.nii.gz"
        save_image(path, scan, SaveOptions())
        save_bundle(sirens, Path(name) / "sirens", force=False)
        places = {
            "operator on fields": (bundles / "brain_t1t2", ("onnx", "torch")),
            "two SIRENs": (Path(name) / "sirens", ("onnx", "torch")),
            "spline fields": (bundles / "brain_t1t2_latent", ("numpy", "torch")),
        }
        for what, (folder, engines) in places.items():
            found[f"a process, {what}"] = processes(folder, engines, path, max(3, runs // 2))
    return found


if __name__ == "__main__":
    main()

"""Speed of a SIREN 6x256 on 128x128 pictures as ratios, each pair measured in turn in one run. Quote the medians.

python benchmarks/siren_speed.py [--data DIR] [--runs 7] [--compile] [--json FILE]: needs nfops installed and the
pictures of cxr_lungs in DIR (default: $NFOPS_DATA). One core; processor time, not the clock's.

1. Encoding unseen pictures: ours (`solve`, Gauss-Newton) against the papers' algorithm (20 plain gradient steps from
   zero on the full grid, eager torch, autograd), whose step is the best of ALPHAS on two of the pictures. Ours takes
   the fewest steps and points whose error on the full grid is at most the papers' (finding them is not in its time,
   as choosing alpha is not in theirs); and both at fixed settings.
2. Decoding 256x256 against the matrix products alone.
3. --compile: the same decoding through torch.compile, with the time of its first call.

The field is an autodecoder (latents and network learned together, no inner loop), trained here for TRAIN_S seconds and
kept under build/: good enough for both methods to work on, not a result.
"""

import argparse
import csv
import functools
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Picture
from safetensors.torch import load_file, save_file

from nfops.arrays import Array
from nfops.backbones.siren import Backbone, Config
from nfops.bundle import Bundle
from nfops.codec import state_arrays
from nfops.codec_spec import CodecSpec, EncodeSettings
from nfops.engines.torch_engine import TorchEngine
from nfops.intensity import IntensitySettings
from nfops.sampling import Domain
from nfops.solvers import POINTS_PER_ENTRY, QUICK_PER_ENTRY, QUICK_POINTS, Prior, Problem, solve

CACHE = Path(__file__).parents[1] / "build" / "siren_speed"
DOMAIN = Domain((1.0, 1.0), (128, 128))
TRAIN_S = {64: 100, 2048: 70}
PRIOR = {64: 1e-6, 2048: 1e-7}
ALPHAS = (0.1, 0.3, 1.0, 3.0, 10.0)
FIXED = EncodeSettings(steps=6, points=4096)
PICTURES = 5


def pictures(data: Path) -> tuple[Array, Array]:
    """Training and unseen pictures, (N, 16384) each, by the cohort's own split."""
    with (data / "cxr_lungs" / "split.csv").open() as table:
        rows = list(csv.DictReader(table))
    small = {}
    for row in rows:
        (path,) = (data / "cxr_lungs" / "images").glob(f"{row['id']}.*")
        shown = Picture.open(path).convert("L").resize((128, 128), Picture.Resampling.BOX)
        small[row["id"]] = np.asarray(shown, np.float32).reshape(-1) / 255
    parts = ([small[r["id"]] for r in rows if (r["split"] == "train") is wanted] for wanted in (True, False))
    train, unseen = (np.stack(part) for part in parts)
    return train, unseen


def make_backbone(latent: int) -> Backbone:
    torch.manual_seed(0)
    return Backbone(Config(latent=latent, modulation_init="phase", output_offset=0.5), DOMAIN, 1)


def trained_field(latent: int, train: Array) -> Backbone:
    """From the cache, or trained now."""
    backbone, path = make_backbone(latent), CACHE / f"cxr_{latent}.safetensors"
    if path.is_file():
        backbone.load_state_dict(load_file(path))
        return backbone.eval()
    values, count = torch.from_numpy(train), len(train)
    coords = torch.from_numpy(DOMAIN.lattice().points()[:, 0]).float()
    latents = torch.nn.Parameter(0.01 * torch.randn(count, latent))
    rates = [4e-4 if latent < 512 else 3e-4, 5e-3]
    groups = zip((backbone.parameters(), [latents]), rates, strict=True)
    optimizer = torch.optim.Adam([{"params": list(parameters), "lr": rate} for parameters, rate in groups])
    start = time.process_time()
    while (part := (time.process_time() - start) / TRAIN_S[latent]) < 1:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * part))
        rows, points = torch.randperm(count)[:16], torch.randint(0, len(coords), (256,))
        shown = backbone(coords[points].expand(16, -1, -1), latents[rows])[..., 0]
        loss = ((shown - values[rows][:, points]) ** 2).mean() + 1e-4 * (latents[rows] ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = latents.detach()
    backbone.set_prior(found.mean(dim=0), found.var(dim=0) + 1e-8)
    CACHE.mkdir(parents=True, exist_ok=True)
    save_file(backbone.state_dict(), path)
    return backbone.eval()


def make_engine(backbone: Backbone) -> TorchEngine:
    spec = CodecSpec(
        "siren", "torch", 2, ("L", "P", "S"), None, DOMAIN.half_extent, DOMAIN.spacing, "identity", (), 1,
        backbone.latent, IntensitySettings(), (0.0,), (1.0,), EncodeSettings(),
    )  # fmt: skip
    field = {"backbone": "siren", "latent": backbone.latent, "output_offset": 0.5}
    arrays = {"source": state_arrays(backbone, "field.")}
    return TorchEngine(Bundle("speed", {"source": {"field": field}}, {"source": spec}, arrays), "cpu")


def reference(backbone: Backbone, coords: torch.Tensor, values: torch.Tensor, alpha: float) -> Array:
    """20 plain gradient steps on the mean squared error of all points; the network's weights ask for no gradient."""
    z = torch.zeros(1, backbone.latent, requires_grad=True)
    for _ in range(20):
        loss = ((backbone(coords, z) - values) ** 2).mean()
        (gradient,) = torch.autograd.grad(loss, z)
        z = (z - alpha * gradient).detach().requires_grad_()
    return z.detach().numpy()


def timed(call: Callable[[], Array]) -> tuple[float, Array]:
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def encoding(latent: int, train: Array, unseen: Array) -> dict[str, object]:
    backbone = trained_field(latent, train).requires_grad_(False)
    engine, (mean, variance) = make_engine(backbone), backbone.prior()
    prior = Prior(mean, variance, PRIOR[latent])
    lattice = DOMAIN.lattice()
    coords = torch.from_numpy(lattice.points()[:, 0]).float()[None]

    def theirs(picture: Array, alpha: float) -> Array:
        return reference(backbone, coords, torch.from_numpy(picture).reshape(1, -1, 1), alpha)

    def problem_of(picture: Array) -> Problem:
        return engine.pose("source", lattice, picture.reshape(1, 1, 128, 128), None)

    def psnr(picture: Array, z: Array) -> float:
        return float(-10 * np.log10(problem_of(picture).loss(z))[0])

    means = {a: statistics.mean(psnr(p, theirs(p, a)) for p in unseen[:2]) for a in ALPHAS}
    alpha = max(means, key=means.__getitem__)
    cases = []
    for picture in unseen[:PICTURES]:
        seconds, z = timed(lambda p=picture: theirs(p, alpha))
        case = {"papers_s": seconds, "papers_db": psnr(picture, z)}
        fixed_s, fixed = timed(lambda p=picture: solve(problem_of(p), prior, 1, FIXED)[0])
        case |= {"fixed_s": fixed_s, "fixed_db": psnr(picture, fixed)}
        pose, quality = functools.partial(problem_of, picture), functools.partial(psnr, picture)
        cases.append(case | first_as_good(pose, prior, quality, case["papers_db"]))
    ratios = [case["papers_s"] / case["ours_s"] for case in cases if "ours_s" in case]
    return {
        "alpha": alpha,
        "alpha_db": means,
        "prior": PRIOR[latent],
        "fixed settings": f"{FIXED.steps} steps, {FIXED.points} points",
        "ratio at equal error, median": statistics.median(ratios) if len(ratios) == len(cases) else None,
        "ratio at equal error, least": min(ratios, default=None),
        "ratio at fixed settings, median": statistics.median(c["papers_s"] / c["fixed_s"] for c in cases),
        "gain at fixed settings in dB, median": statistics.median(c["fixed_db"] - c["papers_db"] for c in cases),
        "pictures": cases,
    }


def ladder(latent: int) -> list[EncodeSettings]:
    """Settings from the cheapest up, by the points that their steps look at."""
    few, least = max(QUICK_PER_ENTRY * latent, QUICK_POINTS), POINTS_PER_ENTRY * latent
    sizes = sorted({max(points, least) for points in (1024, 4096, 16384)})
    rungs = [EncodeSettings(steps, points) for steps in range(2, 13) for points in sizes]
    return sorted(rungs, key=lambda rung: (rung.steps - 1) * few + rung.points)


def first_as_good(
    pose: Callable[[], Problem], prior: Prior, psnr: Callable[[Array], float], wanted: float
) -> dict[str, object]:
    """The first rung of the ladder that is as good as `wanted`, and its time from a second run."""

    def encode(settings: EncodeSettings) -> Array:
        return solve(pose(), prior, 1, settings)[0]

    for settings in ladder(len(prior.mean)):
        if psnr(encode(settings)) >= wanted:
            seconds, z = timed(functools.partial(encode, settings))
            return {"ours_s": seconds, "ours_db": psnr(z), "ours": f"{settings.steps} steps, {settings.points} points"}
    return {}


def decoding(runs: int, *, is_compiled: bool) -> dict[str, object]:
    """256x256 with the network of P = 64, untrained: speed does not depend on what it shows."""
    backbone = make_backbone(64).eval()
    engine, z = make_engine(backbone), np.zeros((1, 64), np.float32)
    lattice = Domain((1.0, 1.0), (256, 256)).lattice()
    weights = [layer.weight.detach() for layer in backbone.layers]

    @torch.inference_mode()
    def products() -> None:
        for start in range(0, lattice.size, 2048):
            x = torch.empty(min(2048, lattice.size - start), 2).zero_()
            for weight in weights:
                x = x @ weight.T

    calls: dict[str, Callable[[], object]] = {
        "decode": lambda: engine.decode("source", z, lattice),
        "bare products": products,
    }
    found: dict[str, object] = {}
    if is_compiled:
        fast = torch.compile(backbone)
        points, latents = torch.rand(1, 2048, 2), torch.zeros(1, 64)

        @torch.inference_mode()
        def compiled() -> None:
            for _ in range(0, lattice.size, 2048):
                fast(points, latents)

        start = time.perf_counter()
        compiled()
        found["torch.compile, first call in s"] = time.perf_counter() - start
        calls["compiled blocks"] = compiled
    times: dict[str, list[float]] = {name: [] for name in calls}
    for run in range(runs + 1):
        for name, call in calls.items():
            seconds, _ = timed(call)
            if run:
                times[name].append(seconds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return found | medians | {"bare products / decode": medians["bare products"] / medians["decode"]}


def main() -> None:
    """Measure everything, print it, and keep it as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("NFOPS_DATA", ".")))
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    train, unseen = pictures(options.data)
    results: dict[str, object] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, 1 used",
        "versions": f"Python {platform.python_version()}, NumPy {np.__version__}, torch {torch.__version__}",
        "decode 256x256": decoding(options.runs, is_compiled=options.compile),
        **{f"encode 128x128, P = {latent}": encoding(latent, train, unseen) for latent in TRAIN_S},
    }
    print(json.dumps(results, indent=1))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""One meta-training step against a straightforward second-order implementation: ratios of time and of memory.

python benchmarks/meta_step.py [--runs 5] [--width 256] [--json FILE]

SIREN 6 x 256, P = 64, 10 inner steps, gamma 0.25, 8 scans of 64 x 64 (MedFuncta, table 6, in small); one thread. The
reference is what the papers' codes do: autograd through all inner steps, all scans at once, loops over layers only.
Both see the same points, so their outer gradients can be compared: for `sgd` they are the same numbers. For the
Gauss-Newton step they are not, since it solves the inner problem better; what a step of it is worth, equal time
says: see field_training.py. Memory is what a step adds to the process at its peak, in a process of its own.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import nn

from nfops.backbones.siren import Backbone, Config
from nfops.contexts import Batch, Scans, draw_points
from nfops.descent import BLOCK_POINTS
from nfops.field_loss import FieldLoss
from nfops.heads import Head
from nfops.inner_loops import GaussNewtonStep, GradientSteps
from nfops.sampling import Domain

SCANS, SIDE, LATENT, INNER, GAMMA, RATE, OMEGA = 8, 64, 64, 10, 0.25, 1e-2, 30.0
BLOCK = BLOCK_POINTS["cpu"]
MIB = 1 << 20


class Layer(nn.Module):
    """sin(omega (W x + b + m(z))), a linear map m for each layer."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.linear, self.shift = nn.Linear(before, width), nn.Linear(LATENT, width)

    def forward(self, x: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        return torch.sin(OMEGA * (self.linear(x) + self.shift(latents).unsqueeze(1)))


class Straightforward(nn.Module):
    """The same field as `Backbone`, as one writes it down."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(2, width), *(Layer(width, width) for _ in range(depth - 1))])
        self.last = nn.Linear(width, 1)

    def forward(self, x: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x, latents)
        return self.last(x)

    @torch.no_grad()
    def copy(self, backbone: Backbone) -> "Straightforward":
        maps = (
            backbone.modulation.weight.split(backbone.config.width),
            backbone.modulation.bias.split(backbone.config.width),
        )
        for layer, linear, weight, bias in zip(self.layers, list(backbone.layers)[:-1], *maps, strict=True):
            layer.linear.load_state_dict(linear.state_dict())
            layer.shift.weight.copy_(weight)
            layer.shift.bias.copy_(bias)
        self.last.load_state_dict(backbone.layers[-1].state_dict())
        return self

    def gradient(self) -> torch.Tensor:
        """In the order of `Backbone`'s parameters."""
        linears = [part for layer in self.layers for part in (layer.linear.weight, layer.linear.bias)]
        maps = [torch.cat([getattr(layer.shift, name).grad for layer in self.layers]) for name in ("weight", "bias")]
        rest = [parameter.grad for parameter in (*linears, self.last.weight, self.last.bias)]
        return torch.cat([part.flatten() for part in (*rest, *maps)])


def scans() -> Scans:
    """Smooth random images."""
    coords = torch.from_numpy(Domain((1.0, 1.0), (SIDE, SIDE)).lattice().points()[:, 0]).float()
    generator = torch.Generator().manual_seed(0)
    waves = torch.randn(SCANS, 20, 2, generator=generator) * 4
    heights = torch.randn(SCANS, 1, 20, generator=generator) / 10
    values = 0.5 + (torch.cos(coords @ waves.transpose(1, 2)) * heights).sum(dim=2, keepdim=True)
    return Scans(coords, values, None)


class Steps:
    """The ways to make one meta-training step, all from the same weights and points."""

    def __init__(self, width: int) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        config = Config(latent=LATENT, width=width, depth=6, omega=OMEGA)
        self.backbone = Backbone(config, Domain((1.0, 1.0), (SIDE, SIDE)), 1)
        self.reference = Straightforward(width, 6).copy(self.backbone)
        shown, generator = scans(), torch.Generator().manual_seed(1)
        count = round(GAMMA * shown.nodes)
        self.batch = Batch(shown, [draw_points(SCANS, shown.nodes, count, generator) for _ in range(INNER)], None)
        shared = draw_points(1, shown.nodes, count, generator)[0]
        self.newton_batch = Batch(shown, [shared], None)
        self.field = FieldLoss(self.backbone, Head("identity"))

    def straightforward(self) -> None:
        self.reference.zero_grad()
        latents = torch.zeros(SCANS, LATENT, requires_grad=True)
        for points in self.batch.inner:
            shown = self.batch.scans.at(points)
            losses = ((self.reference(shown.coords, latents) - shown.values) ** 2).mean(dim=(1, 2))
            (gradient,) = torch.autograd.grad(losses.sum(), latents, create_graph=True)
            latents = latents - RATE * gradient
        outer = self.batch.scans.at(None)
        ((self.reference(outer.coords, latents) - outer.values) ** 2).mean().backward()

    def sgd(self) -> None:
        self.backbone.zero_grad()
        GradientSteps(torch.tensor(RATE), BLOCK).learn(self.field, self.batch)

    def sgd_keeping_graphs(self) -> None:
        self.backbone.zero_grad()
        GradientSteps(torch.tensor(RATE), BLOCK, keeps_graphs=True).learn(self.field, self.batch)

    def gauss_newton(self) -> None:
        self.backbone.zero_grad()
        GaussNewtonStep(1e-2, BLOCK).learn(self.field, self.newton_batch)

    def gradient(self, name: str) -> torch.Tensor:
        getattr(self, name)()
        if name == "straightforward":
            return self.reference.gradient()
        return torch.cat([parameter.grad.flatten() for parameter in self.backbone.parameters()])


WAYS = ("straightforward", "sgd", "sgd_keeping_graphs", "gauss_newton")


def interleaved(ways: dict[str, Callable[[], None]], runs: int) -> dict[str, float]:
    """Median CPU seconds of each, run in turn after one warm-up."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for run in range(runs + 1):
        for name, call in ways.items():
            start = time.process_time()
            call()
            if run:
                times[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def peak_mib(name: str, width: int) -> float:
    """What one step adds to the peak memory of a process that has imported and built everything."""
    command = [sys.executable, __file__, "--memory-of", name, "--width", str(width)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def memory_of(name: str, width: int) -> None:
    steps = Steps(width)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    getattr(steps, name)()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory-of", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        memory_of(options.memory_of, options.width)
        return
    memory = {name: peak_mib(name, options.width) for name in WAYS}  # first: a child begins with its parent's peak
    steps = Steps(options.width)
    expected = steps.gradient("straightforward")
    results = {
        "what": "one meta-training step: SIREN 6 x width, P 64, 10 inner steps, gamma 0.25, 8 scans of 64 x 64",
        "width": options.width,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
    seconds = interleaved({name: getattr(steps, name) for name in WAYS}, options.runs)
    for name in WAYS:
        found = steps.gradient(name)
        results[name] = {
            "seconds": seconds[name],
            "peak_mib": memory[name],
            "times_faster": seconds["straightforward"] / seconds[name],
            "part_of_memory": memory[name] / memory["straightforward"],
            "cosine_of_outer_gradients": float(nn.functional.cosine_similarity(found, expected, dim=0)),
            "relative_difference": float((found - expected).norm() / expected.norm()),
        }
        print(name, {key: round(value, 4) for key, value in results[name].items()})
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

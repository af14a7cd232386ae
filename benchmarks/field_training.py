"""How to meta-learn a field in little time: the ways of `nfops.inner_loops`, and three that lost, at equal time.

python benchmarks/field_training.py DATA [--seconds 60] [--cohort pneumonia28|t1] [--json FILE]
python benchmarks/field_training.py DATA --ablation [--iterations 250] [--json FILE]

Every variant has so many seconds of one thread's CPU time (the machine may be busy with others), from the same random
weights, and is judged by the PSNR of all validation scans, encoded by its own solver; beside it PCA of the pixels at
the same P, fitted to the training scans. `--ablation`: MedFuncta's tables 4 and 5 and figure 4 in small, at equal
iterations: the omega schedule, the selection ratio gamma, the schedule of the learning rate.
"""

import argparse
import csv
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from PIL import Image

from nfops.backbones.siren import Backbone, Config
from nfops.contexts import Batch, Context, Scans
from nfops.descent import Descent, Task
from nfops.field_loss import FieldLoss
from nfops.heads import Head
from nfops.inner_loops import GaussNewtonStep, GradientSteps, _outer_loss, _solve
from nfops.meta_learning import mean_image_loss
from nfops.recipe_sections import Encode, Fit
from nfops.sampling import Domain, FieldSamples

P, SEED = 64, 0
SINE = Config(latent=P, width=64, depth=4, omega=20.0, first_modulated=2, output_offset=0.5)
FIT = Fit(iterations=10**7, batch=16, points=256, learning_rate=2e-3, warm_up=100, inner_steps=3, validate_every=250)
SGD = Encode(solver="sgd", steps=6, learning_rate=1.0, prior=0.0)
NEWTON = Encode(solver="gauss-newton", steps=4)


def pneumonia28(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """PneumoniaMNIST, (N, 28, 28)."""
    images = np.load(data / "cohort_2d" / "pneumonia28" / "pneumonia28.npz")
    return images["train_images"] / 255, images["val_images"] / 255


def t1(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """T1 slices of few patients, averaged to (N, 64, 64)."""
    folder = data / "mr_t1_t2_flair"
    rows = [row for row in csv.DictReader((folder / "split.csv").open()) if (folder / f"t1/{row['id']}.png").is_file()]

    def shown(split: str) -> np.ndarray:
        files = [folder / f"t1/{row['id']}.png" for row in rows if row["split"] == split]
        pixels = np.stack([np.asarray(Image.open(file).convert("L"), np.float64) for file in files])
        return pixels.reshape(-1, 64, 3, 64, 3).mean(axis=(2, 4)) / 255

    return shown("train"), shown("val")


COHORTS = {"pneumonia28": pneumonia28, "t1": t1}


def scans_of(images: np.ndarray) -> Scans:
    """(N, I, J) on 0..1."""
    domain = Domain((1.0, 1.0), images.shape[1:])
    coverage = np.ones(images.shape, np.float32)
    return Scans.of(FieldSamples(images[:, None].astype(np.float32), coverage, domain, SEED))


# --- the ways that lost, and are no part of nfops for that -----------------------------------------------------


@dataclass(eq=False)
class Envelope:
    """Gauss-Newton solved well, latents detached: at the minimum of loss + precision |z|^2 the latents' dependence on
    the weights does not matter. warm: go on from each scan's latent of the last time (an auto-decoder).
    """

    steps: int
    precision: float
    block: int
    table: torch.Tensor | None = None

    def learn(self, field: FieldLoss, batch: Batch, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        context = batch.scans.at(batch.outer)
        start = torch.zeros(len(batch.scans), P) if self.table is None else self.table[rows]
        latents = self.found(field, context, start)
        if self.table is not None:
            self.table[rows] = latents
        return latents, _outer_loss(field, context, latents, 1 / len(batch.scans), self.block)[0]

    @torch.no_grad()
    def found(self, field: FieldLoss, context: Context, start: torch.Tensor, steps: int = 0) -> torch.Tensor:
        best, cost = start, torch.full((len(start),), math.inf)
        caution, trial = torch.full((len(start),), 1e-3), start
        gradient, curvature = torch.zeros_like(start), torch.zeros(*start.shape, start.shape[1])
        for step in range((steps or self.steps) + 1):
            losses, slope, curve = field.linearise(context, trial)
            losses = losses + self.precision * (trial**2).sum(dim=1)
            better = losses <= cost
            best, cost = torch.where(better[:, None], trial, best), torch.where(better, losses, cost)
            gradient = torch.where(better[:, None], slope + 2 * self.precision * trial, gradient)
            curvature = torch.where(better[:, None, None], curve.expand(len(start), -1, -1), curvature)
            caution = caution * torch.where(better, 0.3, 10.0) if step else caution
            trial = best - _solve(gradient, curvature, self.precision + caution)
        return best

    def solve(self, field: FieldLoss, context: Context, steps: int) -> torch.Tensor:
        return self.found(field, context, torch.zeros(len(context.values), P), steps)


class FirstOrder(GradientSteps):
    """Takes the latents after the inner steps as given."""

    def _go_back(self, *args: Any) -> None:
        del args


class WithLoop(Descent):
    """Descent with an inner loop that nfops does not have."""

    def __init__(self, task: Task, fit: Fit, encode: Encode, loop: Envelope | FirstOrder) -> None:
        self._own = loop
        super().__init__(task, fit, encode, clock=time.process_time)

    def _loop(self) -> Any:
        rows = self._rows()
        if isinstance(self._own, FirstOrder):
            return self._own
        return SimpleNamespace(learn=lambda f, b: self._own.learn(f, b, rows), solve=self._own.solve)


# --- the comparison ----------------------------------------------------------------------------------------------


training = partial(Descent, clock=time.process_time)
"""Descent by the time of this process: the machine may be busy with others."""


def variants(task: Callable[[], Task], fit: Fit) -> dict[str, Callable[[], Descent]]:
    """Name -> a training that has not begun."""
    table = torch.zeros(len(task().training), P)
    paper = replace(SGD, learning_rate=1e-2, steps=20)
    return {
        "differentiated Gauss-Newton step": lambda: training(task(), replace(fit, context=1.0), NEWTON),
        "second-order sgd, rate 1": lambda: training(task(), fit, SGD),
        "second-order sgd, rate 1, meta-SGD": lambda: training(task(), replace(fit, learned_rates=True), SGD),
        "first-order sgd, rate 1": lambda: WithLoop(task(), fit, SGD, FirstOrder(torch.tensor(1.0), 4096)),
        "second-order sgd, the papers' rate 0.01 and 10 steps": lambda: training(
            task(), replace(fit, inner_steps=10), paper
        ),
        "Gauss-Newton and the envelope theorem": lambda: WithLoop(task(), fit, NEWTON, Envelope(2, 1.0, 4096)),
        "warm-started latents (auto-decoder)": lambda: WithLoop(
            task(), fit, NEWTON, Envelope(1, 1.0, 4096, table.clone())
        ),
    }


def judge(run: Descent, validation: Scans) -> dict[str, float]:
    """Over all validation scans and nodes: PSNR of the mean error, and the mean of their PSNRs."""
    losses = run.solve(validation, validation.nodes)[1].double()
    return {"psnr_of_mean": float(-10 * losses.mean().log10()), "mean_psnr": float(-10 * losses.log10().mean())}


def with_other_solver(run: Descent, validation: Scans) -> dict[str, dict[str, float]]:
    """What the same weights give when another solver than the training's encodes."""
    loss, found = run.task.loss, {}
    for damping in (1e-1, 1e-2, 1e-3):
        loop = GaussNewtonStep(damping, 4096)
        context = validation.at(None)
        latents = loop.solve(loss, context, 4)
        with torch.no_grad():
            losses = loss.losses(context, latents).double()
        found[f"gauss-newton, damping {damping}"] = {"psnr_of_mean": float(-10 * losses.mean().log10())}
    return found


def pca(training: np.ndarray, validation: np.ndarray) -> dict[str, float]:
    """PCA of the pixels with P components."""
    from sklearn.decomposition import PCA

    rows, others = (images.reshape(len(images), -1) for images in (training, validation))
    model = PCA(P, svd_solver="randomized", random_state=0).fit(rows)
    errors = ((model.inverse_transform(model.transform(others)) - others) ** 2).mean(axis=1)
    return {"psnr_of_mean": float(-10 * np.log10(errors.mean())), "mean_psnr": float(-10 * np.log10(errors).mean())}


def prepared(images: tuple[np.ndarray, np.ndarray]) -> tuple[Callable[[Config], Task], Scans]:
    training, validation = map(scans_of, images)
    head = Head("identity")
    baseline = mean_image_loss(head, training)

    def task(config: Config = SINE) -> Task:
        torch.manual_seed(SEED)
        return Task(FieldLoss(Backbone(config, Domain((1.0, 1.0), (2, 2)), 1), head), training, validation, 1, baseline)

    return task, validation


def compare(data: Path, cohort: str, seconds: float) -> dict[str, Any]:
    """Every variant on one cohort."""
    images = COHORTS[cohort](data)
    task, validation = prepared(images)
    fit = replace(FIT, minutes=seconds / 60, points=256 if cohort == "pneumonia28" else 512)
    results: dict[str, Any] = {"PCA of the pixels": pca(*images)}
    print(cohort, results["PCA of the pixels"], flush=True)
    for name, make in variants(task, fit).items():
        run = make()
        course = run.run()
        results[name] = judge(run, validation) | {"iterations": course.iteration, "rollbacks": course.rollbacks}
        if run.encode.solver == "sgd":
            results[name]["encoded otherwise"] = with_other_solver(run, validation)
        print(cohort, name, results[name], flush=True)
    return results


# --- MedFuncta's ablations ---------------------------------------------------------------------------------------


def ablate(data: Path, iterations: int) -> dict[str, Any]:
    """At equal iterations, from the paper's baseline (constant omega and rate, full context) and from all together.

    A step of the latent moves phases by omega squared times the inner rate, so other omegas have other best rates:
    where a case says so, its rate is 1 * (20 / mean omega)^2. MedFuncta's is 0.01 for all.
    """
    task, validation = prepared(pneumonia28(data))
    base = replace(FIT, iterations=iterations, schedule="constant", context=1.0, points=None, validate_every=50)
    rising = replace(SINE, omega=20.0, omega_last=60.0)

    def rate(value: float) -> Encode:
        return replace(SGD, learning_rate=value)

    cases = {
        "baseline: omega 20, constant rate, gamma 1": (SINE, base, SGD),
        "+ cosine rate": (SINE, replace(base, schedule="cosine"), SGD),
        "+ omega 20 to 60, same inner rate": (rising, base, SGD),
        "+ omega 20 to 60, inner rate 0.25": (rising, base, rate(0.25)),
        "+ gamma 0.25": (SINE, replace(base, context=0.25), SGD),
        "all: omega 20 to 60, inner rate 0.25, cosine rate, gamma 0.25": (
            rising,
            replace(base, schedule="cosine", context=0.25),
            rate(0.25),
        ),
        "gamma 0.1": (SINE, replace(base, context=0.1), SGD),
        "gamma 0.5": (SINE, replace(base, context=0.5), SGD),
        "omega 10, inner rate 4": (replace(SINE, omega=10.0), base, rate(4.0)),
        "omega 40, inner rate 0.25": (replace(SINE, omega=40.0), base, rate(0.25)),
        "omega 10 to 40, inner rate 0.64": (replace(SINE, omega=10.0, omega_last=40.0), base, rate(0.64)),
    }
    results: dict[str, Any] = {}
    for name, (config, fit, encode) in cases.items():
        run = training(task(config), fit, encode)
        course = run.run()
        figures = {"seconds": course.seconds, "rollbacks": course.rollbacks, "best_iteration": course.best_iteration}
        results[name] = judge(run, validation) | figures
        print(name, results[name], flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--cohort", choices=[*COHORTS, "all"], default="all")
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--iterations", type=int, default=250)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.ablation:
        results = {
            "cohort": "pneumonia28",
            "iterations": options.iterations,
            "results": ablate(options.data, options.iterations),
        }
    else:
        cohorts = list(COHORTS) if options.cohort == "all" else [options.cohort]
        results = {"seconds": options.seconds, "field": str(SINE), "fit": str(FIT)}
        results |= {cohort: compare(options.data, cohort, options.seconds) for cohort in cohorts}
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

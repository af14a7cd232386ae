"""Meta-learning of a field (MedFuncta and NOIR, algorithm 1): one shared network, one latent for each scan.

An iteration draws a batch of scans, matches each by an inner loop, and moves the shared weights by AdamW along the
gradient of what is left. Everything random is a function of the seed and the iteration's number, so a resumed training
goes on exactly as if it had never stopped.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nfops.checkpoints import Checkpoint, load_optimizer, optimizer_arrays, prefixed, without
from nfops.contexts import Batch, Scans, draw_points, seeded
from nfops.course import Course
from nfops.errors import ResultError, StoppedError
from nfops.field_loss import FieldLoss
from nfops.inner_loops import GaussNewtonStep, GradientSteps, InnerLoop
from nfops.progress import OnStep, Step, silent
from nfops.recipe_sections import Encode, Fit
from nfops.stopping import Stop

BLOCK_POINTS = {"cpu": 4096, "cuda": 1 << 18}
"""Points in work at once, of all scans together: what stays in cache, or keeps a GPU busy."""
VALIDATION_SCANS, VALIDATION_POINTS = 48, 2048
"""At most so many of the validation scans, evenly chosen, and so many points of each, always the same."""
MOST_ROLLBACKS = 6
LEAST_POINTS = 16
"""A Gauss-Newton step looks at so many points for each entry of the latent, at least."""
DRAWS = ("order", "inner", "outer", "looked", "judged")
"""What randomness is for: each has its own."""


@dataclass(frozen=True, eq=False)
class Task:
    """What is learned from what. baseline: the loss of the training's mean image, which any field must beat."""

    loss: FieldLoss
    training: Scans
    validation: Scans | None
    seed: int
    baseline: float


class Descent:
    """One field in training. After `run` its backbone holds the best weights, by the validation scans.

    clock: gives the seconds that `fit.minutes` counts.
    """

    def __init__(self, task: Task, fit: Fit, encode: Encode, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.task, self.fit, self.encode = task, fit, encode
        self._clock = clock
        self.course = Course(task.baseline)
        self._backbone = task.loss.backbone
        self._device = next(self._backbone.parameters()).device
        self._block = BLOCK_POINTS[self._device.type]
        self._log_rates = torch.full((self._backbone.latent,), math.log(encode.learning_rate), device=self._device)
        self._optimizer = torch.optim.AdamW(_groups(self._backbone, self._log_rates, fit), lr=fit.learning_rate)
        self._best = self._weights()

    def run(self, checkpoint: Checkpoint | None = None, stop: Stop | None = None, on_step: OnStep = silent) -> Course:
        """Train to the end, from the checkpoint's state if it has one.

        Raises StoppedError, resumable, when `stop` is asked, and ResultError when training collapses again and again.
        """
        stop = stop or Stop()
        with stop.listening():
            if checkpoint is None or not self._restore(checkpoint):
                self._validate()
            started = self._clock() - self.course.seconds
            while not self.course.is_done:
                self._iterate()
                self.course.seconds = self._clock() - started
                self._look(checkpoint)
                on_step(self._step())
                if stop.signal and not self.course.is_done:
                    raise self._stopped(checkpoint)
        self._load(self._best)
        return self.course

    def solve(self, scans: Scans, points: int) -> tuple[Tensor, Tensor]:
        """Latents (N, P) of scans by the solver that will encode them, and their losses (N,) at `points` points."""
        loop, found = self._loop(), []
        looked = self._draw("looked", scans, min(points, self.encode.points))
        judged = self._draw("judged", scans, points)
        for part in Batch(scans, [looked], judged).parts(self._block // min(points, scans.nodes)):
            some = part.scans.to(self._device)
            latents = loop.solve(self.task.loss, some.at(part.inner[0]), self.encode.steps)
            with torch.no_grad():
                found.append((latents, self.task.loss.losses(some.at(part.outer), latents)))
        return torch.cat([latents for latents, _ in found]), torch.cat([losses for _, losses in found])

    def fold_rates(self) -> None:
        """Measure the latents in units in which steps of the plain rate are those of the learned ones."""
        plain = math.log(self.encode.learning_rate)
        if self.fit.learned_rates:
            self._backbone.rescale((self._log_rates - plain).div(2).exp())
            self._log_rates.fill_(plain)

    # --- an iteration --------------------------------------------------------------------------------------------

    def _iterate(self) -> None:
        """Learn from one batch; a collapse takes the best weights back and goes on more carefully."""
        loss, norm = self._learn()
        is_sound = math.isfinite(loss) and math.isfinite(norm)
        if is_sound:
            for group in self._optimizer.param_groups:
                group["lr"] = self.fit.learning_rate * self.course.backoff * self._schedule()
            self._optimizer.step()
        self.course.advance(loss if is_sound else math.nan)
        if self.course.has_collapsed():
            self._roll_back()
        self.course.settle()

    def _learn(self) -> tuple[float, float]:
        """Gradients of a batch, clipped; its mean loss and their norm before."""
        loop = self._loop()
        self._optimizer.zero_grad()
        losses = loop.learn(self.task.loss, self._batch())[1]
        if isinstance(loop, GradientSteps) and loop.rates.grad is not None:
            self._log_rates.grad = loop.rates.grad * loop.rates.detach()
        learned = [p for group in self._optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = nn.utils.clip_grad_norm_(learned, self.fit.clip_norm or math.inf)
        return float(losses.mean()), float(norm)

    def _batch(self) -> Batch:
        """Scans and points of this iteration. One Gauss-Newton step from zero sees the same points of all scans."""
        fit, nodes = self.fit, self.task.training.nodes
        scans = self.task.training.some(self._rows()).to(self._device)
        outer = self._draw("outer", scans, fit.points or nodes)
        count = round(fit.context * nodes)
        if self.encode.solver == "gauss-newton":
            shared = self._draw("inner", scans.some(slice(1)), max(count, LEAST_POINTS * self._backbone.latent))
            return Batch(scans, [None if shared is None else shared[0]], outer)
        return Batch(scans, [self._draw("inner", scans, count, step) for step in range(fit.inner_steps)], outer)

    def _loop(self) -> InnerLoop:
        if self.encode.solver == "gauss-newton":
            return GaussNewtonStep(self.fit.damping, self._block)
        rates = self._log_rates.detach().exp().requires_grad_(self.fit.learned_rates)
        return GradientSteps(rates, self._block, self.fit.keep_graphs)

    def _rows(self) -> Tensor:
        """The scans of this iteration: every epoch shows all of them once, in an order of its own."""
        count = len(self.task.training)
        size = min(self.fit.batch, count)
        epoch, number = divmod(self.course.iteration, count // size)
        order = torch.randperm(count, generator=self._generator("order", epoch))
        return order[number * size : (number + 1) * size]

    def _draw(self, what: str, scans: Scans, count: int, step: int = 0) -> Tensor | None:
        """Points of each scan, (N, count) or None for all: new ones in every iteration, or always the same."""
        number = self.course.iteration if what in ("inner", "outer") else 0
        points = draw_points(len(scans), scans.nodes, max(1, count), self._generator(what, number, step))
        return None if points is None else points.to(self._device)

    def _generator(self, what: str, *numbers: int) -> torch.Generator:
        return seeded(self.task.seed, DRAWS.index(what), *numbers)

    def _schedule(self) -> float:
        """The learning rate's factor: a linear rise, then half a cosine down to 0, or none."""
        rise = min(1.0, (self.course.iteration + 1) / max(1, self.fit.warm_up))
        fall = (1 + math.cos(math.pi * min(1.0, self._progress()))) / 2
        return rise if self.fit.schedule == "constant" else rise * fall

    def _progress(self) -> float:
        done = self.course.iteration / self.fit.iterations
        return done if self.fit.minutes is None else max(done, self.course.seconds / 60 / self.fit.minutes)

    def _roll_back(self) -> None:
        """To the best weights, with a fresh optimizer and half the learning rate."""
        self.course.roll_back()
        if self.course.rollbacks > MOST_ROLLBACKS:
            what = f"training collapsed {self.course.rollbacks} times, at last in iteration {self.course.iteration}"
            hint = "lower fit.learning_rate, encode.learning_rate (sgd) or the field's omega_last"
            raise ResultError("fit", what, hint)
        self._load(self._best)
        self._optimizer.state.clear()

    # --- looks at what came of it --------------------------------------------------------------------------------

    def _look(self, checkpoint: Checkpoint | None) -> None:
        """Validate, and keep the state, when it is time to; say whether all is done."""
        course, fit = self.course, self.fit
        course.is_done = self._progress() >= 1
        if course.iteration % fit.validate_every == 0 or course.is_done:
            self._validate()
            course.is_done = course.is_done or 0 < fit.patience <= course.stale
            if checkpoint is not None:
                self._save(checkpoint)

    def _validate(self) -> None:
        """A row of the curve; the best weights so far are kept. Without validation scans the training loss judges."""
        scans = self.task.validation
        found = self.course.running if self.course.iteration else self.task.baseline
        if scans is not None:
            chosen = torch.linspace(0, len(scans) - 1, min(len(scans), VALIDATION_SCANS)).round().long()
            found = float(self.solve(scans.some(chosen), VALIDATION_POINTS)[1].mean())
        if self.course.judge(found):
            self._best = self._weights()

    def _step(self) -> Step:
        """For the progress display: iterations or, where time is what ends it, seconds."""
        course, fit, say = self.course, self.fit, self.task.loss.describe
        seen = "" if self.task.validation is None else f", validation {say(course.judged)}"
        best = f", best {say(course.best)} at {course.best_iteration}"
        back = f", rolled back {course.rollbacks}x" if course.rollbacks else ""
        done, total = course.iteration, fit.iterations
        if fit.minutes is not None and course.seconds / 60 / fit.minutes > done / total:
            total = round(60 * fit.minutes)
            done = min(int(course.seconds), total)
        return Step("training", done, total, f"{say(course.running)}{seen}{best}{back}")

    # --- state ---------------------------------------------------------------------------------------------------

    def _weights(self) -> dict[str, Tensor]:
        arrays = {name: tensor.detach().clone() for name, tensor in self._backbone.state_dict().items()}
        return arrays | {"log_rates": self._log_rates.clone()}

    def _load(self, weights: dict[str, Tensor]) -> None:
        self._log_rates.copy_(weights["log_rates"])
        self._backbone.load_state_dict({name: t for name, t in weights.items() if name != "log_rates"})

    def _save(self, checkpoint: Checkpoint) -> None:
        arrays = prefixed("last.", self._weights()) | prefixed("best.", self._best)
        arrays |= prefixed("optimizer.", optimizer_arrays(self._optimizer)) | {"rng": torch.get_rng_state()}
        checkpoint.save(arrays, vars(self.course))

    def _restore(self, checkpoint: Checkpoint) -> bool:
        """Take up the checkpoint's state; False if it has none."""
        kept = checkpoint.load()
        if kept is None:
            return False
        arrays, state = kept
        self._load(without("last.", arrays))
        self._best = {name: tensor.to(self._device) for name, tensor in without("best.", arrays).items()}
        load_optimizer(self._optimizer, without("optimizer.", arrays))
        torch.set_rng_state(arrays["rng"])
        self.course = Course(**state)
        return True

    def _stopped(self, checkpoint: Checkpoint | None) -> StoppedError:
        what = f"stopped after {self.course.iteration} of {self.fit.iterations} iterations"
        if checkpoint is None:
            return StoppedError("fit", what)
        self._save(checkpoint)
        return StoppedError(checkpoint.path.parent, what, "`nfops fit-inr --resume` goes on")


def _groups(backbone: nn.Module, log_rates: Tensor, fit: Fit) -> list[dict[str, Any]]:
    """AdamW's parameter groups: what decays, what does not, and the inner rates where they are learned."""
    named = [(name, p) for name, p in backbone.named_parameters() if p.requires_grad]
    maps = {name for name, _ in named if {"modulation", "hyper"} & set(name.split("."))}
    decays = {name for name, p in named if fit.decayed == "all" or (p.ndim > 1 and name not in maps)}
    groups = [
        {"params": [p for name, p in named if name in decays], "weight_decay": fit.weight_decay},
        {"params": [p for name, p in named if name not in decays], "weight_decay": 0.0},
        {"params": [log_rates] if fit.learned_rates else [], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]

"""Training by descent: it learns, keeps the best, survives collapses, and resumes as if it had never stopped."""

import dataclasses
import itertools
import json
import math
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_fixtures import leftovers, names, nfops
from toy_cohorts import PICTURE_RECIPE, write_pictures

from nfops import descent
from nfops.backbones.siren import Backbone, Config
from nfops.bundle import load_bundle
from nfops.checkpoints import CheckpointFolder, checkpoint_dir
from nfops.contexts import Scans
from nfops.course import SETTLED, Course
from nfops.descent import Descent, Task
from nfops.errors import BundleError, ResultError, StoppedError
from nfops.field_loss import FieldLoss
from nfops.heads import Head
from nfops.meta_learning import Lesson, learn_field, mean_image_loss
from nfops.recipe_sections import Encode, Fit
from nfops.sampling import Domain, FieldSamples
from nfops.stopping import Stop

DOMAIN = Domain((1.0, 0.8), (10, 8))
FIT = Fit(iterations=30, batch=6, points=60, context=0.5, inner_steps=2, validate_every=10, warm_up=5)
ENCODE = Encode(solver="sgd", steps=2, learning_rate=0.5, prior=0.0)
SOLVERS = {
    "sgd": (FIT, ENCODE),
    "rates": (dataclasses.replace(FIT, learned_rates=True), ENCODE),
    "newton": (FIT, Encode(solver="gauss-newton", steps=2)),
}


def samples(count: int, seed: int = 0, channels: int = 1) -> FieldSamples:
    """Smooth images of three degrees of freedom each."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(*(axis[:, 0] for axis in DOMAIN.lattice().axes), indexing="ij")
    functions = np.stack([np.cos(2 * x + y), np.sin(3 * y), x * y])
    values = 0.5 + 0.2 * np.einsum("ncr,rij->ncij", rng.normal(size=(count, channels, 3)), functions)
    return FieldSamples(values.astype(np.float32), np.ones((count, *DOMAIN.nodes), np.float32), DOMAIN, 7)


def backbone(channels: int = 1) -> Backbone:
    torch.manual_seed(0)
    return Backbone(Config(latent=4, width=16, depth=3, omega=5), DOMAIN, channels)


def training(fit: Fit = FIT, encode: Encode = ENCODE, validation: FieldSamples | None = None) -> Descent:
    validation = samples(10, seed=1) if validation is None else validation
    given = Scans.of(samples(24))
    loss = FieldLoss(backbone(), Head("identity"))
    return Descent(Task(loss, given, Scans.of(validation), 3, mean_image_loss(loss.head, given)), fit, encode)


def state_of(run: Descent) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in run._backbone.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- learning ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
def test_training_explains_most_of_new_scans(solver):
    fit, encode = SOLVERS[solver]
    run = training(dataclasses.replace(fit, iterations=160, learning_rate=1e-2), encode)
    course = run.run()
    assert course.best < 0.2 * run.task.baseline
    assert course.rollbacks == 0


def test_the_best_weights_are_kept_and_they_are_best():
    run = training(dataclasses.replace(FIT, iterations=100, schedule="constant", learning_rate=2e-2))
    course = run.run()
    assert course.best == min(row[2] for row in course.curve)
    assert [row[0] for row in course.curve] == list(range(0, 101, 10))
    assert float(run.solve(run.task.validation, 80)[1].mean()) == pytest.approx(course.best, rel=1e-6)


def test_patience_ends_a_training_that_no_longer_improves():
    fit = dataclasses.replace(FIT, iterations=2000, learning_rate=1e-30, validate_every=10, patience=3)
    course = training(fit).run()
    assert (course.iteration, course.stale) == (30, 3)


def test_minutes_end_a_training_with_its_schedule():
    run = training(dataclasses.replace(FIT, iterations=10**6, minutes=0.02))
    course = run.run()
    assert course.seconds == pytest.approx(1.2, abs=1.0)
    assert run._schedule() < 0.01


def test_minutes_are_those_of_the_clock():
    usual, ticks = training(dataclasses.replace(FIT, iterations=10**6, minutes=1.0)), itertools.count(100, 6)
    course = Descent(usual.task, usual.fit, usual.encode, clock=lambda: next(ticks)).run()
    assert (course.iteration, course.seconds) == (10, 60)


def test_a_curve_holds_losses_that_there_were_and_no_others():
    """No training loss before the first iteration, nor after a collapse; None is JSON, NaN is not."""
    curve = training(FIT).run().curve
    assert [row[1] is None for row in curve] == [True] + [False] * (len(curve) - 1)
    course = Course(baseline=1.0)
    course.advance(math.nan)
    assert not course.judge(math.nan)
    assert course.curve == [[1, None, None]]
    assert math.isnan(course.judged)


def test_settings_change_what_is_learned():
    outcomes = []
    for change in (
        {},
        {"context": 1.0},
        {"clip_norm": 1e-3},
        {"weight_decay": 10.0},
        {"points": 20},
    ):
        run = training(dataclasses.replace(FIT, iterations=3, validate_every=3, warm_up=0, **change))
        run.run()
        outcomes.append(torch.cat([tensor.flatten() for tensor in state_of(run).values()]))
    assert len({tuple(outcome.tolist()) for outcome in outcomes}) == len(outcomes)


def test_decay_spares_biases_and_modulations_unless_told():
    def moved(decayed: str) -> set[str]:
        fit = dataclasses.replace(FIT, iterations=1, warm_up=0, validate_every=1, learning_rate=0.1)
        runs = [training(dataclasses.replace(fit, weight_decay=w, decayed=decayed)) for w in (0.0, 5.0)]
        for run in runs:
            run._iterate()
        plain, other = map(state_of, runs)
        return {name for name in plain if not torch.equal(plain[name], other[name])}

    assert moved("weights") == {f"layers.{k}.weight" for k in range(4)}
    assert moved("all") > moved("weights")


def test_every_epoch_shows_every_scan_once():
    run = training()
    rows = []
    for iteration in range(8):
        run.course.iteration = iteration
        rows.append(run._rows())
    first, second = torch.cat(rows[:4]), torch.cat(rows[4:])
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(24))
    assert not torch.equal(first, second)


def test_colour_images_are_learned():
    given = samples(24, channels=3)
    fit = dataclasses.replace(FIT, iterations=80, learning_rate=1e-2)
    learned = learn_field(backbone(3), Lesson(Head("identity"), given, samples(6, 1, 3), fit, ENCODE))
    assert learned.explained > 0.3
    assert {"iterations", "seconds", "validation_loss", "validation_psnr", "rollbacks"} <= learned.figures.keys()


@pytest.mark.parametrize("head", ["sigmoid", "softmax"])
def test_labels_are_learned(head):
    inside = (samples(24).values > 0.5).astype(np.float32)
    values = inside if head == "sigmoid" else np.concatenate([1 - inside, inside], axis=1)
    given = dataclasses.replace(samples(24), values=values)
    fit = dataclasses.replace(FIT, iterations=80, learning_rate=1e-2)
    learned = learn_field(backbone(values.shape[1]), Lesson(Head(head), given, None, fit, ENCODE))
    assert learned.explained > 0.5
    assert "training_loss" in learned.figures


# --- the prior ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
def test_latents_lie_along_their_axes_and_the_prior_is_theirs(solver):
    fit, encode = SOLVERS[solver]
    net, given = backbone(), samples(24)
    learn_field(net, Lesson(Head("identity"), given, None, fit, encode))
    mean, variance = net.prior()
    loss = FieldLoss(net, Head("identity"))
    run = Descent(Task(loss, Scans.of(given), None, 7, 1.0), fit, encode)
    latents = run.solve(Scans.of(given), 2048)[0].double().numpy()
    spread = np.cov(latents.T, bias=True)
    scale = np.sqrt(np.outer(np.diag(spread), np.diag(spread)))
    assert np.abs(spread / scale - np.eye(4)).max() < 1e-2
    assert np.allclose(latents.mean(axis=0), mean, atol=1e-3 * np.sqrt(variance.max()))
    assert np.all(np.diff(variance) <= 1e-12)
    assert np.allclose(np.maximum(np.diag(spread), 1e-3 * spread.trace() / 4), variance, rtol=1e-2)


def test_the_mean_images_loss_is_the_variance_about_it():
    given = Scans.of(samples(24))
    about_mean = ((given.values - given.values.mean(dim=0)) ** 2).mean()
    assert mean_image_loss(Head("identity"), given) == pytest.approx(float(about_mean), rel=1e-5)


# --- collapses ---------------------------------------------------------------------------------------------------


def course_of(losses: list[float], baseline: float = 1.0) -> tuple[Course, int | None]:
    course = Course(baseline)
    for number, loss in enumerate(losses):
        course.advance(loss)
        if course.has_collapsed():
            return course, number
        course.settle()
    return course, None


def test_a_noisy_fall_is_no_collapse():
    rng = np.random.default_rng(0)
    falling = 0.5 * np.exp(-np.arange(600) / 100) * rng.lognormal(0, 0.5, 600) + 0.01
    assert course_of(list(falling))[1] is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_a_collapse(bad):
    assert course_of([0.5] * 5 + [bad])[1] == 5


def test_a_jump_far_above_the_lowest_is_a_collapse():
    found = course_of([0.1] * (2 * SETTLED) + [0.5] * SETTLED)[1]
    assert found is not None
    assert found < 3 * SETTLED


def test_losing_the_mean_image_is_a_collapse_only_after_having_had_it():
    assert course_of([0.8] * (2 * SETTLED) + [1.2] * 2 * SETTLED)[1] is not None
    assert course_of([1.2] * 4 * SETTLED)[1] is None


def test_rising_far_above_the_beginning_is_a_collapse_at_once():
    found = course_of([1.0 * 1.3**number for number in range(SETTLED)])[1]
    assert found is not None
    assert found < SETTLED / 2


def test_a_collapse_goes_back_to_the_best_and_on_with_half_the_rate(monkeypatch):
    run = training(dataclasses.replace(FIT, iterations=40, schedule="constant", warm_up=0))
    learn, best = run._learn, {}

    def poisoned():
        found = learn()
        if run.course.iteration == 23:
            best.update(run._best)
            return math.nan, found[1]
        if run.course.iteration == 24:
            best["lr"] = run._optimizer.param_groups[0]["lr"]
            best["taken"] = same({k: best[k] for k in run._backbone.state_dict()}, before)
        return found

    before: dict[str, torch.Tensor] = {}
    roll_back = run._roll_back

    def noted():
        roll_back()
        before.update(state_of(run))

    monkeypatch.setattr(run, "_learn", poisoned)
    monkeypatch.setattr(run, "_roll_back", noted)
    course = run.run()
    assert (course.rollbacks, course.backoff) == (1, 0.5)
    assert best["taken"]
    assert run._optimizer.param_groups[0]["lr"] == pytest.approx(FIT.learning_rate / 2)
    assert math.isfinite(course.best)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_training_that_always_collapses_ends_with_advice(solver):
    fit, encode = SOLVERS[solver]
    fit = dataclasses.replace(fit, learning_rate=1e30, clip_norm=None, iterations=500, warm_up=0)
    with pytest.raises(ResultError, match=r"collapsed 7 times.*lower fit\.learning_rate"):
        training(fit, encode).run()


# --- resuming ----------------------------------------------------------------------------------------------------


def stopped_at(run: Descent, iteration: int, folder: CheckpointFolder) -> None:
    stop = Stop()

    def ask(step):
        if run.course.iteration == iteration:
            stop.signal = signal.SIGTERM

    with pytest.raises(StoppedError, match=f"stopped after {iteration} of 30 iterations"):
        run.run(folder.state_of("source"), stop, ask)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("iteration", [1, 17, 20])
def test_a_resumed_training_is_the_uninterrupted_one_bit_for_bit(tmp_path, solver, iteration):
    whole = training(*SOLVERS[solver])
    whole.run()
    folder = CheckpointFolder(tmp_path / "c", {"who": "me"})
    stopped_at(training(*SOLVERS[solver]), iteration, folder)
    torch.manual_seed(99)
    resumed = training(*SOLVERS[solver])
    resumed.run(folder.state_of("source"))
    assert same(state_of(whole), state_of(resumed))
    assert torch.equal(whole._log_rates, resumed._log_rates)
    timeless = [dataclasses.replace(run.course, seconds=0.0) for run in (whole, resumed)]
    assert timeless[0] == timeless[1]


def test_a_rolled_back_training_resumes_bit_for_bit_too(tmp_path):
    fit = dataclasses.replace(FIT, learning_rate=0.3, clip_norm=None, schedule="constant")
    whole = training(fit)
    assert whole.run().rollbacks > 0
    folder = CheckpointFolder(tmp_path / "c", {})
    stopped_at(training(fit), 25, folder)
    resumed = training(fit)
    resumed.run(folder.state_of("source"))
    assert same(state_of(whole), state_of(resumed))
    assert resumed.course.rollbacks == whole.course.rollbacks


def test_what_is_done_is_not_done_again(tmp_path):
    folder = CheckpointFolder(tmp_path / "c", {})
    first = training()
    first.run(folder.state_of("source"))
    again, steps = training(), []
    again.run(folder.state_of("source"), on_step=steps.append)
    assert steps == []
    assert same(state_of(first), state_of(again))


def test_a_stop_between_iterations_only_is_heard(tmp_path):
    stop = Stop()
    stop.signal = signal.SIGUSR1
    run = training()
    with pytest.raises(StoppedError):
        run.run(CheckpointFolder(tmp_path / "c", {}).state_of("source"), stop)
    assert run.course.iteration == 1
    assert not stop.is_heard


def test_a_damaged_checkpoint_is_refused(tmp_path):
    folder = CheckpointFolder(tmp_path / "c", {})
    stopped_at(training(), 20, folder)
    path = tmp_path / "c" / "source.safetensors"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(BundleError, match="damaged resume state"):
        training().run(folder.state_of("source"))


# --- the command -------------------------------------------------------------------------------------------------

SINE = "backbone: siren, latent: 4, width: 12, depth: 2, omega: 8"
RECIPE = PICTURE_RECIPE.replace("backbone: fpca, latent: 8", SINE).replace(
    "encode: {steps: 3, prior: 1.0e-4}",
    "encode: {solver: sgd, steps: 2, learning_rate: 0.5, prior: 0}\n"
    "fit: {iterations: 12, validate_every: 4, batch: 6, points: 60, inner_steps: 1}",
)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    write_pictures(tmp_path / "data", count=14)
    (tmp_path / "r.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NFOPS_DATA", raising=False)
    return tmp_path


def fit_inr(*options: object):
    return nfops("fit-inr", "-r", "r.yaml", "--data", "data", "--json", *options)


def signalled(monkeypatch, number: int, side_and_iteration: tuple[int, int]) -> None:
    """Send this process a signal in one iteration of the first or of the second field."""
    iterate, fields = Descent._iterate, []

    def sending(self):
        if self not in fields:
            fields.append(self)
        iterate(self)
        if (len(fields), self.course.iteration) == side_and_iteration:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(descent.Descent, "_iterate", sending)


def files_of(bundle: Path) -> dict[str, str]:
    return json.loads((bundle / "manifest.json").read_text())["files"]


def test_fields_are_trained_and_told_of(here):
    ran = fit_inr()
    assert ran.code == 0, ran.err
    assert "source: training: 100 % (12/12)" in ran.err
    assert "validation" in ran.err
    assert ran.document["training"]["source"]["iterations"] == 12
    curves = load_bundle(here / "bundles" / "blobs").data["curves"]
    assert [row[0] for row in curves["source"]] == [row[0] for row in curves["target"]] == [0, 4, 8, 12]
    assert names("bundles") == ["blobs"]


@pytest.mark.parametrize("where", [(1, 3), (2, 8)])
def test_a_stopped_command_resumes_to_the_same_bundle(here, monkeypatch, where):
    assert fit_inr("-q", "--bundle", "whole").code == 0
    with monkeypatch.context() as patched:
        signalled(patched, signal.SIGUSR1, where)
        ran = fit_inr("-q")
    assert (ran.code, len(ran.err.splitlines())) == (75, 1)
    assert f"stopped after {where[1]} of 12 iterations (`nfops fit-inr --resume` goes on)" in ran.err
    assert names("bundles") == ["blobs.checkpoint"]
    assert leftovers(here) == []
    resumed = fit_inr("-q", "--resume")
    assert resumed.code == 0, resumed.err
    assert files_of(here / "bundles" / "blobs") == files_of(here / "whole")
    assert names("bundles") == ["blobs"]


def test_ctrl_c_keeps_the_state_too(here, monkeypatch):
    with monkeypatch.context() as patched:
        signalled(patched, signal.SIGINT, (1, 5))
        ran = fit_inr()
    assert ran.code == 130
    assert "--resume" in ran.err
    assert (here / "bundles" / "blobs.checkpoint" / "source.safetensors").is_file()


def test_a_second_signal_does_not_wait(here, monkeypatch):
    iterate = Descent._iterate

    def twice(self):
        iterate(self)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(descent.Descent, "_iterate", twice)
    ran = fit_inr()
    assert ran.code == 130
    assert "--resume" not in ran.err


def test_signal_handlers_are_put_back(here):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    fit_inr("-q")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == before


@pytest.fixture
def begun(here, monkeypatch) -> Path:
    with monkeypatch.context() as patched:
        signalled(patched, signal.SIGTERM, (1, 5))
        assert fit_inr("-q").code == 75
    return checkpoint_dir(here / "bundles" / "blobs")


def test_resume_state_is_never_overlooked(begun):
    for dry in ([], ["--dry-run"]):
        ran = fit_inr("-q", *dry)
        assert (ran.code, len(ran.err.splitlines())) == (5, 1)
        assert "--resume goes on with it, --force discards it" in ran.err
    assert fit_inr("-q", "--force").code == 0
    assert not begun.exists()


@pytest.mark.parametrize("changed", ["fit.learning_rate=0.5", "seed=4", "source.field.width=8", "fit.iterations=40"])
def test_resume_state_of_another_recipe_is_refused(begun, changed):
    ran = fit_inr("-q", "--resume", "--set", changed)
    assert (ran.code, len(ran.err.splitlines())) == (4, 1)
    assert f"belongs to another training: it was begun with {changed.partition('=')[0]}" in ran.err
    assert begun.is_dir()


def test_what_fields_do_not_depend_on_may_change(begun):
    assert fit_inr("-q", "--resume", "--set", "operator.strengths=[1.0]").code == 0


def test_resume_state_of_other_images_is_refused(begun, here):
    images = here / "data" / "images"
    (images / "b0.png").write_bytes((images / "b1.png").read_bytes())
    ran = fit_inr("-q", "--resume")
    assert (ran.code, len(ran.err.splitlines())) == (4, 1)
    assert "its images have changed since" in ran.err


def test_resume_without_state_starts_from_the_beginning(here):
    assert fit_inr("-q", "--resume").code == 0


def test_a_folder_of_something_else_is_not_touched(here):
    folder = here / "bundles" / "blobs.checkpoint"
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("years")
    for option in ("--resume", "--force", "-q"):
        ran = fit_inr(option)
        assert (ran.code, names(folder)) == (5, ["thesis.txt"])


def test_rows_of_other_splits_are_never_read(here):
    """A test row whose image cannot be read hurts nobody."""
    table = here / "data" / "split.csv"
    table.write_text(table.read_text().replace("b0,p0,train", "b0,p0,test").replace("b1,p0,train", "b1,p0,test"))
    (here / "data" / "images" / "b0.png").write_bytes(b"no picture")
    assert fit_inr("-q").code == 0


def test_linear_fields_read_no_validation_row(here):
    (here / "r.yaml").write_text(PICTURE_RECIPE.replace("latent: 8", "latent: 4"))
    (here / "data" / "images" / "b13.png").write_bytes(b"no picture")
    assert fit_inr("-q").code == 0


def test_a_dry_run_says_how_long_it_will_train(here):
    assert fit_inr("--dry-run").document["iterations"] == 12
    assert names() == ["data", "r.yaml"]

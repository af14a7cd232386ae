"""The shared options: what their words may be, and the session they make."""

import os

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from nfops.cli import options
from nfops.cli.options import DEVICE, PIXEL, SETTING, SHAPE, SHARD, SPACING, Session


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Let no thread variable leak from one test to the next."""
    for name in (*options.THREAD_VARIABLES, "SLURM_CPUS_PER_TASK", "NFOPS_NTHREADS", "NFOPS_DATA"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def session_of(*argv: str, decorate=options.session_options) -> Session:
    seen = []

    @click.command()
    @decorate
    def command(session):
        seen.append(session)

    command.main(argv, standalone_mode=False)
    return seen[0]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (SHAPE, "280", (280,)),
        (SHAPE, "256x256", (256, 256)),
        (SHAPE, "0×128×7", (0, 128, 7)),
        (SPACING, "1", (1.0,)),
        (SPACING, "0.7x0.7", (0.7, 0.7)),
        (SPACING, "1e-1x2x3.5", (0.1, 2.0, 3.5)),
        (PIXEL, "4.8", (4.8, 4.8)),
        (PIXEL, "4.8x3.2", (4.8, 3.2)),
        (SHARD, "0/16", (0, 16)),
        (DEVICE, "cuda:1", "cuda:1"),
        (SETTING, "operator.epochs=a=b", "operator.epochs=a=b"),
        (SETTING, "name=", "name="),
    ],
)
def test_words_that_are_understood(kind, text, value):
    assert kind.convert(text, None, None) == value


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        (SHAPE, ["-1x2", "1e3x2", "256x256x256x2", "", "x", "2x", "²x2", "1.0x2", " 2x2", "2x2\n"]),
        (SPACING, ["0", "-1", "nan", "inf", "1e999", "1x1x1x1", "", "1x", "1_0", ".", "1..2", "one"]),
        (PIXEL, ["1x1x1", "0"]),
        (SHARD, ["16/16", "a/b", "0/0", "-1/2", "1", "1/2/3"]),
        (DEVICE, ["gpu", "cuda:", "cuda:x", "CPU", "cuda:-1"]),
        (SETTING, ["name", "=1", ""]),
    ],
)
def test_words_that_are_refused(kind, texts):
    for text in texts:
        with pytest.raises(click.BadParameter, match="expected"):
            kind.convert(text, None, None)


@given(st.sampled_from([SHAPE, SPACING, PIXEL, SHARD, DEVICE, SETTING]), st.text())
def test_any_text_is_understood_or_refused(kind, text):
    try:
        kind.convert(text, None, None)
    except click.BadParameter as refused:
        assert "expected" in refused.message  # noqa: PT017


@given(st.lists(st.integers(0, 10**9 - 1), min_size=2, max_size=3))
def test_shape_round_trip(sizes):
    assert SHAPE.convert("x".join(map(str, sizes)), None, None) == tuple(sizes)


def test_default_session():
    session = session_of()
    assert session == Session(nthreads=options.available_threads())


def test_every_option_reaches_the_session():
    argv = ["-vv", "--json", "--debug", "--dry-run", "-f", "--device", "cuda:1", "-n", "3", "--progress", "plain"]
    assert session_of(*argv) == Session(2, True, True, True, True, "cuda:1", 3, "plain")
    assert session_of("-q").verbosity == -1


def test_small_session():
    small = options.session_with(options.force_option)
    assert session_of("-f", "--json", decorate=small) == Session(json=True, force=True)
    with pytest.raises(click.NoSuchOption):
        session_of("--device", "cpu", decorate=small)


def test_threads_reach_the_environment():
    session_of("-n", "3")
    assert {os.environ[name] for name in options.THREAD_VARIABLES} == {"3"}


def test_threads_from_the_environment(monkeypatch):
    monkeypatch.setenv("NFOPS_NTHREADS", "5")
    assert session_of().nthreads == 5
    assert session_of("-n", "2").nthreads == 2


@pytest.mark.parametrize(("share", "count"), [("3", 3), ("99", 8), ("0", 8), ("two", 8), ("", 8)])
def test_threads_are_capped_by_slurm(monkeypatch, share, count):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", share)
    assert options.available_threads() == count


def test_options_beside_the_session():
    @click.command()
    @options.recipe_option
    @options.data_option
    @options.bundle_option
    @options.set_option
    @options.grid_options
    @options.shard_option
    @options.batch_option
    @options.pixel_mm_option
    @options.dtype_option
    @options.session_options
    def command(session, **values):
        click.echo(f"{values['recipe']} {values['data']} {values['settings']} {values['shape']} {values['batch']}")

    argv = ["-r", "brain", "--set", "a=1", "--set", "b=2", "--shape", "2x3", "--batch", "-"]
    shown = CliRunner().invoke(command, argv, env={"NFOPS_DATA": "/data"})
    assert shown.output == "brain /data ('a=1', 'b=2') (2, 3) -\n"
    assert CliRunner().invoke(command, []).exit_code == 2
    names = [option.name for option in command.params]
    assert names[0] == "recipe"
    assert names[-1] == "json"

"""Settings dataclasses out of nodes: every mistake at once, on its line (C32, C33)."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from nfops.annotations import about, did_you_mean
from nfops.errors import RecipeError
from nfops.schema import Section, describe, read, to_plain
from nfops.yaml_tree import parse_yaml


@dataclass(frozen=True)
class Inner:
    shape: tuple[int, ...] = field(
        metadata=about("Sizes.", low=1, parse=lambda text: [int(t) for t in text.split("x")])
    )
    mode: Literal["fast", "slow", 3] = "fast"

    def __post_init__(self) -> None:
        if len(self.shape) > 3:
            raise ValueError("shape: at most three sizes")


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    rate: float = field(default=0.1, metadata=about("How fast.", above=0, high=1))
    count: int | None = None
    pair: tuple[float, str] = (1.0, "a")
    span: Literal["auto"] | tuple[float, float] = "auto"
    extra: Inner | None = None
    where: dict[str, str | int | float] = field(default_factory=dict)
    is_on: bool = False
    part: Section | None = field(default=None, metadata=about("A part."))


def outer(text: str) -> Outer:
    return read(Outer, parse_yaml(text, "r.yaml"))


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(RecipeError) as caught:
        outer(text)
    return caught.value.problems


FINE = "name: n\ninner: {shape: 2x3}\n"


def test_a_whole_instance() -> None:
    found = outer(FINE + "rate: 1\ncount: 3\npair: [2, b]\nspan: [0, 1]\nwhere: {a: 1, b: x, c: 1.5}\nis_on: true")
    assert found == Outer("n", Inner((2, 3)), 1.0, 3, (2.0, "b"), (0.0, 1.0), None, {"a": 1, "b": "x", "c": 1.5}, True)
    assert type(found.rate) is float
    assert type(found.where["a"]) is int


def test_c32_all_errors_at_once() -> None:
    assert problems("nmae: n\ninner:\n  shpae: 2\n  mode: fats\nrate: fast\n") == (
        'r.yaml:1: unknown key "nmae" (did you mean "name"?)',
        'r.yaml:1: missing key "name"',
        'r.yaml:3: unknown key "shpae" (did you mean "shape"?)',
        'r.yaml:2: inner: missing key "shape"',
        'r.yaml:4: inner.mode: expected one of fast, slow, 3, got text "fats"',
        'r.yaml:5: rate: expected a number (more than 0 and at most 1), got text "fast"',
    )


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("rate: true", "rate: expected a number (more than 0 and at most 1), got true"),
        ("rate: 0", "rate: expected a number (more than 0 and at most 1), got 0"),
        ("rate: 1.5", "rate: expected a number (more than 0 and at most 1), got 1.5"),
        ("rate:", "rate: expected a number (more than 0 and at most 1), got nothing"),
        ("count: 2.0", "count: expected an integer, got 2.0"),
        ("count: false", "count: expected an integer, got false"),
        ("is_on: 1", "is_on: expected true or false, got 1"),
        ("is_on: yes", 'is_on: expected true or false, got text "yes"'),
        ("pair: [1]", "pair: expected a list of 2 values, got a list of 1"),
        ("pair: [1, 2]", "pair[1]: expected text, got 2"),
        ("span: [1, x]", "span: expected auto or a list of 2 numbers, got a list of 2"),
        ("extra: [1]", "extra: expected a section, got a list of 1"),
        ("extra: {shape: [1, x]}", 'extra.shape[1]: expected an integer (at least 1), got text "x"'),
        ("extra: {shape: [0]}", "extra.shape[0]: expected an integer (at least 1), got 0"),
        ("extra: {shape: 1xb}", "extra.shape: invalid literal for int() with base 10: 'b'"),
        ("extra: {shape: [1, 1, 1, 1]}", "extra: shape: at most three sizes"),
        ("extra: {shape: [1], mode: 3.0}", "extra.mode: expected one of fast, slow, 3, got 3.0"),
        ("where: {a: [1]}", "where.a: expected text or an integer or a number, got a list of 1"),
        ("part: 3", "part: expected a section, got 3"),
    ],
)
def test_c33_wrong_types(line: str, what: str) -> None:
    assert problems(FINE + line) == (f"r.yaml:3: {what}",)


def test_c33_both_spellings_of_a_shape() -> None:
    assert outer(FINE) == outer("name: n\ninner: {shape: [2, 3]}")


def test_an_error_of_post_init_is_on_the_line_it_names() -> None:
    assert problems("name: n\ninner:\n  mode: slow\n  shape: 1x1x1x1\n") == (
        "r.yaml:4: inner: shape: at most three sizes",
    )


def test_not_a_mapping() -> None:
    assert problems("- a") == ("r.yaml:1: expected a section, got a list of 1",)


@dataclass(frozen=True)
class Config:
    width: int = field(default=8, metadata=about("Width.", low=1))


def test_section_is_configured_late_and_strictly() -> None:
    root = parse_yaml("a: 1\npart:\n  backend: mlp\n  widht: 3\n  width: 0", "r.yaml")
    section = Section(root.value["part"], "part", "backend")  # type: ignore[index,call-overload,arg-type]
    assert section.component == section.get("backend") == "mlp"
    assert section.get("depth", 4) == 4
    assert section.plain() == {"backend": "mlp", "widht": 3, "width": 0}
    with pytest.raises(RecipeError) as caught:
        section.configure(Config)
    assert caught.value.problems == (
        'r.yaml:4: unknown key "widht" (did you mean "width"?)',
        "r.yaml:5: part.width: expected an integer (at least 1), got 0",
    )


def test_section_configures() -> None:
    section = Section(parse_yaml("{backend: mlp, width: 3}", "r.yaml"), "part", "backend")
    assert section.configure(Config) == Config(3)
    assert section == Section(parse_yaml("width: 3\nbackend: mlp", "s.yaml"), "elsewhere", "backend")


def test_to_plain_reads_back() -> None:
    found = outer(FINE + "part: {x: [1, {y: 2}]}\nspan: [0, 1]")
    plain = to_plain(found)
    assert plain["part"] == {"x": [1, {"y": 2}]}
    assert plain["span"] == [0.0, 1.0]
    assert plain["extra"] is None


def test_describe_lists_every_key() -> None:
    found = {key.path: key for key in describe(Outer)}
    assert list(found)[:4] == ["name", "inner", "inner.shape", "inner.mode"]
    assert found["name"].default == ""
    assert found["rate"].default == "0.1"
    assert found["rate"].type == "a number (more than 0 and at most 1)"
    assert found["rate"].doc == "How fast."
    assert "extra.shape" in found


def test_describe_refuses_other_annotations() -> None:
    @dataclass(frozen=True)
    class Odd:
        items: list[Any]

    with pytest.raises(TypeError, match="list"):
        describe(Odd)


def test_did_you_mean() -> None:
    assert did_you_mean("shpae", ["shape", "dims"]) == 'did you mean "shape"?'
    assert did_you_mean("zzz", ["shape"]) == ""


def test_errors_cannot_steer_a_terminal() -> None:
    (problem,) = problems(FINE + '"a\\e[2J\\n": 1')
    assert problem.isprintable()

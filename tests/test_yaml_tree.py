"""Reading YAML: values, places, limits (C31, C33-C35, finding 5)."""

import contextlib
import json
import math
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nfops.errors import NotFoundError, RecipeError
from nfops.node import Mark, node_from_plain
from nfops.yaml_tree import MAX_BYTES, parse_yaml, read_yaml


def plain(text: str) -> object:
    return parse_yaml(text, "r.yaml").plain()


def refusal(text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_yaml(text, "r.yaml")
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3), ("1.0e-3", 1e-3), (".5", 0.5), ("5.", 5.0), ("-0", 0), ("+3", 3), ("010", 10), ("0o17", 15),
        ("0x1F", 31), ("no", "no"), ("yes", "yes"), ("on", "on"), ("off", "off"), ("N", "N"), ("16:9", "16:9"),
        ("true", True), ("False", False), ("null", None), ("~", None), ("''", ""), ("'1'", "1"), ("|\n 12", "12"),
        ("1_000", "1_000"), ("0b1", "0b1"), ("2020-01-01", "2020-01-01"), ("=", "="), ("1e", "1e"), (".", "."),
    ],
)  # fmt: skip
def test_c33_scalars_are_yaml_1_2(text: str, value: object) -> None:
    found = plain(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", [".inf", "-.INF", ".nan", "1e999", "9" * 5000, str(2**63)])
def test_c33_numbers_out_of_range(text: str) -> None:
    assert "r.yaml:1:4: a number out of range" in refusal(f"a: {text}")


def test_places_of_values_and_keys() -> None:
    root = parse_yaml("\na: 1\nbb:\n  - x\n  - {c: 2}\n", "r.yaml")
    assert root.keys == {"a": Mark("r.yaml", 2, 1), "bb": Mark("r.yaml", 3, 1)}
    second = root.value["bb"].value[1]  # type: ignore[index,union-attr]
    assert (second.line, second.column) == (5, 5)
    assert str(second.mark) == "r.yaml:5"


def test_c34_duplicate_keys_name_both_lines() -> None:
    assert refusal("a: 1\nb: 2\na: 3\nb: 4") == (
        'r.yaml:3:1: duplicate key "a", first on line 1\nr.yaml:4:1: duplicate key "b", first on line 2'
    )


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: !!python/object/apply:os.system [ls]", 'no such feature: tag "tag:yaml.org,2002:python/object/apply'),
        ("a: !include b.yaml", 'no such feature: tag "!include"'),
        ("a: !!int 3", "no such feature: tag"),
        ("a: ! 3", "no such feature: tag"),
        ("<<: {a: 1}", 'no such feature: merge key "<<"'),
        ("&a [*a]", "alias *a contains itself"),
        ("a: &a {b: {c: *a}}", "alias *a contains itself"),
        ("a: *b", "no anchor &b"),
        ("? [a]\n: b", "a key must be text"),
        ("--- 1\n--- 2", "a second document"),
        ('a: "\\0"', "a character that no file name can hold"),
        ('a: "\\ud800"', "a character that no file name can hold"),
        ('a: "\\UFFFFFFFF"', "a character that does not exist"),
        ("[" * 2000, "nested more than 32 deep"),
        ("- " * 2000, "nested more than 32 deep"),
        ("x" * (MAX_BYTES + 1), "larger than 1 MiB"),
        ("- a\n" * 10_001, "more than 10000 values"),
    ],
)
def test_c35_refused(text: str, what: str) -> None:
    message = refusal(text)
    assert what in message
    assert "\n" not in message


def test_c35_a_billion_laughs_is_cheap() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    assert "aliases written out" in refusal("\n".join(lines))


def test_c35_depth_counts_expanded_aliases() -> None:
    deep = "[" * 20 + "]" * 20
    assert "nested more than 32 deep" in refusal(f"a: &a {deep}\nb: {'[' * 20}*a{']' * 20}")
    assert plain("a: &a [1]\nb: *a") == {"a": [1], "b": [1]}


def test_c31_tabs_have_a_place() -> None:
    assert re.match(r"r\.yaml:2:1: .*indent and separate with spaces", refusal("a:\n\tb: 1"))


def test_c31_bom_and_crlf_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: [x]\r\n")
    root = read_yaml(path)
    assert root.plain() == {"a": 1, "b": ["x"]}
    assert root.keys["b"].line == 2


def test_c31_not_utf_8_has_a_place(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes("a: 1\nb: é".encode("latin-1"))
    with pytest.raises(RecipeError, match=r"r\.yaml:2:4: not UTF-8"):
        read_yaml(path)


def test_c31_missing_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="got a directory"):
        read_yaml(tmp_path)
    with pytest.raises(RecipeError, match="cannot be read"):
        read_yaml(Path("a\0b"))


def test_keys_are_the_text_as_written() -> None:
    assert plain("1: a\nno: b\nnull: c") == {"1": "a", "no": "b", "null": "c"}


FRAGMENTS = (
    "a:_ -_ [ ] { } &a_ *a_ !x_ !! << _ __ \t \n \" ' | > ? : # % --- ... \\U 1e5 .nan \ufeff \x85 \ud800 \0 @ , ~"
)
PIECES = [piece.replace("_", " ") for piece in FRAGMENTS.split(" ")]


@settings(deadline=None, max_examples=300)
@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("".join)))
def test_c35_any_text_gives_data_or_a_recipe_error(text: str) -> None:
    with contextlib.suppress(RecipeError):
        json.dumps(parse_yaml(text, "r.yaml").plain(), allow_nan=False)


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False) | TEXTS
TREES = st.recursive(SCALARS, lambda t: st.lists(t, max_size=4) | st.dictionaries(TEXTS, t, max_size=4), max_leaves=12)


@settings(deadline=None, max_examples=150)
@given(TREES.filter(lambda tree: "inf" not in repr(tree)))
def test_round_trip_of_plain_data(tree: object) -> None:
    assert plain(yaml.dump(tree, Dumper=_Dumper, allow_unicode=False)) == tree
    assert node_from_plain(tree, Mark("x")).plain() == tree


class _Dumper(yaml.SafeDumper):
    """Quotes all text: PyYAML writes plain what YAML 1.1 reads as text, such as 1e5."""

    def ignore_aliases(self, data: object) -> bool:
        return True


_Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


@pytest.mark.parametrize("value", [math.nan, math.inf, 2**64, object(), "\0", [[math.nan]], {"a": {1, 2}}])
def test_plain_data_is_checked_too(value: object) -> None:
    with pytest.raises(RecipeError):
        node_from_plain(value, Mark("manifest.json"))


def test_plain_data_may_not_be_deep() -> None:
    tree: list[object] = []
    for _ in range(5000):
        tree = [tree]
    with pytest.raises(RecipeError, match="deep"):
        node_from_plain(tree, Mark("manifest.json"))

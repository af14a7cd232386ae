"""A settings dataclass and a YAML node -> an instance, with every mistake found at once and on its line."""

import contextlib
import dataclasses
import json
import operator
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, replace
from typing import Any, Literal, TypeAlias, TypeVar, get_args, get_origin

from nfops.annotations import did_you_mean, in_words, is_union, settings_of
from nfops.errors import RecipeError
from nfops.node import Node, node_from_plain, quoted

T = TypeVar("T")
Metadata: TypeAlias = Mapping[str, Any]

COMPONENT_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
NO_CODE = "no such feature: a recipe is plain data, without expressions, variables or imports"
_HOLDS = {"low": operator.ge, "above": operator.gt, "high": operator.le}


@dataclass(frozen=True, eq=False)
class Section:
    """Settings of a component, still as they were written. Two sections are equal if their data are.

    where: its key path, for errors ("source.field"). selector: the key that names the component ("backbone").
    """

    node: Node
    where: str
    selector: str = ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Section) and self.plain() == other.plain()

    def __hash__(self) -> int:
        return hash(self.component)

    @property
    def component(self) -> str:
        """The component's name: the value of the selector."""
        return str(self.get(self.selector, ""))

    def get(self, key: str, default: Any = None) -> Any:
        """The plain value of one key."""
        return self.plain().get(key, default)

    def plain(self) -> dict[str, Any]:
        """All keys as plain data."""
        return dict(self.node.plain())

    def configure(self, config: type[T]) -> T:
        """All keys but the selector as an instance of `config`. Raises RecipeError with every mistake."""
        return read(config, self.node, self.where, but=self.selector)


def read(cls: type[T], node: Node, where: str = "", but: str = "") -> T:
    """An instance of the dataclass `cls` from a mapping; `where` is its key path, `but` a key to pass over.

    Raises RecipeError with one problem a line: `knee.yaml:7: unknown key "shpae" (did you mean "shape"?)`.
    """
    reader = _Reader()
    try:
        value = reader.read_dataclass(cls, node, where, but)
    except _MismatchError as mismatch:
        reader.problems.append(str(mismatch))
    if reader.problems:
        raise RecipeError(node.mark, "unusable settings", problems=reader.problems)
    return value  # type: ignore[no-any-return]


def to_plain(value: Any) -> Any:
    """Dataclasses and what they hold as dicts, lists and scalars, ready for JSON."""
    if isinstance(value, Section):
        return value.plain()
    if dataclasses.is_dataclass(value):
        return {spec.name: to_plain(getattr(value, spec.name)) for spec in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: to_plain(child) for key, child in value.items()}
    return [to_plain(child) for child in value] if isinstance(value, tuple | list) else value


@dataclass(frozen=True)
class KeyDoc:
    """One key for the man page: its path ("data.table"), what it takes, its default as JSON ("" if required)."""

    path: str
    type: str
    default: str
    doc: str


def describe(cls: type, prefix: str = "") -> list[KeyDoc]:
    """Every key that `cls` takes, in order, a section before its keys. Raises TypeError for other annotations."""
    found = []
    for name, kind, spec in settings_of(cls):
        path = f"{prefix}{name}"
        found.append(KeyDoc(path, in_words(kind, spec.metadata), _default(spec), spec.metadata.get("doc", "")))
        for part in (kind, *get_args(kind)):
            if dataclasses.is_dataclass(part) and part is not Section:
                found += describe(part, f"{path}.")  # type: ignore[arg-type]
    return found


def _default(spec: dataclasses.Field[Any]) -> str:
    if spec.default_factory is not MISSING:
        value = spec.default_factory()
        return "{}" if dataclasses.is_dataclass(value) else json.dumps(to_plain(value))
    return "" if spec.default is MISSING else json.dumps(to_plain(spec.default))


class _MismatchError(Exception):
    """One value that is not what it should be."""


def _mismatch(node: Node, path: str, expected: str) -> _MismatchError:
    value = node.value
    if isinstance(value, dict | tuple):
        got = "a section" if isinstance(value, dict) else f"a list of {len(value)}"
    elif isinstance(value, str):
        got = f"text {quoted(value[:40])}"
    else:
        got = "nothing" if value is None else json.dumps(value)
    return _problem(node, path, f"expected {expected}, got {got}")


def _problem(node: Node, path: str, what: str) -> _MismatchError:
    return _MismatchError(f"{node.mark}: {path}: {what}" if path else f"{node.mark}: {what}")


def _named_in(message: str, node: Node) -> Node:
    """The node, placed at the key that a message begins with: "grid.shape: ..." stands where `shape` stands."""
    below, mark = node, node.mark
    for key in message.partition(":")[0].split("."):
        if isinstance(below.value, dict) and key in below.value:
            below, mark = below.value[key], below.keys[key]
    return replace(node, mark=mark)


class _Reader:
    """Converts nodes. `problems` collects what is wrong, so that reading goes on with the next key."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def read_dataclass(self, cls: Any, node: Node, path: str, but: str = "") -> Any:
        """An instance, or None where problems were found inside."""
        if not isinstance(node.value, dict):
            raise _mismatch(node, path, "a section")
        before = len(self.problems)
        settings, values = settings_of(cls), {}
        known = [name for name, *_ in settings]
        for key in node.value:
            if key not in known and key != but:
                hint = did_you_mean(key, known) or f"known here: {', '.join(known)}"
                self.problems.append(f"{node.keys[key]}: unknown key {quoted(key)} ({hint})")
        for name, kind, spec in settings:
            if name in node.value and name != but:
                # Errors name the line of the key: the value of a block list begins on the next one.
                child = replace(node.value[name], mark=node.keys[name])
                values[name] = self._read_field(kind, child, f"{path}.{name}" if path else name, spec.metadata)
            elif spec.default is MISSING and spec.default_factory is MISSING:
                self.problems.append(str(_problem(node, path, f"missing key {quoted(name)}")))
        if len(self.problems) > before:
            return None
        try:
            return cls(**values)
        except ValueError as error:
            raise _problem(_named_in(str(error), node), path, str(error)) from None

    def _read_field(self, kind: Any, node: Node, path: str, metadata: Metadata) -> Any:
        """The value of one key, or None and a problem; `parse` and `expected` of the metadata act here."""
        try:
            if "parse" not in metadata or not isinstance(node.value, str):
                return self._convert(kind, node, path, metadata)
            return self._convert(kind, node_from_plain(metadata["parse"](node.value), node.mark), path, metadata)
        except ValueError as error:
            self.problems.append(str(_problem(node, path, str(error))))
        except _MismatchError as mismatch:
            known = _mismatch(node, path, metadata["expected"]) if "expected" in metadata else mismatch
            self.problems.append(str(known))
        return None

    def _convert(self, kind: Any, node: Node, path: str, metadata: Metadata) -> Any:
        """The value of a node, raises _MismatchError. Limits reach down to the elements of lists and dicts."""
        args = get_args(kind)
        if kind is Section:
            return _section(node, path, metadata.get("selector", ""))
        if dataclasses.is_dataclass(kind):
            return self.read_dataclass(kind, node, path)
        if is_union(kind):
            return self._convert_union(args, node, path, metadata)
        if get_origin(kind) is tuple and isinstance(node.value, tuple):
            kinds = args[:1] * len(node.value) if args[-1] is Ellipsis else args
            if len(kinds) == len(node.value):
                pairs = enumerate(zip(kinds, node.value, strict=True))
                return tuple(self._convert(part, child, f"{path}[{i}]", metadata) for i, (part, child) in pairs)
        elif get_origin(kind) is dict and isinstance(node.value, dict):
            items = node.value.items()
            return {key: self._convert(args[1], child, f"{path}.{key}", metadata) for key, child in items}
        elif get_origin(kind) is Literal:
            if any(type(node.value) is type(choice) and node.value == choice for choice in args):
                return node.value
        elif _is_scalar(kind, node.value) and _is_within(node.value, metadata):
            return float(node.value) if kind is float else node.value  # type: ignore[arg-type]
        raise _mismatch(node, path, in_words(kind, metadata))

    def _convert_union(self, parts: tuple[Any, ...], node: Node, path: str, metadata: Metadata) -> Any:
        if node.value is None and type(None) in parts:
            return None
        somethings = [part for part in parts if part is not type(None)]
        if len(somethings) == 1:  # its own message says more than "neither of these"
            return self._convert(somethings[0], node, path, metadata)
        for part in somethings:
            with contextlib.suppress(_MismatchError):
                return self._convert(part, node, path, metadata)
        raise _mismatch(node, path, " or ".join(in_words(part, metadata) for part in somethings))


def _is_scalar(kind: Any, value: object) -> bool:
    """Whether `value` may stand for `kind`: an integer is a number, but true is not 1 and 2.0 is no integer."""
    return type(value) is kind or (kind is float and type(value) is int)


def _is_within(value: Any, metadata: Metadata) -> bool:
    if type(value) not in (int, float):
        return True
    return all(key not in metadata or holds(value, metadata[key]) for key, holds in _HOLDS.items())


def _section(node: Node, path: str, selector: str) -> Section:
    if not isinstance(node.value, dict):
        raise _mismatch(node, path, "a section")
    if selector:
        if selector not in node.value:
            raise _problem(node, path, f"missing key {quoted(selector)}")
        name = replace(node.value[selector], mark=node.keys[selector])
        if not isinstance(name.value, str):
            raise _mismatch(name, f"{path}.{selector}", "a component's name")
        if not COMPONENT_NAME.fullmatch(name.value):
            raise _problem(name, f"{path}.{selector}", f"{quoted(name.value)} is not a component's name; {NO_CODE}")
    return Section(node, path, selector)

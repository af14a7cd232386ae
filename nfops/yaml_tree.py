"""YAML text -> a tree of frozen nodes that remember where they stood.

PyYAML scans and parses; the scalars are YAML 1.2 (core schema), because YAML 1.1 reads `1e-3` as text, `no` as false,
`010` as 8 and `16:9` as 969. The tree is built straight from PyYAML's event stream, so that every limit is checked
before anything grows: no input makes it recurse deeply, expand aliases without end, or run code.
"""

import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from nfops.errors import NotFoundError, RecipeError
from nfops.node import MAX_DEPTH, MAX_INTEGER, Mark, Node, Scalar, acceptable, quoted

MAX_BYTES = 1 << 20
MAX_NODES = 10_000

_CONSTANTS: dict[str, Scalar] = {"": None, "~": None}
for _word, _value in (("null", None), ("true", True), ("false", False)):
    _CONSTANTS |= dict.fromkeys((_word, _word.capitalize(), _word.upper()), _value)
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def read_yaml(path: Path) -> Node:
    """The tree of a YAML file.

    Raises NotFoundError if there is no such file, RecipeError if it cannot be read or is not acceptable YAML.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise RecipeError(path, "expected a file, got a directory" if path.is_dir() else "not a regular file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise NotFoundError(path, "no such file") from None
    except (OSError, ValueError) as error:
        raise RecipeError(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        return parse_yaml(content.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        before = content[: error.start]
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8-sig")) + 1
        mark = Mark(str(path), before.count(b"\n") + 1, column)
        raise RecipeError(mark.exact, "not UTF-8 text", "save it as UTF-8") from None


def parse_yaml(text: str, source: str) -> Node:
    """The tree of a YAML text; nothing at all gives null. `source` names the text in errors.

    Raises RecipeError: `source:line:column: what`, one line for each duplicate key, tag and merge key.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise RecipeError(source, "larger than 1 MiB, which no recipe needs")
    try:
        tree = _Tree(yaml.parse(text, Loader=yaml.SafeLoader), source)
        root = tree.read_document()
    except yaml.MarkedYAMLError as error:
        place = error.problem_mark or error.context_mark
        mark = Mark(source, place.line + 1, place.column + 1) if place else Mark(source)
        problem = " ".join((error.problem or "not YAML").split())
        hint = "indent and separate with spaces" if r"'\t'" in problem else ""
        raise RecipeError(mark.exact, problem, hint) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        mark = Mark(source, before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise RecipeError(mark.exact, f"unacceptable character #x{ord(text[error.position]):04x}") from None
    except (ValueError, OverflowError):  # chr() of an escape such as "\UFFFFFFFF", inside PyYAML
        raise RecipeError(source, "an escape names a character that does not exist") from None
    if tree.problems:
        raise RecipeError(source, "unacceptable YAML", problems=tree.problems)
    return root


class _Tree:
    """Builds nodes from events. Counts what aliases stand for, not what they cost: a billion laughs is cheap."""

    def __init__(self, events: Iterator[Any], source: str) -> None:
        self.problems: list[str] = []
        self._events = events
        self._source = source
        self._nodes = 0
        self._depth = 0
        self._anchors: dict[str, tuple[Node, int, int] | None] = {}
        """Anchor -> (node, nodes in it, levels in it); None while the node is still being read."""

    def read_document(self) -> Node:
        """The only document of the stream."""
        root: Node | None = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise RecipeError(self._mark(event).exact, "a second document begins: one recipe per file")
                root = self._read(next(self._events))[0]
        return root or Node(None, Mark(self._source, 1, 1))

    def _mark(self, event: Any) -> Mark:
        return Mark(self._source, event.start_mark.line + 1, event.start_mark.column + 1)

    def _read(self, event: Any) -> tuple[Node, int]:
        """The node that begins with `event`, and its levels (a scalar has one)."""
        mark = self._mark(event)
        if isinstance(event, yaml.AliasEvent):
            return self._expand(str(event.anchor), mark)
        if event.tag is not None:
            self.problems.append(f"{mark.exact}: no such feature: tag {quoted(event.tag)} (a recipe is plain data)")
        before = self._nodes
        self._grow(1, 1, mark)
        if event.anchor:
            self._anchors[event.anchor] = None
        self._depth += 1
        node, levels = self._read_content(event, mark)
        self._depth -= 1
        if event.anchor:
            self._anchors[event.anchor] = (node, self._nodes - before, levels)
        return node, levels

    def _expand(self, anchor: str, mark: Mark) -> tuple[Node, int]:
        if anchor not in self._anchors:
            raise RecipeError(mark.exact, f"no anchor &{anchor} before this alias")
        known = self._anchors[anchor]
        if known is None:
            raise RecipeError(mark.exact, f"alias *{anchor} contains itself")
        node, nodes, levels = known
        self._grow(nodes, levels, mark)
        return node, levels

    def _grow(self, nodes: int, levels: int, mark: Mark) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise RecipeError(mark.exact, f"more than {MAX_NODES} values, aliases written out")
        if self._depth + levels > MAX_DEPTH:
            raise RecipeError(mark.exact, f"nested more than {MAX_DEPTH} deep")

    def _read_content(self, event: Any, mark: Mark) -> tuple[Node, int]:
        if isinstance(event, yaml.ScalarEvent):
            return Node(_scalar(event, mark), mark), 1
        if isinstance(event, yaml.MappingStartEvent):
            return self._read_mapping(mark)
        children, levels = [], 0
        while not isinstance(child := next(self._events), yaml.SequenceEndEvent):
            node, below = self._read(child)
            children.append(node)
            levels = max(levels, below)
        return Node(tuple(children), mark), levels + 1

    def _read_mapping(self, mark: Mark) -> tuple[Node, int]:
        children: dict[str, Node] = {}
        keys: dict[str, Mark] = {}
        levels = 0
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key, key_mark = self._read_key(event), self._mark(event)
            if key in keys:
                self.problems.append(f"{key_mark.exact}: duplicate key {quoted(key)}, first on line {keys[key].line}")
            node, below = self._read(next(self._events))
            children[key], levels = node, max(levels, below)
            keys.setdefault(key, key_mark)
        return Node(children, mark, keys), levels + 1

    def _read_key(self, event: Any) -> str:
        """The key as it is written: `no`, `1` and `true` are those texts."""
        mark = self._mark(event)
        if not isinstance(event, yaml.ScalarEvent):
            raise RecipeError(mark.exact, "a key must be text")
        self._read(event)
        if event.value == "<<" and event.implicit[0]:
            self.problems.append(f'{mark.exact}: no such feature: merge key "<<" (write the keys out)')
        return str(event.value)


def _scalar(event: Any, mark: Mark) -> Scalar:
    """The value of a scalar event; only a plain one (no quotes, no block) can be other than text."""
    text = str(event.value)
    if not event.implicit[0]:
        return acceptable(text, mark)
    return _CONSTANTS[text] if text in _CONSTANTS else acceptable(_number_or_text(text), mark)


def _number_or_text(text: str) -> Scalar:
    if _INTEGER.fullmatch(text):  # Python refuses to convert more than 4,300 digits
        return int(text, 0 if text[:2] in ("0o", "0x") else 10) if len(text) < 100 else MAX_INTEGER + 1
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text

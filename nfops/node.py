"""`Node`: plain data that remembers where it was written, so that an error can name the line."""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from nfops.errors import RecipeError

MAX_DEPTH = 32
MAX_INTEGER = 2**63 - 1
MAX_FLOAT = sys.float_info.max

Scalar: TypeAlias = str | int | float | bool | None

_UNUSABLE = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True)
class Mark:
    """A place in a source: line and column count from 1; line 0 means that the source has no lines (`--set a=1`)."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source

    @property
    def exact(self) -> str:
        """`source:line:column`."""
        return f"{self}:{self.column}" if self.line else self.source


@dataclass(frozen=True)
class Node:
    """A value and where it begins. A mapping also knows where each of its keys stands (`keys`).

    value: dict[str, Node], tuple[Node, ...] or a scalar. Do not change the dict: nodes are shared by aliases.
    """

    value: "dict[str, Node] | tuple[Node, ...] | Scalar"
    mark: Mark
    keys: Mapping[str, Mark] = field(default_factory=dict)

    @property
    def line(self) -> int:
        """From 1; 0 without a file."""
        return self.mark.line

    @property
    def column(self) -> int:
        """From 1; 0 without a file."""
        return self.mark.column

    def plain(self) -> Any:
        """The same data as dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, tuple):
            return [child.plain() for child in self.value]
        return self.value

    def walk(self) -> Iterator["Node"]:
        """This node and all below it."""
        yield self
        if isinstance(self.value, dict | tuple):
            for child in self.value.values() if isinstance(self.value, dict) else self.value:
                yield from child.walk()


def quoted(text: str) -> str:
    """In double quotes, control characters escaped: an error stays one line and cannot steer a terminal."""
    return json.dumps(text, ensure_ascii=not text.isprintable())


def node_from_plain(value: object, mark: Mark, depth: int = 1) -> Node:
    """Dicts, lists, tuples and scalars (of JSON, say) -> a tree that stands at `mark` throughout.

    Raises RecipeError for other data and for what YAML text may not hold either.
    """
    if depth > MAX_DEPTH:
        raise RecipeError(mark, f"nested more than {MAX_DEPTH} deep")
    if isinstance(value, Mapping):
        children = {str(key): node_from_plain(child, mark, depth + 1) for key, child in value.items()}
        return Node(children, mark, dict.fromkeys(children, mark))
    if isinstance(value, list | tuple):
        return Node(tuple(node_from_plain(child, mark, depth + 1) for child in value), mark)
    if value is not None and not isinstance(value, str | bool | int | float):
        raise RecipeError(mark, f"expected plain data, got {type(value).__name__}")
    return Node(acceptable(value, mark), mark)


def acceptable(value: Scalar, mark: Mark) -> Scalar:
    """The value, if everything after us (file names, JSON, arrays) can hold it."""
    if isinstance(value, str) and _UNUSABLE.search(value):
        raise RecipeError(mark.exact, "a character that no file name can hold (NUL, or half of a pair)")
    if isinstance(value, int | float) and not abs(value) <= (MAX_INTEGER if isinstance(value, int) else MAX_FLOAT):
        raise RecipeError(mark.exact, "a number out of range (no infinity, no NaN, integers of 64 bits)")
    return value

"""What a field of a settings dataclass takes, in words: for error messages and for the man page.

Annotations may be: str, int, float, bool, None, Literal, `X | Y`, tuple[X, Y], tuple[X, ...], dict[str, X] and
another dataclass. What an annotation cannot say (a sentence, a range, a second spelling) is metadata, see `about`.
"""

import dataclasses
import difflib
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from nfops.node import quoted

LIMITS = {"low": "at least", "above": "more than", "high": "at most"}
_WORDS = {str: "text", bool: "true or false", int: "an integer", float: "a number", types.NoneType: "nothing"}
_PLURALS = {str: "texts", bool: "true or false", int: "integers", float: "numbers"}


def about(
    doc: str,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    parse: Callable[[str], Any] | None = None,
    expected: str = "",
    selector: str = "",
) -> dict[str, Any]:
    """Metadata of a field: `steps: int = field(default=4, metadata=about("Steps of the solver.", low=1))`.

    doc: a sentence for the man page. low <= number <= high and number > above: also for numbers in lists.
    parse: text -> plain data, for a second spelling (`256x256`); may raise ValueError, may return the text.
    expected: what errors and the man page call the value, instead of words made from the annotation.
    selector: for a `Section`: the key that names the component.
    """
    given: dict[str, Any] = {"doc": doc, "low": low, "above": above, "high": high}
    given |= {"parse": parse, "expected": expected, "selector": selector}
    return {key: value for key, value in given.items() if value not in (None, "")}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean "shape"?`, or nothing if no known word comes near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {quoted(near[0])}?" if near else ""


def settings_of(cls: Any) -> list[tuple[str, Any, dataclasses.Field[Any]]]:
    """(name, annotation, field) of each setting of a dataclass."""
    hints = get_type_hints(cls)
    return [(spec.name, hints[spec.name], spec) for spec in dataclasses.fields(cls) if spec.init]


def is_union(kind: Any) -> bool:
    """Whether an annotation is `X | Y` or Optional."""
    return get_origin(kind) in (Union, types.UnionType)


def in_words(kind: Any, metadata: Mapping[str, Any]) -> str:
    """What a field takes: "a list of 2 numbers or nothing (at least 0)". Raises TypeError for other annotations."""
    words = _in_words(kind)
    limits = " and ".join(f"{word} {metadata[key]:.12g}" for key, word in LIMITS.items() if key in metadata)
    return str(metadata.get("expected") or (f"{words} ({limits})" if limits else words))


def _in_words(kind: Any) -> str:
    origin, args = get_origin(kind), get_args(kind)
    if kind in _WORDS:
        return _WORDS[kind]
    if origin is Literal:
        return ("one of " if len(args) > 1 else "") + ", ".join(map(str, args))
    if is_union(kind):
        return " or ".join(map(_in_words, args))
    if origin is tuple:
        count = "" if args[-1] is Ellipsis else f"{len(args)} "
        each = {_in_plural(part) for part in args if part is not Ellipsis}
        return f"a list of {count}{each.pop() if len(each) == 1 else 'values'}"
    if origin is dict and args[0] is str:
        return f"a section whose values are {_in_words(args[1])}"
    if dataclasses.is_dataclass(kind):
        return "a section"
    raise TypeError(f"settings cannot be of type {kind}")


def _in_plural(kind: Any) -> str:
    if dataclasses.is_dataclass(kind):
        return "sections"
    return _PLURALS.get(kind) or f"values, each {_in_words(kind)}"

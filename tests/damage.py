"""Files that were damaged on the way: the same bytes with something wrong, reproducible from a seed."""

import itertools
import json
import random
from collections.abc import Iterator

HEADER_BYTES = 600
"""Damage near the beginning says something else about all the rest, so half of it is done there."""

WORDS = (b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff", b"\xff\x7f", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\xff" * 8)
"""What reads as the least, the largest, the most negative number, NaN."""

TEXT = (
    b"\n",
    b",",
    b":",
    b"- ",
    b"nan",
    b"1e999",
    b"-1",
    b"[",
    b"}",
    b"'",
    b'"',
    b"\t",
    b"&a *a",
    b"\xc3",
    b"!!x ",
    b"0",
)


def truncated(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Cut at every hundredth of its length."""
    for percent in range(100):
        length = len(content) * percent // 100
        yield f"cut to {length} bytes", content[:length]


def damaged(content: bytes, count: int, seed: int, words: tuple[bytes, ...] = WORDS) -> Iterator[tuple[str, bytes]]:
    """`count` ways to damage a file: (what was done, its bytes), truncations among them."""
    rng = random.Random(seed)
    yield from itertools.islice(truncated(content), 0, None, max(1, 100 // max(1, count // 3)))
    ways = (_flip, _flip_many, _overwrite, _overwrite, _insert, _zero, _swap, _double, _drop)
    for number in range(count):
        way = ways[number % len(ways)]
        data = bytearray(content)
        way(rng, data, words)
        yield f"{way.__name__.strip('_')} {number} of seed {seed}", bytes(data)


def _place(rng: random.Random, data: bytearray) -> int:
    return rng.randrange(min(len(data), HEADER_BYTES) if rng.random() < 0.5 else len(data))


def _span(rng: random.Random, data: bytearray) -> tuple[int, int]:
    start = _place(rng, data)
    return start, min(len(data), start + rng.choice((1, 2, 4, 8, 16, 64, 256)))


def _flip(rng, data, words):
    data[_place(rng, data)] ^= 1 << rng.randrange(8)


def _flip_many(rng, data, words):
    for _ in range(rng.randrange(2, 30)):
        _flip(rng, data, words)


def _overwrite(rng, data, words):
    word = rng.choice(words)
    start = _place(rng, data)
    data[start : start + len(word)] = word


def _insert(rng, data, words):
    start = _place(rng, data)
    data[start:start] = rng.choice(words)


def _zero(rng, data, words):
    start, stop = _span(rng, data)
    data[start:stop] = bytes(stop - start)


def _swap(rng, data, words):
    a, b = (_span(rng, data) for _ in range(2))
    (a0, a1), (b0, b1) = sorted((a, b))
    if a1 <= b0:
        data[a0:b1] = data[b0:b1] + data[a1:b0] + data[a0:a1]


def _double(rng, data, words):
    start, stop = _span(rng, data)
    data[stop:stop] = data[start:stop]


def _drop(rng, data, words):
    start, stop = _span(rng, data)
    del data[start:stop]


ODD = (
    None,
    True,
    False,
    0,
    -1,
    1,
    3,
    1e-30,
    1e30,
    float("nan"),
    float("inf"),
    10**30,
    "",
    "x",
    "L",
    "identity",
    "pass",
)
ODD_VALUES = (*ODD, [], {}, [1], [[]], ["L", "P"], [0.0, 0.0], {"a": 1}, [None] * 3, "é\n")


def edited(content: bytes, count: int, seed: int, words: tuple[bytes, ...] = ()) -> Iterator[tuple[str, bytes]]:
    """A JSON document (which is YAML too) with one to three of its values replaced, dropped, renamed or moved."""
    rng = random.Random(seed)
    for number in range(count):
        document = json.loads(content)
        done = "; ".join(_edit(rng, document) for _ in range(rng.choice((1, 1, 1, 2, 3))))
        yield f"{number}: {done}", json.dumps(document, indent=1).encode()


def _edit(rng: random.Random, document: object) -> str:
    holder, path = document, []
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            return "nothing"
        key = rng.choice(keys)
        path.append(str(key))
        if not isinstance(holder[key], dict | list) or rng.random() < 0.15:
            break
        holder = holder[key]
    way = rng.choice(("replace", "replace", "replace", "drop", "rename"))
    if way == "replace":
        holder[key] = rng.choice(ODD_VALUES)
        return f"{'.'.join(path)} = {json.dumps(holder[key])}"
    value = holder.pop(key)
    if way == "rename" and isinstance(holder, dict):
        holder[key[:-1] + rng.choice("xyz_")] = value
    return f"{way} {'.'.join(path)}"

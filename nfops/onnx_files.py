"""What an ONNX file points to, read from its bytes without a library: a graph of a bundle must be whole in itself.

An ONNX file is a protobuf message. Fields are walked by number (onnx.proto, https://onnx.ai/onnx/repo-docs/IR.html);
weights are stepped over, so that this takes milliseconds.
"""

from collections.abc import Iterator

DEEPEST = 32
"""Graphs within graphs, far beyond what loops and branches need."""

_NODE, _ATTRIBUTE, _TENSOR, _GRAPH, _SPARSE, _FUNCTION, _TRAINING, _OPSET = range(8)
_CHILDREN: dict[int, dict[int, int]] = {
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _TENSOR: {},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _FUNCTION: {7: _NODE, 9: _OPSET, 11: _ATTRIBUTE},
    _TRAINING: {1: _GRAPH, 2: _GRAPH},
    _OPSET: {},
}
_MODEL = {7: _GRAPH, 8: _OPSET, 20: _TRAINING, 25: _FUNCTION}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_NODE_DOMAIN, _OPSET_DOMAIN = 7, 1
_STANDARD = (b"", b"ai.onnx")


def graph_fault(content: bytes) -> str:
    """Why an ONNX file is refused, "" if it is not: it is damaged, keeps weights in other files, or needs operators
    beyond the standard's (which a library elsewhere would have to bring).
    """
    try:
        view = memoryview(content)
        if not any(number == 7 for number, _ in _fields(view)):
            return "is not an ONNX file"
        return _fault(view, _MODEL, 0)
    except (ValueError, IndexError):
        return "is not an ONNX file"


def _fault(message: memoryview, children: dict[int, int], depth: int) -> str:
    if depth > DEEPEST:
        return "holds graphs in graphs without end"
    for number, value in _fields(message):
        kind = children.get(number)
        if kind is None or not isinstance(value, memoryview):
            continue
        if fault := _own_fault(kind, value) or _fault(value, _CHILDREN[kind], depth + 1):
            return fault
    return ""


def _own_fault(kind: int, message: memoryview) -> str:
    if kind == _TENSOR and any(
        number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0) for number, value in _fields(message)
    ):
        return "points to other files for its weights"
    wanted = {_NODE: _NODE_DOMAIN, _OPSET: _OPSET_DOMAIN}.get(kind)
    for number, value in _fields(message) if wanted else ():
        if number == wanted and isinstance(value, memoryview) and bytes(value) not in _STANDARD:
            return f"needs operators of {bytes(value)[:40].decode('utf-8', 'replace')!r}, beyond the ONNX standard"
    return ""


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(number, value) of a message's fields; a number's own value, or the bytes of all else."""
    at = 0
    while at < len(message):
        key, at = _number(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _number(message, at)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = _number(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > len(message):
            raise ValueError("a field ends beyond its message")
        yield key >> 3, message[at : at + size]
        at += size


def _number(message: memoryview, at: int) -> tuple[int, int]:
    """A variable-length number, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number without end")

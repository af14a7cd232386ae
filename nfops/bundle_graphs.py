"""The ONNX graphs that a bundle may have beside its arrays, so that it is applied without torch."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nfops.errors import BundleError
from nfops.onnx_files import graph_fault

ENCODE_STEP, OPERATOR, DECODE, APPLY = "encode_step.onnx", "operator.onnx", "decode.onnx", "apply.onnx"
GRAPHS = (ENCODE_STEP, OPERATOR, DECODE, APPLY)

MAX_GRAPH_BYTES = 2 << 30
"""Of one file: protobuf's own limit."""


@dataclass(frozen=True, eq=False)
class Graph:
    """content: the bytes of the file. facts: what the manifest says of it: sha256, opset, storage, parity."""

    content: bytes
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, content: bytes, facts: Mapping[str, Any]) -> "Graph":
        """With the sha256 among the facts."""
        return cls(content, {"sha256": hashlib.sha256(content).hexdigest(), **facts})


def read_graphs(directory: Path, named: Mapping[str, Any]) -> dict[str, Graph]:
    """The graphs that a manifest names. Raises BundleError for one that is missing, changed or not whole in itself."""
    if strange := sorted(set(named) - set(GRAPHS)):
        raise BundleError(directory / strange[0], f"is no part of a bundle, whose graphs are {', '.join(GRAPHS)}")
    return {name: _read_graph(directory / name, facts) for name, facts in named.items()}


def _read_graph(path: Path, facts: Any) -> Graph:
    if not isinstance(facts, Mapping) or not isinstance(facts.get("sha256"), str):
        raise BundleError(path, "the bundle's manifest does not say its sha256")
    if not path.is_file():
        raise BundleError(path, "the bundle's manifest names this graph, and it is missing")
    if path.stat().st_size > MAX_GRAPH_BYTES:
        raise BundleError(path, f"larger than {MAX_GRAPH_BYTES >> 30} GiB: not a graph")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != facts["sha256"]:
        raise BundleError(path, f"damaged or changed: sha256 {found[:12]}, expected {facts['sha256'][:12]}")
    if fault := graph_fault(content):
        raise BundleError(path, fault)
    return Graph(content, dict(facts))

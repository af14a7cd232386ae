"""Decision trees laid out as one flat table of nodes: what such a table must be for its walks to end in it."""

from collections.abc import Mapping

import numpy as np

from nfops.arrays import Array


def table_fault(arrays: Mapping[str, Array], source_size: int) -> str:
    """What is wrong with a table, "" if nothing.

    arrays: feature, threshold, leaf (N,) and child (N, 2) of the nodes, roots (trees,), values (leaves, ...).
    source_size: of the vectors that are asked. Every child has a number of at least its parent's (a leaf is its own),
    so that a walk ends.
    """
    nodes = len(arrays["feature"])
    shapes = {"feature": (nodes,), "threshold": (nodes,), "leaf": (nodes,), "child": (nodes, 2)}
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            return f"{name} should be {shape}, got {arrays[name].shape}"
    if not (arrays["child"] >= np.arange(nodes)[:, None]).all():
        return "a node comes before its parent"
    counts = {"roots": nodes, "child": nodes, "leaf": len(arrays["values"]), "feature": source_size}
    for name, count in counts.items():
        places = arrays[name]
        if places.size and (places.min() < 0 or places.max() >= count):
            return f"{name} points beyond {count}"
    return ""


def floor32(numbers: Array) -> Array:
    """The largest float32 that is no larger: `x > threshold` of a float32 x then says what it says in float64."""
    near = numbers.astype(np.float32)
    return np.where(near > numbers, np.nextafter(near, np.float32(-np.inf)), near).astype(np.float32)

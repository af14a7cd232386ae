"""How far the members of an ensemble lie apart on a scan: little on one like those that taught them, more on others."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nfops.arrays import Array
from nfops.codec_spec import CodecSpec
from nfops.engines import Engine
from nfops.sampling import Domain, Lattice

MOST_POINTS = 4096
"""Nodes of the target's field at which predictions of latents are compared, about."""
LATENTS_AT_ONCE = 64
MOST_SCANS = 256
"""Of a cohort, to say what is usual."""


def latent_spreads(engine: Engine, target: CodecSpec, latents: Array) -> Array | None:
    """Source latents (B, P_in) -> (B,) root mean squares of the standard deviation of what an ensemble's members
    predict, decoded (0..1 or probabilities); None for an operator without members.
    """
    lattice, found = _few_nodes(target), []
    for start in range(0, len(latents), LATENTS_AT_ONCE):
        each = engine.operate_each(latents[start : start + LATENTS_AT_ONCE])
        if len(each) == 1:
            return None
        decoded = engine.decode("target", each.reshape(-1, each.shape[-1]), lattice)
        found.append(np.sqrt(decoded.reshape(*each.shape[:2], -1).var(axis=0).mean(axis=1)))
    return np.concatenate(found)


def field_spread(deviation: Array, known: Array) -> float:
    """The same of a field operator, over what a scan covers: deviation (B, C', *grid), known (B, *grid) of a cell."""
    total = max(float(known.sum()) * deviation.shape[1], 1e-12)
    return math.sqrt(float((deviation**2 * known[:, None]).sum()) / total)


def of_whole(spreads: Array) -> float:
    """Of a scan's slices (B,): that of the scan."""
    return float(np.sqrt(np.mean(np.square(spreads))))


def spread_figures(spreads: Sequence[float] | Array, of: str) -> dict[str, Any]:
    """What is usual, for a bundle's manifest. of: "validation" or "training", whose scans they are."""
    return {
        "median": float(np.median(spreads)),
        "p99": float(np.percentile(spreads, 99)),
        "of": of,
        "scans": len(spreads),
    }


def evenly(count: int) -> slice:
    """Which of so many scans to look at: all, or about MOST_SCANS."""
    return slice(None, None, max(1, -(-count // MOST_SCANS)))


def _few_nodes(spec: CodecSpec) -> Lattice:
    nodes = spec.domain.nodes
    step = max(1.0, (math.prod(nodes) / MOST_POINTS) ** (1 / len(nodes)))
    return Domain(spec.half_extent, tuple(max(1, round(n / step)) for n in nodes)).lattice()

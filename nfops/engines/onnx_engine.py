"""The engine for bundles with ONNX graphs: onnxruntime in place of torch, beside NumPy for what NumPy knows."""

import math
from typing import Any

import numpy as np

from nfops.arrays import Array
from nfops.bundle import NUMPY_OPERATORS, Bundle
from nfops.bundle_graphs import DECODE, ENCODE_STEP, OPERATOR
from nfops.engines.graph_field import GraphField
from nfops.engines.numpy_engine import SplineField
from nfops.engines.numpy_operators import mean_of, open_members
from nfops.engines.onnx_sessions import GraphSession, choose_device
from nfops.errors import BundleError, MemoryLimitError
from nfops.memory import require_memory
from nfops.sampling import Lattice
from nfops.solvers import Problem

POINTS_AT_ONCE = {"cpu": 1 << 16, "cuda": 1 << 18}
"""Of working grids: as many slices of a 2-D recipe pass through a field operator together."""
SAME = 1e-4
"""Relative difference of spacings that count as one."""


class OnnxEngine:
    """What `apply` needs of a bundle: spline fields in NumPy, other fields and the operator as graphs.

    Latents are all that goes from graph to graph, a few kilobytes; points stay on the device between a solver's steps.
    """

    name = "onnx"

    def __init__(self, bundle: Bundle, device: str = "auto", *, only_graphs: bool = False) -> None:
        """only_graphs: spline fields by their graphs too where there are such, to compare these."""
        self.device = choose_device(device)
        self._bundle = bundle
        self._sides = {side: self._side(side, only_graphs=only_graphs) for side in bundle.specs}
        self._operator = self._session(OPERATOR)
        is_known = bundle.has_operator and set(bundle.operator_forms) <= set(NUMPY_OPERATORS)
        self._members = open_members(bundle) if is_known and self._operator is None else []

    def pose(self, side: str, lattice: Lattice, values: Array, weights: Array | None) -> Problem:
        """See `Engine.pose`."""
        return self._sides[side].pose(lattice, values, weights)

    def operate(self, latents: Array) -> Array:
        """See `Engine.operate`."""
        return mean_of(self.operate_each(latents))

    def operate_each(self, latents: Array) -> Array:
        """See `Engine.operate_each`."""
        if self._members:
            return np.stack([member(latents) for member in self._members])
        session = self._operator_session()
        if "each" in session.outputs:
            return session.run(["each"], {"latents": session.place(latents)})[0]
        return session.run(["moved"], {"latents": session.place(latents)})[0][None]

    def operate_field(self, values: Array, coords: Array, spacing: Array) -> tuple[Array, Array | None]:
        """See `Engine.operate_field`. Slices pass some at a time, one by one where the device's memory is short (C57).

        Raises BundleError for a spacing that the graph is not made for.
        """
        session, points = self._operator_session(), math.prod(coords.shape[:-1])
        if self.device == "cpu":
            each = self._bundle.graphs[OPERATOR].facts.get("values_per_point", 1)
            require_memory(
                "operator", 4 * points * each, f"a working grid of {'x'.join(map(str, coords.shape[:-1]))} points"
            )
        place = {"positions": session.place(coords), **self._spacing(session, spacing)}
        wanted = ["values", "deviation"] if "deviation" in session.outputs else ["values"]

        def operated(step: int) -> tuple[Array, Array | None]:
            starts = range(0, len(values), step)
            parts = (session.place(values[start : start + step]) for start in starts)
            runs = [session.run(wanted, {"field": some, **place}) for some in parts]
            found = [np.concatenate(each) for each in zip(*runs, strict=True)]
            return found[0], found[1] if len(found) > 1 else None

        step = max(1, POINTS_AT_ONCE[self.device.partition(":")[0]] // points)
        try:
            return operated(step)
        except MemoryLimitError:
            if step == 1:
                raise
            return operated(1)

    def decode(self, side: str, latents: Array, lattice: Lattice) -> Array:
        """See `Engine.decode`."""
        return self._sides[side].decode(latents, lattice)

    def decode_points(self, side: str, latents: Array, coords: Array) -> Array:
        """See `Engine.decode_points`."""
        return self._sides[side].decode_points(latents, coords)

    def _side(self, side: str, *, only_graphs: bool) -> SplineField | GraphField:
        spec = self._bundle.specs[side]
        made_of = {ENCODE_STEP: "source", DECODE: "target" if "target" in self._bundle.specs else "source"}
        own = {name for name, of in made_of.items() if of == side} & set(self._bundle.graphs)
        if spec.form == "spline-basis" and not (only_graphs and own):
            return SplineField(spec, self._bundle.arrays[side])
        return GraphField(spec, *(self._session(name) if name in own else None for name in made_of))

    def _session(self, name: str) -> GraphSession | None:
        graph = self._bundle.graphs.get(name)
        where = name if self._bundle.path is None else self._bundle.path / name
        return None if graph is None else GraphSession(graph.content, where, self.device)

    def _operator_session(self) -> GraphSession:
        if self._operator is None:
            raise BundleError("bundle", "it has no operator yet", "run `nfops train-operator`")
        return self._operator

    def _spacing(self, session: GraphSession, spacing: Array) -> dict[str, Any]:
        """The input of that name, where the graph has it."""
        made_for, is_any = np.array(self._bundle.operator["working"]["spacing"]), "spacing" in session.inputs
        ratio = spacing / made_for
        if (ratio > 1 + SAME).any() or not (is_any or (ratio >= 1 - SAME).all()):
            what = f"its graph is made for grids of spacing {made_for.tolist()}{' or finer' if is_any else ''}"
            raise BundleError("bundle", f"{what}, got {np.asarray(spacing).tolist()}")
        return {"spacing": session.place(spacing)} if is_any else {}

"""torch modules -> ONNX graphs of the standard's operators alone, whole in one file, on sizes that may vary."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from nfops.arrays import Array
from nfops.bundle import Bundle
from nfops.bundle_graphs import APPLY, DECODE, ENCODE_STEP, OPERATOR, Graph
from nfops.codec import load_codec, load_operator, seen_channels
from nfops.errors import ResultError
from nfops.field_pairs import WorkingGrid
from nfops.graph_modules import Apply, Decode, EncodeStep, FieldOperator, LatentOperator, is_ensemble
from nfops.heads import Head
from nfops.onnx_files import graph_fault

OPSET = 20
"""The first whose GridSample and Resize cover volumes; runtimes of 2024 and later have it."""
STORAGES = ("float32", "float16")
SMALLEST_HALVED = 256
"""Arrays of fewer numbers keep 32 bits: they weigh nothing, and scales and offsets are among them."""

SLOW = frozenset({"DFT", "STFT"})
"""Operators that onnxruntime has for the CPU alone, and slowly (`feasibility.md`, section 4)."""

Shapes: TypeAlias = Mapping[str, Mapping[int, Any]]
"""Input -> its axes whose lengths may vary."""

POINTS, LATENTS = Dim("points", min=2), Dim("latents", min=1)
SUB_POINTS = Dim("sub_points", min=1)


def export_part(bundle: Bundle, name: str, storage: str = "float32") -> Graph:
    """One of a bundle's graphs, not yet compared with anything. Raises ResultError where torch cannot export it."""
    make = {ENCODE_STEP: _encode_step, OPERATOR: _operator, DECODE: _decode, APPLY: _apply}[name]
    module, inputs, shapes, outputs = make(bundle)
    facts: dict[str, Any] = {"opset": OPSET, "storage": storage}
    if per_point := getattr(getattr(module, "operator", None), "values_per_point", None):
        facts["values_per_point"] = int(per_point)
    return Graph.of(stored(exported(name, module, inputs, shapes, outputs), storage), facts)


Part: TypeAlias = tuple[nn.Module, dict[str, Tensor], Shapes, tuple[str, ...]]
"""A module, examples of its inputs, which of their lengths vary, and the names of its outputs."""


def _encode_step(bundle: Bundle) -> Part:
    codec = load_codec(bundle, "source")
    spec = codec.spec
    inputs = {
        "latent": torch.from_numpy(bundle.arrays["source"]["prior_mean"].astype(np.float32)),
        "points": torch.rand(6, 2, spec.dims) - 0.5,
        "values": torch.rand(6, spec.channels),
        "weights": torch.rand(6),
    }
    shapes = {"latent": {}, "points": {0: POINTS, 1: SUB_POINTS}, "values": {0: POINTS}, "weights": {0: POINTS}}
    return EncodeStep(codec), inputs, shapes, ("loss", "gradient", "curvature", "rows")


def _decode(bundle: Bundle) -> Part:
    codec = load_codec(bundle, "target" if "target" in bundle.specs else "source")
    inputs = {"latent": torch.randn(codec.spec.latent), "points": torch.rand(6, 2, codec.spec.dims) - 0.5}
    return Decode(codec), inputs, {"latent": {}, "points": {0: POINTS, 1: SUB_POINTS}}, ("values",)


def _operator(bundle: Bundle) -> Part:
    operator = load_operator(bundle)
    if why := why_not_exportable(operator):
        raise ResultError(OPERATOR, f"{bundle.recipe['operator'].get('backend')} is not exportable: {why}")
    if not bundle.acts_on_fields:
        return latent_operator_part(operator, bundle.specs["source"].latent)
    plain = bundle.operator["working"]
    working = WorkingGrid(tuple(float(step) for step in plain["spacing"]), int(plain["multiple"]))
    channels = seen_channels(bundle, bundle.condition)
    return field_operator_part(operator, channels, load_codec(bundle, "target").head, working)


def why_not_exportable(operator: Any) -> str:
    """What an operator says itself of why it becomes no graph; "" of one that does."""
    said = str(getattr(operator, "why_not_exportable", "it says so itself"))
    return "" if getattr(operator, "exportable", True) else said


def latent_operator_part(operator: nn.Module, size: int) -> Part:
    """What `exported` takes of an operator on latents of that size."""
    outputs = ("moved", "each") if is_ensemble(operator) else ("moved",)
    return LatentOperator(operator), {"latents": torch.randn(3, size)}, {"latents": {0: LATENTS}}, outputs


def field_operator_part(operator: nn.Module, channels: int, head: Head, working: WorkingGrid) -> Part:
    """What `exported` takes of an operator on fields; channels: of the source, what is known of it included."""
    multiple, dims = working.multiple, len(working.spacing)
    sizes = [multiple * (2 + axis % 2) for axis in range(dims)]  # none of them 1, not all alike
    inputs = {"field": torch.rand(2, channels, *sizes), "positions": torch.rand(*sizes, dims)}
    axes = [multiple * Dim(f"cells_{axis}", min=1) for axis in range(dims)]
    shapes: dict[str, dict[int, Any]] = {
        "field": {0: LATENTS, **{2 + axis: length for axis, length in enumerate(axes)}},
        "positions": dict(enumerate(axes)),
    }
    module = FieldOperator(operator, head, working.spacing)
    if module.takes_spacing:
        inputs["spacing"], shapes["spacing"] = torch.tensor(working.spacing), {}
    return module, inputs, shapes, ("values", "deviation") if is_ensemble(operator) else ("values",)


def apply_module(bundle: Bundle) -> Apply:
    """All of a bundle on latents as one module."""
    side = bundle.side("source")
    return Apply(load_codec(bundle, "source"), side.prior, load_operator(bundle), load_codec(bundle, "target")).eval()


def _apply(bundle: Bundle) -> Part:
    spec = bundle.specs["source"]
    inputs = {
        "points": torch.rand(6, 2, spec.dims) - 0.5,
        "values": torch.rand(6, spec.channels),
        "weights": torch.rand(6),
        "output_points": torch.rand(7, 3, spec.dims) - 0.5,
    }
    shapes = {"points": {0: POINTS, 1: SUB_POINTS}, "values": {0: POINTS}, "weights": {0: POINTS}}
    shapes["output_points"] = {0: Dim("output", min=2), 1: Dim("output_sub_points", min=1)}
    return apply_module(bundle), inputs, shapes, ("predicted",)


def exported(name: str, module: nn.Module, inputs: Mapping[str, Tensor], shapes: Shapes, outputs: Sequence[str]) -> Any:
    """The onnx.ModelProto of a module. Raises ResultError with torch's own words where it cannot be had (C67)."""
    varying = tuple({**shapes[each]} or None for each in inputs)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=varying,
                verbose=False,
            )
    except Exception as error:  # the exporter's errors share no base class, and wrap those of what it traces
        last = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
        raise ResultError(name, f"torch cannot export it: {last[0][:300]}") from error
    assert program is not None  # noqa: S101 - None is what the old exporter gives
    model = program.model_proto
    if slow := sorted(SLOW & {node.op_type for node in model.graph.node}):
        raise ResultError(name, f"it needs {slow[0]}, which no GPU computes", "write it as products of matrices")
    for node in model.graph.node:
        node.ClearField("metadata_props")  # stack traces of this machine
        node.ClearField("doc_string")
    del model.graph.value_info[:], model.graph.metadata_props[:], model.metadata_props[:]
    return model


def stored(model: Any, storage: str) -> bytes:
    """A model's bytes, its large arrays of 32-bit numbers in 16 bits where asked for, and cast on the way in."""
    import onnx

    if storage == "float16":
        _halve(model.graph)
    onnx.checker.check_model(model)
    content = bytes(model.SerializeToString())
    if fault := graph_fault(content):
        raise ResultError("export", fault)
    return content


def _halve(graph: Any) -> None:
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for array in graph.initializer:
        values: Array = numpy_helper.to_array(array)
        if array.data_type != TensorProto.FLOAT or values.size < SMALLEST_HALVED:
            continue
        if np.abs(values).max() > np.finfo(np.float16).max:
            raise ResultError(array.name, "is too large for float16")
        whole = array.name
        array.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{whole}_half"))
        casts.append(helper.make_node("Cast", [f"{whole}_half"], [whole], to=TensorProto.FLOAT))
    for cast in reversed(casts):
        graph.node.insert(0, cast)


@contextmanager
def _quiet() -> Iterator[None]:
    """Torch's exporter speaks of torchvision, and of names of axes that it merges."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

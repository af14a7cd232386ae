"""Write the ONNX graphs of a trained bundle, each compared with torch first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nfops.bundle import Bundle, load_bundle, save_bundle
from nfops.bundle_graphs import APPLY, DECODE, ENCODE_STEP, OPERATOR
from nfops.errors import BundleError, OutputError, UsageError
from nfops.graph_parity import checked
from nfops.image import Image
from nfops.io.publish_folder import refuse_directory
from nfops.onnx_export import export_part
from nfops.progress import OnStep, Step, silent


@dataclass(frozen=True)
class ExportSettings:
    """names: of the graphs, all that the bundle has a use for where there are none. storage: of their weights."""

    names: tuple[str, ...] = ()
    storage: str = "float32"


@dataclass(frozen=True)
class ExportReport:
    """graphs: what the manifest says of each: sha256, opset, storage, parity with torch. sizes: in bytes."""

    bundle: Path
    graphs: Mapping[str, Mapping[str, Any]]
    sizes: Mapping[str, int]


def export_onnx(
    bundle_dir: Path,
    settings: ExportSettings = ExportSettings(),
    scans: Sequence[Image] = (),
    *,
    out: Path | None = None,
    force: bool = False,
    on_step: OnStep = silent,
) -> ExportReport:
    """Add graphs to a bundle, or write it with them as another one, `out`. scans: real ones to compare with torch on.

    Raises ResultError where torch cannot export a part, or its graph differs from torch: nothing is written then.
    """
    bundle, names = _checked(bundle_dir, settings, out, force=force)
    graphs = {}
    for number, name in enumerate(names):
        on_step(Step("graphs", number, len(names), name))
        graphs[name] = export_part(bundle, name, settings.storage)
    on_step(Step("comparison with torch", 0, 1))
    made = checked(replace(bundle, graphs={**bundle.graphs, **graphs}), scans, names)
    target = out or bundle_dir
    save_bundle(made, target, force=force or out is None)
    sizes = {name: len(made.graphs[name].content) for name in names}
    return ExportReport(target, {name: made.graphs[name].facts for name in names}, sizes)


def plan_export(
    bundle_dir: Path, settings: ExportSettings, *, out: Path | None = None, force: bool = False
) -> dict[str, object]:
    """What `export_onnx` would do, once everything that can be checked without exporting has been."""
    _, names = _checked(bundle_dir, settings, out, force=force)
    return {"graphs": ", ".join(names), "storage": settings.storage, "bundle": str(out or bundle_dir)}


def exportable_parts(bundle: Bundle) -> tuple[str, ...]:
    """The graphs that a bundle has a use for: of one on fields its operator, and fields that NumPy does not know."""
    if bundle.acts_on_fields:
        return bundle.graphs_to_apply
    return (ENCODE_STEP, *((OPERATOR,) if bundle.has_operator else ()), DECODE)


def _checked(
    bundle_dir: Path, settings: ExportSettings, out: Path | None, *, force: bool
) -> tuple[Bundle, tuple[str, ...]]:
    bundle = load_bundle(bundle_dir)
    if "target" in bundle.specs and not bundle.has_operator:
        raise BundleError(bundle_dir, "this bundle has no operator yet", "run `nfops train-operator`")
    parts = exportable_parts(bundle)
    known = (*parts, APPLY) if bundle.has_operator and not bundle.acts_on_fields else parts
    if strange := [name for name in settings.names if name not in known]:
        raise UsageError("--graph", f"this bundle has no use for {strange[0]}, but for {', '.join(known)}")
    names = tuple(name for name in known if name in (settings.names or parts))
    if APPLY in names and (why := _why_not_whole(bundle)):
        raise UsageError("--graph apply", f"{why}, which its descent does not do", "export the other graphs")
    if out is not None:
        refuse_directory(out, force)
    elif present := [name for name in names if name in bundle.graphs and not force]:
        raise OutputError(bundle_dir / present[0], "exists already", "use --force to replace it")
    return bundle, names


def _why_not_whole(bundle: Bundle) -> str:
    """What the graph `apply` would do otherwise than `apply`."""
    spec = bundle.specs["source"]
    if spec.encode.solver != "gauss-newton":
        return f"this recipe encodes by {spec.encode.solver}"
    if spec.form == "spline-basis" and spec.head != "identity":
        return f"a spline field with the head {spec.head} starts from the linked values"
    return ""

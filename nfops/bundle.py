"""A bundle: a directory that holds everything `apply` needs, as JSON and safetensors. Never pickle.

`manifest.json` has the resolved recipe, what each side is (`CodecSpec`), seed, versions, digests of the data, and
the sha256 of every other file, which loading checks. ONNX graphs may be among them (`bundle_graphs`).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nfops import __version__
from nfops.arrays import Array
from nfops.bundle_graphs import DECODE, ENCODE_STEP, GRAPHS, OPERATOR, Graph, read_graphs
from nfops.codec_spec import CodecSpec
from nfops.errors import BundleError
from nfops.io.archives import archive_kind
from nfops.io.publish_folder import publishing_directory
from nfops.node import Mark, node_from_plain
from nfops.schema import Section
from nfops.solvers import Prior

FORMAT = "nfops-bundle"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
PARTS = ("source", "target", "operator")
NUMPY_OPERATORS = ("affine", "residual-mlp", "rbf-kernel", "forest")
"""Forms of operators that need no torch."""

CONDITIONS = ("none", "latent")
"""What an operator on fields may see beside the scan: nothing, or what the chain of latents predicts."""
CONDITION_PREFIX = "latent."
"""Of the chain's ridge among the arrays of such an operator."""

FOREIGN_SUFFIXES = (".onnx", ".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".npy", ".npz")
"""Of other ways to store a model: pickles, arrays that may be pickles, graphs that the manifest does not name."""

MAX_MANIFEST_BYTES = 4 << 20


@dataclass(frozen=True, eq=False)
class Side:
    """One side of a bundle, all that coding has to know of it: its name, its spec, the prior of its latents."""

    name: str
    spec: CodecSpec
    prior: Prior


@dataclass(frozen=True, eq=False)
class Bundle:
    """recipe: the resolved recipe as plain data. specs: "source" and, if there is one, "target". arrays: by part,
    then by name.

    operator: what the operator is (form, figures of its fit), empty before it is trained. data: digests and
    numbers of the cohort. versions: of the software that fitted it. graphs: by name, what `nfops export-onnx` made of
    these very arrays. path: where it was read from.
    """

    name: str
    recipe: Mapping[str, Any]
    specs: Mapping[str, CodecSpec]
    arrays: Mapping[str, dict[str, Array]]
    operator: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    graphs: Mapping[str, Graph] = field(default_factory=dict)
    path: Path | None = None
    digest: str = ""

    @property
    def has_operator(self) -> bool:
        """Whether the operator was trained."""
        return "operator" in self.arrays

    @property
    def acts_on_fields(self) -> bool:
        """Whether its operator goes from field to field, not from latent to latent."""
        return self.operator.get("form") == "field"

    @property
    def condition(self) -> str:
        """What its operator on fields sees beside the scan, one of CONDITIONS."""
        return str(self.operator.get("condition", "none"))

    @property
    def operator_forms(self) -> tuple[str, ...]:
        """The form of its operator; those of the members of an ensemble on latents."""
        form, members = self.operator.get("form"), self.operator.get("members")
        return tuple(map(str, members)) if form == "ensemble" and isinstance(members, list) else (str(form),)

    @property
    def is_linear(self) -> bool:
        """Whether latents and prediction are linear in the scan: spline-basis fields, an affine operator if any."""
        return self.codes_in_numpy and (not self.has_operator or set(self.operator_forms) == {"affine"})

    @property
    def codes_in_numpy(self) -> bool:
        """Whether scans are encoded and decoded without torch."""
        return {spec.form for spec in self.specs.values()} == {"spline-basis"}

    @property
    def runs_in_numpy(self) -> bool:
        """Whether it can be applied without torch."""
        return self.codes_in_numpy and (not self.has_operator or set(self.operator_forms) <= set(NUMPY_OPERATORS))

    @property
    def graphs_to_apply(self) -> tuple[str, ...]:
        """The graphs without which onnxruntime does not apply it: those of the parts that NumPy does not know. One
        without a target is applied where its source field is decoded again.
        """
        decoded = self.specs.get("target", self.specs["source"])
        needed = {
            ENCODE_STEP: self.specs["source"].form != "spline-basis",
            OPERATOR: self.has_operator and not set(self.operator_forms) <= set(NUMPY_OPERATORS),
            DECODE: decoded.form != "spline-basis",
        }
        return tuple(name for name, is_needed in needed.items() if is_needed)

    def without_operator(self) -> "Bundle":
        """Its fields alone: what codes needs no operator, nor the plugin that it may be of."""
        return replace(self, arrays={side: self.arrays[side] for side in self.specs}, operator={})

    def with_operator(self, recipe: Mapping[str, Any], arrays: dict[str, Array], facts: Mapping[str, Any]) -> "Bundle":
        """With another operator, trained by a resolved recipe; graphs of the one before are left behind."""
        whole = {**self.arrays, "operator": arrays}
        return replace(self, recipe=recipe, arrays=whole, operator=facts, graphs={})

    def side(self, name: str) -> Side:
        """The "source" or the "target", with the prior of its latents. Raises BundleError for a target it has not."""
        if name not in self.specs:
            where, hint = self.path or "bundle", "nfops resample --method field decodes what its field encodes"
            raise BundleError(where, f"this bundle has no {name}: its recipe learns a representation alone", hint)
        arrays, spec = self.arrays[name], self.specs[name]
        return Side(name, spec, Prior(arrays["prior_mean"], arrays["prior_variance"], spec.encode.prior))

    def codec_digest(self, side: str) -> str:
        """sha256 of a side's spec and arrays: what ties a latent table to it."""
        digest = hashlib.sha256(json.dumps(self.specs[side].to_plain(), sort_keys=True).encode())
        for name, array in sorted(self.arrays[side].items()):
            digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def section(self, part: str) -> Section:
        """The component settings of "source", "target" or "operator", as the recipe had them. Raises BundleError."""
        try:
            plain = self.recipe["operator"] if part == "operator" else self.recipe[part]["field"]
        except (KeyError, TypeError) as error:
            raise BundleError(self.path or "bundle", f"its recipe does not say what its {part} is") from error
        selector = "backend" if part == "operator" else "backbone"
        where = "operator" if part == "operator" else f"{part}.field"
        return Section(node_from_plain(plain, Mark(str(self.path), 0, 0)), where, selector)


def save_bundle(bundle: Bundle, directory: Path, *, force: bool) -> None:
    """Write a bundle whole: under a temporary name beside the target, then renamed. Raises OutputError."""
    from safetensors.numpy import save

    contents = {f"{part}.safetensors": save(dict(arrays)) for part, arrays in bundle.arrays.items()}
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": bundle.name,
        "nfops": __version__,
        "versions": dict(bundle.versions),
        "seed": bundle.recipe.get("seed"),
        "recipe": dict(bundle.recipe),
        "specs": {side: spec.to_plain() for side, spec in bundle.specs.items()},
        "operator": dict(bundle.operator),
        "data": dict(bundle.data),
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    if bundle.graphs:
        manifest["graphs"] = {name: dict(graph.facts) for name, graph in bundle.graphs.items()}
    contents |= {name: graph.content for name, graph in bundle.graphs.items()}
    with publishing_directory(directory, force) as temporary:
        for name, content in contents.items():
            (temporary / name).write_bytes(content)
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def load_bundle(directory: Path) -> Bundle:
    """Read and check a bundle. Raises BundleError for anything missing, changed, newer or not a bundle."""
    manifest, digest = _read_manifest(directory)
    try:
        specs = {side: CodecSpec.from_plain(plain) for side, plain in manifest["specs"].items()}
        files, recipe = dict(manifest["files"]), dict(manifest["recipe"])
        name, operator, data = str(manifest["name"]), dict(manifest["operator"]), dict(manifest["data"])
        versions = {**manifest["versions"], "nfops": manifest["nfops"]}
        named = dict(manifest.get("graphs", {}))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(directory / MANIFEST, f"the manifest is not complete: {error!r}") from error
    _refuse_foreign(directory, files, {*named} & {*GRAPHS})
    parts = PARTS if "target" in specs else PARTS[:1]
    if not {"source"} <= set(specs) <= set(parts[:2]) or not set(files) <= {f"{part}.safetensors" for part in parts}:
        what = f"expected a source, perhaps a target, got {sorted(specs)} and {sorted(files)}"
        raise BundleError(directory / MANIFEST, what)
    arrays = {file.removesuffix(".safetensors"): _read_arrays(directory / file, sha) for file, sha in files.items()}
    graphs = read_graphs(directory, named)
    bundle = Bundle(name, recipe, specs, arrays, operator, data, versions, graphs, directory, digest)
    _check_shapes(bundle)
    return bundle


def _read_manifest(directory: Path) -> tuple[dict[str, Any], str]:
    if directory.is_file():
        with directory.open("rb") as file:
            kind = archive_kind(file.read(512), or_packed=True)
        if kind and directory.suffix not in FOREIGN_SUFFIXES:
            raise BundleError(directory, f"is a {kind} archive; a bundle is a directory", "unpack it first")
        raise BundleError(directory, "a bundle is a directory with manifest.json; pickled checkpoints are never read")
    path = directory / MANIFEST
    if not path.is_file():
        raise BundleError(directory, "no bundle here", "fit-inr, encode and train-operator make one from the recipe")
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise BundleError(path, f"larger than {MAX_MANIFEST_BYTES >> 20} MiB: not a manifest")
    content = path.read_bytes()
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BundleError(path, f"not JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BundleError(path, f"not the manifest of an nfops bundle: format is not {FORMAT!r}")
    version = manifest.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise BundleError(path, f"format version {version} is newer than {FORMAT_VERSION}", "it needs a newer nfops")
    return manifest, hashlib.sha256(content).hexdigest()


def _refuse_foreign(directory: Path, named: Iterable[str], graphs: set[str]) -> None:
    """Refuse what could run code or point elsewhere, even where nothing would read it; graphs are read and checked."""
    for name in sorted({*named, *({path.name for path in directory.iterdir()} - graphs)}):
        if Path(name).suffix.lower() in FOREIGN_SUFFIXES:
            what = "is no part of a bundle, whose manifest does not name it so; it is never read"
            raise BundleError(directory / name, what, "remove it")


def _read_arrays(path: Path, expected: str) -> dict[str, Array]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if not path.is_file():
        raise BundleError(path, "the bundle's manifest names this file, and it is missing")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise BundleError(path, f"damaged or changed: sha256 {found[:12]}, expected {str(expected)[:12]}")
    try:
        arrays: dict[str, Array] = load(content)
    except (SafetensorError, ValueError) as error:
        raise BundleError(path, f"not a safetensors file: {error}") from error
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise BundleError(path, f"array {name} holds NaN or infinity")
    return arrays


def _check_shapes(bundle: Bundle) -> None:
    """The arrays that engines index must have the shapes that the specs promise."""
    expected: dict[str, dict[str, tuple[int, ...]]] = {}
    for side, spec in bundle.specs.items():
        expected[side] = {"prior_mean": (spec.latent,), "prior_variance": (spec.latent,)}
        if spec.form == "spline-basis":
            nodes = spec.domain.nodes
            field_shapes = {"mean": (spec.channels, *nodes), "basis": (spec.latent, spec.channels, *nodes)}
            field_shapes |= {"basis_scale": (spec.latent,), "variance": (spec.latent,)}
            expected[side] |= {f"field.{name}": shape for name, shape in field_shapes.items()}
    if bundle.has_operator and bundle.operator.get("form") == "affine":
        size = bundle.specs["target"].latent
        expected["operator"] = {"weight": (size, bundle.specs["source"].latent), "bias": (size,)}
    if bundle.condition not in CONDITIONS:
        what = f"its operator's condition is {bundle.condition!r}, expected one of {', '.join(CONDITIONS)}"
        raise BundleError(bundle.path or "bundle", what, "it may need a newer nfops")
    if bundle.has_operator and bundle.condition == "latent":
        size = bundle.specs["target"].latent
        ridge = {"weight": (size, bundle.specs["source"].latent), "bias": (size,)}
        expected["operator"] = {CONDITION_PREFIX + name: shape for name, shape in ridge.items()}
    for part, shapes in expected.items():
        for name, shape in shapes.items():
            got = bundle.arrays.get(part, {}).get(name)
            if got is None or got.shape != shape:
                found = "nothing" if got is None else str(got.shape)
                raise BundleError(bundle.path or "bundle", f"{part}: array {name} should be {shape}, got {found}")

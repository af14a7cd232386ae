"""What of this installation works, found out by using it: `nfops doctor`."""

import importlib
import importlib.metadata
import importlib.util
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nfops import __version__
from nfops.errors import NfopsError

LIBRARIES = ("numpy", "scipy", "nibabel", "pydicom", "SimpleITK", "torch", "onnx", "onnxscript")
DECODERS = {
    "JPEGLosslessSV1": "lossless JPEG",
    "JPEGLSLossless": "JPEG-LS",
    "JPEG2000Lossless": "JPEG 2000",
    "HTJ2KLossless": "high-throughput JPEG 2000",
    "RLELossless": "RLE",
}
"""Transfer syntaxes of compressed DICOM, as pydicom names them, and as people do."""


@dataclass(frozen=True)
class Finding:
    """One thing that was tried. is_fine: None where it is neither good nor bad, such as a GPU that is not there."""

    topic: str
    is_fine: bool | None
    what: str


def examine(bundles: Path) -> Iterator[Finding]:
    """Each thing in turn, as it is tried. bundles: the folder of those that were shipped."""
    yield Finding("python", True, f"{platform.python_version()}, nfops {__version__}")
    yield from map(_library, LIBRARIES)
    yield from _torch()
    yield from _onnxruntime()
    yield from _decoders()
    yield from map(_bundle, sorted(path.parent for path in bundles.glob("*/manifest.json")))


def _library(name: str) -> Finding:
    if importlib.util.find_spec(name) is None:
        return Finding(name, False, "is not installed")
    try:
        importlib.import_module(name)
        return Finding(name, True, importlib.metadata.version(name))
    except Exception as error:  # a library that is half there may raise anything
        return Finding(name, False, f"cannot be imported: {_one_line(error)}")


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except Exception:
        return  # told as a library
    if not torch.cuda.is_available():
        built = "no CUDA device was found" if torch.version.cuda else "a build without CUDA"
        yield Finding("torch on CUDA", None, built)
        return
    for index in range(torch.cuda.device_count()):
        try:
            torch.ones(2, device=f"cuda:{index}").sum().item()
            yield Finding(
                f"torch on cuda:{index}", True, f"{torch.cuda.get_device_name(index)}, CUDA {torch.version.cuda}"
            )
        except RuntimeError as error:
            yield Finding(f"torch on cuda:{index}", False, _one_line(error))


def _onnxruntime() -> Iterator[Finding]:
    """The providers that a session really has; what it was built with says nothing of this machine."""
    try:
        from nfops.engines.onnx_sessions import IDENTITY, GraphSession, cuda_fault, has_driver, packages_clash
        from nfops.onnx_runtime import onnxruntime
    except Exception as error:
        yield Finding("onnxruntime", False, f"cannot be imported: {_one_line(error)}")
        return
    clash = packages_clash()
    yield Finding("onnxruntime", not clash, clash or onnxruntime.__version__)
    try:
        providers = GraphSession(IDENTITY, "a graph to try").providers
        yield Finding("onnxruntime on the CPU", True, ", ".join(providers))
    except NfopsError as error:
        yield Finding("onnxruntime on the CPU", False, error.what)
    fault = cuda_fault("cuda")
    is_wanted = has_driver()  # where there is no GPU, nothing is wrong
    yield Finding("onnxruntime on CUDA", False if fault and is_wanted else None if fault else True, fault or "works")


def _decoders() -> Iterator[Finding]:
    """Of compressed DICOM, by pydicom's own word."""
    try:
        from pydicom import uid
        from pydicom.pixels import get_decoder
    except Exception:
        return
    for name, spoken in DECODERS.items():
        decoder = get_decoder(getattr(uid, name))
        there = ", ".join(decoder.available_plugins)
        missing = "none: pip install 'nfops[dicom]'"
        yield Finding(f"DICOM in {spoken}", True if decoder.is_available else None, there or missing)


def _bundle(folder: Path) -> Finding:
    from nfops.bundle import load_bundle
    from nfops.engines import open_engine_to_apply

    try:
        engine = open_engine_to_apply(load_bundle(folder))
        return Finding(f"bundle {folder.name}", True, f"runs by {engine.name} on {engine.device}")
    except Exception as error:
        return Finding(f"bundle {folder.name}", False, _one_line(error))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__

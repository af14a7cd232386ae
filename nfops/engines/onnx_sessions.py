"""onnxruntime sessions on the device that was asked for, or an error that names what is missing.

Where CUDA does not load, onnxruntime computes on the CPU without a word: `get_available_providers` tells what it was
built with, and only the providers of a session that was made tell what it runs on.
"""

import contextlib
import ctypes
import ctypes.util
import importlib.metadata
import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nfops.arrays import Array
from nfops.errors import BundleError, DeviceError, MemoryLimitError
from nfops.onnx_runtime import onnxruntime

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
DRIVERS = ("/dev/nvidiactl", "/dev/dxg")
"""Files of NVIDIA's driver, and of that of WSL."""

SHORT_OF_MEMORY = re.compile(r"out of memory|failed to allocate|bad_alloc|not enough (gpu )?memory", re.IGNORECASE)
WARNINGS, ERRORS_ONLY, SILENT = 2, 3, 4

IDENTITY = bytes.fromhex(
    "08083a3a0a100a017812017922084964656e74697479120474696e795a0f0a0178120a0a08080112040a02"
    "0801620f0a0179120a0a08080112040a02080142040a001012"
)
"""The smallest graph, y = x, to find out where a session runs."""


class GraphSession:
    """One graph on one device. name: of the file, for messages."""

    def __init__(self, content: bytes, name: object, device: str = "cpu") -> None:
        self.name, self.device = name, device
        self._only_asked = onnxruntime.RunOptions()
        self._only_asked.only_execute_path_to_fetches = True  # not the curvature where the loss is asked for
        try:
            self._session = onnxruntime.InferenceSession(content, _options(ERRORS_ONLY), providers=_providers(device))
        except Exception as error:  # onnxruntime's own errors share no base class
            raise BundleError(name, f"onnxruntime does not take it: {_one_line(error)}") from error
        if device != "cpu" and self.providers[0] != CUDA:
            raise DeviceError("--device", f"{device} was asked for, but {name} would run on the CPU")

    @property
    def providers(self) -> tuple[str, ...]:
        """What really runs it, the first one first."""
        return tuple(self._session.get_providers())

    @property
    def inputs(self) -> dict[str, tuple[Any, ...]]:
        """Name -> shape: numbers, and names of lengths that may vary."""
        return {each.name: tuple(each.shape) for each in self._session.get_inputs()}

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names."""
        return tuple(each.name for each in self._session.get_outputs())

    def place(self, array: Array) -> Any:
        """An input on the device, for many runs: on the CPU the array itself."""
        ready = np.ascontiguousarray(array, dtype=np.float32)
        if self.device == "cpu":
            return ready
        return onnxruntime.OrtValue.ortvalue_from_numpy(ready, "cuda", _index(self.device))

    def run(self, wanted: Sequence[str], inputs: Mapping[str, Any]) -> list[Array]:
        """Some outputs for inputs that were placed. Raises MemoryLimitError where the device's memory is short."""
        try:
            if self.device == "cpu":
                found = self._session.run(list(wanted), dict(inputs), self._only_asked)
            else:
                found = self._run_bound(wanted, inputs)
        except MemoryError as error:
            raise MemoryLimitError(self.name, "not enough memory to run it") from error
        except Exception as error:
            if SHORT_OF_MEMORY.search(str(error)):
                raise MemoryLimitError(self.name, f"not enough memory on {self.device}: {_one_line(error)}") from error
            raise BundleError(self.name, f"onnxruntime cannot run it: {_one_line(error)}") from error
        return [np.asarray(each) for each in found]

    def _run_bound(self, wanted: Sequence[str], inputs: Mapping[str, Any]) -> list[Array]:
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name in wanted:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding, self._only_asked)
        return [each.numpy().copy() for each in binding.get_outputs()]  # numpy() alone may look at freed memory


def choose_device(device: str) -> str:
    """A device that onnxruntime really has. Raises DeviceError naming what is missing."""
    if device == "cpu":
        return device
    if device == "auto":
        return "cuda" if has_driver() and not cuda_fault("cuda") else "cpu"
    if fault := cuda_fault(device):
        raise DeviceError("--device", f"{device} was asked for, but {fault}", "use --device cpu or auto")
    return device


def has_driver() -> bool:
    """Whether this machine seems to have a GPU of NVIDIA's."""
    if os.name == "nt":
        return ctypes.util.find_library("nvcuda") is not None
    return any(Path(file).exists() for file in DRIVERS)


def cuda_fault(device: str) -> str:
    """Why onnxruntime does not run on a CUDA device, "" if it does: found out by making a session there."""
    if clash := packages_clash():
        return clash
    if CUDA not in onnxruntime.get_available_providers():
        return f"this onnxruntime ({onnxruntime.__version__}) is a build without CUDA: install onnxruntime-gpu"
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
        onnxruntime.preload_dlls()  # those that torch or NVIDIA's packages brought; it prints what it misses
    onnxruntime.set_default_logger_severity(SILENT)  # what it would say to the terminal, the return value says
    try:
        made = onnxruntime.InferenceSession(IDENTITY, _options(SILENT), providers=_providers(device)).get_providers()
    except Exception as error:
        return f"onnxruntime cannot use it: {_one_line(error)}"
    finally:
        onnxruntime.set_default_logger_severity(WARNINGS)
    return "" if made[0] == CUDA else _missing_library() or "onnxruntime found no CUDA device"


def packages_clash() -> str:
    """What to say where two distributions share the module onnxruntime, of which one overwrote the other (C65)."""
    both = ("onnxruntime", "onnxruntime-gpu")
    if all(_is_installed(name) for name in both):
        return f"{' and '.join(both)} are both installed and overwrite each other: uninstall both, install one"
    return ""


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _missing_library() -> str:
    """The library that onnxruntime's CUDA part misses, as the loader words it."""
    folder = Path(onnxruntime.__file__).parent / "capi"
    for name in ("libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so"):
        try:
            ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            return f"onnxruntime's CUDA part does not load: {_one_line(error)}"
    return ""


def _providers(device: str) -> list[Any]:
    if device == "cpu":
        return [CPU]
    return [(CUDA, {"device_id": str(_index(device)), "use_tf32": "0"}), CPU]  # float32 as on a CPU (C59)


def _index(device: str) -> int:
    return int(device.partition(":")[2] or 0)


def _options(severity: int) -> onnxruntime.SessionOptions:
    """Threads as for the other numerical libraries, which onnxruntime does not ask."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = severity
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal():
        options.intra_op_num_threads = int(threads)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # NumPy computes between the runs
    return options


PREAMBLE = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : (/\S+:\d+ .*?\) )?(?=\S)")
"""Before what onnxruntime has to say: a number, and where in its source."""


def _one_line(error: BaseException) -> str:
    return PREAMBLE.sub("", " ".join(str(error).split()))[:300]

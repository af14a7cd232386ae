"""The resume state of a training: a folder beside its bundle, a safetensors file a field, JSON in its header.

`identity.json` says what is trained (recipe, data): state of anything else is refused, never trained on. Each file
holds both the last state (`last.*`, `optimizer.*`) and the best one (`best.*`), and is replaced whole.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from nfops.errors import BundleError, OutputError
from nfops.io.publish import publishing

FORMAT, FORMAT_VERSION = "nfops-checkpoint", 1
IDENTITY = "identity.json"
SUFFIX = ".checkpoint"


def checkpoint_dir(bundle_dir: Path) -> Path:
    """Where the resume state of a bundle's training lies: beside it, until the bundle is there."""
    return bundle_dir.with_name(bundle_dir.name + SUFFIX)


@dataclass(frozen=True, eq=False)
class CheckpointFolder:
    """identity: what is trained, as JSON-able data. Nothing is written before the first state is saved."""

    path: Path
    identity: Mapping[str, Any] = field(default_factory=dict)

    def state_of(self, name: str) -> "Checkpoint":
        """The resume state of one field ("source")."""
        return Checkpoint(self.path / f"{name}.safetensors", self._begin)

    def refuse_unfinished(self) -> None:
        """Raise OutputError where resume state lies that nobody spoke of."""
        if self._is_there():
            what = "an unfinished training lies here"
            raise OutputError(self.path, what, "--resume goes on with it, --force discards it")

    def refuse_other(self, difference: Callable[[Mapping[str, Any], Mapping[str, Any]], str]) -> None:
        """Raise BundleError unless the state that lies here, if any, belongs to this very training.

        difference: (identity there, identity here) -> what differs, in words, or nothing.
        """
        if not self._is_there():
            return
        if found := difference(self._read_identity(), self.identity):
            what = f"this resume state belongs to another training: {found}"
            raise BundleError(self.path, what, "repeat its recipe and --set, or start anew with --force")

    def discard(self) -> None:
        """Remove the folder, if it is one of ours. Raises OutputError for any other."""
        if self._is_there():
            shutil.rmtree(self.path)

    def _is_there(self) -> bool:
        """Whether resume state lies here. Raises OutputError for a folder of something else."""
        if (self.path / IDENTITY).is_file():
            return True
        if self.path.exists() and not (self.path.is_dir() and not any(self.path.iterdir())):
            raise OutputError(self.path, f"is in the way: it is not resume state ({IDENTITY})", "move it elsewhere")
        return False

    def _begin(self) -> None:
        if (self.path / IDENTITY).is_file():
            return
        self.path.mkdir(parents=True, exist_ok=True)
        document = {"format": FORMAT, "format_version": FORMAT_VERSION, "identity": dict(self.identity)}
        with publishing(self.path / IDENTITY, force=True) as temporary:
            temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    def _read_identity(self) -> dict[str, Any]:
        path = self.path / IDENTITY
        try:
            document = json.loads(path.read_bytes())
            if (document["format"], document["format_version"]) != (FORMAT, FORMAT_VERSION):
                raise ValueError(f"format {document['format']} {document['format_version']}")
            return dict(document["identity"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            what = f"not the resume state of a training: {error}"
            raise BundleError(path, what, "start anew with --force") from error


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One field's resume state in one file. begin: makes the folder."""

    path: Path
    begin: Callable[[], None]

    def save(self, arrays: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Replace the file whole. state: JSON-able; numbers come back exactly. Raises OutputError."""
        from safetensors.torch import save_file

        self.begin()
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in arrays.items()}
        with publishing(self.path, force=True) as temporary:
            save_file(whole, temporary, {"format": FORMAT, "state": json.dumps(state)})

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Arrays and state; None where none was saved. Raises BundleError for a damaged file."""
        from safetensors import SafetensorError, safe_open

        if not self.path.is_file():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                state = json.loads(file.metadata()["state"])
                return {name: file.get_tensor(name) for name in file.keys()}, state  # noqa: SIM118 - no mapping
        except (SafetensorError, ValueError, KeyError, TypeError, OSError) as error:
            raise BundleError(self.path, f"damaged resume state: {error}", "start anew with --force") from error


def prefixed(prefix: str, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same arrays under longer names."""
    return {prefix + name: tensor for name, tensor in arrays.items()}


def without(prefix: str, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the arrays whose names begin so, without that."""
    return {name.removeprefix(prefix): tensor for name, tensor in arrays.items() if name.startswith(prefix)}


def optimizer_arrays(optimizer: Optimizer) -> dict[str, Tensor]:
    """What an optimizer has gathered, "NUMBER.KEY" for each parameter."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{key}": tensor for number, entry in state.items() for key, tensor in entry.items()}


def load_optimizer(optimizer: Optimizer, arrays: Mapping[str, Tensor]) -> None:
    """The inverse; the optimizer has its parameters already."""
    entries: dict[int, dict[str, Tensor]] = {}
    for name, tensor in arrays.items():
        number, key = name.split(".")
        entries.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})

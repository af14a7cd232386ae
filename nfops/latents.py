"""`Latent` and `LatentTable`: what encoding makes and operators move."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nfops.arrays import Array
from nfops.errors import BundleError
from nfops.frame import Frame
from nfops.grid import Grid
from nfops.intensity import IntensityMap

TABLES = ("source.safetensors", "target.safetensors")


class Objective(Protocol):
    """What a workflow hands an operator to learn by. predictions: (n, P_out) tensor; rows: (n,) of its tables."""

    def latent(self, predictions: Any, rows: Any) -> Any:
        """Mean squared error of latents in units of their variance, a scalar tensor."""

    def decoded(self, predictions: Any, rows: Any) -> Any:
        """Error of the decoded field at random points: mean squared, or cross-entropy + Dice loss. A scalar tensor."""

    def score(self, predict: Callable[[Any], Any]) -> float:
        """Decoded PSNR or Dice of `predict`, (V, P_in) -> (V, P_out), on the validation scans; NaN without any."""


def latents_dir(bundle_dir: Path) -> Path:
    """Where the latent tables of a bundle lie: beside it, since they are no part of what is shipped."""
    return bundle_dir.with_name(bundle_dir.name + ".latents")


@dataclass(frozen=True, eq=False)
class Latent:
    """One encoded scan. vectors: (B, P), B slices of a 2-D recipe, or 1. frame: where in the world it lies.
    grid: the scan's, on the recipe's anatomical axes.

    scales: B intensity maps, the scan's own. residual: (B,) mean loss that the field could not explain. is_empty: (B,),
    whether there is nothing in a slice, as in the air above a head.
    """

    vectors: Array
    frame: Frame
    grid: Grid
    scales: tuple[IntensityMap, ...]
    residual: Array
    is_empty: Array


@dataclass(frozen=True, eq=False)
class LatentTable:
    """Many latents of one codec, row by row.

    vectors: (N, P) float32. ids, patients, splits: N each. copies: (N,) 0 for the scan itself, k for its k-th
    augmented copy. residual: (N,). codec: digest of the codec that made them.
    """

    vectors: Array
    ids: tuple[str, ...]
    patients: tuple[str, ...]
    splits: tuple[str, ...]
    copies: Array
    residual: Array
    codec: str

    def __len__(self) -> int:
        return len(self.vectors)

    def where(self, keep: Array) -> "LatentTable":
        """The rows for which `keep` (N,) is true."""
        rows = np.flatnonzero(keep)
        return LatentTable(
            self.vectors[rows],
            tuple(self.ids[r] for r in rows),
            tuple(self.patients[r] for r in rows),
            tuple(self.splits[r] for r in rows),
            self.copies[rows],
            self.residual[rows],
            self.codec,
        )

    def save(self, path: Path) -> None:
        """Write one safetensors file; names travel as JSON in its header."""
        from safetensors.numpy import save

        names = {"ids": self.ids, "patients": self.patients, "splits": self.splits, "codec": self.codec}
        arrays = {"vectors": self.vectors.astype(np.float32), "copies": self.copies, "residual": self.residual}
        path.write_bytes(save(arrays, metadata={"nfops": json.dumps(names)}))

    @classmethod
    def load(cls, path: Path) -> "LatentTable":
        """Read what `save` wrote. Raises BundleError when it is missing or damaged."""
        from safetensors import SafetensorError, safe_open

        if not path.is_file():
            raise BundleError(path, "no latent table", "run `nfops encode` first")
        try:
            with safe_open(str(path), framework="np") as stored:
                names = json.loads((stored.metadata() or {})["nfops"])
                arrays = {key: stored.get_tensor(key) for key in ("vectors", "copies", "residual")}
            ids, patients, splits = (tuple(names[key]) for key in ("ids", "patients", "splits"))
            return cls(arrays["vectors"], ids, patients, splits, arrays["copies"], arrays["residual"], names["codec"])
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise BundleError(path, f"not a latent table: {error}", "run `nfops encode --force` again") from error

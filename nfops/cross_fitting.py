"""Ridges that predict for a patient without having seen that patient: cross-fitting over groups of patients.

A ridge knows the patients that it was fitted to better than those it will meet: whoever learns from its predictions
for them learns to trust it more than it deserves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nfops.arrays import Array
from nfops.errors import InputError
from nfops.latents import LatentTable
from nfops.ridge import Ridge, fit_ridge

GROUPS = 5
"""Of patients, at most."""


@dataclass(frozen=True, eq=False)
class CrossFit:
    """whole: fitted to all rows. without: for each group, fitted to the others. groups: those of scans, by id."""

    whole: Ridge
    without: tuple[Ridge, ...]
    groups: Mapping[str, int]

    @property
    def figures(self) -> dict[str, float]:
        """Of the fit to all rows: its strength, and its error on left-out patients."""
        return {"latent_strength": self.whole.strength, "left_out_latent_mse": self.whole.left_out_error}

    def move(self, latents: Array, ids: Sequence[str]) -> Array:
        """Source latents (B, P_in) of the scans `ids` -> target latents (B, P_out); strangers by the ridge of all."""
        ridges = [self.without[self.groups[name]] if name in self.groups else self.whole for name in ids]
        return np.stack([ridge.weight @ latent + ridge.bias for ridge, latent in zip(ridges, latents, strict=True)])


def cross_fit(source: LatentTable, target: LatentTable) -> CrossFit:
    """Ridges between two tables of the same rows. Raises InputError for a single scan, which leaves no others."""
    groups = _groups(source)
    rest = [groups != group for group in range(groups.max() + 1)]
    without = tuple(fit_ridge(source.where(rows), target.where(rows)) for rows in rest)
    return CrossFit(fit_ridge(source, target), without, dict(zip(source.ids, groups.tolist(), strict=True)))


def _groups(table: LatentTable) -> Array:
    """(N,) group of each row: of patients; of the scans of a single one."""
    names, number = np.unique(table.patients, return_inverse=True)
    if len(names) == 1:
        names, number = np.unique(table.ids, return_inverse=True)
    if len(names) == 1:
        raise InputError("condition: latent", "one training scan leaves no others to predict it by", "it needs two")
    return np.asarray(number % GROUPS)

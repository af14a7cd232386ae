"""For tests of operators: tables of latents, an operator fitted to them, and the bundle that it would be in."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nfops.bundle import Bundle
from nfops.codec import load_operator, state_arrays
from nfops.engines.numpy_operators import Operate, mean_of, open_members
from nfops.errors import BundleError
from nfops.latents import LatentTable

P_IN, P_OUT = 6, 4


def table(vectors: np.ndarray, rows_per_patient: int = 2) -> LatentTable:
    names = tuple(f"p{row // rows_per_patient}" for row in range(len(vectors)))
    copies = np.arange(len(vectors)) % rows_per_patient
    rest = names, names, ("train",) * len(vectors), copies, np.zeros(len(vectors)), "toy"
    return LatentTable(vectors.astype(np.float32), *rest)


def curved(rows: int = 240, offset: float = 0.0, seed: int = 0) -> tuple[LatentTable, LatentTable]:
    """A smooth map that is not linear, between latents of very different spread."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(rows, P_IN))
    y = np.stack([z[:, 0] + z[:, 1] ** 2, np.sin(2 * z[:, 2]), 10 * z[:, 3] + z[:, 0] * z[:, 1], z[:, 4]], axis=1)
    return table(z * [2, 1, 1, 0.7, 0.5, 0.3] + offset), table(y + offset)


def fit(module, config, tables, seed: int = 0):
    torch.manual_seed(seed)
    operator = module.Operator(config, tables[0].vectors.shape[1], tables[1].vectors.shape[1])
    operator.fit(*tables, objective=None)
    return operator.eval()


def moved(operator, vectors: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return operator(torch.from_numpy(vectors.astype(np.float32))).numpy()


def error(operator, tables) -> float:
    return float(((moved(operator, tables[0].vectors) - tables[1].vectors) ** 2).mean())


def bundle_of(operator, backend: str, settings: dict) -> Bundle:
    specs = {"source": SimpleNamespace(latent=P_IN), "target": SimpleNamespace(latent=P_OUT)}
    recipe = {"operator": {"backend": backend, **settings}}
    return Bundle("toy", recipe, specs, {"operator": state_arrays(operator)}, operator={"form": operator.form})


def open_operator(bundle: Bundle) -> Operate:
    """The operator of a bundle in NumPy."""
    members = open_members(bundle)
    return lambda latents: mean_of(np.stack([member(latents) for member in members]))


def check_engines_agree(bundle: Bundle, operator, vectors: np.ndarray, tolerance: float = 1e-5) -> None:
    expected = moved(operator, vectors)
    assert np.array_equal(moved(load_operator(bundle), vectors), expected)
    found = open_operator(bundle)(vectors.astype(np.float32))
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def check_misfits_are_refused(bundle: Bundle, name: str) -> None:
    """Without an array, or with one that is too short, both engines refuse the bundle."""
    arrays = bundle.arrays["operator"]
    without = {key: array for key, array in arrays.items() if key != name}
    for opened in (open_operator, load_operator):
        with pytest.raises(BundleError, match="operator"):
            opened(replace(bundle, arrays={"operator": without}))
        with pytest.raises(BundleError, match="operator"):
            opened(replace(bundle, arrays={"operator": without | {name: arrays[name][:-1]}}))

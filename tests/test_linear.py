"""Ridge regression: finds linear maps, trusts noise less, and keeps patients together."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nfops.errors import RecipeError
from nfops.latents import LatentTable
from nfops.node import Mark, node_from_plain
from nfops.operators.linear import Config, Operator
from nfops.ridge import MAX_FOLDS, patient_folds
from nfops.schema import read


def tables(x: np.ndarray, y: np.ndarray, patients: list[str], copies: np.ndarray | None = None):
    rest = (tuple(patients), tuple(patients), ("train",) * len(x), copies if copies is not None else np.zeros(len(x)))
    return tuple(LatentTable(v.astype(np.float32), *rest, np.zeros(len(x)), "toy") for v in (x, y))


def fitted(x, y, patients, copies=None, config=None) -> Operator:
    config = config or Config()
    operator = Operator(config, x.shape[1], y.shape[1])
    operator.fit(*tables(x, y, patients, copies), objective=None)
    return operator


def problem(rows: int = 200, noise: float = 0.0, seed: int = 0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 6)) * [10, 3, 1, 0.3, 0.1, 0.03] + [5, 0, -1, 0, 0, 2]
    weight = rng.normal(size=(4, 6)) / [10, 3, 1, 0.3, 0.1, 0.03]
    y = x @ weight.T + [1, 2, 3, 4] + noise * rng.normal(size=(rows, 4))
    return x, y, weight, [f"p{row // 4}" for row in range(rows)]


def predict(operator: Operator, x: np.ndarray) -> np.ndarray:
    return operator(torch.from_numpy(x.astype(np.float32))).numpy()


def test_a_linear_map_is_recovered():
    x, y, weight, patients = problem()
    operator = fitted(x, y, patients, config=Config(strengths=(0.0, 1e-3)))
    assert operator.figures["strength"] == 0
    assert np.abs(operator.weight.numpy() / weight - 1).max() < 1e-2
    assert np.abs(predict(operator, x) - y).max() < 1e-3 * np.abs(y).max()


def test_more_noise_asks_for_a_stronger_ridge():
    strengths = []
    for noise in (0.01, 1.0, 10.0):
        x, y, _, patients = problem(rows=40, noise=noise)
        strengths.append(fitted(x, y, patients).figures["strength"])
    assert strengths == sorted(strengths)
    assert strengths[0] < strengths[-1]


def test_units_of_a_latent_do_not_matter():
    x, y, _, patients = problem(noise=0.3)
    units = np.array([1e3, 1e-3, 1, 50, 7, 0.2])
    one, other = fitted(x, y, patients), fitted(x * units, y, patients)
    assert np.abs(predict(one, x) - predict(other, x * units)).max() < 1e-2


def test_a_latent_that_never_changes_is_harmless():
    x, y, _, patients = problem()
    x[:, 2] = 0.125
    operator = fitted(x, y, patients)
    assert np.isfinite(operator.weight.numpy()).all()
    assert np.abs(operator.weight.numpy()[:, 2]).max() < 1e-3


def test_strength_is_judged_on_left_out_patients_not_on_their_copies():
    """Copies of a patient's scan are near duplicates: if they stayed in, no ridge would always look best."""
    rng = np.random.default_rng(0)
    x, y = np.repeat(rng.normal(size=(12, 20)), 8, axis=0), np.repeat(rng.normal(size=(12, 3)), 8, axis=0)
    x = x + 0.01 * rng.normal(size=x.shape)
    patients = [f"p{row // 8}" for row in range(96)]
    together = fitted(x, y, patients, np.arange(96) % 8)
    apart = fitted(x, y, [f"p{row}" for row in range(96)], np.arange(96) % 8)
    assert together.figures["strength"] > apart.figures["strength"]


@given(st.lists(st.integers(0, 30), min_size=2, max_size=60))
@settings(max_examples=40, deadline=None)
def test_a_patient_is_in_one_fold(numbers):
    patients = tuple(f"p{number}" for number in numbers)
    folds = patient_folds(patients)
    assert len(folds) == len(patients)
    assert len(set(folds)) == min(max(2, len(set(patients))), MAX_FOLDS)
    if len(set(patients)) > 1:
        assert all(len({f for f, p in zip(folds, patients, strict=True) if p == name}) == 1 for name in set(patients))


@pytest.mark.parametrize("strengths", [[], [-1.0]])
def test_impossible_strengths_are_refused(strengths):
    with pytest.raises(RecipeError, match="strengths"):
        read(Config, node_from_plain({"strengths": strengths}, Mark("recipe")))

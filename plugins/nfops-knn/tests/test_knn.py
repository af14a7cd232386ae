"""The contract of operators, and what is special to neighbours."""

import numpy as np
import pytest
import torch
from nfops_knn.knn import Config, Operator

from nfops.latents import LatentTable
from nfops.registry import load_component
from nfops.testing import check_operator


def tables(vectors, answers, rows_per_patient=1):
    names = tuple(f"p{row // rows_per_patient}" for row in range(len(vectors)))
    copies = np.arange(len(vectors)) % rows_per_patient
    rest = names, names, ("train",) * len(vectors), copies, np.zeros(len(vectors)), "toy"
    return [LatentTable(np.asarray(array, np.float32), *rest) for array in (vectors, answers)]


def fit(config, *both):
    operator = Operator(config, both[0].vectors.shape[1], both[1].vectors.shape[1])
    operator.fit(*both, objective=None)
    return operator


@pytest.mark.parametrize("config", [Config(), Config(neighbours=(3,)), Config(copies=False)])
def test_contract(config):
    check_operator(Operator, config)


def test_nfops_finds_it_by_its_entry_point():
    assert load_component("operator", "knn").cls is Operator


def test_one_neighbour_is_the_nearest_row_far_from_zero_too():
    rng = np.random.default_rng(0)
    vectors, answers = rng.normal(size=(50, 4)) + 100, rng.normal(size=(50, 3))
    operator = fit(Config(neighbours=(1,)), *tables(vectors, answers))
    asked = vectors + 1e-3
    assert np.allclose(operator(torch.tensor(asked, dtype=torch.float32)).numpy(), answers, atol=1e-6)


def test_a_patients_own_copies_do_not_choose():
    rng = np.random.default_rng(1)
    vectors = np.repeat(rng.normal(size=(30, 3)), 4, axis=0)  # answers by chance: the copies alone would know them
    answers = np.repeat(rng.normal(size=(30, 2)), 4, axis=0)
    assert fit(Config(), *tables(vectors, answers, rows_per_patient=4)).figures["neighbours"] >= 10


def test_no_more_neighbours_than_there_are():
    rng = np.random.default_rng(2)
    operator = fit(Config(neighbours=(40,)), *tables(rng.normal(size=(6, 3)), rng.normal(size=(6, 2))))
    assert operator.figures["neighbours"] == 5


def test_one_patient_alone_leaves_out_scan_by_scan():
    rng = np.random.default_rng(3)
    source, target = tables(rng.normal(size=(8, 3)), rng.normal(size=(8, 2)), rows_per_patient=99)
    source.copies[:], target.copies[:] = 0, 0
    assert np.isfinite(fit(Config(), source, target).figures["left_out_latent_mse"])


def test_no_candidates_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        Config(neighbours=())

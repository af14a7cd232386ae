"""The forest as a table of nodes is scikit-learn's forest, at its thresholds too."""

import dataclasses

import numpy as np
import pytest
import torch
from latent_trials import (
    bundle_of,
    check_engines_agree,
    check_misfits_are_refused,
    curved,
    error,
    fit,
    moved,
    open_operator,
)
from sklearn.ensemble import RandomForestRegressor

from nfops.codec import load_operator
from nfops.errors import BundleError
from nfops.node_tables import floor32
from nfops.operators import random_forest
from nfops.operators.random_forest import Config

SMALL = Config(trees=12, depth=8, features=1.0)


def scikit_learns(config, tables) -> RandomForestRegressor:
    """Of the very same numbers: a rounding may decide between two questions. The seed is what torch's gives."""
    torch.manual_seed(0)
    forest = RandomForestRegressor(
        config.trees,
        max_depth=config.depth,
        max_leaf_nodes=config.leaves,
        min_samples_leaf=config.min_leaf,
        max_features=config.features,
        random_state=int(torch.randint(2**31 - 1, ())),
    )
    truth = tables[1].vectors.astype(np.float64)
    mean, basis = random_forest._principal_axes(truth, min(config.components or truth.shape[1], truth.shape[1]))
    forest.fit(tables[0].vectors, (truth - mean) @ basis.T)
    return lambda vectors: forest.predict(vectors) @ basis + mean


@pytest.mark.parametrize("changes", [{}, {"components": None}, {"components": 2}, {"leaves": 5}, {"depth": 1}], ids=str)
def test_it_is_scikit_learns(changes):
    config, tables, others = dataclasses.replace(SMALL, **changes), curved(), curved(seed=1)
    operator, predict = fit(random_forest, config, tables), scikit_learns(config, tables)
    for vectors in (tables[0].vectors, others[0].vectors):
        expected = predict(vectors)
        assert np.abs(moved(operator, vectors) - expected).max() < 1e-4 * np.abs(expected).max()


def test_latents_at_a_threshold_go_where_scikit_learn_sends_them():
    tables = curved()
    operator, predict = fit(random_forest, SMALL, tables), scikit_learns(SMALL, tables)
    at = np.unique(np.stack([operator.feature.numpy(), operator.threshold.numpy()], axis=1), axis=0)
    vectors = np.repeat(tables[0].vectors[:1], 3 * len(at), axis=0)
    for part, towards in enumerate((0, np.inf, -np.inf)):
        rows = np.arange(len(at)) + part * len(at)
        near = at[:, 1].astype(np.float32)
        vectors[rows, at[:, 0].astype(int)] = near if part == 0 else np.nextafter(near, np.float32(towards))
    expected = predict(vectors)
    assert np.abs(moved(operator, vectors) - expected).max() < 1e-4 * np.abs(expected).max()


def test_a_threshold_is_rounded_down():
    numbers = np.array([0.1, 1 / 3, -0.1, 1.0, 0.0, 1e-300])
    lower = floor32(numbers)
    assert (lower.astype(np.float64) <= numbers).all()
    assert (np.nextafter(lower, np.float32(np.inf)).astype(np.float64) > numbers).all()


@pytest.mark.parametrize("changes", [{}, {"components": 2}, {"depth": 1}], ids=str)
def test_engines_agree(changes):
    tables = curved()
    operator = fit(random_forest, dataclasses.replace(SMALL, **changes), tables)
    bundle = bundle_of(operator, "random-forest", {"depth": SMALL.depth, **changes})
    check_engines_agree(bundle, operator, np.concatenate([tables[0].vectors, curved(seed=1)[0].vectors]))


@pytest.mark.parametrize("name", ["feature", "threshold", "child", "leaf", "value_scale", "basis", "mean"])
def test_arrays_that_do_not_fit_are_refused(name):
    check_misfits_are_refused(bundle_of(fit(random_forest, SMALL, curved(60)), "random-forest", {}), name)


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("roots", -1, "roots points beyond"),
        ("child", 0, "before its parent"),
        ("child", 10**6, "child points beyond"),
        ("leaf", 10**6, "leaf points beyond"),
        ("feature", 6, "feature points beyond 6"),
    ],
)
def test_a_table_that_leads_astray_is_refused(name, value, fault):
    bundle = bundle_of(fit(random_forest, SMALL, curved(60)), "random-forest", {})
    bundle.arrays["operator"][name].flat[-1] = value
    for opened in (open_operator, load_operator):
        with pytest.raises(BundleError, match=fault):
            opened(bundle)


def test_it_learns_and_says_how_large_it_is():
    training, held = curved(), curved(seed=1)
    operator = fit(random_forest, Config(), training)
    assert error(operator, held) < 0.7 * held[1].vectors.var(axis=0).mean()
    size = sum(array.nbytes for array in bundle_of(operator, "random-forest", {}).arrays["operator"].values())
    assert operator.figures["megabytes"] == pytest.approx(size / 1e6, abs=0.01)
    assert operator.figures["deepest"] <= 12


def test_leaves_are_what_bounds_the_size():
    tables = curved(2000)
    few, many = (fit(random_forest, dataclasses.replace(SMALL, leaves=n, depth=12), tables) for n in (16, 128))
    assert len(few.values) == 16 * SMALL.trees
    assert len(many.values) == 128 * SMALL.trees


def test_its_gradient_is_zero():
    operator = fit(random_forest, SMALL, curved(60))
    latents = torch.from_numpy(curved(5)[0].vectors).requires_grad_()
    (gradient,) = torch.autograd.grad(operator(latents).sum(), latents)
    assert not gradient.any()

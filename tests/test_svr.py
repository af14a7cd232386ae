"""SVR as tensors is scikit-learn's SVR, on uncentred latents too, and beats ridge where the map is not linear."""

import dataclasses

import numpy as np
import pytest
from latent_trials import P_IN, P_OUT, bundle_of, check_engines_agree, check_misfits_are_refused, curved, error, fit
from latent_trials import moved as move
from sklearn.svm import SVR, LinearSVR

from nfops.operators import linear, svr

ONE = svr.Config(gammas=(0.5,), penalties=(3.0,))
LINEAR = svr.Config(kernel="linear", penalties=(0.01,))
VARIANTS = [
    {},
    {"scale": "each"},
    {"components": 3},
    {"components": 99, "scale": "each"},
    {"gammas": (0.01,), "penalties": (100.0,)},
    {"kernel": "linear"},
    {"kernel": "linear", "components": 4},
]


def seen_by_hand(config, vectors):
    centred = vectors.astype(np.float64) - vectors.astype(np.float64).mean(axis=0)
    if config.components:
        axes = np.linalg.svd(centred, full_matrices=False)[2][: config.components].T
        centred = centred @ axes
    return centred / (centred.std(axis=0) if config.scale == "each" else np.sqrt((centred**2).mean()))


@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_it_is_scikit_learns(changes, offset):
    config = dataclasses.replace(LINEAR if changes.get("kernel") else ONE, **changes)
    source, target = curved(160, offset)
    operator = fit(svr, config, (source, target))
    seen, truth = seen_by_hand(config, source.vectors), target.vectors.astype(np.float64)
    mean, deviation = truth.mean(axis=0), truth.std(axis=0)
    expected = []
    for output in range(P_OUT):
        penalty = config.penalties[0]
        machine = (
            SVR(gamma=config.gammas[0] / seen.shape[1], C=penalty, epsilon=0.1, tol=1e-4)
            if config.kernel == "rbf"
            else LinearSVR(C=penalty, epsilon=0.1, tol=1e-4, max_iter=10_000, random_state=0)
        )
        fitted = machine.fit(seen, (truth[:, output] - mean[output]) / deviation[output])
        expected.append(fitted.predict(seen) * deviation[output] + mean[output])
    difference = move(operator, source.vectors) - np.stack(expected, axis=1)
    assert np.abs(difference).max() < 1e-4 * np.abs(truth - mean).max() + 2e-7 * offset


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_engines_agree(changes):
    config = dataclasses.replace(LINEAR if changes.get("kernel") else ONE, **changes)
    tables = curved()
    operator = fit(svr, config, tables)
    check_engines_agree(bundle_of(operator, "svr", changes), operator, tables[0].vectors)


@pytest.mark.parametrize("name", ["centre", "spread", "support", "coefficients", "bias"])
def test_arrays_that_do_not_fit_are_refused(name):
    check_misfits_are_refused(bundle_of(fit(svr, ONE, curved(60)), "svr", {}), name)


def test_what_is_not_linear_is_learned():
    training, held = curved(), curved(seed=1)
    assert error(fit(svr, svr.Config(), training), held) < 0.5 * error(fit(linear, linear.Config(), training), held)


def test_the_candidate_with_the_least_error_on_left_out_patients_wins():
    tables = curved()
    found = fit(svr, svr.Config(gammas=(1e-4, 0.5), penalties=(1e-3, 3.0)), tables).figures
    assert (found["gamma"], found["penalty"]) == (0.5, 3.0)
    alone = fit(svr, ONE, tables).figures
    assert alone["left_out_latent_mse"] == pytest.approx(found["left_out_latent_mse"])


def test_a_table_of_many_rows_is_thinned_and_every_patient_stays():
    source, target = curved(120)
    operator = fit(svr, dataclasses.replace(ONE, rows=70, epsilon=0.0), (source, target))
    assert operator.figures["rows_used"] == 70
    support = operator.support.numpy() * operator.spread.numpy() + operator.centre.numpy()
    nearest = np.abs(source.vectors[:, None] - support[None]).max(axis=2).argmin(axis=0)
    assert {source.patients[row] for row in nearest} == set(source.patients)  # 60 patients, a scan and a copy each
    others = fit(svr, dataclasses.replace(ONE, rows=70, epsilon=0.0), (source, target), seed=1)
    assert not np.array_equal(others.support.numpy(), operator.support.numpy())


def test_scans_as_they_are_come_before_their_copies():
    source, _ = curved(40)
    chosen = svr._spread_rows(source.patients, source.copies == 0, 20)
    assert np.array_equal(chosen, source.copies == 0)


@pytest.mark.parametrize("config", [ONE, LINEAR])
def test_latents_that_never_change_do_no_harm(config):
    source, target = curved(60)
    still = source.vectors.copy(), target.vectors.copy()
    still[0][:, 2], still[1][:, 1] = 4.0, -2.0
    tables = dataclasses.replace(source, vectors=still[0]), dataclasses.replace(target, vectors=still[1])
    for scale in ("together", "each"):
        operator = fit(svr, dataclasses.replace(config, scale=scale), tables)
        found = move(operator, still[0])
        assert np.isfinite(found).all()
        assert np.abs(found[:, 1] + 2).max() < 1e-3


def test_two_patients_suffice():
    assert np.isfinite(error(fit(svr, svr.Config(), curved(4)), curved(20)))


@pytest.mark.parametrize("name", ["penalties", "gammas"])
def test_no_candidates_are_refused(name):
    with pytest.raises(ValueError, match=f"{name}: expected at least one"):
        svr.Config(**{name: ()})


def test_an_operator_of_one_kernel_needs_no_validation():
    assert svr.Operator.needs_validation is False
    assert svr.Operator(LINEAR, P_IN, P_OUT).form == "affine"

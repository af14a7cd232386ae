"""What evaluation is made of: coarser scans, folds, intervals, agreement, spectra, baselines, cases."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from cli_fixtures import write_shades
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_bundles import field_at, image_in_span, make_bundle, make_spec, random_latents, scan_grid
from toy_cohorts import write_pictures

from nfops.cohort import Pair, load_pairs, read_cohort
from nfops.engines import open_engine
from nfops.errors import InputError, UsageError
from nfops.evaluation.agreement import Comparer, dense_lattice, summarise_agreement
from nfops.evaluation.baselines import is_linear_chain
from nfops.evaluation.cases import Examiner
from nfops.evaluation.degrade import AREA, FULL, POINT, Coarsener, View, coarsen, plan_views
from nfops.evaluation.folds import inner_patients, plan_folds
from nfops.evaluation.intervals import bootstrap, summarise
from nfops.evaluation.mean_image import mean_image
from nfops.evaluation.model import Model, open_model
from nfops.evaluation.pool import SamplePool
from nfops.evaluation.refit import needs_validation, refit
from nfops.evaluation.ridge_baseline import LinearFit, choose_size
from nfops.evaluation.spectrum import effective_size, merge_spectra, spectrum_of
from nfops.grid import Grid
from nfops.image import Image
from nfops.recipe import load_recipe
from nfops.scoring import score_pair

QUICK = settings(deadline=None, max_examples=25)


# --- coarser scans -----------------------------------------------------------------------------------------------


def aligned_grid(shape):
    """Oblique and anisotropic, its axes nearest to L, P, S."""
    affine = np.eye(4)
    turn, _ = np.linalg.qr(np.array([[-1.0, 0.1, 0.05], [-0.1, -1.0, 0.2], [0.05, 0.15, 1.0]]))
    turn = turn * np.sign(np.diag(turn)) * np.array([-1, -1, 1])
    affine[:3, :3] = turn @ np.diag([1.5, 2.25, 4.0])
    affine[:3, 3] = (31, -12, 8)
    return Grid(shape, affine)


@QUICK
@given(
    st.tuples(st.integers(4, 30), st.integers(4, 30), st.integers(1, 5)),
    st.sampled_from([0.1, 0.25, 0.4, 0.5, 0.77]),
    st.sampled_from([AREA, POINT]),
    st.sampled_from([2, 3]),
)
def test_a_ramp_stays_the_same_ramp_in_the_world(shape, resolution, sampling, dims):
    grid = aligned_grid(shape)
    slope = np.array([0.3, -0.2, 0.11])
    scan = Image((grid.points_mm() @ slope + 5)[None].astype(np.float32), grid)
    coarse = coarsen(make_spec(dims), scan, View(resolution, sampling))
    assert np.abs(coarse.grid.corners_mm - grid.corners_mm).max() < 1e-9
    expected = np.clip(coarse.grid.points_mm() @ slope + 5, scan.values.min(), scan.values.max())
    # An average of whole voxels weighs parts of them as if they were flat: by less than an eighth of a voxel's ramp.
    flat = np.abs(slope @ grid.affine[:3, :dims]).sum() / 8 if sampling == AREA else 0
    assert np.abs(coarse.values[0] - expected).max() < 1e-4 + flat
    assert min(coarse.grid.shape[:2]) >= 2
    if dims == 2:
        assert coarse.grid.shape[2] == shape[2]


@QUICK
@given(st.integers(5, 23), st.integers(5, 23), st.sampled_from([0.1, 0.3, 0.5, 0.6]), st.integers(0, 1000))
def test_an_area_average_is_the_mean_of_what_a_voxel_covers(i, j, resolution, seed):
    values = np.random.default_rng(seed).random((1, i, j, 1)).astype(np.float32)
    coarse = coarsen(make_spec(2), Image(values, aligned_grid((i, j, 1))), View(resolution, AREA))
    m, n, _ = coarse.grid.shape
    fine = np.repeat(np.repeat(values[0, :, :, 0].astype(float), m, axis=0), n, axis=1)  # whole pieces of both
    expected = fine.reshape(m, i, n, j).mean(axis=(1, 3))
    assert np.abs(coarse.values[0, :, :, 0] - expected).max() < 1e-5
    assert coarse.values.mean() == pytest.approx(values.mean(), abs=1e-5)


def test_a_point_sample_is_a_voxel_and_aliases_where_an_average_does_not():
    i, j = np.meshgrid(np.arange(27), np.arange(21), indexing="ij")
    board = ((i + j) % 2).astype(np.float32)
    scan = Image(board[None, :, :, None], aligned_grid((27, 21, 1)))
    point = coarsen(make_spec(2), scan, View(1 / 3, POINT))
    assert np.abs(point.values[0, :, :, 0] - board[1::3, 1::3]).max() < 1e-5
    area = coarsen(make_spec(2), scan, View(1 / 3, AREA))
    assert np.ptp(area.values) < 0.15 < np.ptp(point.values)


def test_views_are_the_scan_itself_and_both_samplings_of_each_lower_resolution():
    views = plan_views((0.1, 1.0, 0.5, 0.5))
    assert views == (View(1.0, FULL), View(0.5, AREA), View(0.5, POINT), View(0.1, AREA), View(0.1, POINT))
    assert [view.name for view in views[:2]] == ["100 %", "50 % area"]
    assert plan_views(()) == (View(1.0, FULL),)


@pytest.mark.parametrize("sampling", [AREA, POINT])
def test_labels_stay_labels(sampling):
    spec = make_spec(3, head="softmax", channels=3)
    labels = np.random.default_rng(0).integers(3, size=(1, 9, 8, 7)).astype(np.float32)
    coarse = coarsen(spec, Image(labels, aligned_grid((9, 8, 7))), View(0.5, sampling))
    assert set(np.unique(coarse.values)) <= {0, 1, 2}
    alike = coarsen(spec, Image(np.full_like(labels, 2), aligned_grid((9, 8, 7))), View(0.5, sampling))
    assert set(np.unique(alike.values)) == {2}


def test_what_is_not_known_is_left_out_of_averages():
    values = np.ones((1, 8, 8, 1), np.float32)
    values[0, :3] = np.nan
    coarse = coarsen(make_spec(2), Image(values, aligned_grid((8, 8, 1))), View(0.5, AREA)).values[0, :, :, 0]
    assert np.isnan(coarse[0]).all()
    assert (coarse[1:] == 1).all()


def test_a_slice_is_seen_with_its_whole_scan_seen_alike():
    grid = aligned_grid((12, 10, 4))
    whole = Image(np.random.default_rng(1).random((1, 12, 10, 4)).astype(np.float32), grid)
    cuts = [whole.with_values(whole.values[..., k : k + 1], grid.slab(k, k + 1)) for k in range(4)]
    coarsener = Coarsener(make_spec(2))
    for k, cut in enumerate(cuts):
        seen, scan = coarsener.see(Pair("a", "p", "val", cut, cut, whole, whole), View(0.5, AREA))
        assert np.array_equal(seen.values[..., 0], scan.values[..., k])
        assert seen.grid.same_as(scan.grid.slab(k, k + 1))


# --- folds -------------------------------------------------------------------------------------------------------


@QUICK
@given(st.lists(st.integers(1, 30), min_size=2, max_size=25), st.integers(0, 99), st.data())
def test_folds_leave_every_patient_out_once_and_watch_only_others(counts, seed, data):
    patients = [f"p{number}" for number, amount in enumerate(counts) for _ in range(amount)]
    how = data.draw(st.sampled_from(["patient", *map(str, range(2, len(counts) + 1))]))
    folds = plan_folds(patients, how, seed)
    assert sorted(name for fold in folds for name in fold.left_out) == sorted(set(patients))
    assert len(folds) == (len(counts) if how == "patient" else int(how))
    for fold in folds:
        others = set(patients) - set(fold.left_out)
        assert set(fold.inner) < others or len(others) == 1
        assert len(fold.inner) == (0 if len(others) == 1 else max(1, round(0.15 * len(others))))
    sizes = [sum(patients.count(name) for name in fold.left_out) for fold in folds]
    assert max(sizes) - min(sizes) <= max(counts)
    assert folds == plan_folds(patients[::-1], how, seed)


@pytest.mark.parametrize("how", ["1", "4", "-2", "five", "2.5"])
def test_folds_that_cannot_be(how):
    with pytest.raises(UsageError, match="expected patient or a number from 2 to 3"):
        plan_folds(["a", "b", "b", "c"], how, 0)


def test_one_patient_cannot_be_left_out():
    with pytest.raises(UsageError, match="needs at least 2 patients"):
        plan_folds(["a", "a"], "patient", 0)
    assert inner_patients(["a", "a"], 0) == ()


# --- intervals ---------------------------------------------------------------------------------------------------


def test_an_interval_of_single_scans_is_the_plain_bootstrap():
    from scipy.stats import bootstrap as reference

    values = np.random.default_rng(3).normal(20, 2, size=60)
    low, high = bootstrap(values, np.ones(60), seed=1)
    expected = reference((values,), np.mean, method="percentile", n_resamples=5000, rng=2).confidence_interval
    assert low == pytest.approx(expected.low, abs=0.1)
    assert high == pytest.approx(expected.high, abs=0.1)


@QUICK
@given(st.integers(0, 1000), st.integers(5, 12), st.integers(2, 9))
def test_more_scans_of_the_same_patients_tell_nothing_new(seed, patients, copies):
    values = np.random.default_rng(seed).normal(size=patients)
    names = [f"p{n}" for n in range(patients)]
    once = summarise(values, names, seed=4)
    again = summarise(np.repeat(values, copies), np.repeat(names, copies).tolist(), seed=4)
    assert again.interval == pytest.approx(once.interval)
    assert (again.mean, again.patients) == (pytest.approx(once.mean), pytest.approx(once.patients))
    assert once.interval[0] <= once.mean <= once.interval[1]


def test_few_patients_stand_for_themselves():
    found = summarise([1.0, 2.0, 6.0, 7.0], ["a", "a", "b", "c"], seed=0)
    assert found.interval is None
    assert found.patients == {"a": 1.5, "b": 6.0, "c": 7.0}
    assert (found.mean, found.median, found.lowest, found.highest, found.cases) == (4.0, 4.0, 1.0, 7.0, 4)


def test_numbers_that_are_missing_or_infinite():
    found = summarise([20.0, float("inf"), float("nan")], ["a", "b", "c"], seed=0)
    assert (found.mean, found.cases, found.missing) == (60.0, 2, 1)
    assert summarise([float("nan")], ["a"], seed=0) is None


# --- agreement ---------------------------------------------------------------------------------------------------

VIEWS = plan_views((0.25, 0.5))


def test_disagreement_is_the_squared_difference_of_fields_over_the_cohorts_variance():
    bundle = make_bundle(make_spec(2))
    cohort, latents = random_latents(bundle, 40), random_latents(bundle, len(VIEWS), seed=8)
    found = Comparer(open_model(bundle), "source", cohort).compare("a", VIEWS, latents)
    points = dense_lattice(bundle.specs["source"].domain).points().mean(axis=1)
    fields = np.stack([field_at(bundle, "source", z, points) for z in cohort])
    variance = fields.var(axis=0).mean()
    seen = np.stack([field_at(bundle, "source", z, points) for z in latents])
    number = {view: n for n, view in enumerate(VIEWS)}
    assert len(found) == 6  # three pairs of resolutions for each sampling
    for one in found:
        views = [View(r, FULL if r == 1 else one.sampling) for r in (one.finer, one.coarser)]
        a, b = (seen[number[view]] for view in views)
        assert one.field == pytest.approx(((a - b) ** 2).mean() / variance, rel=1e-4)


def test_disagreement_does_not_depend_on_how_latents_are_written():
    bundle = make_bundle(make_spec(2))
    scaled = {**bundle.arrays["source"]}
    scaled["field.basis_scale"] = scaled["field.basis_scale"] * 4
    scaled["prior_variance"] = scaled["prior_variance"] / 16
    other = replace(bundle, arrays={**bundle.arrays, "source": scaled})
    cohort, latents = random_latents(bundle, 20), random_latents(bundle, len(VIEWS), seed=8)
    one = Comparer(open_model(bundle), "source", cohort).compare("a", VIEWS, latents)
    two = Comparer(open_model(other), "source", cohort / 4).compare("a", VIEWS, latents / 4)
    assert [d.field for d in one] == pytest.approx([d.field for d in two], rel=1e-4)
    assert [d.latent for d in one] == pytest.approx([d.latent for d in two], rel=1e-4)


def test_strangers_disagree_by_two_and_a_scan_agrees_with_itself():
    bundle = make_bundle(make_spec(2))
    comparer = Comparer(open_model(bundle), "source", random_latents(bundle, 400))
    pairs = [np.repeat(random_latents(bundle, 2, seed=s), (1, len(VIEWS) - 1), axis=0) for s in range(120)]
    apart = [comparer.compare("a", VIEWS, z)[0].field for z in pairs]
    assert np.mean(apart) == pytest.approx(2, abs=0.25)
    same = comparer.compare("a", VIEWS, np.repeat(random_latents(bundle, 1), len(VIEWS), axis=0))
    assert max(one.field for one in same) == 0
    document = summarise_agreement(same)
    assert [len(document[sampling]["pairs"]) for sampling in (AREA, POINT)] == [3, 3]


# --- spectra -----------------------------------------------------------------------------------------------------


def test_spectra_do_not_depend_on_the_axes_of_latents():
    rng = np.random.default_rng(0)
    source, target, truth = (rng.normal(size=(n, 6)) * [5, 4, 3, 2, 1, 0.5] for n in (90, 90, 30))
    predicted = truth + rng.normal(size=truth.shape)
    turn, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    one = merge_spectra([spectrum_of(source, target, predicted, truth)])
    two = merge_spectra([spectrum_of(source @ turn, target @ turn, predicted @ turn, truth @ turn)])
    for key in ("source", "target", "predicted"):
        assert one[key] == pytest.approx(two[key], abs=1e-6)
    assert sum(one["source"]) == pytest.approx(1)
    assert one["predicted"][0] > 0.9 > one["predicted"][-1]
    assert effective_size([0.25] * 4) == pytest.approx(4)


def test_a_perfect_prediction_explains_all_and_the_mean_nothing():
    rng = np.random.default_rng(0)
    target = rng.normal(size=(64, 5))
    perfect = merge_spectra([spectrum_of(target, target, target, target)])
    assert perfect["predicted"] == pytest.approx([1] * 5)
    assert [(o["from"], o["to"]) for o in perfect["octaves"]] == [(1, 1), (2, 3), (4, 5)]
    mean = merge_spectra([spectrum_of(target, target, np.tile(target.mean(axis=0), (64, 1)), target)])
    assert mean["predicted"] == pytest.approx([0] * 5, abs=1e-9)


# --- models, baselines, cases ------------------------------------------------------------------------------------


def cohort_of(folder, *overrides, splits=("train", "val")):
    recipe = load_recipe(folder / "recipe.yaml", overrides)
    return recipe, list(load_pairs(recipe, read_cohort(recipe, folder).with_splits(splits), lambda done: None))


@pytest.fixture(scope="module")
def shades(tmp_path_factory):
    """Volumes read slice by slice, identity head; encoded exactly as the baselines encode."""
    folder = write_shades(tmp_path_factory.mktemp("parts") / "shades")
    return cohort_of(folder, "encode.steps=1", "encode.prior=1e-6")


@pytest.fixture(scope="module")
def blobs(tmp_path_factory):
    """Pictures to a mask; the nodes are the pixels."""
    folder = write_pictures(tmp_path_factory.mktemp("parts") / "blobs")
    return cohort_of(folder, "encode.steps=1", "encode.prior=1e-6", "geometry.grid.shape=[20,24]")


@pytest.mark.parametrize("name", ["shades", "blobs"])
def test_ridge_at_the_recipes_size_is_the_recipes_own_linear_chain(name, request):
    recipe, pairs = request.getfixturevalue(name)
    own = refit(recipe, pairs[:-8], [])
    model = open_model(own.bundle)
    fit = LinearFit(SamplePool(recipe, len(pairs)), pairs[:-8], 12)
    other = fit.model({"source": 8, "target": 8})
    metric = "dice" if model.spec.is_label else "psnr"
    for pair in pairs[-3:]:
        one, two = (each.judge("target", pair, each.predict(pair), (metric,))[metric] for each in (model, other))
        # A larger fit keeps the smaller components but for what it fills in beyond the edge of warped copies.
        assert two == pytest.approx(one, abs=0.03 if metric == "dice" else 2.0)
    same = LinearFit(SamplePool(recipe, len(pairs)), pairs[:-8], 8).model({"source": 8, "target": 8})
    drawn = [each.predict(pairs[-1]).values for each in (model, same)]
    assert np.mean(np.abs(drawn[0] - drawn[1])) < 0.01 * np.ptp(drawn[0])
    assert is_linear_chain(own.bundle)


def test_the_best_size_is_chosen_by_patients_who_were_not_fitted(shades):
    recipe, pairs = shades
    inner = [pair for pair in pairs if pair.patient == pairs[0].patient]
    others = [pair for pair in pairs if pair.patient != pairs[0].patient]
    best, scores = choose_size(SamplePool(recipe, len(pairs)), others, inner)
    assert best == max(scores, key=scores.get)
    assert set(scores) == {8, 16, 32}
    model = LinearFit(SamplePool(recipe, len(pairs)), others, 256).model({"source": 8, "target": 8})
    own = [model.judge("target", pair, model.predict(pair), ("psnr",))["psnr"] for pair in inner]
    assert scores[8] == pytest.approx(np.mean(own), abs=1e-6)


def test_the_mean_image_is_the_mean_of_the_images(blobs):
    recipe, pairs = blobs
    pool = SamplePool(recipe, len(pairs))
    spec = pool.specs(pairs)["target"]
    mean = mean_image(spec, "target", pool.draw(spec, "target", pairs))
    expected = np.mean([pair.target.values > 0 for pair in pairs], axis=0)
    drawn = mean.predict(pairs[0])
    assert np.abs(mean.values - expected[..., 0]).max() < 1e-5
    assert np.array_equal(drawn.values > 0, expected > 0.5)


def test_a_case_holds_what_training_reports(blobs):
    recipe, pairs = blobs
    refitted = refit(recipe, pairs[:-6], [])
    engine = open_engine(refitted.bundle)
    model = Model(refitted.bundle, engine)
    views = plan_views((0.5, 1.0))
    coarsener = Coarsener(refitted.bundle.specs["source"])
    pair = pairs[-1]
    case, encoded = Examiner(model, (), (), views, ("psnr", "dice"), 3, coarsener).examine([pair])[0]
    score = score_pair(engine, refitted.bundle, pair, np.zeros(8))
    assert case.results[views[0]] == score.result
    assert case.beside["target_ceiling"] == score.ceiling
    assert case.beside["source_ceiling"]["psnr"] == pytest.approx(score.source_ceiling["psnr"])  # 0..255 both
    assert (case.shapes[views[0]], case.shapes[views[1]]) == ((20, 24), (10, 12))
    assert (encoded.source.shape, encoded.predicted.shape, encoded.truth.shape) == ((3, 8), (3, 8), (8,))
    assert min(case.seconds.encode, case.seconds.decode) > 0
    assert case.panels.truth.shape == (24, 20)  # rows, columns


def test_a_coarser_scan_is_encoded_where_it_lies():
    """A field in its own span, seen in fewer voxels, is the same field: no shift by half a voxel anywhere."""
    bundle = make_bundle(make_spec(3))
    model = open_model(bundle)
    grid = scan_grid(3)
    scan = image_in_span(bundle, random_latents(bundle, 1), grid).reoriented(("L", "P", "S"))
    pair = Pair("a", "p", "val", scan, scan, scan, scan)
    full = model.encode("source", pair).vectors
    spread = np.sqrt(bundle.arrays["source"]["prior_variance"])
    for sampling, most in ((POINT, 0.25), (AREA, 0.25)):
        seen = coarsen(bundle.specs["source"], scan, View(0.7, sampling))
        coarse = model.encode("source", pair, (seen, seen)).vectors
        assert np.abs((coarse - full) / spread).max() < most


def test_nothing_asks_for_validation_but_what_stops_early(blobs, monkeypatch):
    recipe, pairs = blobs
    assert not needs_validation(recipe)
    everyone = refit(recipe, pairs[:12], pairs[12:14])
    assert everyone.bundle.data["scans"] == 14
    from nfops.operators.linear import Operator

    monkeypatch.setattr(Operator, "needs_validation", True, raising=False)
    assert needs_validation(recipe)
    assert refit(recipe, pairs[:12], pairs[12:14]).bundle.data["scans"] == 12
    assert set(refit(recipe, pairs[:12], pairs[12:14]).tables["source"].ids) == {pair.scan_id for pair in pairs[:12]}


def test_samples_are_drawn_once_and_fewer_where_memory_is_short(blobs, monkeypatch):
    recipe, pairs = blobs
    pool = SamplePool(recipe, len(pairs))
    assert pool.copies == 2
    spec = pool.specs(pairs)["source"]
    one, two = (pool.draw(spec, "source", pairs[:3]) for _ in range(2))
    assert all(a is b for a, b in zip(one, two, strict=True))
    monkeypatch.setattr("nfops.evaluation.pool.MOST_BYTES", 5 * 24 * 20 * len(pairs) * 2)
    assert SamplePool(recipe, len(pairs)).copies == 1


def test_no_error_is_hidden_by_a_scan_of_nothing(blobs):
    recipe, pairs = blobs
    refitted = refit(recipe, pairs[:-6], [])
    model = open_model(refitted.bundle)
    empty = pairs[-1].source.with_values(np.full_like(pairs[-1].source.values, np.nan))
    broken = replace(pairs[-1], source=empty, source_scan=empty)
    with pytest.raises(InputError, match="NaN"):
        model.predict(broken)


def test_combinations_of_views_are_those_of_one_sampling():
    from nfops.evaluation.agreement import view_pairs

    views = plan_views((0.1, 0.25, 0.5))
    found = list(view_pairs(views))
    assert len(found) == 2 * len(list(itertools.combinations(range(4), 2)))
    assert all({views[a].sampling, views[b].sampling} <= {FULL, sampling} for sampling, a, b in found)

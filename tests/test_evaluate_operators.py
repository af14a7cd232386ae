# ruff: noqa: F401, F811 (fixtures are imported)
"""`nfops evaluate --operators`: every operator on the same fields, latents and folds, in one table."""

import csv
import json

import numpy as np
import pytest
from cli_fixtures import Trained, blobs, names, nfops

from nfops.cohort import load_pairs, read_cohort
from nfops.errors import RecipeError
from nfops.evaluation.folds import plan_folds
from nfops.evaluation.operators import choose_operators, with_operator
from nfops.evaluation.refit import refit
from nfops.evaluation.splits import all_splits
from nfops.operator_fitting import fit_operator
from nfops.recipe import load_recipe
from nfops.report.contest import operator_table

QUICK = ("--set", "evaluate.resolutions=[1.0]", "--no-ridge")


def evaluate(trained: Trained, out, *options):
    words = ["--recipe", trained.recipe, "--data", trained.data, "--out-dir", out, "-q", *QUICK, *options]
    return nfops("evaluate", *words)


@pytest.fixture(scope="module")
def compared(blobs, tmp_path_factory):
    out = tmp_path_factory.mktemp("operators") / "out"
    ran = evaluate(blobs, out, "--folds", "2", "--operators", "linear,svr,random-forest")
    assert ran.code == 0, ran.err
    with (out / "cases.csv").open(newline="") as file:
        return json.loads((out / "summary.json").read_text()), list(csv.DictReader(file)), ran, out


def test_a_row_an_operator_the_recipes_own_first(compared):
    summary, rows, ran, out = compared
    assert [(row["operator"], row["key"]) for row in summary["operators"]] == [
        ("linear", "result"),
        ("svr", "operator_svr"),
        ("random-forest", "operator_random-forest"),
    ]
    for row in summary["operators"]:
        column = "dice" if row["key"] == "result" else f"{row['key']}_dice"
        values = np.array([float(case[column]) for case in rows])
        found = summary["results"][row["key"]]["dice"]
        assert found["mean"] == pytest.approx(values.mean(), abs=1e-5)
        assert found["interval"][0] < found["mean"] < found["interval"][1]
        assert (row["seconds"] > 0, row["megabytes"] > 0, len(row["fits"])) == (True, True, 2)
    page = (out / "report.html").read_text()
    for text in ("Result: linear, the recipe&#x27;s own", "Operator: svr", "<h2>Operators</h2>", "Best mean Dice: "):
        assert text in page
    assert "Operator: random-forest" in ran.out


@pytest.mark.parametrize(
    ("interval", "said"),
    [([0.01, 0.03], "Best mean Dice: svr."), ([-0.01, 0.03], "may be chance"), (None, "too few patients to tell")],
)
def test_a_lead_that_may_be_chance_is_said_to_be(compared, interval, said):
    summary = json.loads(json.dumps(compared[0]))
    summary["results"]["operator_svr"]["dice"]["mean"] = 0.99
    summary["operators"][1]["less_own"]["dice"]["interval"] = interval
    assert said in operator_table(summary, ["dice"]).caption


def test_differences_are_paired(compared):
    summary, rows, *_ = compared
    own, *others = summary["operators"]
    assert "less_own" not in own
    for row in others:
        apart = np.array([float(case[f"{row['key']}_dice"]) - float(case["dice"]) for case in rows])
        assert row["less_own"]["dice"]["mean"] == pytest.approx(apart.mean(), abs=1e-5)
        assert row["better_cases"] == pytest.approx((apart > 0).mean(), abs=1e-9)


def test_the_recipes_own_operator_is_what_it_is_without_rivals(compared, blobs, tmp_path):
    alone = evaluate(blobs, tmp_path / "out", "--folds", "2", "--json").document
    assert alone["operators"] == []
    assert alone["results"]["result"] == compared[0]["results"]["result"]
    assert set(alone["results"]) == {"result", "source_ceiling", "target_ceiling", "mean"}


def test_all_operators_learn_from_the_same_latents(blobs, monkeypatch):
    """Also where one of them watches validation patients, who are then put aside for all."""
    recipe = load_recipe(blobs.recipe)
    pairs = list(load_pairs(recipe, read_cohort(recipe, blobs.data).with_splits(all_splits(recipe)), lambda done: None))
    seen = {}

    def spy(recipe, bundle, tables, *rest):
        seen[recipe.operator.component] = tables, rest[0]()
        return fit_operator(recipe, bundle, tables, *rest)

    monkeypatch.setattr("nfops.evaluation.refit.fit_operator", spy)
    refitted = refit(recipe, pairs[:12], pairs[12:14], rivals=("svr", "random-forest"))
    assert [one.operator for one in refitted.operators] == ["linear", "svr", "random-forest"]
    assert len({id(tables["source"]) for tables, _ in seen.values()}) == 1
    assert {len(used) for _, used in seen.values()} == {14}
    assert refitted.bundle.data["scans"] == 14
    for one in refitted.operators[1:]:
        assert one.bundle.arrays["source"] is refitted.bundle.arrays["source"]
    quick = load_recipe(blobs.recipe, ("operator={backend: residual-mlp, width: 8, epochs: 1}",))
    watched = refit(quick, pairs[:12], pairs[12:14], rivals=("linear",))
    assert watched.bundle.data["scans"] == 12
    assert watched.operators[1].bundle.operator["rows"] == 12 * 3


def test_ridge_at_the_same_size_is_shown_where_the_operator_learned_from_fewer(blobs, tmp_path):
    options = ("--folds", "2", "--operators", "residual-mlp", "--json", "--set", "evaluate.resolutions=[1.0]")
    words = ["--recipe", blobs.recipe, "--data", blobs.data, "--out-dir", tmp_path / "out", "-q", *options]
    ran = nfops("evaluate", *words)
    assert ran.code == 0, ran.err
    assert "ridge" in ran.document["results"]
    assert ran.document["baselines"]["recipe_is_linear"] is False
    assert "put aside for all of them" in (tmp_path / "out" / "report.html").read_text()


def test_others_have_their_defaults_and_set_is_the_recipes_own(blobs):
    recipe = load_recipe(blobs.recipe, ("operator={backend: svr, epsilon: 0.4}",))
    assert with_operator(recipe, "svr").operator.plain() == {"backend": "svr", "epsilon": 0.4}
    assert with_operator(recipe, "linear").operator.plain() == {"backend": "linear"}
    assert choose_operators(recipe, "linear,svr,linear") == (("linear",), ())
    assert choose_operators(recipe, "") == ((), ())


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--operators", "svr"), 2, "fits every operator anew"),
        (("--folds", "2", "--operators", "svm"), 4, 'not installed (did you mean "svr"?'),
        (("--folds", "2", "--operators", "svr,,linear"), 2, "expected all or names such as"),
    ],
)
def test_what_cannot_be_compared(blobs, tmp_path, options, code, said, dry):
    ran = evaluate(blobs, tmp_path / "out", *options, *dry)
    assert (ran.code, len(ran.err.splitlines())) == (code, 1)
    assert said in ran.err
    assert names(tmp_path) == []


FIELD_RIVAL = "small: {backend: oinr, widths: [4, 8], blocks: [0, 1], iterations: 30, looks: 2}"


def test_operators_on_fields_and_on_latents_in_one_table(blobs, tmp_path):
    """Each at every resolution, by the settings that the recipe names."""
    rivals = f"evaluate.operators={{{FIELD_RIVAL}, soft: {{backend: svr, epsilon: 0.3}}}}"
    words = ["--recipe", blobs.recipe, "--data", blobs.data, "--out-dir", tmp_path / "out", "-q", "--no-ridge"]
    views = ("--set", "evaluate.resolutions=[0.5, 1.0]")
    ran = nfops("evaluate", *words, *views, "--set", rivals, "--folds", "2", "--operators", "small,soft")
    assert ran.code == 0, ran.err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    own, small, soft = summary["operators"]
    assert [row["operator"] for row in (own, small, soft)] == ["linear", "small", "soft"]
    assert (small["settings"]["backend"], small["settings"]["widths"]) == ("oinr", [4, 8])
    assert (soft["settings"]["backend"], soft["settings"]["epsilon"]) == ("svr", 0.3)
    assert small["fits"][0]["iterations"] == 30
    with (tmp_path / "out" / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, column in ((own, "dice"), (small, "operator_small_dice"), (soft, "operator_soft_dice")):
        assert [view["name"] for view in row["resolutions"]] == ["100 %", "50 % area"]
        for view in row["resolutions"]:
            seen = [r for r in rows if float(r["resolution"]) == view["resolution"] and r["sampling"] != "point"]
            values = [float(r[column]) for r in seen]
            assert view["metrics"]["dice"]["mean"] == pytest.approx(np.mean(values), abs=1e-5)
    assert len({r["operator_small_dice"] for r in rows}) > 2
    assert "50 % area" in ran.out
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<h2>Operators and the resolution of the input</h2>" in page
    assert "small (backend oinr" in page
    assert (tmp_path / "out" / "operators.png").stat().st_size > 1000


def test_a_rival_that_cannot_be_used_is_refused_by_name_and_left_out_of_all(blobs, tmp_path):
    wrong = "evaluate.operators={mine: {backend: nobody}, soft: {backend: svr, epsilom: 0.3}}"
    ran = evaluate(blobs, tmp_path / "out", "--folds", "2", "--operators", "soft", "--set", wrong)
    assert (ran.code, "epsilom" in ran.err) == (4, True)
    ran = evaluate(blobs, tmp_path / "out", "--folds", "2", "--operators", "mine", "--set", wrong)
    assert (ran.code, "nobody" in ran.err) == (4, True)
    chosen, warnings = choose_operators(load_recipe(blobs.recipe, (wrong,)), "all")
    assert {"svr", "oinr", "residual-mlp"} <= set(chosen)
    assert not {"mine", "soft"} & set(chosen)
    assert ["nobody" in warnings[0], "epsilom" in warnings[1]] == [True, True]


def test_another_operator_may_not_have_the_name_of_the_recipes_own(blobs):
    recipe = load_recipe(blobs.recipe, ("evaluate.operators={linear: {backend: svr}}",))
    with pytest.raises(RecipeError, match="is the name of the recipe's own operator"):
        choose_operators(recipe, "linear")


def test_a_dry_run_names_the_operators(blobs, tmp_path):
    ran = evaluate(blobs, tmp_path / "out", "--folds", "2", "--operators", "all", "--dry-run", "--json")
    assert ran.code == 0, ran.err
    assert ran.document["operators"][0] == "linear"
    assert {"random-forest", "residual-mlp", "svr", "oinr"} <= set(ran.document["operators"])

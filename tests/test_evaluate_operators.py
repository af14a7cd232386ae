# ruff: noqa: F401, F811 (fixtures are imported)
"""`nfops evaluate --operators`: every operator on the same fields, latents and folds, in one table."""

import csv
import json

import numpy as np
import pytest
from cli_fixtures import Trained, blobs, names, nfops

from nfops.cohort import load_pairs, read_cohort
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


def test_field_operators_are_refused_by_name_and_left_out_of_all(blobs, monkeypatch, tmp_path):
    monkeypatch.setattr("nfops.operators.svr.Operator.acts_on", "field")
    ran = evaluate(blobs, tmp_path / "out", "--folds", "2", "--operators", "svr")
    assert (ran.code, "acts on fields" in ran.err) == (2, True)
    chosen, warnings = choose_operators(load_recipe(blobs.recipe), "all")
    assert "svr" not in chosen
    assert "oinr" not in chosen
    of_fields = [warning for warning in warnings if "acts on fields" in warning]
    assert [next(name for name in ("oinr", "svr") if name in warning) for warning in of_fields] == ["oinr", "svr"]


def test_a_dry_run_names_the_operators(blobs, tmp_path):
    ran = evaluate(blobs, tmp_path / "out", "--folds", "2", "--operators", "all", "--dry-run", "--json")
    assert ran.code == 0, ran.err
    assert ran.document["operators"][0] == "linear"
    assert {"random-forest", "residual-mlp", "svr"} <= set(ran.document["operators"])

# ruff: noqa: F401, F811 (fixtures are imported)
"""`nfops fit-inr`, `encode` and `train-operator`: the chain, its order, wrong recipes, refusals."""

import json
import shutil

import pytest
from cli_fixtures import SHADES_RECIPE, Trained, balls, blobs, leftovers, names, nfops, shades, train
from toy_cohorts import PICTURE_RECIPE, write_pictures

from nfops.cli.errors import Terminated

CHAIN = ("fit-inr", "encode", "train-operator")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a cohort and its recipe, nothing trained."""
    write_pictures(tmp_path / "data")
    (tmp_path / "data" / "recipe.yaml").rename(tmp_path / "r.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NFOPS_DATA", raising=False)
    return tmp_path


def run_chain(*options, upto=3):
    return [nfops(verb, "-r", "r.yaml", "--data", "data", *options) for verb in CHAIN[:upto]]


def test_the_chain_makes_a_bundle_and_says_what_it_reaches(here):
    fitted, encoded, trained = (ran for ran in run_chain("-q", "--json"))
    assert (fitted.code, encoded.code, trained.code) == (0, 0, 0)
    assert (fitted.err, encoded.err, trained.err) == ("", "", "")
    assert (fitted.document["scans"], fitted.document["patients"]) == (18, 9)
    assert all(0.5 < part <= 1 for part in fitted.document["explained"].values())
    assert (encoded.document["scans"], encoded.document["rows"]) == (24, 24 + 18 * 2)
    assert (trained.document["operator"]["rows"], trained.document["validation_scans"]) == (18 * 3, 6)
    dice = {kind: trained.document["validation"][kind]["dice"] for kind in ("mean", "result", "ceiling")}
    assert dice["mean"] < dice["result"] <= dice["ceiling"]
    assert names("bundles") == ["blobs", "blobs.latents"]
    assert names("bundles/blobs") == [
        "manifest.json",
        "operator.safetensors",
        "source.safetensors",
        "target.safetensors",
    ]
    assert leftovers(here) == []


def test_text_names_the_bundle_and_the_figures(here):
    fitted, encoded, trained = run_chain()
    assert fitted.out.startswith("bundles/blobs: fields of 18 scans, 9 patients; variance held: source ")
    assert encoded.out == "bundles/blobs.latents: 60 latents a side of 24 scans\n"
    assert "6 validation scans, dice: result " in trained.out
    assert "reading scans: 100 %" in fitted.err
    assert "\r" not in fitted.err
    assert "\x1b" not in fitted.err


def test_the_bundle_is_beside_the_recipe_wherever_one_stands(here, monkeypatch):
    (here / "else").mkdir()
    monkeypatch.chdir(here / "else")
    ran = nfops("fit-inr", "-r", here / "r.yaml", "--data", here / "data", "-q")
    assert ran.code == 0
    assert (here / "bundles" / "blobs" / "manifest.json").is_file()


def test_nfops_data_serves_where_data_is_not_given(here, monkeypatch):
    assert nfops("fit-inr", "-r", "r.yaml", "--dry-run").code == 2
    monkeypatch.setenv("NFOPS_DATA", str(here / "data"))
    assert nfops("fit-inr", "-r", "r.yaml", "--dry-run").code == 0


def test_the_manifest_holds_the_resolved_recipe_and_no_path(here):
    settings = ["--set", "source.field.latent=5", "--set", "operator.strengths=[0.5]", "-q"]
    assert [ran.code for ran in run_chain(*settings)] == [0, 0, 0]
    text = (here / "bundles" / "blobs" / "manifest.json").read_text()
    manifest = json.loads(text)
    assert manifest["recipe"]["source"]["field"]["latent"] == 5
    assert manifest["recipe"]["operator"]["strengths"] == [0.5]
    assert manifest["recipe"]["encode"]["steps"] == 3
    assert (manifest["seed"], manifest["data"]["scans"]) == (3, 18)
    assert len(manifest["data"]["table_sha256"]) == 64
    assert str(here) not in text


@pytest.mark.parametrize("changed", ["augment.copies=1", "encode.prior=0.5", "seed=9", "source.field.latent=5"])
def test_a_bundle_never_records_settings_that_were_not_used(here, changed):
    run_chain("-q", upto=2)
    for verb in CHAIN[1:]:
        ran = nfops(verb, "-r", "r.yaml", "--data", "data", "-q", "-f", "--set", changed)
        assert (ran.code, len(ran.err.splitlines())) == (4, 1)
        assert f"fitted with {changed.partition('=')[0]}" in ran.err
    ran = nfops("train-operator", "-r", "r.yaml", "--data", "data", "-q", "--set", "operator.strengths=[7]")
    manifest = json.loads((here / "bundles" / "blobs" / "manifest.json").read_text())
    assert ran.code == 0
    assert manifest["recipe"]["operator"]["strengths"] == [7]


def test_the_same_seed_gives_the_same_bundle(here):
    digests = []
    for name in ("one", "two"):
        assert [ran.code for ran in run_chain("-q", "--bundle", name)] == [0, 0, 0]
        digests.append(json.loads((here / name / "manifest.json").read_text())["files"])
    assert digests[0] == digests[1]


# --- the order of things -----------------------------------------------------------------------------------------


def test_encode_before_fit_inr_says_what_comes_first(here):
    for verb in CHAIN[1:]:
        ran = nfops(verb, "-r", "r.yaml", "--data", "data")
        assert (ran.code, len(ran.err.splitlines())) == (4, 1)
        assert "no bundle here (fit-inr, encode and train-operator make one" in ran.err


def test_train_operator_before_encode_says_what_comes_first(here):
    run_chain("-q", upto=1)
    ran = nfops("train-operator", "-r", "r.yaml", "--data", "data")
    assert (ran.code, len(ran.err.splitlines())) == (4, 1)
    assert "encode" in ran.err


def test_a5_what_is_trained_already_is_refused_and_force_replaces_it(here):
    assert [ran.code for ran in run_chain("-q")] == [0, 0, 0]
    before = (here / "bundles" / "blobs" / "manifest.json").read_bytes()
    for verb in CHAIN:
        for dry in ([], ["--dry-run"]):
            ran = nfops(verb, "-r", "r.yaml", "--data", "data", *dry)
            assert (ran.code, len(ran.err.splitlines())) == (5, 1)
            assert "--force" in ran.err
    assert (here / "bundles" / "blobs" / "manifest.json").read_bytes() == before
    assert [ran.code for ran in run_chain("-q", "--force")] == [0, 0, 0]


def test_c66_latents_of_other_fields_are_refused(here):
    run_chain("-q", upto=2)
    assert nfops("fit-inr", "-r", "r.yaml", "--data", "data", "-q", "-f", "--set", "seed=9").code == 0
    ran = nfops("train-operator", "-r", "r.yaml", "--data", "data", "--set", "seed=9")
    assert (ran.code, len(ran.err.splitlines())) == (4, 1)
    assert "encode --force" in ran.err


def test_a_bundle_of_another_recipe_is_not_trained_further(here):
    run_chain("-q", upto=2)
    (here / "s.yaml").write_text(PICTURE_RECIPE.replace("name: blobs", "name: other"))
    for verb in CHAIN[1:]:
        ran = nfops(verb, "-r", "s.yaml", "--data", "data", "--bundle", "bundles/blobs", "-f")
        assert (ran.code, len(ran.err.splitlines())) == (4, 1)
        assert "fitted with name 'blobs', the recipe says 'other'" in ran.err


def test_a_folder_of_something_else_is_never_replaced(here):
    (here / "mine").mkdir()
    (here / "mine" / "thesis.txt").write_text("years")
    ran = nfops("fit-inr", "-r", "r.yaml", "--data", "data", "--bundle", "mine", "--force")
    assert ran.code == 5
    assert names("mine") == ["thesis.txt"]


def test_train_operator_asks_for_the_data_before_it_trains(here):
    run_chain("-q", upto=2)
    assert nfops("train-operator", "-r", "r.yaml", "--data", "none").code == 2
    assert nfops("train-operator", "-r", "r.yaml", "--data", "data", "--device", "cuda:99").code == 6
    assert "operator.safetensors" not in names("bundles/blobs")


# --- dry runs, devices, stops ------------------------------------------------------------------------------------


def test_a13_a_dry_run_counts_and_writes_nothing(here):
    ran = nfops("fit-inr", "-r", "r.yaml", "--data", "data", "--dry-run", "--json")
    assert ran.document == {"scans": 18, "patients": 9, "samples a side": 54, "bundle": "bundles/blobs"}
    assert names() == ["data", "r.yaml"]
    run_chain("-q", upto=1)
    ran = nfops("encode", "-r", "r.yaml", "--data", "data", "--dry-run", "--json")
    assert ran.document == {"scans": 24, "augmented copies": 36, "latents": "bundles/blobs.latents"}
    assert names("bundles") == ["blobs"]
    nfops("encode", "-r", "r.yaml", "--data", "data", "-q")
    ran = nfops("train-operator", "-r", "r.yaml", "--data", "data", "--dry-run", "--json")
    assert ran.document == {"operator": "linear", "pairs of latents": 54, "bundle": "bundles/blobs"}


@pytest.mark.parametrize("verb", CHAIN)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_c56_a_device_that_is_not_there(blobs, here, verb, dry):
    bundle = here / "b"
    if verb != "fit-inr":
        shutil.copytree(blobs.bundle, bundle)
        shutil.copytree(f"{blobs.bundle}.latents", f"{bundle}.latents")
    words = ["-r", "r.yaml", "--data", "data", "--bundle", bundle, "--force", "--device", "cuda:99"]
    ran = nfops(verb, *words, *dry)
    assert (ran.code, len(ran.err.splitlines())) == (6, 1)


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (Terminated(), 143), (MemoryError(), 6)])
def test_c50_a_stopped_training_leaves_nothing(here, monkeypatch, error, code):
    def stop(*_args, **_options):
        raise error

    monkeypatch.setattr("nfops.bundle.Path.write_text", stop)
    ran = nfops("fit-inr", "-r", "r.yaml", "--data", "data", "-q")
    assert (ran.code, len(ran.err.splitlines())) == (code, 1)
    monkeypatch.undo()
    assert names(here / "bundles") == []


# --- the data ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (shutil.rmtree, 2, "no such table (say where the data is with --data DIR"),
        (lambda data: (data / "images" / "b3.png").unlink(), 3, "1 of 48 images are missing: data/images/b3.png"),
        (lambda data: (data / "split.csv").write_text("id,patient\nb0,p0\n"), 3, "no column 'split'"),
        (lambda data: (data / "split.csv").write_text("id,patient,split\n"), 9, "none of 0 rows"),
        (lambda data: (data / "split.csv").write_bytes(b"id,\xff\n"), 3, "not a CSV table"),
        (lambda data: (data / "images" / "b3.png").write_bytes(b""), 3, "b3.png: empty file"),
        (
            lambda data: (data / "split.csv").write_text("id,patient,split\nb0,p,train\nb1,p,val\n"),
            3,
            "patient 'p' is in two splits, train and val",
        ),
        (
            lambda data: (data / "split.csv").write_text("id,patient,split\nb0,p,train\nb0,p,train\n"),
            3,
            "id 'b0' stands in two rows",
        ),
    ],
)
def test_c66_data_that_cannot_be_used(here, change, code, said):
    change(here / "data")
    ran = nfops("fit-inr", "-r", "r.yaml", "--data", "data", "-q")
    assert (ran.code, len(ran.err.splitlines())) == (code, 1)
    assert said in ran.err
    assert "bundles" not in names() or names("bundles") == []


# --- wrong recipes (C31 to C38) ----------------------------------------------------------------------------------


def refuse(here, text, *options):
    (here / "w.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return nfops("fit-inr", "-r", "w.yaml", "--data", "data", "--dry-run", *options)


def test_c32_every_mistake_of_a_recipe_is_told_at_once_with_its_line(here):
    wrong = PICTURE_RECIPE.replace("shape: [24, 20]", "shpae: [24, 20]").replace("head: sigmoid", "head: sigmiod")
    ran = refuse(here, wrong.replace("dims: 2", "dims: two"))
    assert ran.code == 4
    lines = ran.err.splitlines()
    assert all(line.startswith("nfops fit-inr: error: w.yaml:") for line in lines)
    assert any('w.yaml:14: unknown key "shpae" (did you mean "shape"?)' in line for line in lines)
    assert any("w.yaml:11: geometry.dims" in line for line in lines)
    assert any("w.yaml:19: target.head" in line for line in lines)
    problems = refuse(here, wrong, "--json").document["error"]["problems"]
    assert len(problems) == len(refuse(here, wrong).err.splitlines()) == 3


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seed: 3", "seed: 1.5", "w.yaml:3: seed: expected an integer"),
        ("seed: 3", "seed: no", 'got text "no"'),
        ("seed: 3", "seed: 3\nseed: 4", "w.yaml:4"),
        ("seed: 3", "seed: !!python/object:os.system 3", "w.yaml:3"),
        ("seed: 3", "seed: &a [*a]", "w.yaml:3"),
        ("seed: 3", "seed:\t3\n\tx: 3", "w.yaml:"),
        ("seed: 3", "schema: 99", "needs nfops >"),
        ("seed: 3", "_target_: os.system", "w.yaml:3"),
        ("seed: 3", "seed: ${data.root}", "w.yaml:3"),
        ("backend: linear", "backend: linaer", 'did you mean "linear"'),
        ("backend: linear", "backend: os.path", "os.path"),
        ("backbone: fpca", "backbone: fcpa", 'did you mean "fpca"'),
        ("latent: 8", "latent: many", 'latent: expected an integer (at least 1), got text "many"'),
        ("latent: 8", "latnet: 8", 'did you mean "latent"'),
        ("flip: [L]", "flip: [S]", "augment.flip"),
    ],
)
def test_c33_c38_wrong_recipes_are_refused_before_the_data_is_read(here, old, new, said):
    shutil.rmtree(here / "data")
    assert old in PICTURE_RECIPE
    ran = refuse(here, PICTURE_RECIPE.replace(old, new))
    assert ran.code == 4
    assert said in ran.err
    assert "Traceback" not in ran.err


def test_c31_a_recipe_may_have_a_byte_order_mark_and_windows_lines(here):
    assert refuse(here, b"\xef\xbb\xbf" + PICTURE_RECIPE.encode().replace(b"\n", b"\r\n")).code == 0


@pytest.mark.parametrize(("recipe", "code"), [("none.yaml", 2), ("data", 4), ("latin.yaml", 4), ("nucleus", 4)])
def test_c31_a_recipe_that_cannot_be_read(here, recipe, code):
    (here / "latin.yaml").write_bytes(b"name: \xe9\n")
    ran = nfops("fit-inr", "-r", recipe, "--data", "data")
    assert (ran.code, len(ran.err.splitlines())) == (code, 1)


@pytest.mark.parametrize(
    ("setting", "code", "said"),
    [
        ("source.field.latent", 2, "expected KEY=VALUE"),
        ("sorce.field.latent=3", 4, 'did you mean "source"'),
        ("source.field.latent=0", 4, "--set source.field.latent=0: source.field.latent: expected an integer"),
        ("operator.strengths=abc", 4, "operator.strengths: expected a list"),
        ("name.x=1", 4, "inside a value that has no keys"),
    ],
)
def test_a_wrong_setting_is_named(here, setting, code, said):
    ran = nfops("fit-inr", "-r", "r.yaml", "--data", "data", "--dry-run", "--set", setting)
    assert (ran.code, len(ran.err.splitlines())) == (code, 1)
    assert said in ran.err

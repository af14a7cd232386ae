# ruff: noqa: F401, F811 (fixtures are imported)
"""`nfops evaluate`: what it writes, what it refuses, and that its figures are those of its own table."""

import csv
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from cli_fixtures import Trained, balls, blobs, leftovers, names, nfops, shades, train, write_shades
from PIL import Image as Picture

from nfops.errors import UsageError
from nfops.report.charts import draw_curves
from nfops.workflows.evaluate import Request

FILES = ["cases.csv", "examples.png", "patients.png", "report.html", "resolutions.png", "spectrum.png", "summary.json"]
RESOLUTIONS = ("--set", "evaluate.resolutions=[0.25,0.5]")


def evaluate(trained: Trained, out: Path, *options: object):
    words = ["--recipe", trained.recipe, "--data", trained.data, "--out-dir", out, "-q", *options]
    return nfops("evaluate", *words)


def read(out: Path):
    with (out / "cases.csv").open(newline="") as file:
        return json.loads((out / "summary.json").read_text()), list(csv.DictReader(file))


@pytest.fixture(scope="module")
def on_split(blobs, tmp_path_factory):
    """The validation split of the blobs: where the report is, and how the run ended."""
    out = tmp_path_factory.mktemp("evaluate") / "out"
    before = {path.name: path.read_bytes() for path in blobs.bundle.iterdir()}
    ran = evaluate(blobs, out, *RESOLUTIONS, "--json")
    assert ran.code == 0, ran.err
    assert {path.name: path.read_bytes() for path in blobs.bundle.iterdir()} == before
    return out, ran


@pytest.fixture(scope="module")
def on_folds(shades, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluate") / "out"
    ran = evaluate(shades, out, "--folds", "3", "--bundle", out / "none", "--set", "data.validation=[train]")
    assert ran.code == 0, ran.err
    return out, ran


def test_a_split_gives_a_table_a_summary_figures_and_a_page(on_split):
    out, ran = on_split
    assert names(out) == FILES
    summary, rows = read(out)
    assert ran.document == {"out": str(out), **summary}
    assert (ran.err, leftovers(out.parent)) == ("", [])
    assert (summary["mode"], summary["splits"], summary["cases"], summary["patients"]) == ("split", ["val"], 6, 3)
    assert len(rows) == 6 * 5
    assert {(row["resolution"], row["sampling"], row["source_shape"]) for row in rows} == {
        ("1", "full", "20x24"),
        ("0.5", "area", "10x12"),
        ("0.5", "point", "10x12"),
        ("0.25", "area", "5x6"),
        ("0.25", "point", "5x6"),
    }


def test_the_summary_is_that_of_the_table(on_split):
    summary, rows = read(on_split[0])
    full = [row for row in rows if row["sampling"] == "full"]
    for kind in ("target_ceiling", "mean", "ridge_best"):
        values = [float(row[f"{kind}_dice"]) for row in full]
        assert summary["results"][kind]["dice"]["mean"] == pytest.approx(np.mean(values), abs=1e-5)
    for row in summary["resolutions"]:
        own = [r for r in rows if (float(r["resolution"]), r["sampling"]) == (row["resolution"], row["sampling"])]
        for metric, found in row["metrics"].items():
            values = np.array([float(r[metric]) for r in own])
            assert found["mean"] == pytest.approx(values.mean(), abs=1e-5)
            for patient, mean in found["patients"].items():
                assert mean == pytest.approx(values[[r["patient"] == patient for r in own]].mean(), abs=1e-5)
    best = summary["differences"]["best"]
    apart = [float(row["dice"]) - float(row[f"{best}_dice"]) for row in full]
    assert summary["differences"]["to"][best]["dice"]["mean"] == pytest.approx(np.mean(apart), abs=1e-5)
    order = sorted(full, key=lambda row: float(row["dice"]))
    assert (summary["examples"]["worst"], summary["examples"]["best"]) == (order[0]["id"], order[-1]["id"])


def test_few_patients_are_named_in_place_of_an_interval(on_split):
    summary, _ = read(on_split[0])
    assert summary["results"]["result"]["dice"]["interval"] is None
    assert set(summary["results"]["result"]["dice"]["patients"]) == {"p9", "p10", "p11"}
    assert "p10 0." in (on_split[0] / "report.html").read_text()


def test_the_summary_says_what_made_it(on_split, blobs):
    summary, _ = read(on_split[0])
    manifest = json.loads((blobs.bundle / "manifest.json").read_text())
    recipe = {**manifest["recipe"], "evaluate": {**manifest["recipe"]["evaluate"], "resolutions": [0.25, 0.5]}}
    assert summary["recipe"] == recipe
    assert summary["table_sha256"] == manifest["data"]["table_sha256"] == summary["bundle"]["table_sha256"]
    assert {"python", "numpy", "torch", "scikit-image"} <= set(summary["versions"])
    assert summary["warnings"] == []
    assert all(value > 0 for value in summary["seconds"].values())
    assert str(blobs.data) not in json.dumps(summary) + (on_split[0] / "report.html").read_text()


class Page(HTMLParser):
    """Tags that are open and closed, what is pointed to, the text."""

    def __init__(self):
        super().__init__()
        self.open, self.targets, self.scripts = [], [], 0

    def handle_starttag(self, tag, attrs):
        self.targets += [value for key, value in attrs if key in ("src", "href", "action")]
        self.scripts += tag in ("script", "link", "iframe")
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_needs_no_other_file(on_split):
    text = (on_split[0] / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert (page.open, page.scripts) == ([], 0)
    pictures = [file for file in FILES if file.endswith(".png")]
    assert len(page.targets) == len(pictures)
    assert all(target.startswith("data:image/png;base64,") for target in page.targets)
    assert not re.search(r"https?://|url\(|@import", text)
    assert text.index("<h2>Results") < text.index("<h2>Figures") < text.index("<h2>How it was measured")
    assert "@media print" in text


def test_figures_are_pictures(on_split):
    for file in FILES:
        if file.endswith(".png"):
            with Picture.open(on_split[0] / file) as picture:
                assert picture.format == "PNG"
                assert min(picture.size) > 100
                assert np.ptp(np.asarray(picture.convert("L"))) > 100


def test_text_is_a_table_with_ceiling_and_baselines(blobs, tmp_path):
    ran = evaluate(blobs, tmp_path / "out", "--no-ridge")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0] == "blobs: 6 cases of 3 patients, split val"
    assert {"Result", "Ceiling: target encoded and decoded", "Baseline: mean image"} <= {
        re.split(r"\s{2,}", line)[0] for line in lines
    }
    assert "ridge" not in " ".join(lines[2:7])
    assert lines[-1].startswith(str(tmp_path / "out" / "report.html"))
    assert max(map(len, lines)) < 130


# --- folds -------------------------------------------------------------------------------------------------------


def test_folds_leave_every_patient_out_once_and_need_no_bundle(on_folds):
    out, _ = on_folds
    summary, rows = read(out)
    assert names(out) == [name for name in FILES if name != "resolutions.png"]
    assert sorted(patient for fold in summary["folds"] for patient in fold["patients"]) == [f"s{n}" for n in range(10)]
    for fold in summary["folds"]:
        assert fold["inner_patients"]
        assert not set(fold["inner_patients"]) & set(fold["patients"])
        own = {row["patient"] for row in rows if row["fold"] == str(fold["fold"])}
        assert own == set(fold["patients"])
    assert {row["id"] for row in rows} == {f"s{n}#{k}" for n in range(10) for k in range(4)}


def test_folds_have_intervals_about_their_means(on_folds):
    summary, _ = read(on_folds[0])
    for kind in ("result", "target_ceiling", "mean", "ridge_best"):
        for found in summary["results"][kind].values():
            low, high = found["interval"]
            assert low <= found["mean"] <= high
            assert high - low > 0
    assert summary["results"]["mean"]["psnr"]["mean"] < summary["results"]["result"]["psnr"]["mean"]
    assert summary["differences"]["to"]["mean"]["psnr"]["interval"][0] > 0


def test_what_is_left_out_is_not_learned_from(shades, tmp_path):
    """A changed image changes what it is itself compared in, and the folds that learn from it; no other figure."""
    folder = write_shades(tmp_path / "data")
    changed = Trained(folder, folder / "recipe.yaml", folder / "bundles" / "shades")
    options = ("--folds", "2", "--no-ridge", "--set", "data.validation=[train]", "--set", "evaluate.metrics=[psnr]")
    assert evaluate(shades, tmp_path / "one", *options).code == 0
    summary, before = read(tmp_path / "one")
    left_out = summary["folds"][0]["patients"]
    source = folder / "source" / f"{left_out[0]}.nii.gz"
    shutil.copy(folder / "source" / f"{left_out[1]}.nii.gz", source)
    assert evaluate(changed, tmp_path / "two", *options).code == 0
    _, after = read(tmp_path / "two")
    for one, two in zip(before, after, strict=True):
        if one["fold"] == "1":
            same = one["patient"] != left_out[0]
            assert (one["psnr"] == two["psnr"]) == same, one["id"]
            assert one["target_ceiling_psnr"] == two["target_ceiling_psnr"]
            assert one["mean_psnr"] == two["mean_psnr"]
    assert any(one["psnr"] != two["psnr"] for one, two in zip(before, after, strict=True) if one["fold"] == "2")


def test_an_operator_that_stops_early_is_compared_with_ridge_at_its_own_size(blobs, tmp_path):
    quick = ("operator.backend=residual-mlp", "operator.width=16", "operator.epochs=2", "evaluate.resolutions=[1.0]")
    settings = [word for setting in quick for word in ("--set", setting)]
    ran = evaluate(blobs, tmp_path / "out", "--json", "--folds", "2", *settings)
    assert ran.code == 0, ran.err
    assert {"ridge", "ridge_best"} <= set(ran.document["results"])
    assert ran.document["baselines"]["recipe_is_linear"] is False
    for fit in ran.document["baselines"]["fits"]:
        assert fit["sizes"]["ridge"] == {"source": 8, "target": 8}
        assert str(fit["sizes"]["ridge_best"]["source"]) == max(fit["tried"], key=fit["tried"].get)


def test_training_curves_are_drawn_where_there_are_any(tmp_path):
    curves = [{"source": [[0, 0.3, None], [10, 0.2, 0.25]], "target": [[0, 1.0, 1.1], [10, 0.5, 0.7]]}, {}]
    draw_curves(tmp_path / "curves.png", curves)
    with Picture.open(tmp_path / "curves.png") as picture:
        assert picture.size[0] > picture.size[1]


def test_labels_in_volumes(balls, tmp_path):
    ran = evaluate(balls, tmp_path / "out", "--json", *RESOLUTIONS)
    assert ran.code == 0, ran.err
    assert list(ran.document["results"]["result"]) == ["dice", "dice_1", "dice_2", "iou", "iou_1", "iou_2"]
    assert ran.document["range"]["labels"] == [0, 1, 2]
    assert "<h2>Labels</h2>" in (tmp_path / "out" / "report.html").read_text()


# --- a recipe without a target -----------------------------------------------------------------------------------


def test_without_a_target_the_reconstruction_is_the_result(blobs, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(blobs.data, data, ignore=shutil.ignore_patterns("bundles"))
    text = (data / "recipe.yaml").read_text()
    text = re.sub(r'  target: "masks.*\n', "", text)
    text = re.sub(r"target:\n(  .*\n)+", "", text)
    (data / "recipe.yaml").write_text(text.replace("operator: {backend: linear}\n", ""))
    ran = nfops("fit-inr", "-r", data / "recipe.yaml", "--data", data, "-q")
    assert ran.code == 0, ran.err
    alone = Trained(data, data / "recipe.yaml", data / "bundles" / "blobs")
    ran = evaluate(alone, tmp_path / "out", "--json", *RESOLUTIONS)
    assert ran.code == 0, ran.err
    both = evaluate(blobs, tmp_path / "both", "--json", "--no-ridge").document
    assert ran.document["results"]["result"]["psnr"]["mean"] == pytest.approx(
        both["results"]["source_ceiling"]["psnr"]["mean"], abs=0.01
    )
    assert set(ran.document["results"]) == {"result", "mean"}
    assert set(ran.document["agreement"]) == {"source"}
    assert ran.document["limits"] == {}


# --- probing -----------------------------------------------------------------------------------------------------


def write_labels(data: Path, path: Path, *, with_split: bool = False) -> Path:
    """The class is whether a picture is bright: latents know."""
    means = {file.stem: np.asarray(Picture.open(file)).mean() for file in sorted((data / "images").glob("*.png"))}
    middle = np.median(list(means.values()))
    rows = ["id,label" + (",split" if with_split else "")]
    for name, mean in means.items():
        split = ",train" if int(name[1:]) < 20 else ",test"
        rows.append(f"{name},{'bright' if mean > middle else 'dark'}{split if with_split else ''}")
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("folds", [(), ("--folds", "3")])
def test_a_class_that_is_in_the_images_is_read_off_latents(blobs, tmp_path, folds):
    labels = write_labels(blobs.data, tmp_path / "labels.csv")
    ran = evaluate(blobs, tmp_path / "out", "--json", "--no-ridge", "--probe", labels, *folds)
    assert ran.code == 0, ran.err
    probe = ran.document["probe"]
    assert {(row["features"], row["classifier"]) for row in probe["rows"]} == {
        (where, name) for where in ("latents", "PCA of pixels") for name in ("k-NN", "logistic", "MLP")
    }
    assert probe["cases"] == (24 if folds else 6)
    assert sum(probe["classes"].values()) == probe["cases"]
    logistic = next(row for row in probe["rows"] if (row["features"], row["classifier"]) == ("latents", "logistic"))
    assert logistic["auc"]["value"] > 0.85
    assert (logistic["auc"]["interval"] is not None) == bool(folds)
    assert "Probing: label" in (tmp_path / "out" / "report.html").read_text()


def test_a_table_of_labels_may_have_its_own_split_and_column(blobs, tmp_path):
    labels = write_labels(blobs.data, tmp_path / "labels.csv", with_split=True)
    labels.write_text(labels.read_text().replace("label", "shade", 1))
    options = ("--json", "--no-ridge", "--probe", labels, "--probe-column", "shade")
    ran = evaluate(blobs, tmp_path / "out", *options)
    assert ran.code == 0, ran.err
    assert ran.document["probe"]["cases"] == 4  # of the six validation rows two are for training, says the table


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (None, 2, "no such table"),
        ("id,label\n", 3, "expected columns id and label, got nothing"),
        ("id,kind\nb0,x\n", 3, "expected columns id and label, got id, kind"),
        ("id,label\nb0,x\nb1,x\n", 3, "expected at least 2 classes, got 1"),
        ("id,label\nzz,x\nyy,z\n", 3, "0 training and 0 evaluated scans have a label"),
    ],
)
def test_labels_that_cannot_be_used(blobs, tmp_path, text, code, said):
    if text is not None:
        (tmp_path / "labels.csv").write_text(text)
    ran = evaluate(blobs, tmp_path / "out", "--no-ridge", "--probe", tmp_path / "labels.csv")
    assert (ran.code, len(ran.err.splitlines())) == (code, 1)
    assert said in ran.err
    assert not (tmp_path / "out").exists()


# --- what is refused ---------------------------------------------------------------------------------------------


def test_a_split_that_was_trained_on_is_refused_unless_it_is_named(blobs, tmp_path):
    ran = evaluate(blobs, tmp_path / "out", "--set", "data.validation=[train]")
    assert ran.code == 2
    assert "split train was trained on" in ran.err
    named = evaluate(blobs, tmp_path / "out", "--split", "train", "--no-ridge", "--set", "evaluate.resolutions=[1.0]")
    assert named.code == 0
    assert "warning: Split train was trained on" in named.out
    assert "Split train was trained on" in (tmp_path / "out" / "report.html").read_text()


def test_a_split_that_stopped_the_training_is_told(blobs, tmp_path, monkeypatch):
    monkeypatch.setattr("nfops.operators.linear.Operator.needs_validation", True, raising=False)
    ran = evaluate(blobs, tmp_path / "out", "--no-ridge", "--json", "--set", "evaluate.resolutions=[1.0]")
    assert ran.code == 0
    assert ["told the training when to stop" in text for text in ran.document["warnings"]] == [True]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--split", "test"), 9, "no row has split test"),
        (("--folds", "1"), 2, "expected patient or a number from 2 to 12"),
        (("--folds", "3", "--split", "val"), 2, "expected no --split"),
        (("--set", "source.field.latent=5"), 4, "repeat its --set"),
        (("--set", "data.validation=[]"), 2, "has no data.validation"),
        (("--bundle", "nowhere"), 4, "no bundle here"),
    ],
)
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_what_cannot_be_evaluated(blobs, tmp_path, monkeypatch, options, code, said, dry):
    monkeypatch.chdir(tmp_path)
    ran = evaluate(blobs, tmp_path / "out", *options, *dry)
    assert (ran.code, len(ran.err.splitlines())) == (code, 1)
    assert said in ran.err
    assert names(tmp_path) == []


def test_a_device_that_is_not_there_is_refused(blobs, tmp_path):
    ran = evaluate(blobs, tmp_path / "out", "--device", "cuda:99")
    assert (ran.code, len(ran.err.splitlines())) == (6, 1)
    assert "cuda:99" in ran.err
    assert names(tmp_path) == []


def test_a_report_that_is_there_is_kept_unless_forced(blobs, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    assert evaluate(blobs, out, "--no-ridge").code == 5
    assert evaluate(blobs, out, "--no-ridge", "--force").code == 5  # not a report: never replaced
    assert names(out) == ["thesis.tex"]
    (out / "thesis.tex").unlink()
    assert evaluate(blobs, out, "--no-ridge", "--force").code == 0
    assert evaluate(blobs, out, "--no-ridge").code == 5
    assert evaluate(blobs, out, "--no-ridge", "--force").code == 0


@pytest.mark.parametrize("where", ["nfops.report.html.page", "nfops.report.charts.draw_patients"])
def test_a_report_is_there_whole_or_not_at_all(blobs, tmp_path, monkeypatch, where):
    def stop(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(where, stop)
    monkeypatch.setattr(where.replace("charts", "figures"), stop)
    assert evaluate(blobs, tmp_path / "out", "--no-ridge").code == 130
    assert names(tmp_path) == []


def test_a_dry_run_says_what_would_be_done(blobs, tmp_path):
    ran = evaluate(blobs, tmp_path / "out", "--dry-run", "--json", *RESOLUTIONS)
    assert ran.code == 0
    assert ran.document["scans"] == 6
    assert ran.document["resolutions"] == ["100 %", "50 % area", "50 % point", "25 % area", "25 % point"]
    ran = evaluate(blobs, tmp_path / "out", "--dry-run", "--json", "--folds", "patient")
    assert (ran.document["scans"], ran.document["patients"], ran.document["folds"]) == (24, 12, 12)
    assert names(tmp_path) == []


def test_folds_and_a_split_exclude_each_other():
    with pytest.raises(UsageError, match="expected no --split"):
        Request(splits=("val",), folds="5")


def test_the_same_evaluation_gives_the_same_figures(blobs, on_split, tmp_path):
    assert evaluate(blobs, tmp_path / "out", *RESOLUTIONS).code == 0
    (one, rows), (two, others) = read(on_split[0]), read(tmp_path / "out")
    assert {**one, "seconds": 0} == {**two, "seconds": 0}
    for row, other in zip(rows, others, strict=True):
        assert {k: v for k, v in row.items() if not k.endswith("_s")} == {
            k: v for k, v in other.items() if not k.endswith("_s")
        }


def test_progress_names_the_folds(shades, tmp_path):
    words = ["--recipe", shades.recipe, "--data", shades.data, "--out-dir", tmp_path / "out", "--progress", "plain"]
    ran = nfops("evaluate", *words, "--folds", "2", "--no-ridge", "--set", "data.validation=[train]")
    assert ran.code == 0
    assert "fold 2 of 2" in ran.err
    assert "folds: 100 % (2/2)" in ran.err
    assert len(ran.err.splitlines()) < 40

"""What the shipped recipes reach in patient-grouped folds over train + val rows, everything refitted in each fold.

python benchmarks/accuracy.py DATA RECIPE... [--folds N] [--set KEY=VALUE] [--json FILE]

Folds leave out one patient at a time (`--folds patient`, the default for up to 12 patients) or a group of them.
Beside each result: the target's ceiling, the mean, and `plain`: the same chain without augmentation and with 64
latents a side (32 for few scans), in the same folds.
"""

import argparse
import csv
import json
import tempfile
from pathlib import Path

import numpy as np

from nfops.bundle import load_bundle
from nfops.cohort import load_pairs, read_cohort
from nfops.engines import open_engine
from nfops.latents import LatentTable, latents_dir
from nfops.recipe import Recipe, load_recipe
from nfops.scoring import Score, score_pair
from nfops.shipped import find_recipe
from nfops.workflows.encode import encode
from nfops.workflows.fit_inr import fit_inr
from nfops.workflows.train_operator import train_operator

FEW_SCANS = 100
KINDS = ("result", "ceiling", "mean", "source_ceiling")


def folds_of(recipe: Recipe, data: Path, folds: str) -> dict[str, int]:
    """Patient -> fold."""
    patients = sorted({row.patient for row in read_cohort(recipe, data).rows})
    if folds == "patient" or (folds == "auto" and len(patients) <= 12):
        return {patient: number for number, patient in enumerate(patients)}
    count = 5 if folds == "auto" else int(folds)
    shuffled = np.random.default_rng(0).permutation(len(patients))
    return {patient: int(shuffled[number] % count) for number, patient in enumerate(patients)}


def plain(recipe: Recipe, data: Path) -> list[str]:
    """No augmentation and 64 latents a side, 32 for few scans: functional PCA by SVD, and ridge."""
    latent = 64 if len(read_cohort(recipe, data).rows) > FEW_SCANS else 32
    return ["augment.copies=0", f"source.field.latent={latent}", f"target.field.latent={latent}"]


def run_fold(path: Path, settings: list[str], data: Path, left_out: set[str], folder: Path) -> list[Score]:
    """Fit without some patients, score them."""
    recipe = load_recipe(path, settings)
    table = data / recipe.data.root / recipe.data.table
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    key = recipe.data.patient or recipe.data.id
    for row in rows:
        row["fold"] = "out" if row[key] in left_out else "in"
    with (folder / "fold.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    own = [f"data.table={folder / 'fold.csv'}", "data.split=fold", "data.train=[in]"]
    recipe = load_recipe(path, [*settings, *own])
    bundle_dir = folder / "bundle"
    fit_inr(recipe, data, bundle_dir, force=True)
    encode(recipe, data, bundle_dir, force=True)
    train_operator(recipe, data, bundle_dir, force=True)
    bundle = load_bundle(bundle_dir)
    engine = open_engine(bundle)
    latents = LatentTable.load(latents_dir(bundle_dir) / "target.safetensors")
    mean = latents.vectors[(latents.copies == 0) & (np.array(latents.splits) == "in")].mean(axis=0)
    pairs = load_pairs(recipe, read_cohort(recipe, data).with_splits(("out",)), _ignored)
    return [score_pair(engine, bundle, pair, mean) for pair in pairs]


def _ignored(done: int) -> None:
    """No progress: the figures are printed recipe by recipe."""


def table_of(scores: list[Score]) -> dict[str, dict[str, float]]:
    """Means over scans, and the spread of the patients' means."""
    rows: dict[str, dict[str, float]] = {}
    for metric in scores[0].result:
        for kind in KINDS:
            if metric not in getattr(scores[0], kind):
                continue
            rows[f"{kind} {metric}"] = summary([(s.patient, getattr(s, kind)[metric]) for s in scores])
    for metric in scores[0].source_ceiling:
        values = [(s.patient, s.source_ceiling[metric]) for s in scores]
        rows[f"source_ceiling {metric}"] = summary(values)
    return rows


def summary(values: list[tuple[str, float]]) -> dict[str, float]:
    """Over scans: mean. Over patients: lowest, quartiles, highest of their means."""
    patients = sorted({patient for patient, _ in values})
    means = [float(np.mean([v for p, v in values if p == patient])) for patient in patients]
    low, first, third, high = np.percentile(means, [0, 25, 75, 100])
    return {
        "mean": float(np.mean([v for _, v in values])),
        "patients_min": float(low),
        "patients_q1": float(first),
        "patients_q3": float(third),
        "patients_max": float(high),
        **(dict(zip(patients, means, strict=True)) if len(patients) <= 12 else {}),
    }


def main() -> None:
    """Every recipe, augmented and plain."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--folds", default="auto")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--no-plain", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = {}
    for name in options.recipes:
        path = find_recipe(name).path
        recipe = load_recipe(path, options.settings)
        folds = folds_of(recipe, options.data, options.folds)
        for kind, extra in (("recipe", []), ("plain", plain(recipe, options.data))):
            if kind == "plain" and options.no_plain:
                continue
            scores = []
            for fold in sorted(set(folds.values())):
                left_out = {patient for patient, number in folds.items() if number == fold}
                with tempfile.TemporaryDirectory() as folder:
                    scores += run_fold(path, options.settings + extra, options.data, left_out, Path(folder))
            results[f"{name} {kind}"] = table_of(scores)
            print(json.dumps({f"{name} {kind}": results[f"{name} {kind}"]}, indent=1), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

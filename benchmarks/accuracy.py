"""What recipes reach in folds over their patients: `nfops evaluate --folds` on each, summaries in one file.

python benchmarks/accuracy.py DATA RECIPE... [--folds N|patient] [--set KEY=VALUE] [--out-dir DIR] [--json FILE]

Up to 12 patients are left out one at a time, more in 5 groups. Reports stay in the --out-dir.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from nfops.cohort import read_cohort
from nfops.recipe import Recipe, load_recipe
from nfops.shipped import find_recipe
from nfops.workflows.evaluate import Request, evaluate

FEW_PATIENTS = 12


def folds_of(recipe: Recipe, data: Path) -> str:
    """One patient at a time, or five groups of many."""
    splits = (*recipe.data.train, *recipe.data.validation)
    patients = {row.patient for row in read_cohort(recipe, data).with_splits(splits).rows}
    return "patient" if len(patients) <= FEW_PATIENTS else "5"


def shortened(summary: dict[str, Any]) -> dict[str, Any]:
    """Means, intervals and, of few patients, their means: of results, ceilings and baselines."""
    few = summary["patients"] <= FEW_PATIENTS
    kept = ("mean", "interval", "patients") if few else ("mean", "interval")

    def part(metrics: dict[str, Any]) -> dict[str, Any]:
        return {name: {key: found[key] for key in kept} for name, found in metrics.items()}

    return {
        "cases": summary["cases"],
        "patients": summary["patients"],
        "folds": len(summary["folds"]),
        "results": {kind: part(metrics) for kind, metrics in summary["results"].items()},
        "resolutions": {row["name"]: part(row["metrics"]) for row in summary["resolutions"]},
        "differences": {name: part(metrics) for name, metrics in summary["differences"]["to"].items()},
        "baselines": summary["baselines"],
        "limits": summary["limits"],
        "seconds": summary["seconds"],
    }


def main() -> None:
    """Every recipe, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--folds")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--out-dir", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as spare:
        folder = options.out_dir or Path(spare)
        folder.mkdir(parents=True, exist_ok=True)
        for name in options.recipes:
            recipe = load_recipe(find_recipe(name).path, options.settings)
            request = Request(folds=options.folds or folds_of(recipe, options.data))
            summary = evaluate(recipe, options.data, Path(), folder / recipe.name, request, force=True)
            results[name] = shortened(summary)
            print(json.dumps({name: results[name]}, indent=1), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

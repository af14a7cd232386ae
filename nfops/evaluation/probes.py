"""Labels of a table put to the latents of scans: which rows teach, which are reported, fold by fold."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nfops.arrays import Array
from nfops.cohort import Pair
from nfops.errors import InputError, NotFoundError
from nfops.evaluation.model import Model
from nfops.evaluation.pool import SamplePool
from nfops.probing import CLASSIFIERS, Labelled, pixel_components, probe, score_guess
from nfops.progress import OnStep, Step, silent
from nfops.recipe import Recipe

ON_LATENTS, ON_PIXELS = "latents", "PCA of pixels"


@dataclass(frozen=True)
class Labels:
    """names: of the classes, in order. class_of: id -> number of its class. split_of: id -> the split given for it."""

    names: tuple[str, ...]
    class_of: Mapping[str, int]
    split_of: Mapping[str, str] = field(default_factory=dict)

    def known(self, pair: Pair) -> int | None:
        """The class of a pair; a slice has that of its scan."""
        return self.class_of.get(pair.scan_id, self.class_of.get(pair.scan_id.partition("#")[0]))

    def pairs(self, pairs: list[Pair], training: tuple[str, ...], *, to_train: bool) -> list[Pair]:
        """The labelled ones; of a table with splits, only those that it trains on, or does not train on."""
        known = [pair for pair in pairs if self.known(pair) is not None]
        if not self.split_of:
            return known
        return [pair for pair in known if (self.split_of.get(pair.scan_id.partition("#")[0]) in training) == to_train]


def read_labels(path: Path, column: str, recipe: Recipe) -> Labels:
    """A CSV table with ids and a column of classes, perhaps with a split of its own.

    Raises NotFoundError or InputError where it is missing, has other columns or fewer than two classes.
    """
    if not path.is_file():
        raise NotFoundError(path, "no such table", "expected columns id,label[,split]")
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(path, f"not a CSV table: {error}") from error
    there = list(rows[0]) if rows else []
    key = next((name for name in ("id", recipe.data.id) if name in there), None)
    if key is None or column not in there:
        hint = "name the column of the classes with --probe-column"
        raise InputError(path, f"expected columns id and {column}, got {', '.join(there) or 'nothing'}", hint)
    given = {row[key]: row[column] for row in rows if row[column]}
    names = tuple(sorted(set(given.values())))
    if len(names) < 2:
        raise InputError(path, f"column {column}: expected at least 2 classes, got {len(names)}")
    splits = {row[key]: row["split"] for row in rows} if "split" in there else {}
    return Labels(names, {name: names.index(label) for name, label in given.items()}, splits)


@dataclass(frozen=True, eq=False)
class Probed:
    """Of one fold: probabilities by (features, classifier), settings chosen, sizes of the features."""

    classes: Array
    patients: Array
    probabilities: dict[tuple[str, str], Array]
    chosen: dict[tuple[str, str], float]
    sizes: dict[str, int]


def probe_fold(
    labels: Labels,
    model: Model,
    pool: SamplePool,
    training: list[Pair],
    evaluated: list[Pair],
    *,
    on_step: OnStep = silent,
) -> Probed:
    """Train on the labelled training pairs, say what the evaluated ones are. Raises InputError where labels lack."""
    seed = pool.recipe.seed
    splits = pool.recipe.data.train
    rows = [labels.pairs(training, splits, to_train=True), labels.pairs(evaluated, splits, to_train=False)]
    if not rows[1] or len({labels.known(pair) for pair in rows[0]}) < 2:
        raise InputError("--probe", f"{len(rows[0])} training and {len(rows[1])} evaluated scans have a label")
    classes = [np.array([labels.known(pair) for pair in part]) for part in rows]
    owners = [np.array([pair.patient for pair in part]) for part in rows]
    features = {ON_LATENTS: [_latents(model, part) for part in rows]}
    size = features[ON_LATENTS][0].shape[1]
    spec = pool.specs(training)["source"]
    pixels = [np.stack([one.values[0].ravel() for one in pool.draw(spec, "source", part)]) for part in rows]
    features[ON_PIXELS] = list(pixel_components(pixels[0], pixels[1], size, seed))
    found, chosen = {}, {}
    for done, key in enumerate((where, name) for where in features for name in CLASSIFIERS):
        known = Labelled(features[key[0]][0], classes[0], owners[0])
        guess = probe(key[1], known, features[key[0]][1], len(labels.names), seed)
        found[key], chosen[key] = guess.probabilities, guess.chosen
        on_step(Step("probing", done + 1, 2 * len(CLASSIFIERS)))
    sizes = {where: each[0].shape[1] for where, each in features.items()}
    return Probed(classes[1], owners[1], found, chosen, sizes)


def summarise_probes(labels: Labels, column: str, probed: list[Probed], seed: int) -> dict[str, Any]:
    """Scores of each classifier on latents and on PCA of pixels, the reported rows of all folds together."""
    classes, patients = (np.concatenate([getattr(one, name) for one in probed]) for name in ("classes", "patients"))
    rows = []
    for key in probed[0].probabilities:
        said = np.concatenate([one.probabilities[key] for one in probed])
        scores = score_guess(classes, said, patients, seed)
        chosen = [one.chosen[key] for one in probed]
        rows.append({"features": key[0], "classifier": key[1], "chosen": chosen, **scores})
    counts = {name: int((classes == number).sum()) for number, name in enumerate(labels.names)}
    return {"column": column, "classes": counts, "cases": len(classes), "sizes": probed[0].sizes, "rows": rows}


def _latents(model: Model, pairs: list[Pair]) -> Array:
    return np.concatenate([model.encode("source", pair).vectors for pair in pairs]).astype(np.float64)

"""Probing: what simple classifiers read off latents, against the same on PCA of the pixels (MedFuncta, Table 3).

Features are standardised. Each classifier's one setting is chosen by macro AUC on patients held out of the training
ones; it is then fitted to all training patients. What is reported was never looked at before.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nfops.arrays import Array

CLASSIFIERS: dict[str, tuple[float, ...]] = {
    "k-NN": (1, 3, 5, 9, 15, 25),
    "logistic": (1e-3, 1e-2, 0.1, 1.0, 10.0),
    "MLP": (1e-3, 0.1, 1.0),
}
"""Name -> candidates: neighbours, inverse strength of the penalty, strength of the penalty."""
HIDDEN = (128,)
HELD_OUT = 0.2
RESAMPLES = 1000
FEWEST_PATIENTS = 5


@dataclass(frozen=True, eq=False)
class Labelled:
    """features: (N, D). classes: (N,) numbers from 0. patients: (N,)."""

    features: Array
    classes: Array
    patients: Array

    def rows(self, keep: Array) -> "Labelled":
        """Those for which `keep` (N,) is true."""
        return Labelled(self.features[keep], self.classes[keep], self.patients[keep])


@dataclass(frozen=True, eq=False)
class Guess:
    """chosen: the setting. probabilities: (N, classes) of the reported rows."""

    chosen: float
    probabilities: Array


def probe(name: str, training: Labelled, features: Array, count: int, seed: int) -> Guess:
    """One classifier fitted to `training`, its setting chosen inside; its word on other features (N, D)."""
    held = _held_out(training, seed)
    candidates = [c for c in CLASSIFIERS[name] if name != "k-NN" or c <= max(1, int((~held).sum()))]
    scores = []
    for candidate in candidates:
        inner = _fit(name, candidate, training.rows(~held), seed)
        scores.append(macro_auc(training.classes[held], _probabilities(inner, training.features[held], count)))
    chosen = candidates[int(np.nanargmax(scores))] if not np.isnan(scores).all() else candidates[len(candidates) // 2]
    return Guess(chosen, _probabilities(_fit(name, chosen, training, seed), features, count))


def pixel_components(training: Array, others: Array, size: int, seed: int) -> tuple[Array, Array]:
    """PCA of pixels (N, D) fitted to the training scans, at `size` components or as many as they give."""
    from sklearn.decomposition import PCA

    pca = PCA(min(size, len(training) - 1, training.shape[1]), svd_solver="randomized", random_state=seed)
    return pca.fit_transform(training), pca.transform(others)


def score_guess(classes: Array, probabilities: Array, patients: Array, seed: int) -> dict[str, Any]:
    """AUC (macro, one against the rest), F1 (macro) and accuracy, each with its interval over patients."""
    measures: dict[str, Callable[[Array, Array], float]] = {"auc": macro_auc, "f1": macro_f1, "accuracy": accuracy}
    names, number = np.unique(patients, return_inverse=True)
    rows = [np.flatnonzero(number == n) for n in range(len(names))]
    rng = np.random.default_rng(seed)
    found: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(RESAMPLES if len(names) >= FEWEST_PATIENTS else 0):
        drawn = np.concatenate([rows[n] for n in rng.integers(len(names), size=len(names))])
        for name, measure in measures.items():
            found[name].append(measure(classes[drawn], probabilities[drawn]))
    return {
        name: {"value": measure(classes, probabilities), "interval": _interval(found[name])}
        for name, measure in measures.items()
    }


def macro_auc(classes: Array, probabilities: Array) -> float:
    """Mean over classes of the area under the ROC curve, each against the rest; ties count half.

    Classes that are missing, or alone, are left out; NaN where all are.
    """
    from scipy.stats import rankdata

    areas = []
    for number in range(probabilities.shape[1]):
        mine = classes == number
        few, rest = int(mine.sum()), int((~mine).sum())
        if few and rest:
            ranks = rankdata(probabilities[:, number])
            areas.append((ranks[mine].sum() - few * (few + 1) / 2) / (few * rest))
    return float(np.mean(areas)) if areas else float("nan")


def macro_f1(classes: Array, probabilities: Array) -> float:
    """Mean over the classes that occur of 2 tp / (2 tp + fp + fn)."""
    said = probabilities.argmax(axis=1)
    values = []
    for number in np.union1d(classes, said):
        both = int(((classes == number) & (said == number)).sum())
        values.append(2 * both / (int((classes == number).sum()) + int((said == number).sum())))
    return float(np.mean(values))


def accuracy(classes: Array, probabilities: Array) -> float:
    """Share of the rows whose likeliest class is theirs."""
    return float((probabilities.argmax(axis=1) == classes).mean())


def _interval(values: list[float]) -> tuple[float, float] | None:
    known = np.array([v for v in values if not np.isnan(v)])
    return (float(np.percentile(known, 2.5)), float(np.percentile(known, 97.5))) if len(known) else None


def _held_out(training: Labelled, seed: int) -> Array:
    """(N,) a fifth of the patients; of the rows, where there are too few patients."""
    owners = training.patients if len(set(training.patients)) >= FEWEST_PATIENTS else np.arange(len(training.classes))
    names = np.unique(owners)
    count = max(1, round(HELD_OUT * len(names)))
    return np.isin(owners, np.random.default_rng(seed).permutation(names)[:count])


def _fit(name: str, setting: float, rows: Labelled, seed: int) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    made: Mapping[str, Callable[[], Any]] = {
        "k-NN": lambda: KNeighborsClassifier(int(setting)),
        "logistic": lambda: LogisticRegression(C=setting, max_iter=2000),
        "MLP": lambda: MLPClassifier(HIDDEN, alpha=setting, max_iter=200, random_state=seed),
    }
    pipeline = make_pipeline(StandardScaler(), made[name]())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of epochs is the method
        return pipeline.fit(rows.features, rows.classes)


def _probabilities(fitted: Any, features: Array, count: int) -> Array:
    """(N, count), 0 for classes that were not in the training."""
    found = np.zeros((len(features), count))
    found[:, fitted.classes_] = fitted.predict_proba(features)
    return found

"""Which patients are left out together, and which of the others tell a training when to stop."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nfops.errors import UsageError

INNER_SHARE = 0.15
"""Part of a fold's training patients that an early stop or a choice is made on."""


@dataclass(frozen=True)
class Fold:
    """number: from 1. left_out: the patients that are evaluated; inner: those of the others that training may watch."""

    number: int
    left_out: tuple[str, ...]
    inner: tuple[str, ...]


def plan_folds(patients: Sequence[str], how: str, seed: int) -> list[Fold]:
    """Folds over the patients of all scans (one entry a scan): "patient" leaves out one at a time, "5" a fifth.

    Groups are even in scans as far as patients allow: the largest first, each into the emptiest fold, ties by the
    seed. Raises UsageError for anything else, or for more folds than patients.
    """
    counts = Counter(patients)
    names = sorted(counts)
    if len(names) < 2:
        raise UsageError("--folds", f"needs at least 2 patients, the cohort has {len(names)}")
    if how == "patient":
        groups = [[name] for name in names]
    else:
        if not how.isdecimal() or not 2 <= int(how) <= len(names):
            raise UsageError("--folds", f"expected patient or a number from 2 to {len(names)} (patients), got {how!r}")
        groups = _even_groups(counts, int(how), seed)
    return [
        Fold(number, tuple(sorted(group)), inner_patients([n for n in names if n not in group], seed + number))
        for number, group in enumerate(groups, start=1)
    ]


def inner_patients(patients: Sequence[str], seed: int) -> tuple[str, ...]:
    """About 15 % of the training patients, at least one; none where there is only one."""
    names = sorted(set(patients))
    if len(names) < 2:
        return ()
    count = max(1, round(INNER_SHARE * len(names)))
    return tuple(sorted(np.random.default_rng(seed).permutation(names)[:count].tolist()))


def _even_groups(counts: Counter[str], number: int, seed: int) -> list[list[str]]:
    shuffled = np.random.default_rng(seed).permutation(sorted(counts)).tolist()
    groups: list[list[str]] = [[] for _ in range(number)]
    sizes = [0] * number
    for name in sorted(shuffled, key=lambda name: -counts[name]):
        emptiest = min(range(number), key=lambda g: (sizes[g], len(groups[g])))
        groups[emptiest].append(name)
        sizes[emptiest] += counts[name]
    return groups

"""What an evaluation found of several operators on the same fields, as plain data."""

from typing import Any

import numpy as np

from nfops.evaluation.assess import Assessment
from nfops.evaluation.cases import Case
from nfops.evaluation.operators import PREFIX, settings_of_operator, stops_by_validation
from nfops.evaluation.paired import better_share, result_less, summarise_metrics
from nfops.recipe import Recipe


def summarise_operators(
    recipe: Recipe, assessments: tuple[Assessment, ...], cases: list[Case], primary: str
) -> list[dict[str, Any]]:
    """A row an operator, the recipe's own first; none where only that was evaluated.

    key: where its metrics stand among the results. less_own: its metrics less the own operator's, case by case.
    better_cases: the part of them on which it is better. fits: fold by fold.
    """
    names = list(assessments[0].operators)
    rows = []
    for name in names:
        fits = [one.operators[name] for one in assessments]
        row = {
            "operator": name,
            "key": "result" if name == names[0] else PREFIX + name,
            "settings": dict(settings_of_operator(recipe, name)),
            "needs_validation": stops_by_validation(recipe, name),
            "seconds": float(np.median([fit["seconds"] for fit in fits])),
            "megabytes": float(np.median([fit["megabytes"] for fit in fits])),
            "fits": [dict(fit["figures"]) for fit in fits],
        }
        rows.append(row | (_against_own(cases, recipe.seed, PREFIX + name, primary) if name != names[0] else {}))
    return rows if len(rows) > 1 else []


def _against_own(cases: list[Case], seed: int, key: str, primary: str) -> dict[str, Any]:
    def less_own(case: Case) -> dict[str, float]:
        return {metric: -value for metric, value in result_less(case, key).items()}

    better = better_share([less_own(case)[primary] for case in cases], primary)
    return {"less_own": summarise_metrics(cases, seed, less_own), "better_cases": better}

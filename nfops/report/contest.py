"""The tables of several operators: how each differs from the recipe's own, what it costs, what coarse scans do."""

from collections.abc import Mapping
from typing import Any

from nfops.metrics import is_better_higher
from nfops.report.layout import Table
from nfops.report.words import KINDS, direction, metric_name, seconds, with_interval


def operator_keys(summary: Mapping[str, Any]) -> dict[str, str]:
    """Key among the results -> name of each operator, the recipe's own first; empty where only that was evaluated."""
    return {row["key"]: row["operator"] for row in summary["operators"]}


def kind_name(summary: Mapping[str, Any], kind: str) -> str:
    """What stands before a row of results."""
    name = operator_keys(summary).get(kind)
    if name is None:
        return KINDS[kind]
    return f"Result: {name}, the recipe's own" if kind == "result" else f"Operator: {name}"


def operator_table(summary: Mapping[str, Any], metrics: list[str]) -> Table | None:
    """A row an operator."""
    rows, primary = summary["operators"], summary["primary"]
    if not rows:
        return None
    heads = ("", *(f"{metric_name(metric)} {direction(metric)}" for metric in metrics))
    cells = [
        (
            row["operator"],
            *(with_interval(metric, row.get("less_own", {}).get(metric), signed=True) for metric in metrics),
            f"{100 * row['better_cases']:.0f} %" if "better_cases" in row else "–",
            seconds(row["seconds"]),
            f"{row['megabytes']:.2g} MB",
        )
        for row in rows
    ]
    best = _best(summary)
    main = (rows.index(best),)
    return Table("Operators", (*heads, "Better on", "Fit", "Size"), tuple(cells), _caption(rows, primary, best), main)


def resolution_table(summary: Mapping[str, Any]) -> Table | None:
    """A row an operator, a column for each resolution of the input."""
    rows, primary = summary["operators"], summary["primary"]
    if not rows or len(rows[0]["resolutions"]) < 2:
        return None
    heads = (f"{metric_name(primary)} {direction(primary)}", *(view["name"] for view in rows[0]["resolutions"]))
    cells = [
        (row["operator"], *(with_interval(primary, view["metrics"].get(primary)) for view in row["resolutions"]))
        for row in rows
    ]
    caption = f"{metric_name(primary)} {direction(primary)} from the source made coarser on its own grid."
    return Table("Operators and the resolution of the input", heads, tuple(cells), caption)


def _best(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row of the best mean."""
    primary = summary["primary"]
    sign = 1 if is_better_higher(primary) else -1
    rows: list[Mapping[str, Any]] = summary["operators"]
    return max(rows, key=lambda row: sign * summary["results"][row["key"]][primary]["mean"])


def _caption(rows: list[Mapping[str, Any]], primary: str, best: Mapping[str, Any]) -> str:
    own = rows[0]["operator"]
    return (
        f"Each operator's metrics less those of {own}, case by case, after learning from the same scans; the part of "
        f"the cases on which it is better; medians over folds of the time to fit and of the size in a bundle. Best "
        f"mean {metric_name(primary, with_unit=False)}: {best['operator']}{_doubt(best, primary)}."
    )


def _doubt(best: Mapping[str, Any], primary: str) -> str:
    """Whether what is best may be so by chance."""
    if "less_own" not in best:
        return ""
    interval = best["less_own"][primary]["interval"]
    if interval is None:
        return ", of too few patients to tell"
    return ", whose lead may be chance (its interval holds 0)" if interval[0] <= 0 <= interval[1] else ""

"""The tables of a report, as text: results first, then what explains them."""

from collections.abc import Mapping
from typing import Any

from nfops.report.contest import kind_name, operator_keys, operator_table, resolution_table
from nfops.report.layout import Table
from nfops.report.words import (
    count,
    direction,
    each_patient,
    metric_name,
    number,
    ridge_sizes,
    seconds,
    with_interval,
)

ORDER = ("result", "target_ceiling", "ridge_best", "ridge", "fpca", "mean")
HEADS = {
    "result": "Result",
    "target_ceiling": "Ceiling",
    "ridge_best": "Ridge, best P",
    "ridge": "Ridge, same P",
    "fpca": "Functional PCA",
    "mean": "Mean image",
}
MOST_PATIENTS = 40


def tables(summary: Mapping[str, Any]) -> list[Table]:
    """All that the summary gives."""
    found = [result_table(summary), operator_table(summary, _together(summary)), resolution_table(summary)]
    found += [_labels(summary), _source(summary)]
    found += [_resolutions(summary), _agreement(summary), _time(summary), _probe(summary), _patients(summary)]
    return [table for table in found if table is not None]


def _together(summary: Mapping[str, Any]) -> list[str]:
    """The metrics of all labels together."""
    return [metric for metric in summary["metrics"] if "_" not in metric]


def result_table(summary: Mapping[str, Any]) -> Table:
    """Result, ceiling, baselines, and the difference to the best of them."""
    metrics, results = _together(summary), summary["results"]
    rows = [
        (_kind(summary, kind), *(with_interval(metric, results[kind].get(metric)) for metric in metrics))
        for kind in _kinds(summary)
        if kind in results
    ]
    differences = summary["differences"]
    if differences:
        apart = differences["to"][differences["best"]]
        rows.append(
            (
                f"Result less {_kind(summary, differences['best']).removeprefix('Baseline: ')}",
                *(with_interval(metric, apart.get(metric), signed=True) for metric in metrics),
            )
        )
    heads = ("", *(f"{metric_name(metric)} {direction(metric)}" for metric in metrics))
    return Table("Results", heads, tuple(rows), result_caption(summary), (0, len(rows) - 1) if differences else (0,))


def _labels(summary: Mapping[str, Any]) -> Table | None:
    """Each label by itself: the first metric of the result, its ceiling and the best baseline."""
    each = [metric for metric in summary["metrics"] if "_" in metric]
    if not each:
        return None
    kinds = [kind for kind in ("result", "target_ceiling", summary["differences"].get("best")) if kind]
    labels = list(dict.fromkeys(metric.partition("_")[2] for metric in each))
    first = each[0].partition("_")[0]
    rows = [
        (label, *(with_interval(first, summary["results"][kind].get(f"{first}_{label}")) for kind in kinds))
        for label in labels
    ]
    heads = ("Label", *(HEADS.get(kind, kind) for kind in kinds))
    return Table("Labels", heads, tuple(rows), f"{metric_name(first)} of each label by itself, at full resolution.")


def result_caption(summary: Mapping[str, Any]) -> str:
    """What the intervals are, or each patient's own figures; what the ceiling and the baselines mean here."""
    primary = summary["primary"]
    found = summary["results"]["result"][primary]
    said = ["Means over cases at full resolution."]
    if found["interval"]:
        said.append("In brackets: 95 % intervals by bootstrap over patients.")
    else:
        said.append(
            f"Fewer than {summary['intervals']['fewest_patients']} patients, so no intervals; "
            f"{metric_name(primary, with_unit=False)} of each: {each_patient(primary, found)}."
        )
        differences = summary["differences"]
        if differences:
            apart = differences["to"][differences["best"]][primary]
            said.append(f"Difference of each: {each_patient(primary, apart, signed=True)}.")
    if summary["baselines"]["recipe_is_linear"]:
        what = "ridge on functional PCA" if "target" in summary["spectrum"]["latent"] else "functional PCA"
        said.append(f"The recipe is itself {what}: the baseline at the same P is the result.")
    share = summary["limits"].get("target_decoder_share")
    if share is not None:
        said.append(f"{100 * share:.0f} % of the result's error is in the ceiling already ({_error(primary)}).")
    if summary["differences"]:
        better = 100 * summary["differences"]["better_cases"]
        said.append(f"The result is better than the best baseline on {better:.0f} % of the cases.")
    return " ".join(said)


def _error(primary: str) -> str:
    return {"psnr": "squared error", "ssim": "1 − SSIM", "nrmse": "NRMSE"}.get(primary, "1 − " + metric_name(primary))


def _kind(summary: Mapping[str, Any], kind: str) -> str:
    sizes = ridge_sizes(summary, kind)
    if kind == "result" and "target" not in summary["spectrum"]["latent"]:
        return "Result: source encoded and decoded"
    name = kind_name(summary, kind)
    return name.replace("best P", f"best {sizes}").replace("same P", sizes) if sizes else name


def _kinds(summary: Mapping[str, Any]) -> list[str]:
    """What stands in a table of results, from top to bottom."""
    return list(dict.fromkeys((ORDER[0], *operator_keys(summary), *ORDER[1:])))


def _source(summary: Mapping[str, Any]) -> Table | None:
    found = summary["results"].get("source_ceiling")
    if not found:
        return None
    heads = ("", *(f"{metric_name(metric)} {direction(metric)}" for metric in found))
    row = ("Source encoded and decoded", *(with_interval(metric, each) for metric, each in found.items()))
    sizes, effective = summary["spectrum"]["latent"], summary["spectrum"]["effective_size"]
    caption = (
        f"What the source's latents (P = {sizes['source']}) keep of it. Spread of the "
        f"training latents, as a number of equal components: source {effective['source']:.1f} of "
        f"{sizes['source']}, target {effective.get('target', 0):.1f} of {sizes['target']}."
    )
    return Table("Fields", heads, (row,), caption)


def _time(summary: Mapping[str, Any]) -> Table:
    names = ("encode", "operate", "decode")
    row = tuple(seconds(summary["seconds"][name]) for name in names)
    heads = ("", *(name.capitalize() for name in names))
    caption = f"One scan at full resolution after the other, on {summary['device']}; reading and writing apart."
    return Table("Time", heads, (("Median of a scan", *row),), caption)


def _resolutions(summary: Mapping[str, Any]) -> Table | None:
    if len(summary["resolutions"]) < 2:
        return None
    metrics = _together(summary)
    rows = [
        (row["name"], *(with_interval(metric, row["metrics"].get(metric)) for metric in metrics))
        for row in summary["resolutions"]
    ]
    heads = ("Input", *(f"{metric_name(metric)} {direction(metric)}" for metric in metrics))
    caption = "The source made coarser on its own grid; the prediction at the full grid of its truth."
    return Table("Resolution of the input", heads, tuple(rows), caption)


def _agreement(summary: Mapping[str, Any]) -> Table | None:
    rows = []
    for name, by_sampling in summary["agreement"].items():
        for sampling, found in by_sampling.items():
            what = {"source": "source field", "prediction": "predicted field"}[name]
            worst = max(found["pairs"], key=lambda pair: pair["median"])
            rows.append(
                (
                    f"{what}, {sampling}",
                    _small(found["median"]),
                    _small(found["max"]),
                    f"{100 * worst['finer']:g} and {100 * worst['coarser']:g} %: {_small(worst['median'])}",
                    _small(found["median_mahalanobis"]),
                )
            )
    if not rows:
        return None
    caption = (
        "One scan encoded at two resolutions: squared difference of the decoded fields on one dense grid over the "
        "cohort's variance of the decoded field (0 the same, 2 as far apart as two scans), over all scans and pairs "
        "of resolutions. Last column: distance of the latents in standard deviations a component."
    )
    heads = ("", "Median", "Maximum", "Least alike pair (median)", "Mahalanobis, median")
    return Table("Agreement between resolutions", heads, tuple(rows), caption)


def _small(value: float) -> str:
    return f"{value:.4f}" if value >= 0.001 else f"{value:.1e}"


def _patients(summary: Mapping[str, Any]) -> Table | None:
    primary, results = summary["primary"], summary["results"]
    means = results["result"][primary]["patients"]
    if not 1 < len(means) <= MOST_PATIENTS:
        return None
    kinds = [kind for kind in _kinds(summary) if primary in results.get(kind, {})]
    rows = [
        (name, *(number(primary, results[kind][primary]["patients"].get(name)) for kind in kinds))
        for name in sorted(means, key=lambda name: means[name])
    ]
    heads = ("Patient", *({**HEADS, **operator_keys(summary)}[kind] for kind in kinds))
    return Table("Patients", heads, tuple(rows), f"{metric_name(primary)}, mean over each patient's cases.")


def _probe(summary: Mapping[str, Any]) -> Table | None:
    probe = summary["probe"]
    if not probe:
        return None
    rows = tuple(
        (f"{row['classifier']} on {row['features']} (P = {probe['sizes'][row['features']]})", *_scores(row))
        for row in probe["rows"]
    )
    classes = ", ".join(f"{name} {amount}" for name, amount in probe["classes"].items())
    caption = (
        f"{count(probe['cases'], 'scan')}: {classes}. Features standardised; each classifier's setting chosen on "
        "patients held out of the training ones, never on those reported here. AUC: macro, one against the rest."
    )
    return Table(f"Probing: {probe['column']}", ("", "AUC ↑", "F1 ↑", "Accuracy ↑"), rows, caption)


def _scores(row: Mapping[str, Any]) -> list[str]:
    said = []
    for name in ("auc", "f1", "accuracy"):
        value, interval = row[name]["value"], row[name]["interval"]
        ends = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
        said.append(f"{number('auc', value)}{ends}")
    return said

"""The paragraph on methods that a supplement needs: what was done to get these figures, made from the summary."""

from collections.abc import Mapping, Sequence
from typing import Any

from nfops.report.words import count


def methods(summary: Mapping[str, Any]) -> list[str]:
    """Paragraphs of plain text."""
    said = [_what(summary), _metrics(summary), _intervals(summary)]
    if len(summary["resolutions"]) > 1:
        said.append(RESOLUTIONS)
    if summary["operators"]:
        said.append(_operators(summary))
    return [*said, _baselines(summary)]


RESOLUTIONS = (
    "Resolution: the source is cut into fewer voxels on its own grid, edges of the field of view kept, at least two "
    "along each axis. Area: each is the mean of what it covers. Point: each is the value at its centre of the cubic "
    "spline through the scan, without averaging. The prediction is drawn at the full grid of the truth."
)


def _what(summary: Mapping[str, Any]) -> str:
    if summary["mode"] == "folds":
        return (
            f"Patients of the splits {' and '.join(summary['splits'])} were divided into {len(summary['folds'])} "
            "folds; for each, fields, operator and baselines were fitted anew without its patients. Whatever stops "
            "early or is chosen saw about 15 % of the remaining patients, never those left out. Latent sizes and other "
            "settings of the recipe are as it states them: where they were chosen on these patients, figures lean to "
            "the good side."
        )
    fitted = summary["bundle"].get("patients")
    trained = f" It was trained on {count(fitted, 'patient')}." if fitted else ""
    return f"The bundle on disk was evaluated on the split {' and '.join(summary['splits'])}.{trained}"


def _metrics(summary: Mapping[str, Any]) -> str:
    found = summary["range"]
    if "labels" in found:
        what = (
            "Dice and intersection over union are of all labels together but the background, and of each label by "
            "itself where there are several; two empty masks agree. Sources are judged on: "
        )
    elif "target" in found:
        low, high = found["target"]
        clipped = ", both images clipped to it" if found["clipped"] else ""
        each = " (the median; each fold has that of its training scans)" if found["by_fold"] else ""
        what = f"Targets are judged in their own units, data range {low:g} to {high:g}{each}{clipped}; sources on: "
    else:
        what = "Images are judged on: "
    return (
        f"{what}{found['source']}. PSNR over all voxels of the case; SSIM with a Gaussian window of sigma 1.5, "
        "population covariances and the data range above, in the recipe's dimensions (slice by slice in two); NRMSE "
        "is the root mean squared error over the truth's root mean square. Of means, a PSNR above 100 dB counts as 100."
    )


def _intervals(summary: Mapping[str, Any]) -> str:
    given = summary["intervals"]
    return (
        f"Intervals: percentiles of {given['resamples']} bootstrap means, patients drawn with replacement and all "
        f"their cases with them (seed {given['seed']}); none with fewer than {given['fewest_patients']} patients. "
        "Differences are paired: case by case, the result less the baseline."
    )


def _operators(summary: Mapping[str, Any]) -> str:
    own = summary["operators"][0]["operator"]
    watching = [row["operator"] for row in summary["operators"] if row["needs_validation"]]
    aside = (
        f" Because {' and '.join(watching)} may watch validation scans, about 15 % of a fold's training patients were "
        "put aside for all of them; the ridge baselines learned from these patients too."
        if watching
        else ""
    )
    return (
        "Operators: each was fitted in each fold to the same training scans, those on latents to the same tables, "
        f"augmented copies included, those on fields to the scans themselves, each with its own augmented copies; what "
        f"they choose they chose on training or validation patients.{aside} Settings: {_settings(summary)}. "
        f"Agreement, examples and the other figures are those of {own}."
    )


def _settings(summary: Mapping[str, Any]) -> str:
    """Of each operator, as a recipe would have them."""
    each = []
    for row in summary["operators"]:
        said = ", ".join(f"{key} {_plain(value)}" for key, value in row["settings"].items() if value not in (None, []))
        each.append(f"{row['operator']} ({said})")
    return "; ".join(each)


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _baselines(summary: Mapping[str, Any]) -> str:
    fits = summary["baselines"]["fits"]
    if not any(fit["sizes"] for fit in fits):
        return "Baseline: the mean of the training images."
    tried = sorted({int(size) for fit in fits for size in fit["tried"]})
    chosen = (
        f" The best P was chosen among {', '.join(map(str, tried))} by fitting without about 15 % of the training "
        f"patients and scoring on them, then fitted to all{_chosen(fits, tried)}."
        if tried
        else ""
    )
    return (
        "Baselines: the mean of the training images; ridge regression (strength by leaving out one patient at a time) "
        "between functional PCA latents of source and target, fitted to the same training scans with the recipe's "
        f"augmentation.{chosen}"
    )


def _chosen(fits: Sequence[Mapping[str, Any]], tried: Sequence[int]) -> str:
    """How often the largest was best: a still larger one might be better."""
    best = [next(iter(fit["sizes"]["ridge_best"].values())) for fit in fits if "ridge_best" in fit["sizes"]]
    largest = sum(size == max(tried) for size in best)
    return f"; the largest won {count(largest, 'time')} of {len(best)}" if largest else ""

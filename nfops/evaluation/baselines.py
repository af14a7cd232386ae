"""What a model has to beat: the mean image, and ridge regression on functional PCA, fitted to the same scans."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from nfops.bundle import Bundle
from nfops.cohort import Pair
from nfops.evaluation.mean_image import mean_image
from nfops.evaluation.pool import SamplePool
from nfops.evaluation.ridge_baseline import LARGEST, LinearFit, RidgeBaseline, choose_size
from nfops.image import Image
from nfops.progress import OnStep, silent


class Baseline(Protocol):
    """name: a key of the results: "mean", "ridge", "ridge_best" or, of reconstructions, "fpca"."""

    @property
    def name(self) -> str:
        """See above."""

    def predict(self, pair: Pair) -> Image:
        """The prediction for one pair at its truth's grid."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """baselines: of one fold. is_linear: the bundle is itself the linear baseline at its own P.

    sizes: name -> side -> P. tried: P -> score on the inner patients.
    """

    baselines: tuple[Baseline, ...]
    is_linear: bool = False
    sizes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    tried: Mapping[int, float] = field(default_factory=dict)


def fit_baselines(
    pool: SamplePool,
    bundle: Bundle,
    training: list[Pair],
    inner: list[Pair],
    *,
    with_ridge: bool = True,
    on_step: OnStep = silent,
) -> Fitted:
    """Fit to `training` and `inner` together; the best P is chosen by fitting to `training` and trying on `inner`.

    At the same P as the bundle's latents, unless the bundle is that very chain, fitted to as many scans; for a recipe
    without a target, functional PCA's own reconstruction. None without training pairs.
    """
    everyone = training + inner
    is_linear = is_linear_chain(bundle) and bundle.data.get("scans", len(everyone)) == len(everyone)
    if not everyone:
        return Fitted((), is_linear)
    side = "target" if "target" in bundle.specs else "source"
    spec = pool.specs(everyone)[side]
    mean = mean_image(spec, side, pool.draw(spec, side, everyone, on_step))
    if not with_ridge:
        return Fitted((mean,), is_linear)
    wanted: dict[str, dict[str, int]] = {}
    tried: dict[int, float] = {}
    if not is_linear:
        name = "ridge" if side == "target" else "fpca"
        wanted[name] = {key: min(bundle.specs[key].latent, LARGEST) for key in bundle.specs}
    if side == "target" and inner and training:
        best, tried = choose_size(pool, training, inner, on_step)
        wanted["ridge_best"] = dict.fromkeys(bundle.specs, best)
    if not wanted:
        return Fitted((mean,), is_linear)
    fit = LinearFit(pool, everyone, max(max(sizes.values()) for sizes in wanted.values()), on_step=on_step)
    ridges = [RidgeBaseline(name, fit.model(sizes), fit.sizes(sizes)) for name, sizes in wanted.items()]
    return Fitted((mean, *ridges), is_linear, {one.name: one.sizes for one in ridges}, tried)


def is_linear_chain(bundle: Bundle) -> bool:
    """Whether a bundle is itself ridge on functional PCA, the baseline at its own P."""
    if {spec.backbone for spec in bundle.specs.values()} != {"fpca"}:
        return False
    plain: Any = bundle.recipe.get("operator") or {}
    return "target" not in bundle.specs or plain.get("backend") == "linear"

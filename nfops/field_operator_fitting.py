"""Fit a field operator of a recipe to pairs of scans: what `train-operator` runs for one, and `evaluate`.

It needs the specs of the bundle's fields (frame, axes, intensities, heads), and none of their latents.
"""

from collections.abc import Callable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nfops import torch_heads
from nfops.arrays import Array
from nfops.bundle import Bundle
from nfops.codec import build_field_operator, field_window, operator_condition, state_arrays
from nfops.codec_spec import CodecSpec
from nfops.coding import encode_image
from nfops.cohort import Pair
from nfops.cohort_samples import Sampler, worker_count
from nfops.condition_fitting import DrawnCondition, fit_condition
from nfops.conditioning import ridge_arrays
from nfops.engines import open_engine
from nfops.engines.torch_engine import choose_device
from nfops.errors import InputError
from nfops.field_pairs import FieldBatch, WorkingGrid
from nfops.field_translation import translate_field
from nfops.heads import Head
from nfops.operator_fitting import decoded_scores, dice_loss, residual_figures
from nfops.progress import OnStep, silent
from nfops.recipe import Recipe
from nfops.sampling import Domain
from nfops.schema import to_plain
from nfops.spread import evenly, spread_figures

VALIDATED_AT_ONCE = 4
"""Scans."""
SMALLEST_HALVED = 256
"""Arrays of fewer numbers keep 32 bits."""


def fit_field_operator(
    recipe: Recipe, bundle: Bundle, pairs: Sequence[Pair], device: str = "auto", on_step: OnStep = silent
) -> Bundle:
    """The bundle with a field operator fitted to the pairs of its training splits.

    Those of the validation splits choose the best weights. Raises InputError without training pairs.
    """
    torch.manual_seed(recipe.seed)
    section, where = recipe.require_operator(), choose_device(device)
    condition = operator_condition(section)
    operator = build_field_operator(section, bundle, condition).to(where)
    working: WorkingGrid = operator.working_grid
    training = _training_pairs(recipe, pairs)
    fields_alone = bundle.without_operator()
    engine, drawn = open_engine(fields_alone, where), None
    if condition == "latent":
        drawn = fit_condition(recipe, fields_alone, engine, working, training, on_step=on_step)
    fields = CohortFields(recipe, bundle, working, pairs, where, condition=drawn)
    operator.fit(fields, on_step)
    side = bundle.side("source")
    encoded = [encode_image(engine, side, p.source, p.scan_id, p.source_scan) for p in training]
    facts = {
        "form": "field",
        "condition": condition,
        "rows": len(fields),
        "figures": dict(getattr(operator, "figures", {})) | (drawn.ridges.figures if drawn else {}),
        "source_residual": residual_figures(np.array([latent.residual.mean() for latent in encoded])),
        "working": {"spacing": list(working.spacing), "multiple": working.multiple},
    }
    kept = _halved(state_arrays(operator), {name for name, _ in operator.named_parameters()})
    if drawn:
        kept |= ridge_arrays(drawn.ridges.whole)
    fitted = bundle.with_operator(to_plain(recipe), kept, facts)
    if hasattr(operator, "each"):
        fitted = replace(fitted, operator=facts | _usual_spread(recipe, fitted, pairs, where))
    return fitted


def _halved(arrays: dict[str, Array], learned: Set[str]) -> dict[str, Array]:
    """Rounded to 16 bits, once and for all: a bundle half as large, whose images differ by about 1e-4 of the range."""
    most = np.finfo(np.float16).max
    large = {name for name, array in arrays.items() if array.size >= SMALLEST_HALVED and np.abs(array).max() < most}
    return {
        name: array.astype(np.float16) if name in large & learned and array.dtype == np.float32 else array
        for name, array in arrays.items()
    }


def _usual_spread(recipe: Recipe, fitted: Bundle, pairs: Sequence[Pair], device: str) -> dict[str, Any]:
    """How far the members lie apart on validation scans, or on training scans where there are none."""
    learned = recipe.data.train
    training = [pair for pair in pairs if pair.split in learned]
    watched = [pair for pair in pairs if pair.split not in learned and pair.split in recipe.data.validation]
    of, some = ("validation", watched) if watched else ("training", training)
    engine = open_engine(fitted, device)
    made = (translate_field(engine, fitted, p.source, p.scan_id, p.source_scan) for p in some[evenly(len(some))])
    spreads = [one.spread for one in made if one.spread is not None]
    return {"spread": spread_figures(spreads, of)} if spreads else {}


class CohortFields:
    """`FieldPairs` of a cohort: its scans through their continuous images, on one working grid about their centres.

    condition: what else is seen of every draw.
    """

    def __init__(
        self,
        recipe: Recipe,
        bundle: Bundle,
        working: WorkingGrid,
        pairs: Sequence[Pair],
        device: str,
        *,
        condition: DrawnCondition | None = None,
    ) -> None:
        self.training = _training_pairs(recipe, pairs)
        self._device, self._condition = device, condition
        specs = bundle.specs["source"], bundle.specs["target"]
        self._head = Head(specs[1].head)
        self._is_bounded = [spec.is_label or spec.intensity.map != "none" for spec in specs]
        shape = working.shape(field_window(bundle).extent)
        self._samplers = [_sampler(recipe, bundle.specs[side], side, working, shape) for side in ("source", "target")]
        axes = [(np.arange(n) + 0.5 - n / 2) * step for n, step in zip(shape, working.spacing, strict=True)]
        coords = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).astype(np.float32)
        self.coords, self.spacing = torch.from_numpy(coords).to(device), torch.tensor(working.spacing)
        others = [pair for pair in pairs if pair.split not in recipe.data.train]
        self._watched = [self._drawn([pair], 0) for pair in others if pair.split in recipe.data.validation]

    def __len__(self) -> int:
        return len(self.training)

    def draw(self, rows: Sequence[int], epoch: int) -> FieldBatch:
        """See `FieldPairs.draw`."""
        return self._drawn([self.training[row] for row in rows], epoch)

    def loss(self, raw: Tensor, batch: FieldBatch) -> Tensor:
        """See `FieldPairs.loss`."""
        field, truth, weights = (values.flatten(2).movedim(1, 2) for values in (raw, batch.target, batch.weights))
        error = (torch_heads.loss(self._head, field, truth) * weights[..., 0]).mean()
        if self._head.is_linear:
            return error
        return error + dice_loss(torch_heads.activate(self._head, field) * weights, truth * weights)

    def score(self, predict: Callable[[Tensor], Tensor]) -> float:
        """See `FieldPairs.score`."""
        found: list[Array] = []
        for start in range(0, len(self._watched), VALIDATED_AT_ONCE):
            some = self._watched[start : start + VALIDATED_AT_ONCE]
            raw = predict(torch.cat([one.source for one in some])).flatten(2).movedim(1, 2)
            truth = torch.cat([one.target * one.weights for one in some]).flatten(2).movedim(1, 2)
            known = torch.cat([one.weights for one in some]).flatten(2).movedim(1, 2)
            values = torch_heads.activate(self._head, raw) * known
            found.append(decoded_scores(self._head, values.cpu(), truth.cpu()))
        return float(np.concatenate(found).mean()) if found else float("nan")

    def _drawn(self, pairs: Sequence[Pair], epoch: int) -> FieldBatch:
        """One copy of each pair; what neither side covers has no weight."""
        jobs = [(sampler, pair) for sampler in self._samplers for pair in pairs]
        with ThreadPoolExecutor(worker_count()) as pool:  # scipy.ndimage works without the interpreter's lock
            drawn = list(pool.map(lambda job: job[0].draw(job[1], [epoch]), jobs))
        sides = drawn[: len(pairs)], drawn[len(pairs) :]
        (source, seen), (target, known) = ([np.concatenate(part) for part in zip(*side, strict=True)] for side in sides)
        source, target = (
            np.clip(values, 0, 1) if is_bounded else values  # a spline overshoots
            for values, is_bounded in zip((source, target), self._is_bounded, strict=True)
        )
        field = np.concatenate([source * seen[:, None], seen[:, None]], axis=1)
        if self._condition is not None:
            field = self._condition.extend(field, [pair.scan_id for pair in pairs])
        parts = (field, target, known[:, None])
        return FieldBatch(*(torch.from_numpy(np.ascontiguousarray(p, np.float32)).to(self._device) for p in parts))


def _training_pairs(recipe: Recipe, pairs: Sequence[Pair]) -> list[Pair]:
    """Those of the training splits. Raises InputError without any."""
    if training := [pair for pair in pairs if pair.split in recipe.data.train]:
        return training
    raise InputError(recipe.name, f"no rows of split {' or '.join(recipe.data.train)}")


def _sampler(recipe: Recipe, spec: CodecSpec, side: str, working: WorkingGrid, shape: tuple[int, ...]) -> Sampler:
    """Draws one side on the working grid, which may reach beyond the domain of the fields."""
    unit = spec.radius_mm or 1.0
    half = tuple(n * step / 2 / unit for n, step in zip(shape, working.spacing, strict=True))
    domain = Domain(half, shape)
    own = replace(spec, half_extent=half, spacing=domain.spacing)
    return Sampler(recipe, own, side, domain, is_cubic=not spec.is_label)

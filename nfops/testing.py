"""The contract of components as functions, for the tests of whoever writes one.

    from nfops.testing import check_operator
    from my_package.my_operator import Config, Operator

    def test_contract():
        check_operator(Operator, Config(epochs=50))

Each function makes small data, builds the component, fits it and raises AssertionError with what is wrong. Pass a
config that is quick to fit (few functions, few epochs). `nfops` runs them over every component it ships.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nfops.contract_checks import (
    SEED,
    TOLERANCE,
    check_gradient,
    check_graph,
    check_items_are_alone,
    check_members,
    check_same,
    check_settings,
    check_state,
    check_step,
    checked_output,
)
from nfops.field_contract import check_field_export, check_field_operator
from nfops.latents import LatentTable
from nfops.onnx_export import latent_operator_part
from nfops.registry import stated
from nfops.sampling import Domain, FieldSamples

PATIENTS = 24
ROWS_PER_PATIENT = 3


def check_backbone(cls: type[Any], config: Any, domain: Domain | None = None, channels: int = 1) -> None:
    """Check a `Backbone` class with one config on one domain (a 2-D one by default).

    The contract: `Backbone(config, domain, channels)`; `latent` is P; forward takes coords (B, N, d) and latents
    (B, P) to (B, N, C), item by item and point by point, with finite gradients; `fit(samples, on_step)`, if defined,
    is a function of the samples and the seed; `prior()` gives mean (P,) and variance (P,), positive; all that a fit
    learned is in the state dict; `form`, if defined, is a word. What makes encoding quick, if defined, agrees with
    forward: `jacobian(coords, latents)` -> values and (B, N, C, P), `factored_jacobian` the same as (B, N, C, S) and
    (B, S, P), `pull_back(coords, latents, cotangent)` -> values and J^T cotangent(values), (B, P).
    """
    domain = domain or Domain((1.0, 0.75), (12, 10))
    check_settings(cls, config)
    backbone = _fitted_backbone(cls, config, domain, channels)
    size = backbone.latent
    assert isinstance(size, int) and size >= 0, f"{cls.__name__}.latent should be an int from 0 up, got {size!r}"
    rng = np.random.default_rng(SEED)
    coords = torch.from_numpy(rng.uniform(-1, 1, (3, 17, domain.dims)) * np.array(domain.half_extent)).float()
    mean, variance = _checked_prior(backbone, size)
    latents = torch.from_numpy(mean + np.sqrt(variance) * rng.normal(size=(3, size))).float()
    values = checked_output(backbone, (coords, latents), (3, 17, channels))
    check_items_are_alone(backbone, (coords, latents), values)
    some = [2, 11, 5]
    check_same("a point's value depends on the other points", backbone(coords[:, some], latents), values[:, some])
    check_gradient(backbone, coords, latents)
    _check_derivatives(backbone, coords, latents)
    again = _fitted_backbone(cls, config, domain, channels)
    check_same("the same seed gave another fit", again(coords, latents), values)
    check_state(backbone, cls(config, domain, channels), (coords, latents), values)


def check_operator(cls: type[Any], config: Any, source_size: int = 5, target_size: int = 3) -> None:
    """Check an `Operator` class with one config; one that acts on fields by `field_contract.check_field_operator`.

    The contract of one that acts on latents: `Operator(config, source_size, target_size)`; forward takes (B, P_in) to
    (B, P_out), item by item, with finite gradients; `fit(source, target, objective, on_step)` is a function of the
    tables and torch's seed and, on a linear toy problem, better than the mean; all that it learned is in the state
    dict; `form`, if defined, is a word; `needs_validation`, if defined, says whether `fit` asks for `objective.score`
    (else evaluation thinks so); `each`, if defined, takes what forward takes to (M, ...), whose mean forward gives:
    how far these lie apart is told of every scan. Where settings decide on `acts_on` or `needs_validation`, the config
    has them.
    """
    check_settings(cls, config)
    acts_on = stated(cls, config, "acts_on", None)
    assert acts_on in {"latent", "field"}, f"{cls.__name__}.acts_on should be 'latent' or 'field', got {acts_on!r}"
    if acts_on == "field":
        check_field_operator(cls, config)
        return
    needs = stated(cls, config, "needs_validation", True)
    assert isinstance(needs, bool), f"{cls.__name__}.needs_validation should be a bool, got {needs!r}"
    source, target = _toy_tables(source_size, target_size)
    operator = _fitted_operator(cls, config, source, target)
    latents, truth = torch.from_numpy(source.vectors), target.vectors
    values = checked_output(operator, (latents,), truth.shape)
    error, spread = float(((values.numpy() - truth) ** 2).mean()), float(truth.var(axis=0).mean())
    assert error < spread, f"after fit the error on a linear toy problem is {error:.3g}, the mean's is {spread:.3g}"
    check_items_are_alone(operator, (latents[:3],), values[:3])
    check_members(operator, (latents,), values)
    check_gradient(operator, latents[:3])
    again = _fitted_operator(cls, config, source, target)
    check_same("the same seed gave another fit", again(latents), values)
    check_state(operator, cls(config, source_size, target_size), (latents,), values)


def check_export(cls: type[Any], config: Any, source_size: int = 5, target_size: int = 3) -> None:
    """Check that `nfops export-onnx` can write an `Operator` class with one config, and that the graph gives what torch
    gives: of latents in any number, or by `field_contract.check_field_export`. One that says `exportable = False`, and
    why, is believed.
    """
    if stated(cls, config, "acts_on", None) == "field":
        check_field_export(cls, config)
        return
    tables = _toy_tables(source_size, target_size)
    operator = _fitted_operator(cls, config, *tables)
    part = latent_operator_part(operator, source_size)
    batches = [torch.from_numpy(tables[0].vectors[:count]) for count in (1, len(tables[0].vectors))]
    check_graph(part, [({"latents": latents}, part[0](latents)) for latents in batches])


def _fitted_backbone(cls: type[Any], config: Any, domain: Domain, channels: int) -> Any:
    torch.manual_seed(SEED)
    backbone = cls(config, domain, channels)
    if hasattr(backbone, "fit"):
        samples = _smooth_samples(domain, channels, count=2 * backbone.latent + 8)
        backbone.fit(samples, check_step)
    return backbone.eval()


def _fitted_operator(cls: type[Any], config: Any, source: LatentTable, target: LatentTable) -> Any:
    torch.manual_seed(SEED)
    operator = cls(config, source.vectors.shape[1], target.vectors.shape[1])
    objective = ToyObjective(source, target)
    operator.fit(source, target, objective, check_step)
    told = stated(cls, config, "needs_validation", True)
    assert told or not objective.is_scored, f"{cls.__name__}.needs_validation is False, but fit asked for a score"
    return operator.eval()


class ToyObjective:
    """An `Objective` whose decoder is the identity and whose validation scans are the training ones."""

    def __init__(self, source: LatentTable, target: LatentTable) -> None:
        self._source, self._truth = torch.from_numpy(source.vectors), torch.from_numpy(target.vectors)
        self.is_scored = False

    def latent(self, predictions: Tensor, rows: Tensor) -> Tensor:
        """See `Objective.latent`."""
        return ((predictions - self._truth[rows]) ** 2).mean()

    def decoded(self, predictions: Tensor, rows: Tensor) -> Tensor:
        """See `Objective.decoded`."""
        return self.latent(predictions, rows)

    def score(self, predict: Callable[[Tensor], Tensor]) -> float:
        """See `Objective.score`."""
        self.is_scored = True
        return -float(((predict(self._source) - self._truth) ** 2).mean())


def _smooth_samples(domain: Domain, channels: int, count: int) -> FieldSamples:
    """Sums of random waves on the nodes; a third of the scans do not cover the last rows."""
    rng = np.random.default_rng(SEED)
    coords = domain.lattice().points()[:, 0]
    waves = rng.normal(size=(3 * count, domain.dims)) * 3
    basis = np.cos(coords @ waves.T + rng.uniform(0, 2 * np.pi, len(waves)))
    values = rng.normal(size=(count, channels, len(waves))) @ basis.T / np.sqrt(len(waves))
    coverage = np.ones((count, *domain.nodes), np.float32)
    coverage[::3, -2:] = 0
    return FieldSamples(values.reshape(count, channels, *domain.nodes).astype(np.float32), coverage, domain, SEED)


def _toy_tables(source_size: int, target_size: int) -> tuple[LatentTable, LatentTable]:
    """Latents of PATIENTS patients, a scan and its augmented copies each; the target is linear in the source."""
    rng = np.random.default_rng(SEED)
    rows = PATIENTS * ROWS_PER_PATIENT
    source = rng.normal(size=(rows, source_size)) * rng.uniform(0.5, 2, source_size)
    target = source @ rng.normal(size=(source_size, target_size)) + 0.5 + 0.01 * rng.normal(size=(rows, target_size))
    patients = tuple(f"p{row // ROWS_PER_PATIENT}" for row in range(rows))
    rest = (patients, patients, ("train",) * rows, np.arange(rows) % ROWS_PER_PATIENT, np.zeros(rows), "toy")
    return LatentTable(source.astype(np.float32), *rest), LatentTable(target.astype(np.float32), *rest)


def _checked_prior(backbone: Any, size: int) -> tuple[Any, Any]:
    mean, variance = backbone.prior()
    for name, array in (("mean", mean), ("variance", variance)):
        assert np.shape(array) == (size,), f"prior(): {name} should be ({size},), got {np.shape(array)}"
        assert np.isfinite(array).all(), f"prior(): {name} is not finite"
    assert (np.asarray(variance) > 0).all(), f"prior(): variances should be positive, got {float(np.min(variance)):g}"
    return np.asarray(mean), np.asarray(variance)


def _check_derivatives(backbone: Any, coords: Tensor, latents: Tensor) -> None:
    """Against autograd's, each where it is defined."""
    if not latents.numel():
        return
    latents = latents.clone().requires_grad_()
    output = backbone(coords, latents)
    slopes = torch.randn(output.shape, generator=torch.Generator().manual_seed(SEED))
    (wanted,) = torch.autograd.grad((output * slopes).sum(), latents)
    found: dict[str, tuple[Tensor, Tensor]] = {}
    with torch.no_grad():
        if hasattr(backbone, "jacobian"):
            values, whole = backbone.jacobian(coords, latents)
            found["jacobian"] = values, torch.einsum("bncp,bnc->bp", whole, slopes)
        if hasattr(backbone, "factored_jacobian"):
            values, outer, inner = backbone.factored_jacobian(coords, latents)
            by_shift = torch.einsum("bncs,bnc->bs", outer, slopes)
            found["factored_jacobian"] = values, torch.einsum("bs,bsp->bp", by_shift, inner)
        if hasattr(backbone, "pull_back"):
            found["pull_back"] = backbone.pull_back(coords, latents, lambda _: slopes)
    for name, (values, gradient) in found.items():
        check_same(f"{name}(): its values are not those of forward", values, output)
        check_same(f"{name}() is not the derivative of forward", gradient, wanted, 10 * TOLERANCE)

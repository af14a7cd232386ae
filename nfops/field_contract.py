"""The contract of operators that act on fields: `nfops.testing` calls this for them."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nfops.bundle import CONDITION_PREFIX, CONDITIONS
from nfops.contract_checks import (
    SEED,
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
from nfops.field_pairs import FieldBatch, Window, WorkingGrid
from nfops.graph_modules import FieldOperator
from nfops.heads import Head
from nfops.onnx_export import field_operator_part
from nfops.registry import stated

SCANS = 12
WINDOW = {
    1: Window((24.0,), (0.75,)),
    2: Window((24.0, 24.0), (1.5, 1.5)),
    3: Window((16.0, 16.0, 16.0), (2.0, 2.0, 2.0)),
}
"""By the number of dimensions: where the toy fields live."""
COARSEST_WAVE = 3.0
"""Cycles of a toy field across the window, at most."""


def check_field_operator(cls: type[Any], config: Any, dims: int = 2) -> None:
    """Check an `Operator` class that acts on fields with one config.

    The contract: `Operator(config, source_channels, target_channels, window)`; `working_grid` says which grid it
    wants; `forward(field (B, C, *grid), coords (B, *grid, d), spacing (d,))` gives (B, C', *grid), item by item, with
    finite gradients; `fit(pairs, on_step)` is a function of the pairs and torch's seed and, where the target is the
    source turned upside down, better than the mean; all that it learned is in the state dict; `form` is "field".
    On smooth fields it gives nearly the same on finer grids, the more so the finer they are; a class that is bound to
    one grid says `is_resolution_free = False`. One whose settings have a `condition` takes any number of source
    channels, and leaves names that begin with "latent." to the ridge beside it.
    """
    check_settings(cls, config)
    operator, pairs = _fitted(cls, config, dims)
    form = getattr(operator, "form", None)
    assert form == "field", f"{cls.__name__}.form should be 'field', got {form!r}"
    batch = pairs.draw(range(3), 1)
    inputs = batch.source, pairs.coords.expand(3, *pairs.coords.shape), pairs.spacing
    values = checked_output(operator, inputs, tuple(batch.target.shape))
    error, spread = float(((values - batch.target) ** 2).mean()), float(batch.target.var(dim=0).mean())
    assert error < spread, f"after fit the error on a toy problem is {error:.3g}, the mean's is {spread:.3g}"
    check_members(operator, inputs, values)
    alone = _At(operator, pairs)
    check_items_are_alone(alone, (batch.source,), values)
    check_gradient(alone, batch.source)
    again, _ = _fitted(cls, config, dims)
    check_same("the same seed gave another fit", again(*inputs), values)
    check_state(operator, cls(config, 2, 1, WINDOW[dims]), inputs, values)
    if hasattr(config, "condition"):
        _check_condition(cls, config, dims, inputs)
    if stated(cls, config, "is_resolution_free", True):
        _check_refinement(operator, pairs)


def check_field_export(cls: type[Any], config: Any, dims: int = 2) -> None:
    """Check that an `Operator` class that acts on fields becomes an ONNX graph, which gives what torch gives.

    On grids of any size and, where the class says `graph_takes_spacing`, of every spacing up to the working grid's.
    """
    operator, _ = _fitted(cls, config, dims)
    working, head, random = operator.working_grid, Head("identity"), torch.Generator().manual_seed(SEED)
    part = field_operator_part(operator, 2, head, working)
    takes_spacing = "spacing" in part[1]
    tries = []
    for times, cells in ((1, 1), (1, 3), (2, 2)) if takes_spacing else ((1, 1), (1, 3)):
        shape = [times * working.multiple * (cells + axis) for axis in range(dims)]
        spacing = tuple(step / times for step in working.spacing)
        axes = [(torch.arange(n) + 0.5 - n / 2) * step for n, step in zip(shape, spacing, strict=True)]
        positions = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
        given = {"field": torch.rand(cells, 2, *shape, generator=random), "positions": positions}
        expected = FieldOperator(operator, head, spacing)(**given)
        tries.append((given | ({"spacing": torch.tensor(spacing)} if takes_spacing else {}), expected))
    check_graph(part, tries)


class ToyFields:
    """`FieldPairs` of smooth fields, known analytically, on a working grid, or one some times as fine."""

    def __init__(self, working: WorkingGrid, window: Window, times: int = 1) -> None:
        dims = len(window.extent)
        shape = tuple(n * times for n in working.shape(window.extent))
        steps = [step / times for step in working.spacing]
        axes = [(torch.arange(n) + 0.5 - n / 2) * step for n, step in zip(shape, steps, strict=True)]
        self.coords = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
        self.spacing = torch.tensor(steps)
        random = torch.Generator().manual_seed(SEED)
        turns = (torch.rand(SCANS, 4, dims, generator=random) * 2 - 1) * COARSEST_WAVE / torch.tensor(window.extent)
        phases = torch.rand(SCANS, 4, *[1] * dims, generator=random) + torch.einsum(
            "swd,...d->sw...", turns, self.coords
        )
        self._scans = 0.5 + 0.12 * torch.cos(2 * torch.pi * phases).sum(dim=1, keepdim=True)

    def __len__(self) -> int:
        return SCANS

    def draw(self, rows: Sequence[int], epoch: int) -> FieldBatch:
        """See `FieldPairs.draw`; every epoch is alike."""
        del epoch
        scans = self._scans[list(rows)]
        return FieldBatch(torch.cat([scans, torch.ones_like(scans)], dim=1), 0.6 - scans, torch.ones_like(scans))

    def loss(self, raw: Tensor, batch: FieldBatch) -> Tensor:
        """See `FieldPairs.loss`."""
        error: Tensor = ((raw - batch.target) ** 2).mean()
        return error

    def score(self, predict: Callable[[Tensor], Tensor]) -> float:
        """See `FieldPairs.score`."""
        batch = self.draw(range(SCANS), 0)
        return -float(self.loss(predict(batch.source), batch))


class _At(torch.nn.Module):
    """An operator at the places of its pairs."""

    def __init__(self, operator: Any, pairs: ToyFields) -> None:
        super().__init__()
        self.operator, self.pairs = operator, pairs

    def forward(self, values: Tensor) -> Tensor:
        """(B, C, *grid) -> (B, C', *grid)."""
        coords = self.pairs.coords.expand(len(values), *self.pairs.coords.shape)
        made: Tensor = self.operator(values, coords, self.pairs.spacing)
        return made


def _fitted(cls: type[Any], config: Any, dims: int) -> tuple[Any, ToyFields]:
    torch.manual_seed(SEED)
    operator = cls(config, 2, 1, WINDOW[dims])
    working = operator.working_grid
    assert isinstance(working, WorkingGrid), f"working_grid should be a WorkingGrid, got {working!r}"
    pairs = ToyFields(working, WINDOW[dims])
    operator.fit(pairs, check_step)
    return operator.eval(), pairs


def _check_condition(cls: type[Any], config: Any, dims: int, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    """With a channel more; inputs: as of forward, without it."""
    assert config.condition in CONDITIONS, f"condition should be one of {CONDITIONS}, got {config.condition!r}"
    operator = cls(config, 3, 1, WINDOW[dims]).eval()
    source, *place = inputs
    checked_output(operator, (torch.cat([source[:, :1], source], dim=1), *place), (len(source), 1, *source.shape[2:]))
    taken = [name for name in operator.state_dict() if name.startswith(CONDITION_PREFIX)]
    assert not taken, f"{cls.__name__}: {taken[0]} begins with {CONDITION_PREFIX!r}, which is the ridge's"


@torch.no_grad()
def _check_refinement(operator: Any, pairs: ToyFields) -> None:
    """Twice as fine changes the output, twice as fine again changes it less."""
    dims = pairs.coords.ndim - 1
    seen = []
    for times in (1, 2, 4):
        finer = ToyFields(operator.working_grid, WINDOW[dims], times)
        made = _At(operator, finer)(finer.draw(range(2), 0).source)
        for axis in range(2, 2 + dims):
            made = made.unflatten(axis, (-1, times)).mean(dim=axis + 1)
        seen.append(made)
    first, second = (float((a - b).square().mean().sqrt()) for a, b in itertools.pairwise(seen))
    spread = float(seen[0].std())
    assert second <= max(first, 1e-6), (
        f"a finer grid changed the output by {first:.3g}, one finer still by {second:.3g}"
    )
    assert second <= 0.2 * spread, f"a finer grid changes the output by {second:.3g}, it varies by {spread:.3g} in all"

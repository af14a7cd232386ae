"""Several operators whose predictions are averaged; how far they lie apart says how sure they are of a scan.

Its members are operators of one kind, on latents or on fields, each with settings of its own. Of those on latents the
predicted latents are averaged, of those on fields the raw output, before the head.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from nfops.annotations import about
from nfops.errors import ComponentError, RecipeError
from nfops.field_pairs import WorkingGrid
from nfops.progress import OnStep, Step
from nfops.registry import load_component, stated
from nfops.schema import Section


@dataclass(frozen=True)
class Config:
    """members: sections like `operator` itself. The same one twice gives two networks: chance goes on between them."""

    members: tuple[Section, ...] = field(
        metadata=about(
            "Operators whose predictions are averaged, each a section with its backend and settings; all on latents, "
            "or all on fields.",
            selector="backend",
        )
    )

    def __post_init__(self) -> None:
        """Raises RecipeError with every mistake in the members' settings, each on its line."""
        if not self.members:
            raise ValueError("members: expected at least one operator")
        kinds = [stated(*part, "acts_on", "latent") for part in self.parts]
        for section, kind in zip(self.members, kinds, strict=True):
            if kind != kinds[0]:
                what = f"{section.component} acts on {kind}s, {self.members[0].component} on {kinds[0]}s"
                raise RecipeError(section.node.mark, f"{section.where}: {what}; expected members of one kind")

        seen = [stated(*part, "condition", "none") for part in self.parts]
        for section, condition in zip(self.members, seen, strict=True):
            if condition != seen[0]:
                what = f"condition {condition}, {self.members[0].where} has {seen[0]}: an ensemble has one source"
                raise RecipeError(section.node.mark, f"{section.where}: {what}")

    @cached_property
    def parts(self) -> tuple[tuple[type[Any], Any], ...]:
        """The class and the settings of each member."""
        problems: list[str] = []
        found = []
        for section in self.members:
            try:
                found.append(_load(section))
            except RecipeError as error:
                problems += error.problems or [error.message]
        if problems:
            raise RecipeError("members", "unusable settings", problems=problems)
        return tuple(found)

    @property
    def acts_on(self) -> str:
        """What its members act on."""
        return str(stated(*self.parts[0], "acts_on", "latent"))

    @property
    def condition(self) -> str:
        """What its members on fields see beside the scan."""
        return str(stated(*self.parts[0], "condition", "none"))

    @property
    def needs_validation(self) -> bool:
        """Whether one of its members does."""
        return any(stated(*part, "needs_validation", True) for part in self.parts)

    @property
    def is_resolution_free(self) -> bool:
        """Whether all of its members are."""
        return all(stated(*part, "is_resolution_free", True) for part in self.parts)


class Operator(nn.Module):
    """The mean of its members' predictions: of latents, or of raw fields."""

    def __init__(self, config: Config, *sizes: Any) -> None:
        """sizes: what the members are built with. Raises RecipeError for working grids of different spacings."""
        super().__init__()
        self.config = config
        self.figures: dict[str, float] = {}
        self.members = nn.ModuleList(cls(settings, *sizes) for cls, settings in config.parts)
        self.form = "field" if config.acts_on == "field" else "ensemble"
        self.forms = tuple(getattr(member, "form", "torch") for member in self.members)
        if self.form == "field":
            self.working_grid = _common_grid(config.members, self.members)
            # one member after the other, beside the output of all
            each = [getattr(member, "values_per_point", 1) for member in self.members]
            self.values_per_point = max(each) + len(each) * int(sizes[1])

    def each(self, *inputs: Tensor) -> Tensor:
        """(M, ...): the prediction of every member; inputs as for `forward`."""
        return torch.stack([member(*inputs) for member in self.members])

    def forward(self, *inputs: Tensor) -> Tensor:
        """Latents (B, P_in) -> (B, P_out); or values, coords, spacing -> raw output, as any operator on fields."""
        return self.each(*inputs).mean(dim=0)

    def fit(self, *arguments: Any) -> None:
        """Fit the members one after the other; arguments: those of an operator on latents or on fields."""
        *learned_from, on_step = arguments
        members: Iterable[Any] = self.members
        for number, member in enumerate(members):
            member.fit(*learned_from, _stages(on_step, f"member {number + 1} of {len(self.members)}"))
            figures = getattr(member, "figures", {})
            self.figures |= {f"members.{number}.{name}": value for name, value in figures.items()}


def _load(section: Section) -> tuple[type[Any], Any]:
    """The class and the settings of a member. Raises RecipeError with every mistake in it, on its line."""
    try:
        part = load_component("operator", section.component)
    except ComponentError as error:
        raise RecipeError(section.node.mark, f"{section.where}: {error.message}") from error
    if part.cls is Operator:
        raise RecipeError(section.node.mark, f"{section.where}: an ensemble is no member of an ensemble")
    return part.cls, section.configure(part.config)


def _common_grid(sections: tuple[Section, ...], members: Iterable[Any]) -> WorkingGrid:
    """The grid that suits all: their spacing, the least common multiple."""
    grids: list[WorkingGrid] = [member.working_grid for member in members]
    first = grids[0]
    for section, grid in zip(sections, grids, strict=True):
        if any(abs(a - b) > 1e-6 * b for a, b in zip(grid.spacing, first.spacing, strict=True)):
            works = " x ".join(f"{step:g}" for step in grid.spacing)
            wanted = " x ".join(f"{step:g}" for step in first.spacing)
            what = f"works on a grid of {works}, {sections[0].where} on one of {wanted}: an ensemble has one grid"
            raise RecipeError(section.node.mark, f"{section.where}: {what}")
    return WorkingGrid(first.spacing, math.lcm(*(grid.multiple for grid in grids)))


def _stages(on_step: OnStep, which: str) -> OnStep:
    """How a member tells where it is."""

    def tell(step: Step) -> None:
        on_step(replace(step, stage=f"{which}: {step.stage}"))

    return tell

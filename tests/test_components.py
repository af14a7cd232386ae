"""Every registered component keeps the contract of its kind: a new file is tested the moment it exists."""

import dataclasses

import pytest
import torch
from torch import nn

from nfops.latents import LatentTable
from nfops.node import Mark, node_from_plain
from nfops.registry import list_components, load_component
from nfops.sampling import Domain
from nfops.schema import Section
from nfops.testing import check_backbone, check_operator

SMALL = {"latent": 5, "width": 16, "depth": 2, "layers": 2, "epochs": 60, "trees": 8, "steps": 20, "iterations": 20}
"""Settings that make a component quick to fit, where its Config has them."""

MEMBERS = ({"backend": "linear"}, {"backend": "random-forest", "trees": 8}, {"backend": "residual-mlp", "epochs": 20})

DOMAINS = {
    "1-D": (Domain((1.0,), (16,)), 1),
    "2-D": (Domain((1.0, 0.75), (12, 10)), 1),
    "3-D": (Domain((0.6, 1.0, 0.8), (6, 8, 7)), 2),
}


def names(kind: str) -> list[str]:
    return [component.name for component in list_components(kind) if not component.error]


def small_config(config: type, name: str = ""):
    if name == "ensemble":
        return config(members=tuple(Section(node_from_plain(m, Mark("test")), "members", "backend") for m in MEMBERS))
    known = {field.name for field in dataclasses.fields(config)}
    return config(**{key: value for key, value in SMALL.items() if key in known})


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("name", names("backbone"))
def test_backbone_keeps_its_contract(name, domain):
    part = load_component("backbone", name)
    check_backbone(part.cls, small_config(part.config), *DOMAINS[domain])


@pytest.mark.parametrize("name", names("operator"))
def test_operator_keeps_its_contract(name):
    part = load_component("operator", name)
    check_operator(part.cls, small_config(part.config, name))


def test_there_is_something_to_check():
    assert "fpca" in names("backbone")
    assert "linear" in names("operator")


@dataclasses.dataclass(frozen=True)
class Config:
    """Of the broken operators below."""


class Mean(nn.Module):
    """An operator that predicts the mean: allowed to exist, not good enough."""

    acts_on = "latent"

    def __init__(self, config: Config, source_size: int, target_size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(target_size))

    def fit(self, source: LatentTable, target: LatentTable, loss, on_step) -> None:
        self.mean.copy_(torch.from_numpy(target.vectors.mean(axis=0)))

    def forward(self, latents):
        return self.mean + 0 * latents[:, :1]


class Forgetful(Mean):
    """Knows the answer, and keeps it out of its state."""

    def fit(self, source, target, loss, on_step):
        self.weight = torch.linalg.lstsq(torch.from_numpy(source.vectors), torch.from_numpy(target.vectors)).solution

    def forward(self, latents):
        return latents @ getattr(self, "weight", torch.zeros(latents.shape[1], len(self.mean)))


class BatchBound(Forgetful):
    """Subtracts the batch's mean."""

    def forward(self, latents):
        moved = super().forward(latents)
        return moved - 0.01 * moved.mean(dim=0)


class WrongShape(Mean):
    def forward(self, latents):
        return latents


class Peeping(Mean):
    """Looks at the validation scans, and says that it does not."""

    needs_validation = False

    def fit(self, source, target, objective, on_step):
        objective.score(self)


@pytest.mark.parametrize(
    ("cls", "complaint"),
    [
        (Mean, "mean's"),
        (Forgetful, "state dict"),
        (BatchBound, "rest of its batch"),
        (WrongShape, "should give"),
        (Peeping, "asked for a score"),
    ],
)
def test_a_broken_operator_is_told_what_is_wrong(cls, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_operator(cls, Config())


def test_a_mutable_config_is_refused():
    part = load_component("backbone", "fpca")

    @dataclasses.dataclass
    class Mutable:
        latent: int = 5

    with pytest.raises(AssertionError, match="frozen"):
        check_backbone(part.cls, Mutable())

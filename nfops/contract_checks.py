"""What the contracts of all components have in common: `nfops.testing` and `nfops.field_contract` are made of these."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nfops.engines.onnx_sessions import GraphSession
from nfops.graph_parity import LARGEST
from nfops.onnx_export import Part, exported, stored, why_not_exportable
from nfops.progress import Step

SEED = 7
TOLERANCE = 1e-5
"""Relative to the largest value: what a different order of float32 sums may change."""
NEAR = LARGEST["float32"]
"""The same of a graph beside torch."""


def check_settings(cls: type[Any], config: Any) -> None:
    """A frozen Config, a Module, a `form` that is a word."""
    assert dataclasses.is_dataclass(config), f"Config should be a dataclass, got {type(config).__name__}"
    assert config.__dataclass_params__.frozen, "Config should be frozen: @dataclass(frozen=True)"  # type: ignore[union-attr]
    assert issubclass(cls, nn.Module), f"{cls.__name__} should be a torch.nn.Module"
    form = getattr(cls, "form", "torch")
    assert isinstance(form, str) and form, f"{cls.__name__}.form should be a word, got {form!r}"


def check_step(step: Any) -> None:
    """What `on_step` must be given."""
    assert isinstance(step, Step), f"on_step should be given a nfops.progress.Step, got {step!r}"
    assert 0 <= step.done <= step.total, f"on_step: {step.done} of {step.total} done"


def checked_output(module: Any, inputs: tuple[Tensor, ...], shape: tuple[int, ...]) -> Tensor:
    """The module's output: of this shape, float32, finite."""
    values: Tensor = module(*inputs).detach()
    assert tuple(values.shape) == shape, f"forward should give {shape}, got {tuple(values.shape)}"
    assert values.dtype == torch.float32, f"forward should give float32 for float32, got {values.dtype}"
    assert bool(torch.isfinite(values).all()), "forward gave values that are not finite"
    return values


def check_items_are_alone(module: Any, inputs: tuple[Tensor, ...], values: Tensor) -> None:
    """`values` is the output; each item by itself must give the same."""
    alone = torch.cat([module(*(tensor[item : item + 1] for tensor in inputs)) for item in range(len(values))])
    check_same("an item's value depends on the rest of its batch", alone, values)


def check_members(module: Any, inputs: tuple[Tensor, ...], values: Tensor) -> None:
    """`values` is the output, and where there is `each`, the mean of what that gives."""
    if hasattr(module, "each"):
        check_same("the mean of each() is not what forward gives", module.each(*inputs).mean(dim=0), values)


def check_gradient(module: Any, *inputs: Tensor) -> None:
    """With respect to the last input."""
    latents = inputs[-1].clone().requires_grad_()
    output = module(*inputs[:-1], latents)
    if not latents.numel():
        return
    (gradient,) = torch.autograd.grad((output**2).sum(), latents)
    assert bool(torch.isfinite(gradient).all()), "the gradient with respect to the latents is not finite"


def check_state(fitted: Any, empty: Any, inputs: tuple[Tensor, ...], values: Tensor) -> None:
    """A new instance with the fitted one's state gives its values, bit by bit."""
    empty.load_state_dict({name: tensor.clone() for name, tensor in fitted.state_dict().items()})
    what = "a new instance with the same state dict gives other values: not all that fit learned is in it"
    check_same(what, empty.eval()(*inputs), values, tolerance=0)


def check_same(what: str, got: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    """Within `tolerance` of the largest value."""
    got, expected = got.detach(), expected.detach()
    assert got.shape == expected.shape, f"{what}: shapes {tuple(got.shape)} and {tuple(expected.shape)}"
    furthest = float((got - expected).abs().max()) if got.numel() else 0.0
    assert furthest <= tolerance * max(1.0, float(expected.abs().max())), f"{what}: they differ by {furthest:.3g}"


def check_graph(part: Part, tries: Iterable[tuple[Mapping[str, Tensor], tuple[Tensor, ...]]]) -> None:
    """An operator's graph gives for all inputs what torch gives, in every output; unless it says that it is none."""
    module, *_, outputs = part
    if why_not_exportable(module.operator):
        return
    name = type(module.operator).__name__
    session = GraphSession(stored(exported(name, *part), "float32"), name)
    for given, expected in tries:
        found = session.run(outputs, {each: session.place(tensor.numpy()) for each, tensor in given.items()})
        for output, one, other in zip(outputs, found, expected, strict=True):
            shapes = {each: tuple(tensor.shape) for each, tensor in given.items()}
            check_same(f"of {shapes} the graph gave other {output}", torch.from_numpy(one), other.detach(), NEAR)

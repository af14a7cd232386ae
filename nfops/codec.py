"""`Codec`: a backbone, its head and its spec, in torch; how components are built, stored and loaded."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from nfops.arrays import Array
from nfops.bundle import CONDITION_PREFIX, Bundle
from nfops.codec_spec import CodecSpec
from nfops.errors import BundleError, ComponentError
from nfops.field_pairs import Window
from nfops.heads import Head
from nfops.recipe import Recipe
from nfops.registry import load_component, stated
from nfops.sampling import Domain
from nfops.schema import Section


class Codec(nn.Module):
    """A field with a meaning: backbone (raw output), head (values), spec (frame, intensities, encode settings)."""

    def __init__(self, backbone: nn.Module, spec: CodecSpec) -> None:
        super().__init__()
        self.backbone, self.spec = backbone, spec
        self.head, self.quadratic = Head(spec.head), Head("identity")
        self.starts_linked = spec.form == "spline-basis"
        self.is_linear = self.head.is_linear and self.starts_linked

    @property
    def device(self) -> torch.device:
        """Where the backbone's arrays are."""
        first: Tensor = next(iter(self.backbone.state_dict().values()))
        return first.device

    def field(self, points: Tensor, latents: Tensor) -> Tensor:
        """Points (N, Q, d), latents (B, P) -> the raw field (B, N, C), averaged over the Q sub-points."""
        return _cell_means(self.backbone(_for_each(latents, points), latents), points.shape[1])

    def jacobian(self, points: Array, latent: Array) -> tuple[Array, Array]:
        """Points (N, Q, d), latent (P,) -> the field (N, C) and its derivative (N, C, P)."""
        where = torch.as_tensor(points, dtype=torch.float32, device=self.device)
        z = torch.as_tensor(latent, dtype=torch.float32, device=self.device)
        field, outer, inner = self.factored_jacobian(where, z[None])
        whole = outer if inner is None else outer[0] @ inner[0]
        return field[0].cpu().numpy(), whole.reshape(*field.shape[1:], len(latent)).cpu().numpy()

    @torch.no_grad()
    def factored_jacobian(self, points: Tensor, latents: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """The field (B, N, C) of cells and factors of its derivative by the latents, (B, N, C, S) and (B, S, P).

        A backbone without factors (a `factored_jacobian` of its own) has S = P and None: its `jacobian`, or autograd's.
        """
        cell = points.shape[1]
        if factored := getattr(self.backbone, "factored_jacobian", None):
            field, outer, inner = factored(_for_each(latents, points), latents)
            return _cell_means(field, cell), _cell_means(outer, cell), inner
        if whole := getattr(self.backbone, "jacobian", None):
            field, derivative = whole(_for_each(latents, points), latents)
            return _cell_means(field, cell), _cell_means(derivative, cell), None
        derivative, field = torch.func.vmap(torch.func.jacfwd(self._twice, argnums=1, has_aux=True), (None, 0))(
            points, latents
        )
        return field, derivative, None

    def pull_back(
        self, points: Tensor, latents: Tensor, cotangent: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The field (B, N, C) of cells and J^T u (B, P) for u = cotangent(field), without the Jacobian."""
        cell = points.shape[1]
        if pull_back := getattr(self.backbone, "pull_back", None):

            def spread(raw: Tensor) -> Tensor:
                return cotangent(_cell_means(raw, cell)).repeat_interleave(cell, dim=1) / cell

            raw, gradient = pull_back(_for_each(latents, points), latents, spread)
            return _cell_means(raw, cell), gradient
        with torch.enable_grad():
            leaf = latents.detach().requires_grad_()
            field = self.field(points, leaf)
            (gradient,) = torch.autograd.grad(field, leaf, cotangent(field.detach()))
        return field.detach(), gradient

    def _twice(self, points: Tensor, latent: Tensor) -> tuple[Tensor, Tensor]:
        """The field (N, C) of one latent, to be differentiated and to be kept."""
        field = self.field(points, latent[None])[0]
        return field, field


def _for_each(latents: Tensor, points: Tensor) -> Tensor:
    """(N, Q, d) -> (B, N Q, d), the same memory for every latent."""
    return points.reshape(1, -1, points.shape[-1]).expand(len(latents), -1, -1)


def _cell_means(values: Tensor, cell: int) -> Tensor:
    """(B, N Q, ...) -> (B, N, ...)."""
    return values if cell == 1 else values.reshape(len(values), -1, cell, *values.shape[2:]).mean(dim=2)


def build_backbone(settings: Section, domain: Domain, channels: int) -> Any:
    """A new backbone (an nn.Module; design, "Adding a part") from a recipe's `field` section."""
    part = load_component("backbone", settings.component)
    return part.cls(settings.configure(part.config), domain, channels)


def operator_acts_on(recipe: Recipe) -> str:
    """What the operator of a recipe takes: "latent" or "field".

    Raises ComponentError for one that is not there, RecipeError for settings that it does not take.
    """
    section = recipe.require_operator()
    part = load_component("operator", section.component)
    return str(stated(part.cls, section.configure(part.config), "acts_on", "latent"))


def build_operator(settings: Section, source_size: int, target_size: int) -> Any:
    """A new operator (an nn.Module) from a recipe's `operator` section."""
    part = load_component("operator", settings.component)
    config = settings.configure(part.config)
    if (acts_on := stated(part.cls, config, "acts_on", "latent")) != "latent":
        raise ComponentError(settings.where, f"{settings.component} acts on {acts_on}s, expected latents")
    return part.cls(config, source_size, target_size)


def operator_condition(settings: Section) -> str:
    """What an operator on fields wants to see beside the scan (see `bundle.CONDITIONS`), by its settings."""
    return str(getattr(settings.configure(load_component("operator", settings.component).config), "condition", "none"))


def build_field_operator(settings: Section, bundle: Bundle, condition: str) -> Any:
    """A new operator (an nn.Module) on the fields of a bundle.

    It is told the channels of its source, of a condition and the coverage included, and those of its target.
    """
    part = load_component("operator", settings.component)
    channels = seen_channels(bundle, condition), bundle.specs["target"].channels
    return part.cls(settings.configure(part.config), *channels, field_window(bundle))


def seen_channels(bundle: Bundle, condition: str) -> int:
    """What an operator on fields is given: the source's channels, those of its condition, the coverage."""
    return bundle.specs["source"].channels + 1 + (bundle.specs["target"].channels if condition == "latent" else 0)


def field_window(bundle: Bundle) -> Window:
    """Where a field operator of a bundle's recipe learns: the domain of its fields, cut as `geometry.grid` says."""
    spec, shape = bundle.specs["source"], bundle.recipe["geometry"]["grid"]["shape"]
    extent = tuple(2 * half * (spec.radius_mm or 1.0) for half in spec.half_extent)
    return Window(extent, tuple(e / n for e, n in zip(extent, shape, strict=True)))


def state_arrays(module: nn.Module, prefix: str = "") -> dict[str, Array]:
    """A module's state as NumPy arrays."""
    return {prefix + name: np.ascontiguousarray(t.detach().cpu().numpy()) for name, t in module.state_dict().items()}


def load_codec(bundle: Bundle, side: str) -> Codec:
    """The codec of one side of a bundle."""
    spec = bundle.specs[side]
    backbone = build_backbone(bundle.section(side), spec.domain, spec.channels)
    _load_state(backbone, bundle.arrays[side], "field.", f"{bundle.path}: {side}")
    return Codec(backbone.eval(), spec)


def load_operator(bundle: Bundle) -> nn.Module:
    """The operator of a bundle."""
    settings, source, target = bundle.section("operator"), bundle.specs["source"], bundle.specs["target"]
    if bundle.acts_on_fields:
        operator = build_field_operator(settings, bundle, bundle.condition)
    else:
        operator = build_operator(settings, source.latent, target.latent)
    arrays = bundle.arrays["operator"]
    if bundle.condition == "latent":
        arrays = {name: array for name, array in arrays.items() if not name.startswith(CONDITION_PREFIX)}
    _load_state(operator, arrays, "", f"{bundle.path}: operator")
    operator.eval()
    if not bundle.acts_on_fields:
        _refuse_misfit(operator, source.latent, target.latent, f"{bundle.path}: operator")
    return cast(nn.Module, operator)


@torch.inference_mode()
def _refuse_misfit(operator: nn.Module, source_size: int, target_size: int, where: str) -> None:
    """Raise BundleError where an operator, loaded whole, does not take latents to latents."""
    try:
        shape = tuple(operator(torch.zeros(2, source_size)).shape)
    except (RuntimeError, IndexError) as error:
        raise BundleError(where, f"its arrays do not fit one another: {' '.join(str(error).split())}") from error
    if shape != (2, target_size):
        raise BundleError(where, f"it gives {shape[-1]} numbers, its target has {target_size}")


def _load_state(module: nn.Module, arrays: dict[str, Array], prefix: str, where: str) -> None:
    state = {name[len(prefix) :]: torch.from_numpy(a.copy()) for name, a in arrays.items() if name.startswith(prefix)}
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        lines = " ".join(str(error).split())
        raise BundleError(where, f"its arrays do not fit the component: {lines}") from error

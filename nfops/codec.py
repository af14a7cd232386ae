"""`Codec`: a backbone, its head and its spec, in torch; how components are built, stored and loaded."""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from nfops.arrays import Array
from nfops.bundle import Bundle
from nfops.codec_spec import CodecSpec
from nfops.errors import BundleError, ComponentError
from nfops.heads import Head
from nfops.registry import load_component
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

    @torch.inference_mode()
    def field(self, points: Array, latents: Array) -> Array:
        """Points (N, Q, d), latents (B, P) -> the raw field (B, N, C), averaged over the Q sub-points."""
        device = next(iter(self.backbone.state_dict().values())).device
        count, cells = len(latents), points.shape[:2]
        flat = torch.as_tensor(points.reshape(1, -1, points.shape[-1]), device=device).expand(count, -1, -1)
        raw: Tensor = self.backbone(flat, torch.as_tensor(latents, dtype=torch.float32, device=device))
        return np.asarray(raw.reshape(count, *cells, -1).mean(dim=2).cpu().numpy())

    def jacobian(self, points: Array, latent: Array) -> tuple[Array, Array]:
        """Points (N, Q, d), latent (P,) -> the field (N, C) and its derivative (N, C, P)."""
        device = next(iter(self.backbone.state_dict().values())).device
        flat = torch.as_tensor(points.reshape(1, -1, points.shape[-1]), device=device)

        def averaged(z: Tensor) -> tuple[Tensor, Tensor]:
            raw: Tensor = self.backbone(flat, z[None])[0].reshape(*points.shape[:2], -1).mean(dim=1)
            return raw, raw

        z = torch.as_tensor(latent, dtype=torch.float32, device=device)
        derivative, value = torch.func.jacfwd(averaged, has_aux=True)(z)
        return value.detach().cpu().numpy(), derivative.detach().cpu().numpy()


def build_backbone(settings: Section, domain: Domain, channels: int) -> Any:
    """A new backbone (an nn.Module; design, "Adding a part") from a recipe's `field` section."""
    part = load_component("backbone", settings.component)
    return part.cls(settings.configure(part.config), domain, channels)


def build_operator(settings: Section, source_size: int, target_size: int) -> Any:
    """A new operator (an nn.Module) from a recipe's `operator` section."""
    part = load_component("operator", settings.component)
    if getattr(part.cls, "acts_on", "latent") != "latent":
        raise ComponentError(settings.where, f"{settings.component} acts on {part.cls.acts_on}s, expected latents")
    return part.cls(settings.configure(part.config), source_size, target_size)


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
    sizes = bundle.specs["source"].latent, bundle.specs["target"].latent
    operator = build_operator(bundle.section("operator"), *sizes)
    _load_state(operator, bundle.arrays["operator"], "", f"{bundle.path}: operator")
    operator.eval()
    return cast(nn.Module, operator)


def _load_state(module: nn.Module, arrays: dict[str, Array], prefix: str, where: str) -> None:
    state = {name[len(prefix) :]: torch.from_numpy(a.copy()) for name, a in arrays.items() if name.startswith(prefix)}
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        lines = " ".join(str(error).split())
        raise BundleError(where, f"its arrays do not fit the component: {lines}") from error

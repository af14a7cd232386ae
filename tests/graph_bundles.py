"""Tiny bundles whose parts need torch or ONNX graphs, in memory, with random weights."""

from dataclasses import replace

import numpy as np
import torch
from toy_bundles import RADIUS_MM, make_bundle, make_spec

from nfops.bundle import Bundle
from nfops.codec import build_backbone, build_field_operator, state_arrays
from nfops.codec_spec import EncodeSettings
from nfops.grid import Grid
from nfops.image import Image
from nfops.node import Mark, node_from_plain
from nfops.schema import Section

OINR = {"backend": "oinr", "widths": [8, 8, 8], "blocks": [1, 1, 1], "spacing_mm": 5.0, "mirror": [0]}


def section(plain: dict, selector: str = "backend") -> Section:
    return Section(node_from_plain(plain, Mark("toy", 0, 0)), "toy", selector)


def field_bundle(dims: int = 2, head: str = "identity", channels: int = 1, **changes) -> Bundle:
    """Spline fields, whose target only says what values are, and an O-INR with random weights between them."""
    source, target = make_spec(dims), make_spec(dims, head, channels)
    base = make_bundle(source, target)
    nodes = [round(2 * h / s) for h, s in zip(source.half_extent, source.spacing, strict=True)]
    plain = OINR | changes
    recipe = {**base.recipe, "operator": plain, "geometry": {"grid": {"shape": nodes}}}
    bundle = replace(base, recipe=recipe)
    torch.manual_seed(0)
    operator = build_field_operator(section(plain), bundle, "none")
    torch.nn.init.normal_(operator.last.weight, std=0.2)
    working = operator.working_grid
    facts = {"form": "field", "working": {"spacing": list(working.spacing), "multiple": working.multiple}}
    return bundle.with_operator(recipe, state_arrays(operator), facts)


def ensemble_of_fields(members: list[dict], dims: int = 2, head: str = "identity", channels: int = 1) -> Bundle:
    """As `field_bundle`, with an ensemble of O-INRs."""
    base = field_bundle(dims, head, channels)
    recipe = {**base.recipe, "operator": {"backend": "ensemble", "members": members}}
    bundle = replace(base, recipe=recipe)
    torch.manual_seed(0)
    operator = build_field_operator(bundle.section("operator"), bundle, "none")
    for member in operator.members:
        torch.nn.init.normal_(member.last.weight, std=0.2)
    working = operator.working_grid
    facts = {"form": "field", "working": {"spacing": list(working.spacing), "multiple": working.multiple}}
    return bundle.with_operator(recipe, state_arrays(operator), facts)


def fields_of(bundle: Bundle, count: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random values, their coordinates and the spacing, as `Engine.operate_field` takes them."""
    working = bundle.operator["working"]
    shape = [2 * working["multiple"]] * bundle.specs["source"].dims
    random = np.random.default_rng(0)
    coords = random.normal(scale=20, size=(*shape, len(shape))).astype(np.float32)
    return random.random((count, 2, *shape), np.float32), coords, np.array(working["spacing"])


def smooth_scan(dims: int, seed: int = 0) -> Image:
    """A volume with a smooth pattern, on an oblique, anisotropic grid that covers the fields."""
    shape = {1: (30, 1, 1), 2: (21, 17, 3), 3: (15, 13, 11)}[dims]
    steps = [2 * RADIUS_MM * extent / n for extent, n in zip((1.0, 0.8, 0.7), shape, strict=True)]
    affine = np.eye(4)
    affine[:3, :3] = np.array([[-1, 0.05, 0], [-0.05, -1, 0], [0, 0, 1]]) @ np.diag(steps)
    phases = np.stack(np.meshgrid(*(np.linspace(0, 3, n) for n in shape), indexing="ij"))
    values = 0.5 + 0.4 * np.sin(phases.sum(axis=0) + seed) * np.cos(phases[0] - seed)
    return Image(values[None].astype(np.float32), Grid(shape, affine))


FORMS = {"siren": "torch", "warped-fpca": "warped-basis", "fpca": "spline-basis"}


def siren(**changes) -> dict:
    return {"backbone": "siren", "latent": 12, "width": 24, "depth": 3, "omega": 6.0} | changes


def latent_bundle(source: dict, target: dict, dims: int = 2, head: str = "identity", channels: int = 1) -> Bundle:
    """Two fields with random weights, `field` sections of a recipe, and an affine operator between their latents."""
    sides = {"source": (source, "identity", 1), "target": (target, head, channels)}
    specs, arrays = {}, {}
    for number, (side, (plain, own_head, own_channels)) in enumerate(sides.items()):
        form = FORMS[plain["backbone"]]
        settings = EncodeSettings(steps=4, points=500, prior=0.1)  # random weights: the prior makes latents definite
        named = {"backbone": plain["backbone"], "form": form, "latent": plain["latent"], "encode": settings}
        spec = make_spec(dims, own_head, own_channels, **named)
        torch.manual_seed(number)
        backbone = build_backbone(section(plain, "backbone"), spec.domain, own_channels)
        if form != "torch":
            for parameter in backbone.parameters():
                torch.nn.init.normal_(parameter, std=0.1)
        mean, variance = backbone.prior()
        prior = {"prior_mean": mean.astype(np.float32), "prior_variance": variance.astype(np.float32)}
        specs[side], arrays[side] = spec, state_arrays(backbone, "field.") | prior
    random = np.random.default_rng(5)
    weight = random.normal(size=(target["latent"], source["latent"])).astype(np.float32) / 3
    arrays["operator"] = {"weight": weight, "bias": np.zeros(target["latent"], np.float32)}
    recipe = {"seed": 1, "source": {"field": source}, "target": {"field": target}, "operator": {"backend": "linear"}}
    return Bundle("toy", recipe, specs, arrays, operator={"form": "affine"})

"""Operators on latents in NumPy, by the form that they state: what a bundle needs to be applied without torch."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nfops.arrays import Array
from nfops.bundle import Bundle
from nfops.errors import BundleError
from nfops.node_tables import table_fault

Operate = Callable[[Array], Array]
"""(B, P_in) -> (B, P_out) float32."""

EPSILON = 1e-5
"""torch.nn.LayerNorm's."""


def open_members(bundle: Bundle) -> list[Operate]:
    """What the operator of a bundle whose `runs_in_numpy` is true is the mean of (`mean_of`): an ensemble's members, a
    residual MLP's networks, or itself. Raises BundleError where its arrays do not fit.
    """
    form, settings, arrays = bundle.operator["form"], bundle.recipe.get("operator", {}), bundle.arrays["operator"]
    sizes = tuple(bundle.specs[side].latent for side in ("source", "target"))
    try:
        members = _open_ensemble(bundle) if form == "ensemble" else _open(bundle, form, settings, arrays)
        shapes = {member(np.zeros((2, sizes[0]), np.float32)).shape for member in members}
    except (KeyError, ValueError, IndexError, TypeError, AttributeError) as error:
        raise BundleError(bundle.path or "bundle", f"the operator's arrays are not those of {form}: {error}") from error
    if wrong := shapes - {(2, sizes[1])}:
        got = wrong.pop()[-1]
        raise BundleError(bundle.path or "bundle", f"the operator gives {got} numbers, its target has {sizes[1]}")
    return members


def mean_of(each: Array) -> Array:
    """(M, B, P_out) -> (B, P_out)."""
    return np.asarray(each[0] if len(each) == 1 else each.mean(axis=0))


def _open_ensemble(bundle: Bundle) -> list[Operate]:
    arrays, found = bundle.arrays["operator"], []
    for number, (form, settings) in enumerate(
        zip(bundle.operator_forms, bundle.recipe["operator"]["members"], strict=True)
    ):
        prefix = f"members.{number}."
        own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        found.append(_mean(_open(bundle, form, settings, own)))
    return found


def _mean(members: list[Operate]) -> Operate:
    return lambda latents: mean_of(np.stack([member(latents) for member in members]))


def _open(bundle: Bundle, form: str, settings: Mapping[str, Any], arrays: dict[str, Array]) -> list[Operate]:
    """settings, arrays: of the operator, or of one member of an ensemble."""
    if form == "residual-mlp":
        return residual_mlp(arrays, _relu if settings.get("activation") == "relu" else _silu)
    if form == "forest":
        return [forest(arrays, bundle.specs["source"].latent)]
    return [{"affine": affine, "rbf-kernel": rbf_kernel}[form](arrays)]


def affine(arrays: dict[str, Array]) -> Operate:
    """`operators.linear`: weight @ source + bias."""
    weight, bias = arrays["weight"], arrays["bias"]

    def operate(latents: Array) -> Array:
        return np.asarray(latents @ weight.T + bias, dtype=np.float32)

    return operate


def residual_mlp(arrays: dict[str, Array], activation: Callable[[Array], Array]) -> list[Operate]:
    """`operators.residual_mlp`, network by network, without dropout."""
    linear = affine(arrays)
    members = sorted({name.split(".")[1] for name in arrays if name.startswith("members.")}, key=int)
    if not members:
        raise ValueError("it has no members")

    def opened(member: str) -> Operate:
        def operate(latents: Array) -> Array:
            standard = (latents - arrays["centre"]) / arrays["spread"]
            correction = _member(arrays, f"members.{member}", standard, activation)
            return np.asarray(linear(latents) + arrays["scale"] * correction, dtype=np.float32)

        return operate

    return [opened(member) for member in members]


def _member(arrays: dict[str, Array], name: str, latents: Array, activation: Callable[[Array], Array]) -> Array:
    def layer(part: str, values: Array) -> Array:
        return np.asarray(values @ arrays[f"{name}.{part}.weight"].T + arrays[f"{name}.{part}.bias"])

    hidden = activation(layer("first", latents))
    block = 0
    while f"{name}.norms.{block}.weight" in arrays:
        centred = hidden - hidden.mean(axis=1, keepdims=True)
        normal = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + EPSILON)
        normal = normal * arrays[f"{name}.norms.{block}.weight"] + arrays[f"{name}.norms.{block}.bias"]
        hidden = hidden + layer(f"narrow.{block}", activation(layer(f"widen.{block}", normal)))
        block += 1
    return layer("last", hidden)


def rbf_kernel(arrays: dict[str, Array]) -> Operate:
    """`operators.svr` with its RBF kernel."""
    support, gamma = arrays["support"], arrays["gamma"]

    def operate(latents: Array) -> Array:
        seen = latents - arrays["centre"]
        seen = (seen @ arrays["basis"] if "basis" in arrays else seen) / arrays["spread"]
        squares = (seen**2).sum(axis=1, keepdims=True) + (support**2).sum(axis=1) - 2 * seen @ support.T
        return np.asarray(np.expm1(-gamma * squares) @ arrays["coefficients"] + arrays["bias"], dtype=np.float32)

    return operate


def forest(arrays: dict[str, Array], source_size: int) -> Operate:
    """`operators.random_forest`; a walk goes on until every tree has come to a leaf."""
    child, feature, threshold = arrays["child"], arrays["feature"], arrays["threshold"]
    if fault := table_fault(arrays, source_size):
        raise ValueError(fault)

    def operate(latents: Array) -> Array:
        node = np.tile(arrays["roots"], (len(latents), 1))
        before = None
        while before is None or (node != before).any():
            before = node
            is_right = np.take_along_axis(latents, feature[node], axis=1) > threshold[node]
            node = child[node, is_right.astype(np.intp)]
        values = arrays["values"][arrays["leaf"][node]].mean(axis=1, dtype=np.float32)
        return np.asarray((values * arrays["value_scale"]) @ arrays["basis"] + arrays["mean"], dtype=np.float32)

    return operate


def _silu(values: Array) -> Array:
    return np.asarray(values / (1 + np.exp(-np.clip(values, -80, 80))))


def _relu(values: Array) -> Array:
    return np.asarray(np.maximum(values, 0))

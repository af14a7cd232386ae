"""The losses of `heads` on tensors: what solvers on a device and training need of them. `Head` says what they mean."""

import torch
from torch import Tensor
from torch.nn import functional

from nfops.heads import Head


def loss(head: Head, field: Tensor, values: Tensor) -> Tensor:
    """(..., C), (..., C) -> (...): mean squared error over channels, or cross-entropy."""
    if head.is_linear:
        return ((field - values) ** 2).mean(dim=-1)
    if head.name == "sigmoid":
        return (functional.softplus(field) - values * field).sum(dim=-1)
    return -(values * torch.log_softmax(field, dim=-1)).sum(dim=-1)


def activate(head: Head, field: Tensor) -> Tensor:
    """Field -> values or probabilities."""
    if head.name == "sigmoid":
        return torch.sigmoid(field)
    return torch.softmax(field, dim=-1) if head.name == "softmax" else field


def slope(head: Head, field: Tensor, values: Tensor) -> Tensor:
    """Derivative of the loss with respect to the field, (..., C)."""
    if head.is_linear:
        return (field - values) * (2 / field.shape[-1])
    return activate(head, field) - values


def curvature_rows(head: Head, field: Tensor, jacobian: Tensor, weights: Tensor) -> Tensor:
    """Rows R with R^T R = sum of w J^T H J, H the loss's curvature (generalised Gauss-Newton).

    field (B, N, C), jacobian (B, N, C, S), weights (B, N) -> (B, N C, S).
    """
    if head.is_linear:
        scale = (weights * (2 / field.shape[-1])).sqrt()[..., None].expand(*weights.shape, field.shape[-1])
        return (jacobian * scale[..., None]).flatten(1, 2)
    p = activate(head, field)
    if head.name == "sigmoid":
        return (jacobian * (weights[..., None] * p * (1 - p)).sqrt()[..., None]).flatten(1, 2)
    centred = jacobian - p[..., None, :] @ jacobian  # diag(p) - p p^T = sum_c p_c (e_c - p) (e_c - p)^T
    return centred.mul_((weights[..., None] * p).sqrt()[..., None]).flatten(1, 2)

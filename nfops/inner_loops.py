"""The inner loops of meta-learning: how scans are matched by a shared field, and what its weights learn from that.

`GradientSteps` is MedFuncta's and NOIR's algorithm 1: plain gradient steps from a latent of zero, then the loss after
them, differentiated through all of them (MedFuncta, eq. 30 to 32). Of the way only the latents are kept: going back,
one step after the other is computed again and differentiated by itself, so the graph of one step is all that is in
memory. `GaussNewtonStep` solves the inner problem by one damped Gauss-Newton step from zero, and differentiates
through that: at zero all scans share field and Jacobian, which are computed once for the whole batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nfops.contexts import Batch, Context
from nfops.field_loss import FieldLoss

FIRST_CAUTION, LESS, MORE = 1e-3, 0.3, 10.0
"""What is added to the mean curvature in a second step, and its factor after a good and after a bad one."""


class InnerLoop(Protocol):
    """Matches scans, and accumulates in `.grad` what the shared weights learn from the match."""

    def solve(self, field: FieldLoss, context: Context, steps: int) -> Tensor:
        """(B, P) latents after `steps` on one context, for validation and for the prior. No graph."""

    def learn(self, field: FieldLoss, batch: Batch) -> tuple[Tensor, Tensor]:
        """Latents (B, P) and outer losses (B,), no graph; the gradient of their mean is added to every `.grad`."""


@dataclass(frozen=True, eq=False)
class GradientSteps:
    """z <- z - rates * gradient. rates: (P,) or (); where it requires a gradient it gets one (meta-SGD).

    block: points that are computed at once, of all scans together. keeps_graphs: keep every step's graph instead of
    computing it again: quicker where memory is plenty.
    """

    rates: Tensor
    block: int
    keeps_graphs: bool = False

    def solve(self, field: FieldLoss, context: Context, steps: int) -> Tensor:
        """See `InnerLoop`."""
        return self._descend(field, [context] * steps)[-1].detach()

    def learn(self, field: FieldLoss, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `InnerLoop`: exact, whatever the block is."""
        found = []
        for part in batch.parts(self.block // max(map(batch.scans.shown, (*batch.inner, batch.outer)))):
            contexts = [part.scans.at(points) for points in part.inner]
            kept: list[tuple[Tensor, list[Tensor]]] = []
            path = self._descend(field, contexts, kept if self.keeps_graphs else None)
            outer, share = part.scans.at(part.outer), 1 / len(batch.scans)
            losses, cotangent = _outer_loss(field, outer, path[-1].detach(), share, self.block)
            self._go_back(field, contexts, path, kept, cotangent)
            found.append((path[-1].detach(), losses))
        return torch.cat([latents for latents, _ in found]), torch.cat([losses for _, losses in found])

    def _descend(
        self,
        field: FieldLoss,
        contexts: Sequence[Context],
        kept: list[tuple[Tensor, list[Tensor]]] | None = None,
    ) -> list[Tensor]:
        """Latents before every step and after the last, as leaves; each step's graph goes to `kept`, if given."""
        path = [_zeros(field, contexts[0], len(contexts[0].values))]
        for context in contexts:
            leaf = path[-1].requires_grad_()
            parts = [field.gradient(p, leaf, create_graph=kept is not None) for p in context.parts(self.block)]
            if kept is not None:
                kept.append((leaf, parts))
            total = torch.stack([part.detach() for part in parts]).sum(dim=0)
            path.append(leaf.detach() - self.rates.detach() * total)
        return path

    def _go_back(
        self,
        field: FieldLoss,
        contexts: Sequence[Context],
        path: list[Tensor],
        kept: list[tuple[Tensor, list[Tensor]]],
        cotangent: Tensor,
    ) -> None:
        """From the loss's derivative by the last latents to the weights' gradient, step by step (eq. 32, reversed)."""
        for number in range(len(contexts) - 1, -1, -1):
            leaf, parts = kept.pop() if kept else (path[number].detach().requires_grad_(), None)
            for index, part in enumerate(contexts[number].parts(self.block)):
                gradient = parts[index] if parts else field.gradient(part, leaf, create_graph=True)
                torch.autograd.backward((-(self.rates * gradient) * cotangent).sum())
            cotangent = cotangent + _grad(leaf)


@dataclass(frozen=True, eq=False)
class GaussNewtonStep:
    """Damped Gauss-Newton on loss + precision |z|^2 from zero; one step is learned through, encoding may take more.

    damping: the precision in units of the mean curvature at zero, so that the latents' units do not matter.
    block: as in `GradientSteps`.
    """

    damping: float
    block: int

    def learn(self, field: FieldLoss, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `InnerLoop`: exact. The first of the inner draws is what the step looks at, one for all scans."""
        context = batch.scans.at(batch.inner[0])
        zero = _zeros(field, context, 1)
        parts = list(context.parts(self.block))
        with torch.set_grad_enabled(len(parts) == 1):
            models = [field.linearise(part, zero)[1:] for part in parts]
        gradient, curvature = (torch.stack(m).sum(dim=0).detach().requires_grad_() for m in zip(*models, strict=True))
        latents = -_solve(gradient, curvature, self._precision(curvature))
        found, size = [], max(1, self.block // batch.scans.shown(batch.outer))
        for some, own in zip(batch.parts(size), torch.split(latents.detach(), size), strict=True):
            found.append(_outer_loss(field, some.scans.at(some.outer), own, 1 / len(batch.scans), self.block))
        torch.autograd.backward(latents, torch.cat([cotangent for _, cotangent in found]))
        for part in parts:  # once more, with a graph, where the whole graph was not kept
            model = models[0] if len(parts) == 1 else field.linearise(part, zero)[1:]
            torch.autograd.backward(model, (_grad(gradient), _grad(curvature)))
        return latents.detach(), torch.cat([losses for losses, _ in found])

    @torch.no_grad()
    def solve(self, field: FieldLoss, context: Context, steps: int) -> Tensor:
        """See `InnerLoop`: the best latents of those that the steps led to, by Levenberg and Marquardt."""
        best = _zeros(field, context, len(context.values))
        best_cost, gradient, curvature = _model(field, context, best, self.block)
        precision = self._precision(curvature)
        caution = torch.full_like(best_cost, FIRST_CAUTION)
        trial = best - _solve(gradient, curvature, precision)
        for _ in range(steps - 1):
            cost, slope, curve = _model(field, context, trial, self.block)
            cost = cost + precision * (trial**2).sum(dim=1)
            better = cost <= best_cost
            best, best_cost = _where(better, trial, best), _where(better, cost, best_cost)
            gradient = _where(better, slope + 2 * precision[:, None] * trial, gradient)
            curvature = _where(better, curve, curvature)
            caution = caution * torch.where(better, LESS, MORE)
            trial = best - _solve(gradient, curvature, precision + caution * _mean_curvature(curvature))
        losses = torch.stack([field.losses(part, trial) for part in context.parts(self.block)]).sum(dim=0)
        cost = losses + precision * (trial**2).sum(dim=1)
        return _where(cost <= best_cost, trial, best)

    def _precision(self, curvature: Tensor) -> Tensor:
        return self.damping * _mean_curvature(curvature) / 2


def _outer_loss(field: FieldLoss, outer: Context, latents: Tensor, share: float, block: int) -> tuple[Tensor, Tensor]:
    """Losses (B,); the gradient of share * their sum goes to the weights' `.grad`, and by the latents is returned."""
    leaf, losses = latents.detach().requires_grad_(), torch.zeros_like(latents[:, 0])
    for part in outer.parts(max(1, block // len(latents))):
        found = field.losses(part, leaf)
        torch.autograd.backward(share * found.sum())
        losses += found.detach()
    return losses, _grad(leaf)


def _model(field: FieldLoss, context: Context, latents: Tensor, block: int) -> tuple[Tensor, ...]:
    """Losses, gradients and curvatures, part by part."""
    sums = [field.linearise(part, latents) for part in context.parts(block)]
    return tuple(torch.stack(found).sum(dim=0) for found in zip(*sums, strict=True))


def _solve(gradient: Tensor, curvature: Tensor, precision: Tensor) -> Tensor:
    """The damped Newton step, (B, P), from gradients (B, P), curvatures (B or 1, P, P) and precisions (B or 1,).

    Of weights that are no numbers any more it is none either, and no error: descent sees the loss, and goes back.
    """
    eye = torch.eye(gradient.shape[1], dtype=gradient.dtype, device=gradient.device)
    whole = curvature + 2 * precision[:, None, None] * eye
    shared = len(whole) == 1
    found = torch.linalg.solve_ex(whole[0], gradient.T)[0].T if shared else torch.linalg.solve_ex(whole, gradient)[0]
    step: Tensor = found
    return step


def _mean_curvature(curvature: Tensor) -> Tensor:
    """(B, P, P) -> (B,), a little above 0."""
    return curvature.diagonal(dim1=1, dim2=2).mean(dim=1) + 1e-12


def _zeros(field: FieldLoss, context: Context, count: int) -> Tensor:
    return context.values.new_zeros(count, field.backbone.latent)


def _grad(leaf: Tensor) -> Tensor:
    """What `backward` has accumulated."""
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def _where(choose: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Item by item: (B,), (B, ...), (B, ...) -> (B, ...)."""
    return torch.where(choose.reshape(-1, *[1] * (one.ndim - 1)), one, other)

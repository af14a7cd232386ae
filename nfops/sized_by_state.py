"""Modules that learn how large their arrays are: a forest its nodes, a kernel machine its support vectors."""

from typing import Any

from torch import nn


class SizedByState(nn.Module):
    """Its buffers take the lengths of the state that is loaded; the number of their axes and their types stay.

    `fit` assigns a new tensor to a buffer (`self.support = ...`). Whether the lengths suit one another is found out by
    whoever loads a stored state: `codec.load_operator` moves latents through it.
    """

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name, own in self._buffers.items():
            stored = state_dict.get(prefix + name)
            if own is not None and stored is not None and stored.dim() == own.dim():
                self._buffers[name] = own.new_empty(stored.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)

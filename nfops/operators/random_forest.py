"""Random forest between latents (NOIR, Table 3): scikit-learn grows it, a flat table of nodes is walked to apply it.

All trees share one table; a leaf is its own child, so that every path may take `depth` steps. Leaves hold the leading
principal components of the target latents in 16 bits: about 3 MB with the settings as they are.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nfops.annotations import about
from nfops.arrays import Array
from nfops.latents import LatentTable, Objective
from nfops.node_tables import floor32, table_fault
from nfops.progress import OnStep, Step, silent
from nfops.sized_by_state import SizedByState

LARGEST = np.iinfo(np.int16).max


@dataclass(frozen=True)
class Config:
    """A forest of trees, each limited in depth, in leaves and in the rows of a leaf."""

    trees: int = field(default=100, metadata=about("Trees whose answers are averaged.", low=1))
    depth: int = field(default=12, metadata=about("Most questions on the way to a leaf.", low=1, high=64))
    leaves: int = field(default=256, metadata=about("Most leaves of a tree: the size of the bundle.", low=2))
    min_leaf: int = field(default=2, metadata=about("Fewest rows in a leaf.", low=1))
    features: float = field(
        default=0.33, metadata=about("Part of the source latents that a question chooses among.", above=0, high=1)
    )
    components: int | None = field(
        default=32,
        metadata=about("Leading principal components of the target latents that are learned; null: all.", low=1),
    )


class Operator(SizedByState):
    """target = mean + (mean over trees of their leaves' values) @ basis: (B, P_in) -> (B, P_out).

    feature, threshold, leaf (N,) and child (N, 2) of all N nodes; roots (trees,); values (leaves, components), whole
    numbers in units of value_scale (components,).
    """

    acts_on = "latent"
    form = "forest"
    needs_validation = False
    roots: Tensor
    feature: Tensor
    threshold: Tensor
    child: Tensor
    leaf: Tensor
    values: Tensor
    value_scale: Tensor
    basis: Tensor
    mean: Tensor

    def __init__(self, config: Config, source_size: int, target_size: int) -> None:
        super().__init__()
        self.config, self.source_size = config, source_size
        self.figures: dict[str, float] = {}
        components = min(config.components or target_size, target_size)
        for name in ("roots", "feature", "leaf"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.int32))
        self.register_buffer("threshold", torch.zeros(0))
        self.register_buffer("child", torch.zeros(0, 2, dtype=torch.int32))
        self.register_buffer("values", torch.zeros(0, components, dtype=torch.int16))
        self.register_buffer("value_scale", torch.ones(components))
        self.register_buffer("basis", torch.zeros(components, target_size))
        self.register_buffer("mean", torch.zeros(target_size))

    def forward(self, latents: Tensor) -> Tensor:
        """(B, P_in) -> (B, P_out), constant between thresholds: its derivative is zero."""
        feature, child = self.feature.long(), self.child.long()
        node = self.roots.long().expand(latents.shape[0], -1)  # not len, which an export would fix
        for _ in range(self.config.depth):
            is_right = latents.gather(1, feature[node]) > self.threshold[node]
            node = child[node, is_right.long()]
        values = self.values[self.leaf.long()[node]].to(latents.dtype).mean(dim=1)
        return self.mean + (values * self.value_scale) @ self.basis + 0 * latents[:, :1]

    def fit(self, source: LatentTable, target: LatentTable, objective: Objective, on_step: OnStep = silent) -> None:
        """Fit to two tables of the same rows. A forest has no early stop, so `objective` is not asked."""
        del objective
        mean, basis = _principal_axes(target.vectors.astype(np.float64), len(self.basis))
        on_step(Step("forest", 0, 1))
        trees = self._grow(source.vectors, (target.vectors - mean) @ basis.T)
        values = self._lay_out(trees)
        scale = np.maximum(np.abs(values).max(axis=0) / LARGEST, 1e-12)
        self.values = torch.from_numpy(np.rint(values / scale).astype(np.int16))
        for name, array in (("value_scale", scale), ("basis", basis), ("mean", mean)):
            setattr(self, name, torch.from_numpy(np.array(array, dtype=np.float32, order="C")))
        on_step(Step("forest", 1, 1))
        size = sum(array.nbytes for array in self._arrays().values())
        deepest = max(tree.max_depth for tree in trees)
        self.figures = {"nodes": len(self.feature), "deepest": deepest, "megabytes": round(size / 1e6, 2)}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        error_messages = rest[-1]
        if not error_messages and (fault := table_fault(self._arrays(), self.source_size)):
            error_messages.append(fault)

    def _arrays(self) -> dict[str, Array]:
        return {name: buffer.cpu().numpy() for name, buffer in self.named_buffers()}

    def _grow(self, source: Array, components: Array) -> list[Any]:
        """scikit-learn's trees."""
        from sklearn.ensemble import RandomForestRegressor

        config = self.config
        forest = RandomForestRegressor(
            config.trees,
            max_depth=config.depth,
            max_leaf_nodes=config.leaves,
            min_samples_leaf=config.min_leaf,
            max_features=config.features,
            random_state=int(torch.randint(2**31 - 1, ())),
        )
        forest.fit(source, components)
        return [one.tree_ for one in forest.estimators_]

    def _lay_out(self, trees: list[Any]) -> Array:
        """Put the trees into one table of nodes; gives the values (leaves, components) of the leaves in its order."""
        roots = np.cumsum([0, *(tree.node_count for tree in trees[:-1])])
        is_leaf = np.concatenate([tree.children_left < 0 for tree in trees])
        own = np.arange(len(is_leaf))
        sides = [
            np.concatenate([getattr(tree, side) + root for tree, root in zip(trees, roots, strict=True)])
            for side in ("children_left", "children_right")
        ]
        threshold = np.where(is_leaf, 0, np.concatenate([tree.threshold for tree in trees]))
        found = {
            "roots": roots,
            "feature": np.where(is_leaf, 0, np.concatenate([tree.feature for tree in trees])),
            "child": np.stack([np.where(is_leaf, own, side) for side in sides], axis=1),
            "leaf": np.where(is_leaf, np.cumsum(is_leaf) - 1, 0),
        }
        for name, array in found.items():
            setattr(self, name, torch.from_numpy(array.astype(np.int32)))
        self.threshold = torch.from_numpy(floor32(threshold))
        values = np.concatenate([tree.value[..., 0] for tree in trees])
        return np.asarray(values[is_leaf])


def _principal_axes(vectors: Array, count: int) -> tuple[Array, Array]:
    """Mean (P,) and the leading axes (count, P) of vectors (N, P)."""
    mean = vectors.mean(axis=0)
    axes = np.linalg.eigh((vectors - mean).T @ (vectors - mean))[1]
    return mean, axes[:, ::-1][:, :count].T

"""`condition: latent`: a field operator also sees what the chain of latents predicts, on its working grid.

Convolution sees local structure, which one latent vector loses; the latent sees the whole, which kernels of some
millimetres do not. The chain is linear: source field -> ridge -> target field. `condition_fitting` trains with it.
"""

import numpy as np

from nfops.arrays import Array
from nfops.bundle import CONDITION_PREFIX, Bundle, Side
from nfops.engines import Engine
from nfops.field_pairs import WorkingGrid
from nfops.rendering import decode_within
from nfops.ridge import Ridge
from nfops.sampling import centred_lattice


def with_prediction(engine: Engine, side: Side, working: WorkingGrid, values: Array, latents: Array) -> Array:
    """Source channels (B, C + 1, *grid) and predicted target latents (B, P_out) -> (B, C + C' + 1, *grid).

    side: the target. What its field shows there, 0..1 or probabilities, stands before the coverage, and is 0 where
    that is.
    """
    width = tuple(step / (side.spec.radius_mm or 1.0) for step in working.spacing)
    shown = decode_within(engine, side, latents, centred_lattice(values.shape[2:], width, side.spec.spacing))
    coverage = values[:, -1:]
    return np.concatenate([values[:, :-1], shown * coverage, coverage], axis=1).astype(np.float32)


def ridge_arrays(ridge: Ridge) -> dict[str, Array]:
    """What a bundle keeps of a ridge, beside the arrays of its operator."""
    arrays = {"weight": ridge.weight, "bias": ridge.bias}  # safetensors takes the bytes as they lie
    return {CONDITION_PREFIX + name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}


def move_latents(bundle: Bundle, latents: Array) -> Array:
    """Source latents (B, P_in) -> target latents (B, P_out) by the ridge that a bundle keeps."""
    weight, bias = (bundle.arrays["operator"][CONDITION_PREFIX + name] for name in ("weight", "bias"))
    return np.asarray(latents @ weight.T + bias)

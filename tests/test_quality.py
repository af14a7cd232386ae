"""What is said of one scan before anyone looks at the prediction."""

import numpy as np
import pytest
from toy_bundles import RADIUS_MM, make_bundle, make_spec

from nfops.coding import encode_image
from nfops.engines.numpy_engine import NumpyEngine
from nfops.grid import Grid
from nfops.image import Image
from nfops.quality import judge_scan


@pytest.mark.parametrize(("steps", "said"), [((6, 1, 1), True), ((1, 1, 6), False), ((2, 2, 2), False)])
def test_slices_of_another_plane_than_the_recipes_are_told_of(steps, said):
    """Thick sagittal slices, thick axial ones, and a volume that may be cut as one likes; the recipe's are axial."""
    shape = tuple(round(2 * RADIUS_MM / step) for step in steps)
    values = np.random.default_rng(0).random((1, *shape), np.float32)
    bundle, image = (
        make_bundle(make_spec(2)),
        Image(values, Grid(shape, np.diag([-steps[0], -steps[1], steps[2], 1.0]))),
    )
    encoded = encode_image(NumpyEngine(bundle), bundle.side("source"), image)
    reasons = judge_scan(bundle, image, encoded, None).reasons
    assert any("acquired in another plane" in reason for reason in reasons) == said

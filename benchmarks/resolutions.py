"""What the shipped brain_t1t2 bundle makes of coarser scans: PSNR of its prediction at 192x192 from each input size.

python benchmarks/resolutions.py DATA: the validation patient's slices of DATA/mr_t1_t2_flair, averaged over larger
pixels. Mean over slices of each slice's PSNR, whole frame.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from nfops.bundle import load_bundle
from nfops.coding import encode_image
from nfops.cohort import load_pairs, read_cohort
from nfops.engines import open_engine
from nfops.recipe import load_recipe
from nfops.rendering import render
from nfops.resampling import resample
from nfops.scoring import compare
from nfops.shipped import shipped_folder

SIZES = (192, 96, 48, 19)


def main(data: Path) -> None:
    """One line an input size."""
    folder = shipped_folder()
    recipe, bundle = load_recipe(folder / "brain_t1t2.yaml"), load_bundle(folder / "bundles" / "brain_t1t2")
    engine, source, target = open_engine(bundle), bundle.side("source"), bundle.side("target")
    pairs = list(load_pairs(recipe, read_cohort(recipe, data).with_splits(("val",)), _ignored))
    for size in SIZES:
        scores = []
        for pair in pairs:
            scan = resample(pair.source, pair.source.grid.with_shape((size, size, 1)), "linear")
            latent = encode_image(engine, source, scan, pair.scan_id)
            drawn = render(engine, target, replace(latent, vectors=engine.operate(latent.vectors)), pair.target.grid)
            scores.append(compare(target.spec, drawn.image(), pair.target)["psnr"])
        print(f"{size}x{size}: {np.mean(scores):.2f} dB")


def _ignored(done: int) -> None:
    """No progress."""


if __name__ == "__main__":
    main(Path(sys.argv[1]))

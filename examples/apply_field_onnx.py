"""A T1 volume to T2 by a bundle's operator.onnx, without nfops: python apply_field_onnx.py BUNDLE T1.nii.gz T2.nii.gz.

For operators on fields of 2-D recipes of axial slices (axes L, P, S), percentile intensities, frame "physical", such as
the shipped brain_t1t2. It needs numpy, scipy, nibabel and onnxruntime. Unlike nfops it predicts empty slices, too.
"""

import json
import os
import sys
from itertools import product
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # or it reports to its maker

import nibabel
import numpy as np
import onnxruntime
from scipy.ndimage import map_coordinates


def places_of(shape, step):
    """A grid's points (*shape, 2), in mm from its centre."""
    return (np.moveaxis(np.indices(shape), 0, -1) + 0.5 - np.array(shape) / 2) * step


def read(plane, step, places, cell):
    """A plane at places, by cubic splines: means over cells; and whether there is anything of the plane."""
    total, known, last = 0, 0, np.array(plane.shape) - 1
    for offset in product(*((np.arange(m) + 0.5) / m - 0.5 for m in np.maximum(1, np.ceil(cell / step - 1e-6)))):
        index = (places + offset * cell) / step + last / 2
        inside = (np.abs(index - last / 2) <= (last + 1) / 2 + 1e-6).all(axis=-1)
        drawn = map_coordinates(plane, np.moveaxis(index, -1, 0), order=3, mode="nearest")
        total, known = total + inside * drawn, known + inside
    return total / np.maximum(known, 1), known > 0


folder, scan, out = map(Path, sys.argv[1:])
manifest = json.loads((folder / "manifest.json").read_text())
source, target = manifest["specs"]["source"], manifest["specs"]["target"]
spacing, multiple = np.array(manifest["operator"]["working"]["spacing"]), manifest["operator"]["working"]["multiple"]
image = nibabel.as_closest_canonical(nibabel.load(scan))  # axes to the right, to the front, up
volume = image.get_fdata(dtype=np.float32)[::-1, ::-1]  # the recipe's: to the left, to the back, up
low, high = np.percentile(volume, [source["intensity"]["low"], source["intensity"]["high"]])
values, steps = np.clip((volume - low) / (high - low), 0, 1), np.array(image.header.get_zooms()[:2])
blocks = np.ceil(volume.shape[:2] * steps / (spacing * multiple) - 1e-6)
working, seen = places_of((blocks * multiple).astype(int), spacing), places_of(volume.shape[:2], steps)
session = onnxruntime.InferenceSession(folder / "operator.onnx", providers=["CPUExecutionProvider"])
made = np.empty_like(values)
for k in range(values.shape[2]):
    field, known = read(values[..., k], steps, working, spacing)
    given = {"field": np.stack([np.clip(field, 0, 1) * known, known])[None], "positions": working, "spacing": spacing}
    predicted = session.run(["values"], {name: array.astype(np.float32) for name, array in given.items()})[0]
    made[..., k] = read(predicted[0, 0], spacing, seen, steps)[0]
ends = target["range_low"][0], target["range_high"][0]
result = (ends[0] + np.clip(made, 0, 1) * (ends[1] - ends[0]))[::-1, ::-1]
nibabel.save(nibabel.Nifti1Image(result.astype(np.float32), image.affine), out)

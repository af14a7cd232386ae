"""A T1 volume to T2 by a bundle's apply.onnx, without nfops: python apply_onnx.py BUNDLE T1.nii.gz T2.nii.gz.

For 2-D recipes of axial slices (axes L, P, S), percentile intensities, frame "physical". The bundle is one with
`nfops export-onnx --graph apply`. It needs numpy, nibabel and onnxruntime. Unlike nfops it predicts empty slices, too.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # or it reports to its maker

import nibabel
import numpy as np
import onnxruntime

folder, scan, out = map(Path, sys.argv[1:])
specs = json.loads((folder / "manifest.json").read_text())["specs"]
source, target = specs["source"], specs["target"]
image = nibabel.as_closest_canonical(nibabel.load(scan))  # axes to the right, to the front, up
volume = image.get_fdata(dtype=np.float32)[::-1, ::-1]  # the recipe's: to the left, to the back, up
low, high = np.percentile(volume, [source["intensity"]["low"], source["intensity"]["high"]])
values = np.clip((volume - low) / (high - low), 0, 1).reshape(-1, volume.shape[2]).astype(np.float32)
steps = np.array(image.header.get_zooms()[:2]) / source["radius_mm"]
axes = [(np.arange(n) + 0.5 - n / 2) * step for n, step in zip(volume.shape[:2], steps, strict=True)]
points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 1, 2).astype(np.float32)
inside = (np.abs(points[:, 0]) <= np.array(source["half_extent"]) * (1 + 1e-6)).all(axis=1)
session = onnxruntime.InferenceSession(folder / "apply.onnx", providers=["CPUExecutionProvider"])
made = np.zeros_like(values)
given = {"points": points[inside], "weights": np.ones(inside.sum(), np.float32), "output_points": points[inside]}
for k in range(values.shape[1]):
    made[inside, k] = session.run(["predicted"], {**given, "values": values[inside, k : k + 1]})[0][:, 0]
ends = target["range_low"][0], target["range_high"][0]
result = (ends[0] + np.clip(made, 0, 1) * (ends[1] - ends[0])).reshape(volume.shape)[::-1, ::-1]
nibabel.save(nibabel.Nifti1Image(result.astype(np.float32), image.affine), out)

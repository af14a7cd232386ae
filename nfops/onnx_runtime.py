"""onnxruntime, told to send nothing: from 1.31 its wheels report to their maker, and leave a file `.ses` behind."""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when it is imported, so here is the only place that imports it

import onnxruntime

__all__ = ["onnxruntime"]

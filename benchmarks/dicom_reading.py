"""Reading a CT series of 512x512x300: nfops against pydicom's reading and decoding of the same files, in one run.

python benchmarks/dicom_reading.py [--runs 9] [--slices 300] [--data DIR] [--json FILE]: needs nfops installed and a
series of 512x512 CT slices in DIR/dicom/ct_philips_tilt (default of DIR: $NFOPS_DATA), whose headers and pixels the
slices are made of. Both read from the page cache, turn about. Quote the medians.

pydicom's part is `dcmread(file).pixel_array` for each file, nothing kept; ours sorts, checks and rescales too, and ends
with one float32 volume. Memory: the peak of a process of its own that reads the series once, less what it had before.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import generate_uid

from nfops.io import load_image

MEMORY = """
import sys
from pathlib import Path
from nfops.io import load_image
load_image(Path(sys.argv[1]) / "few")
def kib(name):
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1])
before = kib("VmRSS")
image = load_image(Path(sys.argv[1]) / "series")
print((kib("VmHWM") - before) * 1024 / image.values.nbytes)
"""


def make_series(folder: Path, template: Path, slices: int) -> None:
    """Slices of one series, with the header of a real one."""
    folder.mkdir()
    dataset = pydicom.dcmread(template)
    pixels = dataset.pixel_array
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    for number in range(slices):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.ImagePositionPatient = [-100, -100, 1.5 * number]
        dataset.InstanceNumber = number + 1
        dataset.PixelData = np.roll(pixels, number, 0).tobytes()
        dataset.save_as(folder / f"{number:04}.dcm")


def seconds(read: Callable[[], object]) -> float:
    """Of one call, by the wall clock."""
    start = time.perf_counter()
    read()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("NFOPS_DATA", "../shared/data")))
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    template = min(path for path in (options.data / "dicom" / "ct_philips_tilt" / "dcm").rglob("*") if path.is_file())
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        make_series(root / "few", template, 4)
        make_series(root / "series", template, options.slices)
        files = sorted((root / "series").iterdir())

        def by_pydicom() -> None:
            for file in files:
                _ = pydicom.dcmread(file).pixel_array

        def by_nfops() -> None:
            load_image(root / "series")

        by_pydicom(), by_nfops()
        times = [(seconds(by_pydicom), seconds(by_nfops)) for _ in range(options.runs)]
        command = [sys.executable, "-c", MEMORY, str(root)]
        memory = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    ratio = statistics.median(ours / theirs for theirs, ours in times)
    result = {
        "shape": [512, 512, options.slices],
        "runs": options.runs,
        "pydicom_s": statistics.median(theirs for theirs, _ in times),
        "nfops_s": statistics.median(ours for _, ours in times),
        "ratio": ratio,
        "peak_memory_per_volume": memory,
        "machine": {"processor": platform.processor() or platform.machine(), "cpus": os.cpu_count()},
        "versions": {"python": platform.python_version(), "pydicom": pydicom.__version__, "numpy": np.__version__},
    }
    print(f"pydicom {result['pydicom_s']:.3f} s, nfops {result['nfops_s']:.3f} s: {ratio:.2f} times; ", end="")
    print(f"peak memory {memory:.2f} times the float32 volume")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""What several test files share: the folder of real data, or a skip where there is none."""

import os
from pathlib import Path

# Before numpy and torch are imported: threads that wait for one another make small arrays slow on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real cohorts: $NFOPS_DATA, else ../shared/data beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("NFOPS_DATA") or beside)
    if not folder.is_dir():
        pytest.skip(f"no real data: set NFOPS_DATA ({folder} is not there)")
    return folder

"""What several test files share: the folder of real data, or a skip where there is none."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real cohorts: $NFOPS_DATA, else ../shared/data beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("NFOPS_DATA") or beside)
    if not folder.is_dir():
        pytest.skip(f"no real data: set NFOPS_DATA ({folder} is not there)")
    return folder

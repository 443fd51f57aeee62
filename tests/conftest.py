import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the checkout; FUSION_SHARED names another place."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("FUSION_SHARED", beside))
    if not folder.is_dir():
        pytest.skip("needs the shared reference folder beside the checkout")
    return folder

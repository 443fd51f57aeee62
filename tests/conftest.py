import importlib.util
import json
import os
from pathlib import Path
from types import ModuleType

import pytest
import torch

# results are held against torch in float32; where an engine is meant, its test takes this away
os.environ.setdefault("FUSION_NETS_ENGINE", "torch")
os.environ.setdefault("FUSION_NETS_PRECISION", "float32")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the checkout; FUSION_SHARED names another place."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("FUSION_SHARED", beside))
    if not folder.is_dir():
        pytest.skip("needs the shared reference folder beside the checkout")
    return folder


@pytest.fixture(scope="session")
def judge(shared: Path) -> ModuleType:
    """The reference judge of lesions, as a module."""
    path = shared / "reference" / "lesions" / "lesions.py"
    if not path.is_file():
        pytest.skip("needs reference/lesions in the shared reference folder")
    spec = importlib.util.spec_from_file_location("judge", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def dicom_study(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sample study as DICOM, coarse: folders "mri", "pet" and "ct"; not to be changed."""
    from fusion_nets.simulation import write_sample_study

    return write_sample_study(tmp_path_factory.mktemp("study"), spacing=4, form="dicom")


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory):
    """An archive that speaks DICOM and DICOMweb; see `orthanc.Pacs`."""
    import orthanc as server

    yield from server.start(tmp_path_factory.mktemp("orthanc"))


@pytest.fixture(scope="session")
def reference(shared: Path) -> Path:
    folder = shared / "reference" / "dmfnet"
    if not folder.is_dir():
        pytest.skip("needs reference/dmfnet in the shared reference folder")
    return folder


@pytest.fixture(scope="session")
def released(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    layout = json.loads((reference / "checkpoint_layout.json").read_text())
    make = _module(reference / "make_weights.py")
    folder = tmp_path_factory.mktemp("released")
    for stage in ("stage1", "stage2"):
        torch.save(make.weights(layout[stage]), folder / f"{stage}.pt")
    return folder / "stage1.pt", folder / "stage2.pt"


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

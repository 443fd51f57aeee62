"""The bundles in an empty environment, with nothing but the wheel: `make test-travel`, as it takes minutes.

Every command and every line of Python in a model card is run in the order in which it stands there; trainings are cut
short, on made-up images.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fusion_nets.workflows import fuse_pair

from .conftest import BUNDLES, DMFNET, SMFUSION, served

SHORT = {"max_epochs": 1, "epoch_iterations": 2, "batch_size": 2, "val_interval": 1, "crop_size": 48, "pool_size": 4}


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and a folder that knows nothing of the repository."""

    python: Path
    folder: Path

    def run(self, script: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
        """Run a script of bash that ends at its first error."""
        variables = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        variables |= {"PATH": f"{self.python.parent}:{os.environ['PATH']}", "TORCH_HOME": str(self.folder / "torch")}
        variables |= {"PIP_CONSTRAINT": str(BUNDLES.parent / "constraints.txt")}
        variables |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(self.folder / "huggingface")}
        command = ["bash", "-euo", "pipefail", "-c", script]
        return subprocess.run(command, cwd=cwd or self.folder, env=variables, capture_output=True, text=True)

    def does(self, script: str, cwd: Path | None = None) -> str:
        """Run a script that must succeed; gives what it said."""
        done = self.run(script, cwd)
        assert done.returncode == 0, f"{script}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def empty(handed_out, tmp_path_factory):
    """An environment with the wheel, what the wheel requires, and nothing else; the zip files lie in its folder."""
    root = tmp_path_factory.mktemp("empty")
    subprocess.run([sys.executable, "-m", "venv", str(root / "venv")], check=True)
    made = Environment(root / "venv" / "bin" / "python", root / "folder")
    shutil.copytree(handed_out, made.folder)
    made.does("python -m pip install --quiet --disable-pip-version-check fusion_nets-*.whl")
    return made


def test_the_wheel_is_whole(empty):
    empty.does("python -m pip check")
    assert "fuse two series" in empty.does("fusion-nets --help")
    where = empty.does("python -c 'import evaluation, fusion_nets; print(evaluation.__file__, fusion_nets.__file__)'")
    assert where.count(str(empty.python.parents[1])) == 2


def test_every_module_can_be_imported(empty):
    modules = """
    import importlib, pkgutil, evaluation, fusion_nets
    for package in (evaluation, fusion_nets):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            importlib.import_module(module.name)
            print(module.name)
    """
    names = empty.does("python - <<'END'\n" + "\n".join(line[4:] for line in modules.splitlines()) + "\nEND").split()
    assert "fusion_nets.clinical.dicom.derived" in names
    assert "evaluation.report.page" in names


def test_without_a_bundle_it_is_said_how_to_get_one(empty):
    done = empty.run("fusion-nets fuse --anatomy a.png --overlay b.png --output_dir out")
    assert done.returncode == 2
    assert "python -m monai.bundle download --name dmfnet --url URL" in done.stderr


def test_the_bundle_that_monai_downloaded_from_a_server_is_found(empty, dataset_dir):
    with served(empty.folder) as address:
        (path,) = empty.folder.glob("smfusion_v*.zip")
        empty.does(f"python -m monai.bundle download --name smfusion --url {address}/{path.name}")
    mri, pet = (dataset_dir / "PET-MRI" / kind / "0.png" for kind in ("MRI", "PET"))
    empty.does(f"fusion-nets fuse --method smfusion --anatomy {mri} --overlay {pet} --output_dir found --name case")
    assert (empty.folder / "found" / "case_fused.png").is_file()


@pytest.mark.parametrize("bundle", [DMFNET, SMFUSION], ids=lambda bundle: bundle.name)
def test_the_model_card_alone_is_enough(bundle, empty, dataset_dir, tmp_path):
    card = (bundle.root / "docs" / "README.md").read_text()
    folder = empty.folder
    root = folder / bundle.name
    blocks = re.findall(r"(?ms)^```(bash|python)\n(.*?)^```$", card)
    assert len(blocks) >= 5
    for language, block in blocks:
        if root.is_dir() and not (root / "data").is_dir():
            shutil.copytree(dataset_dir, root / "data" / "aanlib")
        script = f"python - <<'END'\n{block}\nEND" if language == "python" else shortened(block, bundle.configs)
        empty.does(f"{script}\npwd > '{tmp_path}/folder'", folder)
        folder = Path((tmp_path / "folder").read_text().strip())
    assert folder == root
    for pattern in ("fused/*_fused.nii.gz", "fused/*_dicom/*", "fused/*.png", "out/pet_fused.nii.gz"):
        assert list(root.glob(pattern)), pattern
    for name in ("evaluated", "scores") if bundle is DMFNET else ("scores",):
        assert "Qabf" in (root / name / "metrics.csv").read_text()
    for name in ("models/unet.pt" if bundle is DMFNET else "models/critic.pt", "models/model.pt"):
        shipped = (bundle.root / name).read_bytes() if (bundle.root / name).is_file() else b""
        assert (root / name).read_bytes() != shipped, name
    again = tmp_path / "again"
    pair = {"anatomy": root / "study/mri", "overlay": root / "study/pet"}
    fuse_pair(**pair, output_dir=again, method=bundle.name, bundle_root=bundle.root, name="pet")
    here, there = (np.asarray(nib.load(path / "pet_fused.nii.gz").dataobj) for path in (again, root / "out"))
    np.testing.assert_array_equal(there, here)


def shortened(block: str, configs: Path) -> str:
    """The commands of a block, trainings cut short by what they have of SHORT; one on several processes starts anew."""
    lines = []
    for line in block.replace("\\\n", " ").splitlines():
        if training := re.search(r"configs/(train\w*\.json)", line):
            has = json.loads((configs / training[1]).read_text())
            line += "".join(f" --{option} {value}" for option, value in SHORT.items() if option in has)
            line += " --output_dir runs/several" if "torchrun" in line else ""
        lines.append(line)
    return "\n".join(lines)

"""Metrics on a device that is not the CPU, without one: a constant made on the CPU would be told."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fusion_images import FUNCTIONS
from torch.utils import backend_registration

import evaluation

pytestmark = pytest.mark.slow

if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
    pytest.skip("needs a torch that can make up a device", allow_module_level=True)


STEPS = ("MI", "NMI", "EN", "FMI")  # have no gradient


@pytest.fixture(scope="module")
def told():
    here = Path(__file__).parent
    paths = os.pathsep.join([str(Path(evaluation.__file__).parents[1]), str(here)])
    result = subprocess.run(
        [sys.executable, here / "pretended_device.py"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_devices_that_are_mixed_are_found(told):
    assert "same device" in told["mixed"]
    assert "same device" in told["constant"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_metrics_and_their_gradients_stay_on_their_device(told, name):
    for dtype in ("torch.float32", "torch.float64"):
        assert told[f"{name} {dtype}"] == ["pretended", [2], dtype]
    side = 176 if name == "MS-SSIM" else 48
    gradient = told.get(f"{name} gradient")
    assert gradient == (None if name in STEPS else ["pretended", [2, 1, side, side], "torch.float32"])


def test_the_others_stay_on_their_device(told):
    assert told["together"] == ["pretended", [len(FUNCTIONS), 2], "torch.float32"]
    assert told["quantise"] == ["pretended", [2, 1, 48, 48], "torch.float32"]
    alone = ("parzen", "ssim_single", "vif_single", "ssim_3d", "flicker", "recovery of volumes")
    seen = ("contrast_recovery", "lost", "luminance", "cielab", "add_internal_noise", "channel_responses")
    for name in (*alone, *seen, "area_under_curve"):
        assert told[name] == ["pretended", [2], "torch.float32"], name

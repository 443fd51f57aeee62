"""TensorRT as MONAI's model zoo has it, as far as a processor can tell: what is exported, and what runs it."""

import inspect
import shutil
import sys
from types import ModuleType

import pytest
import torch
import yaml
from monai.bundle import scripts
from monai.bundle.scripts import trt_export

from .conftest import EVERY, picture

pytestmark = pytest.mark.slow


@pytest.fixture
def made(bundle, tiny_weights, tmp_path):
    """A copy of the bundle with an engine in it: the tiny network as TorchScript, as a TensorRT engine is, too."""
    root = tmp_path / bundle.name
    shutil.copytree(bundle.root, root, ignore=shutil.ignore_patterns("*.pt"))
    network = bundle.loaded(tiny_weights)
    if hasattr(network, "noise_pixels"):
        network = type(network)(**bundle.tiny, noise_pixels=64 * 64).eval()
        network.load_state_dict(torch.load(tiny_weights[bundle.name], weights_only=True))
    traced = torch.jit.trace(network, torch.rand(2, 2, 64, 64), check_trace=False)
    torch.jit.save(traced, root / "models" / "model_trt.ts")
    return root


@EVERY
def test_the_engine_fuses_in_the_networks_place(bundle, made, tiny_weights, dataset_dir, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_tensorrt", ModuleType("torch_tensorrt"))
    pair = {key: str(dataset_dir / "CT-MRI" / kind / "0.png") for key, kind in (("anatomy", "MRI"), ("overlay", "CT"))}
    configs = [str(made / "configs" / name) for name in ("inference.json", "inference_trt.json")]
    weights = {"weights": tiny_weights[bundle.name], "logging_file": False}
    scripts.run(
        config_file=configs, bundle_root=str(made), output_dir=str(tmp_path / "out"),
        datalist=[{**pair, "name": "case"}], device=torch.device("cpu"), **weights,
    )  # fmt: skip
    expected = bundle.expected(tiny_weights, *(picture(path) for path in pair.values()))
    fused = picture(tmp_path / "out" / "case_fused.png")
    assert (fused - expected).abs().max() <= 1.01 / 255


@EVERY
def test_the_export_is_asked_for_in_trt_exports_words(bundle, monkeypatch):
    arguments = yaml.safe_load((bundle.configs / "trt_export.yaml").read_text())
    known = inspect.signature(trt_export).parameters
    assert set(arguments) - set(known) <= {"network_def#noise_pixels"}
    given = {}

    def convert(model, **told):
        given.update(told, model=model)
        raise RuntimeError("no GPU is at hand")

    monkeypatch.setattr(scripts, "convert_to_trt", convert)
    monkeypatch.chdir(bundle.root)
    with pytest.raises(RuntimeError, match="no GPU"):
        trt_export(args_file="configs/trt_export.yaml")
    assert isinstance(given["model"], bundle.network)
    assert given["input_shape"] == [1, 2, 256, 256]
    batch = given["dynamic_batchsize"]
    assert batch[0] == 1 <= batch[1] <= batch[2]
    # what it is traced by, for the largest batch and the size that it is for
    with torch.no_grad():
        traced = torch.jit.trace(given["model"].eval(), torch.rand(1, 2, 256, 256), check_trace=False)
        assert traced(torch.rand(2, 2, 256, 256)).shape == (2, 1, 256, 256)
    assert arguments["filepath"] == "models/model_trt.ts"
    assert arguments["filepath"] in (bundle.configs / "inference_trt.json").read_text()

"""The networks with their own weights in TorchScript and ONNX, made by the commands of the model cards."""

import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from monai.bundle import load
from monai.data import load_net_with_metadata

from fusion_nets.clinical import read_image

from .conftest import DMFNET, EVERY, SMFUSION

pytestmark = pytest.mark.slow

onnx = pytest.importorskip("onnx", reason='needs pip install ".[export]"')
onnxruntime = pytest.importorskip("onnxruntime", reason='needs pip install ".[export]"')

ALONE = """
import sys
sys.modules.update(dict.fromkeys(["fusion_nets", "evaluation", "monai", "numpy"]))
import torch
network = torch.jit.load(sys.argv[1]).eval()
given = torch.load(sys.argv[2])
with torch.no_grad():
    torch.save([network(*arguments) for arguments in given], sys.argv[3])
"""


@pytest.fixture
def bundle_root(bundle, tmp_path, monkeypatch):
    """A copy of the bundle, in which its commands are given."""
    shutil.copytree(bundle.root, tmp_path / bundle.name)
    monkeypatch.chdir(tmp_path / bundle.name)
    return tmp_path / bundle.name


def documented(root, part):
    """The block or command of the model card, section "Export", that has this part."""
    card = (root / "docs" / "README.md").read_text()
    section = card.split("\n### Export\n")[1].split("\n## ")[0]
    (found,) = (
        text
        for language, block in re.findall(r"(?ms)^```(bash|python)\n(.*?)^```$", section)
        for text in ([block] if language == "python" else block.replace("\\\n", " ").splitlines())
        if part in text
    )
    return found


def command(root, part, monkeypatch, **instead):
    """Give that command, with other words in place of some."""
    line = documented(root, part)
    for old, new in instead.items():
        assert old in line
        line = line.replace(old, new)
    words = shlex.split(line)
    assert words[:3] == ["python", "-m", "monai.bundle"]
    monkeypatch.setattr(sys, "argv", words[2:])
    runpy.run_module("monai.bundle", run_name="__main__")


@pytest.fixture(scope="module")
def pair(shared):
    """A slice of MRI and of PET around the middle, (1, 2, 128, 128)."""
    folder = shared / "data" / "aanlib" / "PET-MRI"
    name = json.loads((folder.parent / "splits.json").read_text())["PET-MRI"]["val"][0]
    images = [torch.as_tensor(np.asarray(read_image(folder / kind / name))).float() for kind in ("MRI", "PET")]
    return torch.stack([image.mean(dim=0)[64:192, 64:192] / 255 for image in images])[None]


def network_of(bundle, root):
    return load(bundle.name, bundle_dir=str(root.parent), device="cpu").eval()


def texts(network, batch, length):
    mask = torch.rand(batch, 2, length) > 0.3
    mask[0, 1] = False
    return torch.randn(batch, 2, length, network.text_width), mask


@EVERY
def test_torchscript_needs_torch_alone(bundle, bundle_root, pair, tmp_path, monkeypatch):
    command(bundle_root, "ckpt_export", monkeypatch)
    network = network_of(bundle, bundle_root)
    given = [(pair,), (torch.rand(2, 2, 64, 96),), (torch.rand(1, 2, 33, 47),)]
    if bundle is SMFUSION:
        given += [(image, *texts(network, len(image), 5)) for (image,) in given]
    torch.save(given, tmp_path / "given.pt")
    files = [str(bundle_root / "models" / "model.ts"), str(tmp_path / "given.pt"), str(tmp_path / "fused.pt")]
    subprocess.run([sys.executable, "-I", "-c", ALONE, *files], check=True)
    fused = torch.load(tmp_path / "fused.pt")
    with torch.no_grad():
        for arguments, result in zip(given, fused, strict=True):
            torch.testing.assert_close(result, network(*arguments), atol=1e-5, rtol=0)
    _, metadata, others = load_net_with_metadata(files[0], more_extra_files=("inference.json",))
    assert metadata == json.loads((bundle.configs / "metadata.json").read_text())
    assert json.loads(others["inference.json"]) == json.loads((bundle.configs / "inference.json").read_text())


def opened(path):
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def fuse(*arguments):
        names = [item.name for item in session.get_inputs()]
        (pred,) = session.run(["pred"], {name: value.numpy() for name, value in zip(names, arguments, strict=True)})
        return torch.from_numpy(pred)

    return fuse, {item.name: item.shape for item in (*session.get_inputs(), *session.get_outputs())}


@EVERY
def test_onnx_of_any_size(bundle, bundle_root, pair, monkeypatch):
    command(bundle_root, "--args_file", monkeypatch)
    shown = {}
    exec(documented(bundle_root, "onnxruntime.InferenceSession"), shown)
    assert shown["pred"].shape == (1, 1, 200, 240)
    fuse, shapes = opened(bundle_root / "models" / "model.onnx")
    assert shapes == {"image": ["batch", 2, "height", "width"], "pred": ["batch", 1, "height", "width"]}
    network = network_of(bundle, bundle_root)
    with torch.no_grad():
        for image in (pair, torch.rand(3, 2, 33, 47), torch.rand(1, 2, 160, 130)):
            torch.testing.assert_close(fuse(image), network(image), atol=1e-3, rtol=0)
    if bundle is DMFNET:
        with pytest.raises(Exception, match="reshaped"):
            fuse(torch.rand(1, 2, 513, 512))


@EVERY
def test_onnx_of_one_size(bundle, bundle_root, pair, monkeypatch):
    command(bundle_root, "model_256.onnx", monkeypatch, **{"256, 256": "128, 128"})
    fuse, shapes = opened(bundle_root / "models" / "model_256.onnx")
    assert shapes == {"image": [1, 2, 128, 128], "pred": [1, 1, 128, 128]}
    with torch.no_grad():
        torch.testing.assert_close(fuse(pair), network_of(bundle, bundle_root)(pair), atol=1e-3, rtol=0)


@pytest.mark.parametrize("bundle", [SMFUSION], ids=["smfusion"])
def test_onnx_with_texts(bundle, bundle_root, pair):
    shown = {}
    exec(documented(bundle_root, "model_texts.onnx"), shown)
    network = shown["network"]
    fuse, shapes = opened(bundle_root / "models" / "model_texts.onnx")
    assert shapes["text"] == ["batch", 2, "words", network.text_width]
    assert shapes["text_mask"] == ["batch", 2, "words"]
    with torch.no_grad():
        for image, length in ((pair, 7), (torch.rand(2, 2, 33, 47), 3), (torch.rand(1, 2, 40, 72), 0)):
            given = image, *texts(network, len(image), length)
            torch.testing.assert_close(fuse(*given), network(*given), atol=1e-3, rtol=0)

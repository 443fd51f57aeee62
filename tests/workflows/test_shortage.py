"""Too little memory, or room on a disk: the case fails and the others are fused, or the run ends by one line."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow
from PIL import Image

from fusion_nets import cli, commands
from fusion_nets.clinical import ImageError, Reason
from fusion_nets.files import WriteError, whole_file
from fusion_nets.shortage import missing_memory
from fusion_nets.workflows import CaseRecords, RunningCheckpoint, evaluate_methods, find_bundle
from fusion_nets.workflows.inference import image_error

CUDA = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB"
CPU = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"


def of_numpy():
    with pytest.raises(MemoryError) as raised:
        np.empty(2**58)
    return raised.value


LACKS = {
    "python": MemoryError(),
    "numpy": of_numpy(),
    "torch": RuntimeError(f"{CPU} 400 bytes. Error code 12 (Cannot allocate memory)"),
    "torch on Windows": RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 400 bytes."),
    "oneDNN": RuntimeError("could not create a primitive"),
    "CUDA": torch.cuda.OutOfMemoryError(CUDA),
    "torch's own": torch.OutOfMemoryError(CUDA),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "CUDA itself": RuntimeError("CUDA error: out of memory"),
    "ITK": RuntimeError("itkImportImageContainer.hxx:191: Failed to allocate memory for image."),
    "C++": RuntimeError("std::bad_alloc"),
    "mmap": OSError(errno.ENOMEM, "Cannot allocate memory"),
}


@pytest.mark.parametrize("lack", LACKS)
def test_each_is_known(lack):
    said = missing_memory(LACKS[lack])
    assert "smaller size are accepted" in said
    assert ("of the GPU" in said) == (lack.startswith(("CUDA", "cuBLAS")) or lack == "torch's own")
    assert ("20.00 GiB" in said) == (CUDA in str(LACKS[lack]))


@pytest.mark.parametrize(
    "error", [ValueError("out of memory"), RuntimeError("shapes differ"), OSError(errno.EIO, "io")]
)
def test_others_are_not(error):
    assert missing_memory(error) is None
    assert image_error(error) is None


def wrapped(error):
    try:
        try:
            raise error
        except Exception as inner:
            raise RuntimeError("applying transform <X>") from inner
    except RuntimeError as outer:
        return outer


@pytest.mark.parametrize("lack", LACKS)
def test_what_compose_made_of_it(lack):
    reason = image_error(wrapped(LACKS[lack]))
    assert reason.reason is Reason.MEMORY
    assert reason.__cause__ is reason.__context__ is None, "whose traceback would hold what fills the memory"


def test_a_file_is_not_called_damaged_for_it(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(tmp_path / "a.png")

    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr("fusion_nets.clinical.raster.Image.open", fail)
    from fusion_nets.clinical import read_image

    with pytest.raises((ImageError, MemoryError)) as raised:
        read_image(tmp_path / "a.png")
    assert missing_memory(raised.value)


@pytest.mark.parametrize("lack", LACKS)
def test_one_line_of_the_program(lack, monkeypatch, capsys, tmp_path):
    def fail(_):
        raise wrapped(LACKS[lack])

    monkeypatch.setattr(commands, "sample", fail)
    assert cli.main(["sample", "--output_dir", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fusion-nets sample: the memory")


@pytest.fixture
def pairs(tmp_path):
    """Three pairs of pictures, of different sizes."""
    rng = np.random.default_rng(0)
    for name, side in (("a", 40), ("b", 44), ("c", 48)):
        for key in ("anatomy", "overlay"):
            Image.fromarray(rng.integers(0, 256, (side, side), dtype=np.uint8)).save(tmp_path / f"{name}_{key}.png")
    return [{"name": name, **{key: f"{tmp_path}/{name}_{key}.png" for key in ("anatomy", "overlay")}} for name in "abc"]


@pytest.fixture
def bundle(pairs, tmp_path):
    """The inference of a bundle over the pairs, as `python -m monai.bundle run` runs it."""
    root = find_bundle("smfusion")
    workflow = ConfigWorkflow(str(root / "configs/inference.json"), workflow_type="inference", logging_file=False)
    for name, value in {"bundle_root": str(root), "datalist": pairs, "output_dir": str(tmp_path / "out")}.items():
        workflow.parser[name] = value
    workflow.parser["device"] = torch.device("cpu")
    workflow.parser["output_format"] = ["png", "nifti"]
    workflow.initialize()
    return workflow


def names(folder):
    return sorted(path.name for path in Path(folder).glob("*") if path.is_file())


@pytest.mark.parametrize("lack", ["python", "torch", "CUDA"])
def test_the_other_cases_are_fused(bundle, tmp_path, monkeypatch, caplog, lack):
    network = bundle.parser.get_parsed_content("network")
    forward = network.forward

    def fails_at_b(image, *args, **kwargs):
        if image.shape[-1] == 44:
            raise LACKS[lack]
        return forward(image, *args, **kwargs)

    monkeypatch.setattr(network, "forward", fails_at_b)
    with pytest.raises(SystemExit, match="1 of 3 pairs could not be fused"):
        bundle.run()
    assert names(tmp_path / "out") == ["a_fused.nii.gz", "a_fused.png", "c_fused.nii.gz", "c_fused.png"]
    assert names(tmp_path / "out/.cases") == ["a.json", "c.json"]
    (told,) = (record.getMessage() for record in caplog.records if "not fused" in record.getMessage())
    assert told.startswith("b: not fused: the memory")


def test_a_form_that_fails_is_not_recorded(bundle, tmp_path, monkeypatch, caplog):
    from fusion_nets.transforms import saving

    write = saving.write_image

    def fails_at_b(path, image):
        if Path(path).name == "b_fused.nii.gz":
            raise RuntimeError("of ITK")
        return write(path, image)

    monkeypatch.setattr(saving, "write_image", fails_at_b)
    with pytest.raises(SystemExit, match="1 of 3 pairs could not be fused"):
        bundle.run()
    files = ["a_fused.nii.gz", "a_fused.png", "b_fused.png", "c_fused.nii.gz", "c_fused.png"]
    assert names(tmp_path / "out") == files
    assert names(tmp_path / "out/.cases") == ["a.json", "c.json"]
    assert "b: not fused: b: no nii.gz: of ITK; written are b_fused.png" in caplog.text


def test_a_full_disk_ends_the_run(bundle, tmp_path, monkeypatch):
    from fusion_nets.transforms import saving

    def full(path, image):
        with whole_file(path) as partial:
            partial.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(saving, "write_image", full)
    with pytest.raises(
        SystemExit, match=r"a: not fused: a: no png: .*a_fused.png: not written \(No space left"
    ) as ended:
        bundle.run()
    assert "\n" not in str(ended.value)
    assert names(tmp_path / "out") == names(tmp_path / "out/.cases") == []


@pytest.mark.parametrize("error", [WriteError(errno.ENOSPC, "No space left on device", "x"), LACKS["CUDA"]])
@pytest.mark.parametrize("handler", ["records", "checkpoint"])
def test_handlers_end_an_engine_in_one_line(tmp_path, error, handler):
    def fail(*_):
        raise error

    engine = Engine(lambda *_: None)
    if handler == "records":
        CaseRecords(tmp_path, []).attach(engine)
    else:
        RunningCheckpoint(tmp_path / "last.pt", {}).attach(engine)
    engine.add_event_handler(Events.EPOCH_STARTED, fail)
    with pytest.raises(SystemExit) as ended:
        engine.run([0])
    assert str(ended.value)
    assert "\n" not in str(ended.value)


def test_handlers_leave_other_errors(tmp_path):
    engine = Engine(lambda *_: [][0])
    CaseRecords(tmp_path, []).attach(engine)
    with pytest.raises(IndexError):
        engine.run([0])


def test_evaluation_goes_on(pairs, tmp_path, monkeypatch, caplog):
    (tmp_path / "fused").mkdir()
    for pair in pairs:
        os.link(pair["anatomy"], tmp_path / "fused" / f"{pair['name']}_fused.png")
    from fusion_nets.workflows import evaluating

    measure = evaluating.fusion_metrics

    def fails_at_b(fused, *args, **kwargs):
        if fused.shape[-1] == 44:
            raise LACKS["torch"]
        return measure(fused, *args, **kwargs)

    monkeypatch.setattr(evaluating, "fusion_metrics", fails_at_b)
    with pytest.raises(ImageError, match="1 images could not be measured"):
        evaluate_methods(pairs, {"copy": tmp_path / "fused"}, tmp_path / "report", metrics=["SSIM"], progress=False)
    assert len((tmp_path / "report/cases.csv").read_text().splitlines()) == 3
    assert "b, copy: not measured: the memory is not enough" in caplog.text


@pytest.mark.slow
def test_a_real_lack(tmp_path):
    """A picture is fused in less memory than torch needs for it."""
    rng = np.random.default_rng(0)
    for key in ("anatomy", "overlay"):
        Image.fromarray(rng.integers(0, 256, (1600, 1600), dtype=np.uint8)).save(tmp_path / f"{key}.png")
    program = f"""
import resource, sys
from pathlib import Path
import torch, fusion_nets.workflows, fusion_nets.transforms
from fusion_nets import cli
torch.set_num_threads(1)
used = int(Path("/proc/self/statm").read_text().split()[0]) * {resource.getpagesize()}
resource.setrlimit(resource.RLIMIT_AS, (used + 500 * 2**20,) * 2)
sys.exit(cli.main(sys.argv[1:]))
"""
    asked = ["fuse", "--anatomy", tmp_path / "anatomy.png", "--overlay", tmp_path / "overlay.png", "--method", "dmfnet"]
    asked += ["--output_dir", tmp_path / "out", "--device", "cpu"]
    run = subprocess.run([sys.executable, "-c", program, *map(str, asked)], capture_output=True, text=True, timeout=300)
    assert run.returncode == 2, run.stderr
    line = run.stderr.splitlines()[-1]
    assert line.startswith("fusion-nets fuse: the memory is not enough")
    assert "Traceback" not in run.stderr
    assert not list((tmp_path / "out").glob("*fused*"))

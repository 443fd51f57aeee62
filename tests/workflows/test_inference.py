import logging
from contextlib import nullcontext

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor, decollate_batch
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose, ConcatItemsd
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode

from fusion_nets.clinical import ImageError, Reason
from fusion_nets.datalists import load_pairs
from fusion_nets.transforms import (
    CommonGridd,
    LoadStudyImaged,
    MergeChromad,
    SaveFusedd,
    ScaleToDisplayRanged,
    SplitLuminanced,
)
from fusion_nets.workflows import PairBatch, PairStream, SlicewiseInferer

PREPARE = Compose(
    [
        LoadStudyImaged(grey_keys="anatomy"),
        CommonGridd(),
        ScaleToDisplayRanged(["anatomy", "overlay"]),
        SplitLuminanced("overlay"),
        ConcatItemsd(["anatomy", "overlay"], name="image"),
    ]
)
"""As inference.json has it."""


class Brighter(torch.nn.Module):
    """Stands for a fusion network: (B, 2, H, W) to (B, 1, H, W), and no pixel is fused on its own."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def forward(self, image):
        assert image.ndim == 4
        self.shapes.append(tuple(image.shape))
        return image.amax(1, keepdim=True) / image.amax((1, 2, 3), keepdim=True)


@pytest.fixture
def pairs(tmp_path):
    """A good grey pair, one with a bad overlay, a coloured one, one without a file, a volume, sizes that differ."""
    rng = np.random.default_rng(0)

    def picture(name, *shape):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / name)

    def volume(name):
        nib.save(nib.Nifti1Image(rng.random((32, 36, 3), dtype=np.float32), np.diag([2, 2, 3, 1])), tmp_path / name)

    for name in ("grey_a.png", "grey_b.png", "text_a.png", "colour_a.png", "absent_a.png", "size_a.png"):
        picture(name, 40, 36)
    picture("colour_b.png", 40, 36, 3)
    picture("size_b.png", 40, 44)
    volume("volume_a.nii.gz")
    volume("volume_b.nii.gz")
    (tmp_path / "text_b.png").write_text("PATIENT: DOE^JANE")
    names = {"grey": "png", "text": "png", "colour": "png", "absent": "png", "volume": "nii.gz", "size": "png"}
    return load_pairs(
        [
            {"name": name, "anatomy": f"{tmp_path}/{name}_a.{ending}", "overlay": f"{tmp_path}/{name}_b.{ending}"}
            for name, ending in names.items()
        ]
    )


GOOD, BAD = ["grey", "colour", "volume"], ["text", "absent", "size"]


def assert_reported(records, pairs):
    errors = [record for record in records if record.levelno == logging.ERROR]
    assert len(errors) == len(BAD)
    for record, name in zip(errors, BAD, strict=True):
        overlay = next(pair["overlay"] for pair in pairs if pair["name"] == name)
        assert record.name == "fusion_nets.workflows.inference"
        assert record.getMessage().startswith(f"{name}: not fused: {overlay}: ")
        assert "\n" not in record.getMessage()
    assert not any("DOE" in record.getMessage() for record in records)


def test_goes_on_after_a_bad_pair(pairs, caplog):
    stream = PairStream(pairs, PREPARE)
    assert [pair["name"] for pair in stream] == GOOD
    assert_reported(caplog.records, pairs)
    assert [failure.reason for failure in stream.failures] == [Reason.DAMAGED, Reason.MISSING, Reason.GRID]


def test_with_a_loader(pairs, caplog):
    stream = PairStream(pairs, PREPARE)
    batches = list(DataLoader(stream, batch_size=1))
    assert [batch["name"] for batch in batches] == [[name] for name in GOOD]
    assert [tuple(batch["image"].shape) for batch in batches] == [(1, 2, 40, 36), (1, 2, 40, 36), (1, 2, 32, 36, 3)]
    assert ["overlay_chroma" in batch for batch in batches] == [False, True, False]
    assert_reported(caplog.records, pairs)
    assert len(stream.failures) == 3


def test_end_of_the_program(pairs):
    stream = PairStream(pairs, PREPARE)
    list(stream)
    with pytest.raises(SystemExit, match="3 of 6") as stopped:
        stream.finish()
    assert isinstance(stopped.value.code, str)  # printed on the way to exit code 1

    stream = PairStream([pair for pair in pairs if pair["name"] in GOOD], PREPARE)
    assert len(list(stream)) == 3
    stream.finish()


def test_every_pass_counts_anew(pairs):
    stream = PairStream(pairs, PREPARE)
    for _ in range(2):
        assert len(list(stream)) == 3
        assert len(stream.failures) == 3
    stream.data = [pair for pair in pairs if pair["name"] in GOOD]
    list(stream)
    stream.finish()


@pytest.mark.parametrize("debug", ["False", "True"])
def test_errors_wrapped_or_not(pairs, monkeypatch, debug):
    """MONAI's Compose raises what a transform raises inside a RuntimeError, and with MONAI_DEBUG as it is."""
    monkeypatch.setenv("MONAI_DEBUG", debug)
    text = [pair for pair in pairs if pair["name"] == "text"]
    with pytest.raises(ImageError if debug == "True" else RuntimeError):
        PREPARE(text[0])
    stream = PairStream(text, PREPARE)
    assert list(stream) == []
    assert len(stream.failures) == 1


@pytest.mark.parametrize("error", [ValueError, RuntimeError, KeyError, OSError, KeyboardInterrupt])
def test_other_errors_end_the_run(pairs, error):
    def broken(pair):
        raise error("a fault of the program")

    for transform in (broken, Compose([broken])):
        stream = PairStream(pairs, transform)
        with pytest.raises((error, RuntimeError)):
            list(stream)
        assert stream.failures == []


def test_worker_processes_are_refused(pairs):
    loader = DataLoader(PairStream(pairs, PREPARE), batch_size=1, num_workers=1)
    with pytest.raises(RuntimeError, match="num_workers"):
        list(loader)


def evaluator(pairs, folder):
    stream = PairStream(pairs, PREPARE)
    engine = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(stream, batch_size=1),
        network=Brighter(),
        inferer=SlicewiseInferer(),
        prepare_batch=PairBatch(),
        postprocessing=Compose([MergeChromad(), SaveFusedd(output_dir=folder)]),
    )
    return engine, stream


def test_whole_journey(pairs, tmp_path):
    engine, stream = evaluator(pairs, tmp_path / "out")
    engine.run()
    with pytest.raises(SystemExit, match="3 of 6"):
        stream.finish()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "colour_fused.png",
        "grey_fused.png",
        "volume_fused.nii.gz",
    ]
    anatomy, overlay, fused = (
        np.asarray(Image.open(path)) / 255
        for path in (pairs[0]["anatomy"], pairs[0]["overlay"], tmp_path / "out" / "grey_fused.png")
    )
    brighter = np.maximum(anatomy, overlay)
    np.testing.assert_allclose(fused, brighter / brighter.max(), atol=0.51 / 255)
    assert Image.open(tmp_path / "out" / "colour_fused.png").mode == "RGB"
    volume = nib.load(tmp_path / "out" / "volume_fused.nii.gz")
    assert volume.shape == (32, 36, 3)
    np.testing.assert_array_equal(volume.affine, np.diag([2, 2, 3, 1]))


def test_no_pair_can_be_fused(pairs, tmp_path):
    engine, stream = evaluator([pair for pair in pairs if pair["name"] in BAD], tmp_path / "out")
    engine.run()
    with pytest.raises(SystemExit, match="3 of 3"):
        stream.finish()
    assert not (tmp_path / "out").exists()


# slice by slice


def image(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * torch.linspace(0.2, 1, shape[-1])


def test_picture_goes_through_as_it_is():
    network, pictures = Brighter(), image(3, 2, 12, 10)
    assert torch.equal(SlicewiseInferer()(pictures, network), network(pictures))
    assert network.shapes == [(3, 2, 12, 10)] * 2


@pytest.mark.parametrize("depth", [1, 2, 7])
@pytest.mark.parametrize("together", [1, 3, 16])
@pytest.mark.parametrize("batch", [1, 2])
def test_volume_goes_through_slice_by_slice(batch, together, depth):
    network, volume = Brighter(), image(batch, 2, 12, 10, depth)
    fused = SlicewiseInferer(sw_batch_size=together)(volume, network)
    assert max(shape[0] for shape in network.shapes) == min(together, batch * depth)
    assert sum(shape[0] for shape in network.shapes) == batch * depth
    assert {shape[1:] for shape in network.shapes} == {(2, 12, 10)}
    expected = torch.stack([network(volume[..., k]) for k in range(depth)], dim=-1)
    torch.testing.assert_close(fused, expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize("shape", [(1, 2, 12, 10), (1, 2, 12, 10, 3)])
def test_metadata_and_arguments_go_along(shape):
    class Scaled(torch.nn.Module):
        def forward(self, image, factor, offset=0.0):
            return image[:, :1] * factor + offset

    affine = torch.diag(torch.tensor([2.0, 3, 4, 1], dtype=torch.float64))
    volume = MetaTensor(image(*shape), affine=affine, meta={"filename_or_obj": "a.nii"})
    fused = SlicewiseInferer()(volume, Scaled(), 0.5, offset=0.25)
    assert isinstance(fused, MetaTensor)
    assert torch.equal(fused.affine, affine)
    assert fused.meta["filename_or_obj"] == "a.nii"
    torch.testing.assert_close(fused.as_tensor(), volume.as_tensor()[:, :1] * 0.5 + 0.25, atol=1e-7, rtol=0)


@pytest.mark.parametrize("shape", [(2, 2, 12, 10), (1, 2, 12, 10, 3)])
def test_amp_computes_in_bfloat16_and_gives_float32(shape):
    convolution = torch.nn.Conv2d(2, 1, 3, padding=1)
    seen = []
    convolution.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    images = torch.rand(shape)
    half, full = (SlicewiseInferer(amp=amp)(images, convolution) for amp in (True, False))
    assert seen[0] == torch.bfloat16
    assert seen[-1] == torch.float32
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, atol=0.02, rtol=0)


# arguments that each slice has of its own


class Labelled(torch.nn.Module):
    """Adds each row's label, so that it shows which label came with which slice."""

    def forward(self, image, offset=0.0, label=None, mask=None):
        assert label is None or (label.shape == (len(image), 3) and mask.shape == (len(image),))
        added = 0 if label is None else (label.sum(1) * mask)[:, None, None, None]
        return image[:, :1] + added + offset


@pytest.mark.parametrize("together", [1, 2, 3, 5, 16])
@pytest.mark.parametrize(("batch", "depth"), [(1, 4), (2, 5), (3, 1)])
def test_each_slice_gets_its_own_arguments(batch, depth, together):
    volume = image(batch, 2, 6, 5, depth)
    label = torch.arange(batch * depth * 3.0).reshape(batch, depth, 3)
    mask = torch.arange(batch * depth).reshape(batch, depth) % 3 > 0
    inferer = SlicewiseInferer(sw_batch_size=together, slice_arguments=["label", "mask"])
    given = {"label": label, "mask": mask, "offset": 0.5}
    fused = inferer(volume, Labelled(), **given)
    added = (label.sum(2) * mask)[:, None, None, None, :]
    torch.testing.assert_close(fused, volume[:, :1] + added + 0.5, atol=1e-5, rtol=0)
    assert set(given) == {"label", "mask", "offset"}


def test_a_picture_gets_its_arguments_as_they_are():
    inferer = SlicewiseInferer(slice_arguments=["label", "mask"])
    pictures, label = image(2, 2, 6, 5), torch.rand(2, 3)
    fused = inferer(pictures, Labelled(), label=label, mask=torch.ones(2))
    torch.testing.assert_close(fused, pictures[:, :1] + label.sum(1)[:, None, None, None])


@pytest.mark.parametrize("given", [{}, {"label": None, "mask": None}])
def test_arguments_of_slices_may_be_missing(given):
    volume = image(1, 2, 6, 5, 3)
    assert torch.equal(SlicewiseInferer(slice_arguments=["label", "mask"])(volume, Labelled(), **given), volume[:, :1])


@pytest.mark.parametrize("shape", [(1, 3), (3, 1, 3), (1, 4, 3)])
def test_arguments_that_are_not_one_for_each_slice(shape):
    inferer = SlicewiseInferer(slice_arguments=["label"])
    with pytest.raises(ValueError, match=r"label of \(1, 5, "):
        inferer(image(1, 2, 6, 5, 5), Labelled(), label=torch.zeros(shape))


@pytest.mark.parametrize("together", [1, 2, 7])
def test_volumes_from_a_loader_keep_their_metadata(together):
    items = [
        {"image": MetaTensor(image(2, 6, 5, 3, seed=k), affine=torch.diag(torch.tensor([2.0, 2, 3 + k, 1])))}
        for k in range(2)
    ]
    batch = next(iter(DataLoader(items, batch_size=2)))["image"]
    fused = SlicewiseInferer(sw_batch_size=together)(batch, Labelled())
    assert torch.equal(fused.as_tensor(), batch.as_tensor()[:, :1])
    for one, item in zip(decollate_batch(fused), items, strict=True):
        assert torch.equal(one.affine, item["image"].affine)


def test_at_least_one_slice_at_once():
    with pytest.raises(ValueError, match=r"sw_batch_size .* 0"):
        SlicewiseInferer(sw_batch_size=0)


@pytest.mark.parametrize("progress", [True, False])
def test_progress_over_the_slices(capsys, progress):
    SlicewiseInferer(2, progress=progress)(torch.rand(1, 2, 8, 8, 5), lambda x: x[:, :1])
    assert ("5/5" in capsys.readouterr().err) == progress


@pytest.mark.parametrize(
    ("device", "training", "enabled", "warned"),
    [("cpu", False, True, 0), ("cuda", False, False, 1), ("cuda", True, True, 0)],
)
def test_amp_is_for_training_on_cuda(monkeypatch, caplog, device, training, enabled, warned):
    """Where it costs grey levels of images, and saves little time; one warning is enough."""
    asked = []
    monkeypatch.setattr(torch, "autocast", lambda *_, enabled: asked.append(enabled) or nullcontext())
    inferer = SlicewiseInferer(amp=True)
    with FakeTensorMode():
        images = torch.empty(1, 2, 8, 8, device=device)
        for _ in range(2):
            with torch.set_grad_enabled(training):
                inferer(images, lambda image: image)
    assert asked == [enabled] * 2
    assert [record.getMessage()[:5] for record in caplog.records] == ["amp: "] * warned


def test_a_training_is_not_told_of_amp_where_it_validates(caplog):
    inferer = SlicewiseInferer(amp=True)
    with FakeTensorMode():
        images = torch.empty(1, 2, 8, 8, device="cuda")
        inferer(images, lambda image: image)
        with torch.no_grad():
            inferer(images, lambda image: image)
    assert not caplog.records

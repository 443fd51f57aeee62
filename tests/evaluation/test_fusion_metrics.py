import pickle
import subprocess
import sys
from inspect import signature
from pathlib import Path

import pytest
import torch
from fusion_images import FUNCTIONS, OF_FUSED_ALONE
from monai.data import MetaTensor
from monai.metrics import CumulativeIterationMetric

import evaluation
from evaluation import FusionSlicesMetric, FusionSSIMMetric, FusionVIFMetric, functional

METRICS = {getattr(evaluation, f"Fusion{name.replace('-', '')}Metric"): name for name in FUNCTIONS if name != "MS-SSIM"}
every_metric = pytest.mark.parametrize(("metric", "function"), METRICS.items(), ids=METRICS.values())


def study(*shape, batch=3, seed=0):
    """Fused images and their sources, float32 in [0, 1], off the 8-bit grid."""
    image = torch.rand(batch, 2, *shape, generator=torch.Generator().manual_seed(seed))
    return image.mean(1, keepdim=True) ** 1.3, image


def eight_bit(x):
    return (x * 255).round() / 255


def value_of(name, pred, image):
    sources = () if name in OF_FUSED_ALONE else (image[:, :1], image[:, 1:])
    return FUNCTIONS[name](pred, *sources)


@every_metric
def test_one_value_per_image(metric, function):
    pred, image = study(48, 44)
    meter = metric()
    assert isinstance(meter, CumulativeIterationMetric)
    got = meter(y_pred=pred, y=image)
    assert got.shape == (3, 1)
    torch.testing.assert_close(got[:, 0], value_of(function, eight_bit(pred), eight_bit(image)))
    assert meter.aggregate().item() == pytest.approx(got.mean().item())


@every_metric
def test_values_as_given_on_request(metric, function):
    pred, image = study(48, 44)
    got = metric(quantise=False)(y_pred=pred, y=image)[:, 0]
    assert torch.equal(got, value_of(function, pred, image))
    if function not in ("MI", "NMI", "EN"):
        assert (got - metric()(y_pred=pred, y=image)[:, 0]).abs().min() > 1e-7


@every_metric
def test_data_range(metric, function):
    pred, image = study(48, 44)
    expected = metric()(y_pred=pred, y=image)
    whole = [(x * 255).round().to(torch.uint8) for x in (pred, image)]
    torch.testing.assert_close(metric(data_range=255)(y_pred=whole[0], y=whole[1]), expected)
    torch.testing.assert_close(
        metric(data_range=4.0, quantise=False)(y_pred=eight_bit(pred) * 4, y=eight_bit(image) * 4), expected
    )


@every_metric
def test_lists_batches_and_accumulation_agree(metric, function):
    pred, image = study(48, 44, batch=5)
    whole, listed, apart = metric(), metric(), metric()
    expected = whole(y_pred=pred, y=image)
    got = listed(y_pred=[MetaTensor(p) for p in pred], y=[MetaTensor(i) for i in image])
    assert type(got) is torch.Tensor
    assert torch.equal(got, expected)
    apart(y_pred=pred[:2], y=image[:2])
    apart(y_pred=list(pred[2:]), y=list(image[2:]))
    assert torch.equal(apart.get_buffer(), expected)
    assert whole.aggregate() == listed.aggregate() == apart.aggregate()


@every_metric
def test_half_precision_and_gradients_stay_out(metric, function):
    pred, image = study(48, 44)
    got = metric()(y_pred=eight_bit(pred).half().requires_grad_(), y=image)
    assert got.dtype == torch.float32
    assert not got.requires_grad
    as_given = metric(quantise=False)(y_pred=pred.half(), y=image.half())
    assert torch.equal(as_given[:, 0], value_of(function, pred.half(), image.half()))
    # half a level is more than half precision loses
    assert torch.equal(got, metric()(y_pred=eight_bit(pred), y=image))


@every_metric
def test_volumes_are_the_mean_of_their_slices_with_content(metric, function):
    pred, image = study(48, 44, 20, batch=2)
    image[0, :, :, :, 3] = 0.0
    image[0, 0, :, :, 4] = 0.5
    image[0, 1, :, :, 4] = 0.1
    image[1, 1, :, :, 5] = 0.2
    image[1, :, :, :, 6] += 0.0004 * torch.rand(48, 44) - image[1, :, :, :, 6]
    got = metric()(y_pred=pred, y=image)
    # what 8 bits show as constant is no content: slice 6
    content = [[d for d in range(20) if d not in (3, 4)], [d for d in range(20) if d != 6]]
    expected = [
        [
            value_of(function, eight_bit(pred[b, None, ..., d]), eight_bit(image[b, None, ..., d])).item()
            for d in content[b]
        ]
        for b in range(2)
    ]
    assert got.shape == (2, 1)
    assert got[:, 0].tolist() == pytest.approx([sum(e) / len(e) for e in expected], rel=1e-5)


@every_metric
def test_a_volume_of_one_slice_is_that_image(metric, function):
    pred, image = study(48, 44)
    assert torch.equal(metric()(y_pred=pred[..., None], y=image[..., None]), metric()(y_pred=pred, y=image))


@every_metric
@pytest.mark.parametrize("depth", [(), (4,)], ids=["image", "volume"])
def test_images_without_a_value_do_not_break_the_mean(metric, function, depth):
    pred, image = study(48, 44, *depth)
    image[1] = 0.0
    pred[2, 0, 5] = torch.nan
    meter = metric(get_not_nans=True)
    got = meter(y_pred=pred, y=image)
    assert got.isnan().tolist() == [[False], [True], [True]]
    mean, count = meter.aggregate()
    assert count == 1
    assert mean.item() == got[0, 0].item()


@every_metric
@pytest.mark.parametrize("quantise", [True, False])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_an_image_that_is_not_finite_has_no_value(metric, function, quantise, value):
    pred, image = study(48, 44, 2)
    expected = metric(quantise=quantise)(y_pred=pred, y=image)
    pred[0, 0, 5, 5, 1] = value
    image[2, 1, :, :, 0] = value
    got = metric(quantise=quantise)(y_pred=pred, y=image)
    # a metric of the fused image alone has no use for the sources
    assert got[:, 0].isnan().tolist() == [True, False, function not in OF_FUSED_ALONE]
    assert torch.equal(got[1], expected[1])


@every_metric
def test_nothing_but_blank_images(metric, function):
    meter = metric(get_not_nans=True)
    assert meter(y_pred=torch.rand(2, 1, 48, 44, 3), y=torch.zeros(2, 2, 48, 44, 3)).isnan().all()
    assert meter.aggregate()[1] == 0


def test_reductions():
    pred, image = study(48, 44)
    meter = FusionSSIMMetric(reduction="sum")
    values = meter(y_pred=pred, y=image)
    torch.testing.assert_close(meter.aggregate(), values.sum())
    assert torch.equal(meter.aggregate("none"), values)
    torch.testing.assert_close(meter.aggregate("mean_batch"), values.mean(0))
    # reading does not change what was gathered
    assert torch.equal(meter.get_buffer(), values)
    meter.reset()
    with pytest.raises(ValueError, match="FusionSSIMMetric has nothing to aggregate"):
        meter.aggregate()
    meter(y_pred=pred, y=image)
    with pytest.raises(ValueError, match="average"):
        meter.aggregate("average")


@every_metric
def test_wrong_input_is_refused(metric, function):
    pred, image = study(48, 44)
    meter = metric()
    for y_pred in (pred[:, 0], image, pred[..., None, None]):
        with pytest.raises(ValueError, match=rf"{metric.__name__} expects y_pred"):
            meter(y_pred=y_pred, y=image)
    for y in (pred, image[:2], image[..., :40], image[..., None]):
        with pytest.raises(ValueError, match=rf"{metric.__name__} expects y, anatomy and overlay"):
            meter(y_pred=pred, y=y)
    with pytest.raises(ValueError, match="both must be tensors"):
        meter(y_pred=pred)
    with pytest.raises(ValueError, match="data_range"):
        metric(data_range=0)(y_pred=pred, y=image)
    for quantise in (True, False):
        for y_pred, y in ((pred * 255, image), (pred, image * 255), (pred * 255, image * 255)):
            with pytest.raises(ValueError, match=r"data_range, white, is 1; .*data_range=255"):
                metric(quantise=quantise)(y_pred=y_pred, y=y)
    assert meter.get_buffer() is None


def test_images_smaller_than_the_window_are_refused():
    pred, image = study(40, 44)
    with pytest.raises(ValueError, match="at least 41 x 41 pixels, got 40 x 44"):
        FusionVIFMetric()(y_pred=pred, y=image)


def test_five_scales():
    pred, image = study(176, 180, batch=2)
    got = evaluation.FusionMSSSIMMetric(quantise=False)(y_pred=pred, y=image)
    assert torch.equal(got[:, 0], functional.ms_ssim(pred, image[:, :1], image[:, 1:]))


def test_slices_with_content_are_counted():
    pred, image = study(8, 9, 5, batch=3)
    image[0, :, :, :, 3] = 0.0
    image[1] = 0.25
    image[2, 1] = 0.5  # of the other source's content there is enough
    meter = FusionSlicesMetric(reduction="sum")
    assert meter(y_pred=pred, y=image).tolist() == [[4], [0], [5]]
    assert FusionSlicesMetric()(y_pred=pred[..., 0], y=image[..., 0]).tolist() == [[1], [0], [1]]
    assert meter.aggregate().item() == 9


@pytest.mark.parametrize("metric", [*METRICS, evaluation.FusionMSSSIMMetric, FusionSlicesMetric])
def test_metrics_travel_to_other_processes(metric):
    pred, image = study(48, 44, batch=1)
    copy = pickle.loads(pickle.dumps(metric(data_range=2.0, get_not_nans=True)))
    assert type(copy) is metric
    assert copy.data_range == 2.0
    if metric is not evaluation.FusionMSSSIMMetric:
        assert torch.equal(copy(y_pred=pred, y=image), metric(data_range=2.0)(y_pred=pred, y=image))


@pytest.mark.parametrize("metric", [*METRICS, evaluation.FusionMSSSIMMetric, FusionSlicesMetric])
def test_metrics_and_handlers_look_as_if_written_by_hand(metric):
    handler = getattr(evaluation, metric.__name__.removesuffix("Metric"))
    for made, module in ((metric, evaluation.metrics), (handler, evaluation.handlers)):
        assert made.__module__ == module.__name__
        assert getattr(module, made.__name__) is made
        assert made.__qualname__ == made.__name__
        assert "quantise: measure what a saved 8-bit image would hold" in made.__doc__ or metric is FusionSlicesMetric
        assert list(signature(made).parameters)[:3] == ["data_range", "quantise", "reduction"]
        assert type(pickle.loads(pickle.dumps(made()))) is made


@pytest.mark.slow
def test_two_processes_gather_once(tmp_path):
    """Each holds a part of five images, the second perhaps none: both know all values, after one gathering."""
    program = tmp_path / "rank.py"
    program.write_text("""
import sys

import torch
import torch.distributed as dist

import evaluation.metrics

rank, file = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
image = torch.rand(5, 2, 12, 13, generator=torch.Generator().manual_seed(0))
gather, calls, results = evaluation.metrics.evenly_divisible_all_gather, [], []
evaluation.metrics.evenly_divisible_all_gather = lambda *a, **k: calls.append(1) or gather(*a, **k)
for share in (3, 5):
    calls.clear()
    meter = evaluation.metrics.FusionSSIMMetric(get_not_nans=True)
    for one in image[:share] if rank == 0 else image[share:]:
        meter(y_pred=one[None].mean(1, keepdim=True), y=one[None])
    value, count = meter.aggregate()
    results.append((meter.get_buffer(), value, count, len(calls)))
torch.save(results, f"{file}.{rank}")
dist.destroy_process_group()
""")
    file, root = tmp_path / "meeting", Path(evaluation.__file__).parents[1]
    ranks = [
        subprocess.Popen([sys.executable, program, str(rank), file], cwd=root, env={"PYTHONPATH": str(root)})
        for rank in range(2)
    ]
    assert [rank.wait(120) for rank in ranks] == [0, 0]
    image = torch.rand(5, 2, 12, 13, generator=torch.Generator().manual_seed(0))
    alone = FusionSSIMMetric()
    expected = alone(y_pred=image.mean(1, keepdim=True), y=image)
    for rank in range(2):
        for values, mean, count, calls in torch.load(f"{file}.{rank}"):
            assert torch.equal(values, expected)
            assert mean == alone.aggregate()
            assert count == 5
            assert calls == 1

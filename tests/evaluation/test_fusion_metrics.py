import pytest
import torch
from monai.data import MetaTensor
from monai.metrics import CumulativeIterationMetric

from evaluation import FusionMIMetric, FusionQabfMetric, FusionSSIMMetric, FusionVIFMetric, functional

METRICS = {
    FusionMIMetric: functional.mutual_information,
    FusionSSIMMetric: functional.ssim,
    FusionQabfMetric: functional.qabf,
    FusionVIFMetric: functional.vif,
}
every_metric = pytest.mark.parametrize(("metric", "function"), METRICS.items(), ids=lambda m: m.__name__)


def study(*shape, batch=3, seed=0):
    """Fused images and their sources, float32 in [0, 1], off the 8-bit grid."""
    image = torch.rand(batch, 2, *shape, generator=torch.Generator().manual_seed(seed))
    return image.mean(1, keepdim=True) ** 1.3, image


def eight_bit(x):
    return (x * 255).round() / 255


def value_of(function, pred, image):
    return function(pred, image[:, :1], image[:, 1:])


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
    if metric is not FusionMIMetric:
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
    assert meter.get_buffer() is None


def test_images_smaller_than_the_window_are_refused():
    pred, image = study(40, 44)
    with pytest.raises(ValueError, match="at least 41 x 41 pixels, got 40 x 44"):
        FusionVIFMetric()(y_pred=pred, y=image)

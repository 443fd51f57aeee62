import numpy as np
import pytest
import torch
from heads import head_pair

from evaluation.observers import contrast_recovery, lost, luminance, patches_at

PLACES = torch.tensor([[0, 40, 50], [1, 70, 60], [1, 5, 140]])


def lesioned(dtype=torch.float64):
    """Two pairs with lesions and without, (2, 2, H, W): one of them reaches over the border."""
    without = torch.tensor(np.stack([head_pair(seed, ct=False) for seed in (0, 1)]), dtype=dtype)
    change = torch.zeros_like(without)
    for number, row, column in PLACES.tolist():
        change[number, 1, max(0, row - 5) : row + 6, max(0, column - 5) : column + 6] += 0.1
    return without + change, without


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_shares_of_the_overlay_are_recovered(dtype):
    pairs, without = lesioned(dtype)
    for share in (1.0, 0.3, 0.0, -0.5):
        fused, before = (share * images[:, 1:] + (1 - share) * images[:, :1] for images in (pairs, without))
        got = contrast_recovery(fused, before, pairs[:, 1:], without[:, 1:], PLACES)
        assert got.dtype == dtype
        torch.testing.assert_close(got, torch.full((3,), share, dtype=dtype), atol=1e-5, rtol=0)


def test_each_window_is_a_regression_of_its_own():
    pairs, without = lesioned()
    generator = torch.Generator().manual_seed(0)
    fused, before = torch.rand(2, 2, 1, *pairs.shape[2:], generator=generator, dtype=torch.float64)
    got = contrast_recovery(fused, before, pairs[:, 1:], without[:, 1:], PLACES, half=8)
    for value, (number, row, column) in zip(got, PLACES.tolist(), strict=True):
        window = (slice(max(0, row - 8), row + 9), slice(max(0, column - 8), column + 9))
        x = (pairs - without)[number, 1][window].flatten()
        y = (fused - before)[number, 0][window].flatten()
        slope = np.linalg.lstsq(x.numpy()[:, None], y.numpy(), rcond=None)[0][0]
        assert value.item() == pytest.approx(slope, rel=1e-12)


def test_colour_counts_by_its_luminance_and_range_is_a_scale():
    pairs, without = lesioned()
    tint = torch.tensor([0.9, 1.0, 0.2]).double().view(1, 3, 1, 1)
    coloured = [images[:, 1:] * tint for images in (pairs, without)]
    got = contrast_recovery(*coloured, pairs[:, 1:], without[:, 1:], PLACES)
    torch.testing.assert_close(got, torch.full((3,), 0.299 * 0.9 + 0.587 + 0.114 * 0.2).double())
    levels = [images * 255 for images in (*coloured, pairs[:, 1:], without[:, 1:])]
    torch.testing.assert_close(contrast_recovery(*levels, PLACES, data_range=255), got)
    with pytest.raises(ValueError, match="one channel or three"):
        luminance(pairs)


def test_what_is_not_there_has_no_recovery():
    pairs, without = lesioned()
    fused = pairs.mean(1, keepdim=True).requires_grad_()
    before = without.mean(1, keepdim=True)
    got = contrast_recovery(fused, before, pairs[:, :1], without[:, :1], PLACES)
    assert got.isnan().all()
    got = contrast_recovery(
        fused, before, pairs[:, 1:], without[:, 1:], torch.cat([PLACES, torch.tensor([[0, 110, 90]])])
    )
    assert got.isnan().tolist() == [False] * 3 + [True]
    got[:3].sum().backward()
    assert fused.grad.isfinite().all()
    assert fused.grad.any()
    broken = fused.detach().clone()
    broken[0, 0, 41, 50] = torch.inf
    got = contrast_recovery(broken, before, pairs[:, 1:], without[:, 1:], PLACES)
    assert not got[0].isfinite()
    assert got[1:].isfinite().all()


def test_gradients_are_those_of_differences():
    pairs, without = (images[:, :, 30:51, 40:61].contiguous() for images in lesioned())
    places = torch.tensor([[0, 10, 10]])

    def recovery(fused):
        return contrast_recovery(fused, without[:, :1], pairs[:, 1:], without[:, 1:], places, half=6)

    assert torch.autograd.gradcheck(recovery, pairs[:, :1].clone().requires_grad_())


def test_opposite_signs_are_kept_either_way():
    recovery = torch.tensor([0.3, 0.2, -0.2, -0.9, torch.nan])
    assert lost(recovery).tolist()[:4] == [0, 1, 1, 1]
    assert lost(recovery, torch.tensor([False, False, True, True, True])).tolist()[:4] == [0, 1, 1, 0]
    assert lost(recovery, threshold=0.1)[0] == 0
    assert lost(recovery)[4].isnan()


def test_no_lesion_at_all():
    images = torch.rand(1, 1, 8, 8)
    assert contrast_recovery(images, images, images, images, torch.zeros(0, 3, dtype=torch.long)).shape == (0,)


def test_what_does_not_belong_together_is_refused():
    image, place = torch.rand(2, 1, 48, 48), torch.tensor([[1, 20, 20]])
    with pytest.raises(ValueError, match="differ in shape"):
        contrast_recovery(image, image[:1], image, image, place)
    with pytest.raises(ValueError, match="differ in shape"):
        contrast_recovery(image, image, image[..., :40], image[..., :40], place)
    for places in (torch.tensor([1, 2, 3]), place.float(), place[:, :2]):
        with pytest.raises(ValueError, match=r"\(N, 3\) whole numbers"):
            patches_at(image, places, 2)
    for outside in ([2, 0, 0], [0, 48, 0], [0, 0, -1]):
        with pytest.raises(ValueError, match="outside"):
            patches_at(image, torch.tensor([outside]), 2)
    with pytest.raises(ValueError, match=r"\(B, C, H, W\[, D\]\)"):
        patches_at(image[0], place, 2)

import pytest
import torch

from fusion_nets.losses import FusionLoss, LesionLoss

LOSS = LesionLoss(FusionLoss(), weight=2.0, asked=(0.8, 0.9), faded=0.4, faded_weight=4.0, asked_opposite=0.5)
FADED = 4.0 * 0.4**2  # what a lesion that is lost costs beside


def pair_with_lesions(signs, amplitude=0.2):
    """A pair of flat greys, and the same with a disc a lesion, (anatomy, overlay) changed by their signs."""
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    lesions, lesion_map = torch.zeros(1, 2, 64, 64), torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    for number, sign in enumerate(signs):
        disc = torch.hypot(rows - 32, columns - (12 + 20 * number)) <= 6
        lesions[:, :, disc] = amplitude * torch.tensor(sign, dtype=torch.float32)[:, None]
        lesion_map[0, 0, disc] = number + 1
    image = torch.full((1, 2, 64, 64), 0.4)
    return image, image + lesions, lesion_map


def penalty(fuse, signs):
    image, lesion_image, lesion_map = pair_with_lesions(signs)
    return LOSS.penalty(fuse(lesion_image) - fuse(image), lesion_image - image, lesion_map).item()


def mean(image):
    return image.mean(1, keepdim=True)


@pytest.mark.parametrize(
    ("fuse", "signs", "expected"),
    [
        (mean, [(1, 0)], 0.3**2 / 2),  # one source's mean of two: half, where .8 is asked, or .9 of the overlay
        (mean, [(0, -1)], 0.4**2 / 2),
        (mean, [(1, 0), (0, 1)], (0.3**2 + 0.4**2) / 2),
        (lambda image: 0.7 * mean(image), [(1, 0)], (0.45**2 + 4 * 0.05**2) / 2),  # .35 is nearly lost
        (mean, [(1, 1), (-1, -1)], 0.0),
        (mean, [(-1, 1)], (0.5**2 + FADED) / 2),  # they cancel
        (lambda image: image[:, 1:], [(-1, 1)], 0.0),
        (lambda image: image[:, :1], [(0, 1)], (0.9**2 + FADED) / 2),
        (lambda image: 1 - image[:, :1], [(1, 0)], (1.8**2 + 4 * 1.4**2) / 2),
        (lambda image: image.amax(1, keepdim=True), [(0, 1), (0, -1)], (0.9**2 + FADED) / 2 / 2),
        (lambda image: image.sum(1, keepdim=True), [(1, 0), (0, -1), (1, 1)], 0.0),
    ],
)
def test_what_a_lesion_costs(fuse, signs, expected):
    assert penalty(fuse, signs) == pytest.approx(expected, abs=1e-5)


def test_the_whole_loss_is_of_the_pairs_without_lesions_and_the_penalty():
    image, lesion_image, lesion_map = pair_with_lesions([(0, 1)])
    other = torch.rand(1, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    sources = torch.cat([image, other, lesion_image])
    target = {"image": sources, "lesion_map": lesion_map}
    fusion = FusionLoss()(mean(sources[:2]), sources[:2])
    torch.testing.assert_close(LOSS(mean(sources), target), fusion + 2.0 * 0.4**2 / 2)
    torch.testing.assert_close(LOSS(mean(sources[:2]), {"image": sources[:2]}), fusion)


def test_gradient_restores_a_lost_lesion():
    image, lesion_image, lesion_map = pair_with_lesions([(0, -1)])
    sources = torch.cat([image, lesion_image])
    fused = sources[:, :1].clone().requires_grad_()
    LOSS.penalty(fused[1:] - fused[:1], lesion_image - image, lesion_map).backward()
    inside = lesion_map[0, 0] == 1
    assert (fused.grad[1, 0, inside] > 0).all()  # darker is better
    assert (fused.grad[:, :, ~inside] == 0).all()


def test_no_lesions_no_penalty():
    image = torch.rand(2, 2, 48, 48)
    loss = LOSS.penalty(torch.zeros(2, 1, 48, 48), image * 0, torch.zeros(2, 1, 48, 48, dtype=torch.uint8))
    assert loss.item() == 0


def test_lesions_of_several_overlays_weigh_alike():
    image = torch.full((1, 4, 40, 40), 0.4)
    disc = torch.zeros(40, 40)
    disc[15:25, 15:25] = 0.2

    def cost(fuse, signs):
        changed = image + disc * torch.tensor(signs, dtype=torch.float32)[:, None, None]
        return LOSS.penalty(fuse(changed) - fuse(image), changed - image, (disc > 0)[None, None].byte()).item()

    assert cost(mean, (1, 0, 0, 0)) == pytest.approx((0.55**2 + 4 * 0.15**2) / 4, abs=1e-5)
    for overlay in ((0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, -1)):
        assert cost(mean, overlay) == pytest.approx((0.65**2 + 4 * 0.15**2) / 4, abs=1e-5)
    assert cost(lambda x: x.amax(1, keepdim=True), (0, 0, 0, 1)) == pytest.approx(0, abs=1e-5)
    # where signs are opposite the anatomy's is not asked for, and one half of the overlays'
    assert cost(lambda x: x[:, 2:3], (-1, 0, 1, 0)) == pytest.approx(0, abs=1e-5)
    assert cost(lambda x: x[:, :1], (-1, 0, 1, 0)) > 0.1

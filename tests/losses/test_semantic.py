import math

import pytest
import torch
from torch import nn

from fusion_nets.losses import ContrastiveLoss, FusionLoss, LesionLoss, MetricLoss, SemanticLoss, SMFusionLoss
from fusion_nets.networks import ImageTextCritic


class MeanCritic(nn.Module):
    """An image is the direction (mean, 1 - mean), a text is its vector; a layer shows whether it is trained."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.dropout = nn.Dropout(0.9)

    def image_features(self, image):
        assert image.shape[1:] == (1, 8, 8)
        mean = image.mean(dim=(1, 2, 3))
        return self.dropout(self.scale * torch.stack([mean, 1 - mean], dim=1))

    def text_features(self, vector):
        return self.scale * vector


def flat(*values):
    """(1, len(values), 8, 8), each channel of one value."""
    return torch.tensor(values)[None, :, None, None].expand(1, len(values), 8, 8).clone()


def vectors(anatomy, overlay):
    return torch.tensor([[anatomy, overlay]], dtype=torch.float32)


SAYS_BRIGHT, SAYS_DARK, SAYS_NOTHING = (1, 0), (0, 1), (0, 0)


@pytest.mark.parametrize(
    ("fused", "sources", "said", "expected"),
    [
        # every source fits its text perfectly; the fused image fits both, one or the middle of both
        ((1.0,), (1.0, 1.0), (SAYS_BRIGHT, SAYS_BRIGHT), 0),
        ((1.0,), (1.0, 0.0), (SAYS_BRIGHT, SAYS_DARK), 1),
        ((0.5,), (1.0, 0.0), (SAYS_BRIGHT, SAYS_DARK), 2 * (1 - math.sqrt(0.5))),
        # a source that fits its own text half weighs that much
        ((0.0,), (0.5, 0.0), (SAYS_BRIGHT, SAYS_DARK), math.sqrt(0.5)),
        # one that does not fit weighs nothing, nor less than nothing
        ((0.0,), (0.0, 0.0), (SAYS_BRIGHT, SAYS_DARK), 0),
        ((0.0,), (1.0, 0.0), ((-1, 0), SAYS_DARK), 0),
        # without a text, nothing is asked
        ((0.0,), (1.0, 1.0), (SAYS_NOTHING, SAYS_BRIGHT), 1),
        ((0.0,), (1.0, 1.0), (SAYS_NOTHING, SAYS_NOTHING), 0),
    ],
)
def test_by_hand(fused, sources, said, expected):
    loss = SemanticLoss(MeanCritic())(flat(*fused), flat(*sources), vectors(*said))
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_mean_over_the_batch():
    loss = SemanticLoss(MeanCritic())
    pred = torch.cat([flat(0.0), flat(1.0)])
    image, vector = flat(1.0, 1.0).repeat(2, 1, 1, 1), vectors(SAYS_BRIGHT, SAYS_BRIGHT).repeat(2, 1, 1)
    assert loss(pred, image, vector).item() == pytest.approx((2 + 0) / 2)


def test_no_text_weighs_nothing_even_where_the_critic_makes_something_of_it():
    critic = ImageTextCritic(text_width=6, feature_width=5, widths=(8, 8))
    loss = SemanticLoss(critic)
    assert critic.text_features(torch.zeros(1, 6)).norm() > 0
    assert loss(torch.rand(2, 1, 32, 32), torch.rand(2, 2, 32, 32), torch.zeros(2, 2, 6)).item() == 0


def test_gradient_goes_into_the_fused_image_alone():
    critic = MeanCritic()
    loss = SemanticLoss(critic)
    pred, image, vector = flat(0.4), flat(0.9, 0.2), vectors(SAYS_BRIGHT, (0.3, 0.7))
    for tensor in (pred, image, vector):
        tensor.requires_grad_()
    loss(pred, image, vector).backward()
    assert pred.grad.isfinite().all()
    assert pred.grad.any()
    assert image.grad is None
    assert vector.grad is None
    assert critic.scale.grad is None
    assert not critic.scale.requires_grad


def test_critic_stays_in_evaluation_mode():
    critic = MeanCritic().train()
    whole = SMFusionLoss(FusionLoss(), SemanticLoss(critic)).train()
    assert whole.semantic.training
    assert not critic.training
    assert not critic.dropout.training


def test_half_precision_predictions_are_measured_in_float32():
    loss = SemanticLoss(MeanCritic())(flat(0.5).bfloat16(), flat(1.0, 0.0), vectors(SAYS_BRIGHT, SAYS_DARK))
    assert loss.dtype == torch.float32


# the whole loss


def a_batch(count):
    generator = torch.Generator().manual_seed(0)
    pred, image = torch.rand(count, 1, 8, 8, generator=generator), torch.rand(count, 2, 8, 8, generator=generator)
    return pred, image, torch.rand(count, 2, 2, generator=generator)


def test_one_fusion_loss_and_the_semantic_loss():
    pred, image, vector = a_batch(3)
    fusion, semantic = FusionLoss(), SemanticLoss(MeanCritic())
    asked = LesionLoss(fusion)
    target = {"image": image, "vector": vector}
    whole = SMFusionLoss(asked, semantic, weight=0.25)(pred, target)
    assert semantic(pred, image, vector) > 0
    torch.testing.assert_close(whole, fusion(pred, image) + 0.25 * semantic(pred, image, vector))
    torch.testing.assert_close(SMFusionLoss(asked)(pred, {"image": image}), fusion(pred, image))
    torch.testing.assert_close(SMFusionLoss(asked, semantic)(pred, {"image": image}), fusion(pred, image))


def test_only_the_last_pairs_are_described():
    """As LesionBatch has them: those with lesions come last, and their texts name these."""
    pred, image, vector = a_batch(5)
    fusion, semantic = FusionLoss(), SemanticLoss(MeanCritic())
    asked = LesionLoss(fusion)
    whole = SMFusionLoss(asked, semantic, weight=0.25)(pred, {"image": image, "vector": vector[:2]})
    torch.testing.assert_close(whole, fusion(pred, image) + 0.25 * semantic(pred[3:], image[3:], vector[:2]))


def test_the_fusion_loss_gets_the_whole_target():
    """What is lost of a lesion costs under a text, too."""
    pred, image, vector = a_batch(4)
    pred, image = (torch.nn.functional.interpolate(part, 48) for part in (pred, image))
    lesion_map = torch.zeros(2, 1, 48, 48, dtype=torch.uint8)
    lesion_map[:, :, 8:20, 8:20] = 1
    target = {"image": image, "lesion_map": lesion_map}
    fusion = LesionLoss(MetricLoss())
    assert fusion(pred, target) > fusion.fusion(pred[:2], image[:2])
    torch.testing.assert_close(SMFusionLoss(fusion)(pred, {**target, "vector": vector[:2]}), fusion(pred, target))


# contrastive


def test_contrastive_loss_by_hand():
    logits = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    rows = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-2))) / 2
    columns = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-3))) / 2
    assert ContrastiveLoss()(logits).item() == pytest.approx((rows + columns) / 2)
    assert ContrastiveLoss()(torch.zeros(5, 5)).item() == pytest.approx(math.log(5))


def test_contrastive_loss_is_symmetric_and_ignores_the_target():
    logits = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)) * 3
    loss = ContrastiveLoss()
    torch.testing.assert_close(loss(logits), loss(logits.T, torch.rand(4, 7)))
    order = [2, 0, 3, 1]
    torch.testing.assert_close(loss(logits), loss(logits[order][:, order]))
    assert loss(logits[order]) != loss(logits)

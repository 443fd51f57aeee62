import pytest
import torch

from fusion_nets.losses import GroundingLoss


def named(*rows):
    mask = torch.zeros(len(rows), 1, 16, 16)
    for image, row in enumerate(rows):
        if row is not None:
            mask[image, 0, row, :8] = 1
    return mask


def test_what_is_right_costs_nothing():
    mask = named(3, None)
    assert GroundingLoss()(40 * mask - 20, mask).item() == pytest.approx(0, abs=1e-5)


def test_each_fault_costs():
    loss, right = GroundingLoss(), named(3, None)
    elsewhere, missed, invented = named(9, None), named(None, None), named(3, 5)
    costs = [loss(40 * found - 20, right).item() for found in (elsewhere, missed, invented)]
    assert min(costs) > 0.3
    assert costs[0] > costs[1], "at a wrong place is worse than not at all"


def test_nothing_named_is_penalised_by_its_surest_pixels():
    loss = GroundingLoss(cross_entropy=0.0, dice=1.0, nothing=2.0, surest=0.0)
    logits = torch.full((1, 1, 16, 16), -20.0)
    logits[0, 0, 0, :10] = 0.0
    assert loss(logits, named(None)).item() == pytest.approx(2 * 0.5 * 10 / 20, abs=1e-5)


def test_the_surest_within_and_elsewhere_are_told_apart():
    loss = GroundingLoss(cross_entropy=0.0, dice=0.0, nothing=0.0, surest=1.0)
    mask, logits = torch.zeros(2, 1, 64, 64), torch.full((2, 1, 64, 64), -20.0)
    mask[0, 0, 30:34, 30:34] = 1
    logits[0, 0, 31, 31], logits[0, 0, 25, 30], logits[0, 0, 2, 2], logits[1, 0, 50, 50] = 1.5, 9.0, -0.5, 0.7
    within, elsewhere = torch.tensor(-1.5), torch.tensor([-0.5, 0.7])  # what is near what is named is neither
    expected = torch.nn.functional.softplus(within) + torch.nn.functional.softplus(elsewhere).mean()
    torch.testing.assert_close(loss(logits, mask), expected)
    nothing = torch.zeros_like(mask)
    expected = torch.nn.functional.softplus(torch.tensor([9.0, 0.7])).mean()
    torch.testing.assert_close(loss(logits, nothing), expected)


def test_gradient_finds_a_faint_one():
    logits = torch.zeros(1, 1, 16, 16, requires_grad=True)
    GroundingLoss()(logits, named(2)).backward()
    assert (logits.grad[0, 0, 2, :8] < 0).all()
    assert (logits.grad[0, 0, 5] > 0).all()

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
    loss = GroundingLoss(cross_entropy=0.0, dice=1.0, nothing=2.0)
    logits = torch.full((1, 1, 16, 16), -20.0)
    logits[0, 0, 0, :10] = 0.0
    assert loss(logits, named(None)).item() == pytest.approx(2 * 0.5 * 10 / 20, abs=1e-5)


def test_gradient_finds_a_faint_one():
    logits = torch.zeros(1, 1, 16, 16, requires_grad=True)
    GroundingLoss()(logits, named(2)).backward()
    assert (logits.grad[0, 0, 2, :8] < 0).all()
    assert (logits.grad[0, 0, 5] > 0).all()

import math

import pytest
import torch

from fusion_nets.losses import ContrastiveLoss
from fusion_nets.networks import ImageTextCritic

TINY = {"text_width": 6, "feature_width": 10, "widths": (8, 16, 16)}


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 40)])
@torch.no_grad()
def test_features_are_of_length_one(size):
    critic = ImageTextCritic(text_width=6, feature_width=10)
    image, vector = torch.rand(3, 1, *size), torch.randn(4, 6) * 5
    seen, said = critic.image_features(image), critic.text_features(vector)
    assert seen.shape == (3, 10)
    assert said.shape == (4, 10)
    torch.testing.assert_close(seen.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(said.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(critic(image, vector), seen @ said.T * math.exp(2.6593))


@torch.no_grad()
def test_default_widths_are_those_of_the_default_text_encoder():
    critic = ImageTextCritic()
    assert critic.text_features(torch.randn(2, 384)).shape == (2, 128)
    assert critic.image_features(torch.rand(2, 1, 64, 64)).shape == (2, 128)


@torch.no_grad()
def test_temperature_is_bounded():
    critic = ImageTextCritic(**TINY)
    critic.log_scale.fill_(50)
    assert critic(torch.rand(2, 1, 32, 32), torch.randn(2, 6)).abs().max() <= 100 + 1e-3


@torch.no_grad()
def test_sides_are_told_apart():
    torch.manual_seed(0)
    critic = ImageTextCritic(**TINY)
    image = torch.zeros(1, 1, 64, 64)
    image[..., 20:30, 5:20] = 1
    assert (critic.image_features(image) - critic.image_features(image.flip(-1))).abs().max() > 1e-3


def test_learns_which_text_belongs_to_which_image():
    torch.manual_seed(0)
    critic = ImageTextCritic(**TINY).train()
    image = torch.zeros(6, 1, 32, 32)
    for number in range(6):
        image[number, 0, 16 * (number % 2) :, 10 * (number // 2) : 10 * (number // 2) + 10] = 1
    vector = torch.nn.functional.normalize(torch.randn(6, 6), dim=1)
    optimizer, losses = torch.optim.Adam(critic.parameters(), lr=1e-2), []
    for _ in range(25):
        loss = ContrastiveLoss()(critic(image, vector))
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad.isfinite().all() for parameter in critic.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    assert critic(image, vector).argmax(1).tolist() == list(range(6))

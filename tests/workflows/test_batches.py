import pytest
import torch
from monai.data import MetaTensor

from fusion_nets.networks import DMFNet
from fusion_nets.workflows import FeatureReplay, NoisyBatch, PairBatch


def test_noisy_batch_mixes_image_and_noise_by_the_level():
    torch.manual_seed(0)
    image = MetaTensor(torch.rand(256, 1, 16, 16))
    noisy, clean, (level,), _ = NoisyBatch()({"image": image})
    torch.testing.assert_close(clean, image.as_tensor() * 2 - 1)
    g = level[:, None, None, None]
    noise = (noisy - g * clean) / torch.sqrt(1 - g**2)
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert noise.std().item() == pytest.approx(1, abs=0.02)
    assert level.min() < 0.2
    assert level.max() > 0.98


def test_noisy_batch_with_a_seed_repeats():
    batch = {"image": MetaTensor(torch.rand(4, 1, 16, 16))}
    seeded, fresh = NoisyBatch(seed=1), NoisyBatch()
    assert torch.equal(seeded(batch)[0], seeded(batch)[0])
    assert not torch.equal(fresh(batch)[0], fresh(batch)[0])


def test_pair_batch_is_its_own_target():
    image = torch.rand(2, 2, 8, 8)
    inputs, targets = PairBatch()({"image": image})
    assert torch.equal(inputs, image)
    assert torch.equal(targets, image)


def test_feature_replay_gives_every_pair_its_own_features():
    network = DMFNet(width=8, norm_groups=4, head_width=4, seed=1).eval()  # the same noise at every call
    replay = FeatureReplay(network, batch_size=3, pool_size=4)
    torch.manual_seed(0)
    loaded = [MetaTensor(torch.rand(2, 2, 64, 64)) for _ in range(4)]
    for batch in loaded:
        image, target, _, arguments = replay({"image": batch})
        assert torch.equal(image, target)
        for index in range(len(image)):
            expected = network.encode(image[index : index + 1])
            for level, wanted in zip(arguments["features"], expected, strict=True):
                torch.testing.assert_close(level[:, :, index], wanted[:, :, 0], atol=1e-5, rtol=1e-4)
    assert len(image) == 3
    assert len(replay.pool) == 4
    kept = torch.stack([pair for pair, _ in replay.pool])
    assert torch.equal(kept, torch.cat([loaded[2], loaded[3]]).as_tensor())


def test_a_pool_smaller_than_a_batch_is_refused():
    with pytest.raises(ValueError, match="pool_size"):
        FeatureReplay(torch.nn.Identity(), batch_size=4, pool_size=2)

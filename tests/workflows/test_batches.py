import itertools

import pytest
import torch
from ignite.metrics import Accuracy
from monai.data import DataLoader, MetaTensor, pad_list_data_collate
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from torch import nn

from fusion_nets.losses import ContrastiveLoss, FusionLoss, GroundingLoss, LesionLoss, SemanticLoss, SMFusionLoss
from fusion_nets.networks import DMFNet, ImageTextCritic, SMFusion, TextGrounding
from fusion_nets.workflows import (
    CriticBatch,
    DescribedBatch,
    FeatureReplay,
    GroundingBatch,
    LesionBatch,
    NoisyBatch,
    PairBatch,
    SlicewiseInferer,
    SourcesBatch,
    own_text,
    sources_apart,
)

TEXT_WIDTH = 6


def tiny():
    """No text is without effect."""
    torch.manual_seed(0)
    how = {"widths": (8, 8), "blocks": (1, 1), "heads": (1, 2), "refinement_blocks": 1, "text_width": TEXT_WIDTH}
    network = SMFusion(**how).eval()
    for parameter in (network.head, *(level.injection.modulation for level in (network.bottom, *network.decoder))):
        nn.init.normal_(parameter.weight, std=0.1)
    return network


def an_item(number, length, size=(16, 16)):
    generator = torch.Generator().manual_seed(number)
    mask = torch.zeros(2, length, dtype=torch.bool)
    mask[0] = True
    mask[1, : length // 2] = True
    return {
        "image": MetaTensor(0.3 + 0.4 * torch.rand(2, *size, generator=generator)),
        "text": torch.randn(2, length, TEXT_WIDTH, generator=generator) * mask[..., None],
        "text_mask": mask,
        "text_vector": torch.randn(2, TEXT_WIDTH, generator=generator),
    }


LENGTHS = [3, 8, 1, 0]


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


def pairs_with_lesions(count, seed):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(count, 2, 64, 64, generator=generator)
    lesion_map = torch.zeros(count, 1, 64, 64, dtype=torch.uint8)
    lesion_map[:, :, 20:30, 20:30] = 1
    return {"image": MetaTensor(image), "lesion_image": image + 0.1 * lesion_map, "lesion_map": lesion_map}


def test_noisy_batch_takes_pairs_apart():
    image = torch.rand(3, 2, 16, 16)
    noisy, clean, (level,), _ = NoisyBatch()({"image": image})
    assert noisy.shape == (6, 1, 16, 16)
    assert len(level) == 6
    torch.testing.assert_close(clean, torch.cat([pair[:, None] for pair in image]) * 2 - 1)


def test_lesion_batch_has_pairs_without_and_with_lesions():
    batch = pairs_with_lesions(3, 0)
    image, target = LesionBatch(share=0.5)(batch)
    assert torch.equal(image, torch.cat([batch["image"].as_tensor(), batch["lesion_image"][:2]]))
    assert torch.equal(target["image"], image)
    assert torch.equal(target["lesion_map"], batch["lesion_map"][:2])
    image, target = LesionBatch()({"image": batch["image"]})
    assert torch.equal(image, batch["image"].as_tensor())
    assert list(target) == ["image"]


def test_lesion_batch_has_the_texts_of_the_last_pairs():
    batch = pairs_with_lesions(3, 0)
    batch |= {"text_vector": torch.rand(3, 2, TEXT_WIDTH), "said_vector": torch.rand(3, 2, 9)}
    image, target = LesionBatch(share=0.5)(batch)
    assert set(target) == {"image", "lesion_map", "vector"}
    assert torch.equal(target["vector"], batch["text_vector"][:2])
    assert torch.equal(image[-2:], batch["lesion_image"][:2]), "the texts are those of the pairs with lesions"
    assert torch.equal(LesionBatch(vector_key="said_vector")(batch)[1]["vector"], batch["said_vector"])
    plain = {key: batch[key] for key in ("image", "text_vector")}
    assert torch.equal(LesionBatch(share=0.5)(plain)[1]["vector"], batch["text_vector"])


def test_some_overlays_are_left_out_of_a_batch_and_their_order_changes():
    torch.manual_seed(0)
    image = torch.arange(4.0)[None, :, None, None].expand(2, 4, 8, 8) / 8
    batch = {"image": image, "lesion_image": image + 0.01, "lesion_map": torch.ones(2, 1, 8, 8, dtype=torch.uint8)}
    seen = set()
    for _ in range(60):
        drawn, target = SourcesBatch(share=0.5)(batch)
        kept = (drawn[0, :, 0, 0] * 8).int().tolist()
        seen.add(tuple(kept))
        assert torch.equal(drawn, torch.cat([image[:, kept], image[:1, kept] + 0.01]))
        assert torch.equal(target["image"], drawn)
        assert len(target["lesion_map"]) == 1
    assert all(kept[0] == 0 for kept in seen)
    assert seen == {(0, *order) for n in (2, 3) for order in itertools.permutations((1, 2, 3), n)}
    assert SourcesBatch()({"image": image[:, :2]})[0].shape == (2, 2, 8, 8)


def test_a_batch_of_several_overlays_brings_its_features_under_one_noise():
    torch.manual_seed(0)
    network = DMFNet(width=8, norm_groups=4, steps=[10], detail_width=8)
    image = torch.rand(2, 4, 32, 32)
    changed = image.clone()
    changed[1, :, 8:24, 8:24] *= 0.5
    batch = {"image": image, "lesion_image": changed, "lesion_map": torch.ones(2, 1, 32, 32, dtype=torch.uint8)}
    assert network.training
    drawn, target, arguments, named = SourcesBatch(network=network)(batch)
    assert torch.equal(target["image"], drawn)
    assert arguments == ()
    for level in named["features"]:
        assert level.shape[1:3] == (drawn.shape[1], 4)
        assert not level.requires_grad
        torch.testing.assert_close(level[:, :, 2], level[:, :, 0])
        assert not torch.allclose(level[:, :, 3], level[:, :, 1]), "lesions show"
    assert network(drawn, **named).shape == (4, 1, 32, 32)


@pytest.mark.parametrize("share", [0, 1.5, -1])
def test_a_share_is_some_or_all(share):
    with pytest.raises(ValueError, match="share"):
        LesionBatch(share)


@pytest.mark.parametrize("lesions", [False, True], ids=["plain", "lesions"])
def test_feature_replay_gives_every_pair_its_own_features(lesions):
    network = DMFNet(width=8, norm_groups=4, head_width=4, seed=1).eval()  # the same noise at every call
    replay = FeatureReplay(network, batch_size=3, pool_size=4)
    torch.manual_seed(0)
    loaded = [pairs_with_lesions(2, seed) for seed in range(4)]
    for batch in loaded:
        image, target, _, arguments = replay(batch if lesions else {"image": batch["image"]})
        assert torch.equal(image, target["image"])
        for index in range(len(image)):
            expected = network.encode(image[index : index + 1])
            for level, wanted in zip(arguments["features"], expected, strict=True):
                torch.testing.assert_close(level[:, :, index], wanted[:, :, 0], atol=1e-5, rtol=1e-4)
    assert len(image) == (6 if lesions else 3)
    assert ("lesion_map" in target) == lesions
    if lesions:
        torch.testing.assert_close(image[3:] - image[:3], 0.1 * target["lesion_map"].expand(-1, 2, -1, -1))
    kept = torch.stack([one.versions[0] for one in replay.pool])
    assert torch.equal(kept, torch.cat([loaded[2]["image"], loaded[3]["image"]]).as_tensor())


def test_a_pair_with_lesions_is_noised_as_it_is_without():
    network = DMFNet(width=8, norm_groups=4, head_width=4).train()
    batch = pairs_with_lesions(1, 0)
    batch["lesion_image"] = batch["image"].as_tensor()
    _, _, _, arguments = FeatureReplay(network, batch_size=1, pool_size=1)(batch)
    for level in arguments["features"]:
        torch.testing.assert_close(level[:, :, 0], level[:, :, 1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("lesions", [False, True], ids=["plain", "lesions"])
def test_a_pool_that_was_kept_gives_the_same_batches(lesions, tmp_path):
    """Bit for bit, and with the noise that was drawn before."""
    torch.manual_seed(0)
    network = DMFNet(width=8, norm_groups=4, head_width=4).train()

    def drawn(replay, seeds):
        for seed in seeds:
            torch.manual_seed(seed)
            batch = pairs_with_lesions(2, seed)
            yield replay(batch if lesions else {"image": batch["image"]})

    replay = FeatureReplay(network, batch_size=3, pool_size=5)
    list(drawn(replay, range(4)))
    torch.save(replay.state_dict(), tmp_path / "pool.pt")
    again = FeatureReplay(network, batch_size=3, pool_size=5)
    again.load_state_dict(torch.load(tmp_path / "pool.pt", weights_only=True))
    assert len(again.state_dict()["pools"][0]) == 5, "nothing is lost by who stops before the first batch"
    for (image, target, _, kept), (same, wanted, _, anew) in zip(
        drawn(replay, (4, 5)), drawn(again, (4, 5)), strict=True
    ):
        assert torch.equal(image, same)
        assert target.keys() == wanted.keys()
        assert all(torch.equal(target[key], wanted[key]) for key in target)
        for level, other in zip(kept["features"], anew["features"], strict=True):
            assert torch.equal(level, other)
    assert not again.restored


def test_a_process_that_was_not_there_has_no_pool():
    again = FeatureReplay(torch.nn.Identity())
    again.load_state_dict({"pools": []})
    assert again.state_dict() == {"pools": [[]]}


def test_a_pool_smaller_than_a_batch_is_refused():
    with pytest.raises(ValueError, match="pool_size"):
        FeatureReplay(torch.nn.Identity(), batch_size=4, pool_size=2)


def test_what_network_and_loss_get():
    batch = next(iter(DataLoader([an_item(0, 3), an_item(1, 3)], batch_size=2)))
    image, target, arguments, texts = DescribedBatch()(batch)
    assert torch.equal(image, batch["image"])
    assert arguments == ()
    assert set(texts) == {"text", "text_mask"}
    assert set(target) == {"image", "vector"}
    assert torch.equal(target["image"], image)
    assert torch.equal(target["vector"], batch["text_vector"])
    for name in texts:
        assert torch.equal(texts[name], batch[name])


def test_vectors_of_a_critic_with_an_encoder_of_its_own():
    item = {**an_item(0, 3), "said_vector": torch.rand(2, 9)}
    batch = next(iter(DataLoader([item], batch_size=1)))
    assert torch.equal(DescribedBatch(vector_key="said_vector")(batch)[1]["vector"], item["said_vector"][None])


def test_batch_without_texts():
    image = torch.rand(2, 2, 8, 8)
    assert DescribedBatch()({"image": image})[2:] == ((), {})
    assert set(DescribedBatch()({"image": image})[1]) == {"image"}


def test_batch_is_brought_to_the_device():
    batch = next(iter(DataLoader([an_item(0, 3)], batch_size=1)))
    image, target, _, texts = DescribedBatch()(batch, device=torch.device("meta"), non_blocking=True)
    assert {part.device.type for part in (image, target["image"], target["vector"], *texts.values())} == {"meta"}
    pictures = {"image": torch.rand(2, 1, 8, 8), "text_vector": torch.rand(2, 1, 6)}
    assert {part.device.type for part in CriticBatch()(pictures, device=torch.device("meta"))[:2]} == {"meta"}


@pytest.mark.parametrize("precision", [torch.float32, torch.float16])
def test_only_the_image_changes_its_type(precision):
    batch = next(iter(DataLoader([an_item(0, 3)], batch_size=1)))
    image, _, _, texts = DescribedBatch()(batch, dtype=precision)
    assert image.dtype == precision
    assert (texts["text"].dtype, texts["text_mask"].dtype) == (torch.float32, torch.bool)


@torch.no_grad()
def test_texts_of_different_lengths_in_one_batch():
    """As train.json collates them: the masks stay masks, and each pair is fused as it would be alone."""
    items = [an_item(number, length) for number, length in enumerate(LENGTHS)]
    batch = next(iter(DataLoader(items, batch_size=len(items), collate_fn=pad_list_data_collate)))
    assert batch["text"].shape == (4, 2, 8, TEXT_WIDTH)
    assert batch["text_mask"].shape == (4, 2, 8)
    assert batch["text_mask"].dtype == torch.bool
    assert batch["text_mask"].sum(2).tolist() == [[length, length // 2] for length in LENGTHS]
    for row, item in enumerate(items):
        for source in range(2):
            mask = batch["text_mask"][row, source]
            assert torch.equal(batch["text"][row, source][mask], item["text"][source][item["text_mask"][source]])
            assert not batch["text"][row, source][~mask].any()

    network = tiny()
    image, _, _, texts = DescribedBatch()(batch)
    fused = network(image, **texts)
    for row, item in enumerate(items):
        alone = network(item["image"][None], item["text"][None], item["text_mask"][None])
        torch.testing.assert_close(fused[row : row + 1], alone, atol=1e-5, rtol=0)
    assert (fused - network(image)).abs().amax(dim=(1, 2, 3))[:3].min() > 1e-3


def test_a_training_step_of_the_whole():
    items = [an_item(number, length, (48, 48)) for number, length in enumerate(LENGTHS)]
    loader = DataLoader(items, batch_size=4, collate_fn=pad_list_data_collate)
    network = tiny().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    semantic = SemanticLoss(ImageTextCritic(text_width=TEXT_WIDTH, feature_width=4, widths=(8, 8)))
    SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=loader,
        network=network,
        inferer=SlicewiseInferer(slice_arguments=["text", "text_mask"]),
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=SMFusionLoss(LesionLoss(FusionLoss(), weight=0), semantic),
        prepare_batch=DescribedBatch(),
        decollate=False,
    ).run()
    changed = [name for name, value in network.state_dict().items() if not torch.equal(value, before[name])]
    assert any("embedding" in name for name in changed)
    assert "anatomy_interaction.no_description" in changed
    assert all(value.isfinite().all() for value in network.state_dict().values())


@torch.no_grad()
def test_evaluation_of_a_volume():
    """As inference.json has it: each slice is fused under its own text."""
    slices = [an_item(number, 4) for number in range(3)]
    item = {"image": MetaTensor(torch.stack([one["image"].as_tensor() for one in slices], dim=-1))}
    item |= {name: torch.stack([one[name] for one in slices]) for name in ("text", "text_mask", "text_vector")}
    network = tiny()
    engine = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader([item], batch_size=1),
        network=network,
        inferer=SlicewiseInferer(sw_batch_size=2, slice_arguments=["text", "text_mask"]),
        prepare_batch=DescribedBatch(),
    )
    engine.run()
    fused = engine.state.output[0]["pred"]
    assert fused.shape == (1, 16, 16, 3)
    for number, one in enumerate(slices):
        expected = network(one["image"].as_tensor()[None], one["text"][None], one["text_mask"][None])[0]
        torch.testing.assert_close(torch.as_tensor(fused[..., number]), expected, atol=1e-5, rtol=0, check_device=False)


# the critic's and the grounding's


def test_what_the_grounding_gets():
    batch = {"image": torch.rand(3, 1, 32, 32), "named": torch.rand(3, 2, 32, 32).round()}
    batch |= {"text": torch.rand(3, 1, 4, 30), "text_mask": torch.rand(3, 1, 4) > 0.5}
    image, named, arguments, keywords = GroundingBatch()(batch)
    assert torch.equal(image, batch["image"])
    assert torch.equal(named, batch["named"])
    assert keywords == {}
    for got, key in zip(arguments, ("text", "text_mask"), strict=True):
        assert torch.equal(got, batch[key][:, 0])
    assert GroundingLoss()(TextGrounding()(image, *arguments), named).isfinite()


def test_what_the_critic_gets():
    batch = {"image": torch.rand(3, 1, 32, 32), "text_vector": torch.rand(3, 1, TEXT_WIDTH)}
    image, vector, arguments, named = CriticBatch()(batch)
    assert torch.equal(image, batch["image"])
    assert vector.shape == (3, TEXT_WIDTH)
    assert len(arguments) == 1
    assert arguments[0] is vector
    assert named == {}
    critic = ImageTextCritic(text_width=TEXT_WIDTH, feature_width=4, widths=(8, 8))
    assert ContrastiveLoss()(critic(image, *arguments), vector).isfinite()


def test_sources_apart():
    batch = [{"image": torch.rand(2, 3, 4)} for _ in range(2)]
    for number, sources in enumerate(sources_apart(batch)):
        assert [tuple(source.shape) for source in sources] == [(1, 3, 4)] * 2
        assert all(torch.equal(source[0], pair["image"][number]) for source, pair in zip(sources, batch, strict=True))


def test_own_text_is_the_one_of_the_same_place():
    similarities = torch.eye(3)[[0, 1, 1]]
    accuracy = Accuracy()
    accuracy.update(own_text({"pred": similarities}))
    assert accuracy.compute() == pytest.approx(2 / 3)

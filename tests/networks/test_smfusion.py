import pytest
import torch
from monai.networks.blocks.cablock import CABlock, FeedForward

from fusion_nets.networks import SemanticInteraction, SMFusion, TextInjection
from fusion_nets.networks.restormer_parts import ChannelAttention, ChannelNorm, GatedFeedForward

TEXT_WIDTH = 12
TINY = {
    "widths": (8, 16, 24),
    "blocks": (1, 1, 1),
    "heads": (1, 2, 4),
    "refinement_blocks": 1,
    "text_width": TEXT_WIDTH,
}


def randomised(seed=0, **how):
    """A network in which nothing is silent: what starts at zero is made random."""
    torch.manual_seed(seed)
    network = SMFusion(**{**TINY, **how}).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, TextInjection):
                module.modulation.weight.normal_(std=0.3)
                module.modulation.bias.normal_(std=0.1)
        network.head.weight.normal_(std=0.02)
        network.head.bias.normal_(std=0.02)
    assert all(parameter.any() for name, parameter in network.named_parameters() if "norm.bias" not in name)
    return network


@pytest.fixture(scope="module")
def network():
    return randomised()


def a_batch(batch=2, size=(16, 16), length=5, seed=1):
    """Pairs away from 0 and 1, so that the bounds do not hide a difference; texts; masks that leave nothing out."""
    generator = torch.Generator().manual_seed(seed)
    image = 0.3 + 0.4 * torch.rand(batch, 2, *size, generator=generator)
    text = torch.randn(batch, 2, length, TEXT_WIDTH, generator=generator)
    return image, text, torch.ones(batch, 2, length, dtype=torch.bool)


def close(first, second, atol=1e-5):
    torch.testing.assert_close(first, second, atol=atol, rtol=0)


def differ(first, second):
    return (first - second).abs().max() > 1e-3


# sizes and bounds


def test_default_sizes_are_those_of_the_specification():
    network = SMFusion()
    for encoder in (network.anatomy_encoder, network.overlay_encoder):
        assert [len(level) for level in encoder.levels] == [2, 2, 4]
        assert [level[0].attention.num_heads for level in encoder.levels] == [1, 2, 4]
        assert [level[0].attention.project_out.conv.out_channels for level in encoder.levels] == [32, 64, 128]
    assert [len(level.blocks) for level in (network.bottom, *network.decoder)] == [4, 2, 2]
    assert [block.attention.num_heads for block in (level.blocks[0] for level in network.decoder)] == [2, 1]
    for interaction in (network.anatomy_interaction, network.overlay_interaction):
        assert len(interaction.rounds) == 2
        assert interaction.embedding.in_features == 384
    levels = (network.bottom, *network.decoder)
    assert [level.injection.modulation.out_features for level in levels] == [2 * 128, 2 * 64, 2 * 32]
    shared = {id(p) for p in network.anatomy_encoder.parameters()} & {
        id(p) for p in network.overlay_encoder.parameters()
    }
    assert not shared


@pytest.mark.parametrize("size", [(8, 8), (33, 47), (1, 1), (5, 64), (31, 16)])
@torch.no_grad()
def test_any_size(network, size):
    image, text, mask = a_batch(size=size)
    for fused in (network(image), network(image, text, mask)):
        assert fused.shape == (2, 1, *size)
        assert fused.isfinite().all()


@torch.no_grad()
def test_levels_as_many_as_asked_for():
    for levels in (1, 2):
        how = {name: TINY[name][:levels] for name in ("widths", "blocks", "heads")}
        image, text, mask = a_batch(size=(9, 7))
        assert randomised(**how)(image, text, mask).shape == (2, 1, 9, 7)


@torch.no_grad()
def test_result_is_bounded():
    network = randomised()
    network.head.weight.mul_(100)
    image, text, mask = a_batch()
    fused = network(image, text, mask)
    assert fused.min() == 0
    assert fused.max() == 1


@torch.no_grad()
def test_untrained_network_gives_the_pointwise_maximum():
    image, text, mask = a_batch(size=(13, 10))
    network = SMFusion(**TINY)
    assert torch.equal(network(image), image.amax(1, keepdim=True))
    assert torch.equal(network(image, text, mask), image.amax(1, keepdim=True))


@torch.no_grad()
def test_padding_at_the_border_repeats_it(network):
    image, text, mask = a_batch(size=(14, 15))
    padded = torch.nn.functional.pad(image, [0, 1, 0, 2], mode="replicate")
    close(network(image, text, mask), network(padded, text, mask)[..., :14, :15], atol=1e-6)


# what the texts do


@torch.no_grad()
def test_each_text_changes_the_result(network):
    image, text, mask = a_batch()
    fused = network(image, text, mask)
    assert differ(fused, network(image))
    for source in range(2):
        other = text.clone()
        other[:, source] = other[:, source].flip(-1)
        assert differ(fused, network(image, other, mask))
    assert differ(fused, network(image, text.flip(1), mask))


@torch.no_grad()
def test_no_text_is_a_text_that_is_all_masked(network):
    image, text, mask = a_batch()
    close(network(image), network(image, text, torch.zeros_like(mask)))
    close(network(image), network(image, text[:, :, :0], mask[:, :, :0]))
    close(network(image, text), network(image, text, mask))


@pytest.mark.parametrize("source", [0, 1])
@torch.no_grad()
def test_one_source_without_text(network, source):
    image, text, mask = a_batch()
    mask[:, source] = False
    fused = network(image, text, mask)
    other = text.clone()
    other[:, source] = 7
    close(fused, network(image, other, mask))
    assert differ(fused, network(image))
    assert differ(fused, network(image, text))


@torch.no_grad()
def test_what_stands_behind_the_mask_does_not_matter(network):
    image, text, mask = a_batch()
    fused = network(image, text, mask)
    padding = torch.full((2, 2, 3, TEXT_WIDTH), 50.0)
    missing = torch.zeros(2, 2, 3, dtype=torch.bool)
    close(fused, network(image, torch.cat([text, padding], 2), torch.cat([mask, missing], 2)))
    close(fused, network(image, torch.cat([padding, text], 2), torch.cat([missing, mask], 2)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.uint8])
@torch.no_grad()
def test_masks_of_ones_and_zeros_count_as_true_and_false(network, dtype):
    image, text, mask = a_batch()
    mask[0, 0, 2:] = False
    mask[1, 1] = False
    close(network(image, text, mask.to(dtype)), network(image, text, mask), atol=0)


@torch.no_grad()
def test_batch_of_texts_of_different_lengths_equals_one_by_one(network):
    lengths = [(5, 2), (0, 4), (0, 0), (1, 5)]
    image, text, mask = a_batch(batch=len(lengths))
    for row, of_row in enumerate(lengths):
        for source, length in enumerate(of_row):
            mask[row, source, length:] = False
            text[row, source, length:] = 0
    fused = network(image, text, mask)
    for row, of_row in enumerate(lengths):
        one = slice(row, row + 1)
        close(fused[one], network(image[one], text[one, :, : max(of_row)], mask[one, :, : max(of_row)]))


# number types, compilation, training


@torch.no_grad()
def test_double_precision(network):
    image, text, mask = a_batch()
    expected = network(image, text, mask)
    double = randomised().double()
    fused = double(image.double(), text.double(), mask)
    assert fused.dtype == torch.float64
    close(fused.float(), expected, atol=1e-4)
    assert double(image.double()).dtype == torch.float64


@torch.no_grad()
def test_autocast_to_bfloat16(network):
    image, text, mask = a_batch()
    for arguments in ((image, text, mask), (image,)):
        with torch.autocast("cpu", torch.bfloat16):
            fused = network(*arguments)
        close(fused.float(), network(*arguments), atol=0.02)


@torch.no_grad()
def test_scripted_network_gives_the_same(network, tmp_path):
    torch.jit.save(torch.jit.script(network), tmp_path / "network.ts")
    scripted = torch.jit.load(tmp_path / "network.ts")
    image, text, mask = a_batch(size=(9, 14))
    mask[0, 1, 3:] = False
    mask[1, 0] = False
    close(scripted(image, text, mask), network(image, text, mask))
    close(scripted(image), network(image))
    with pytest.raises(torch.jit.Error, match=r"\(B, 2, H, W\)"):
        scripted(image[:, :1])


def test_gradients_reach_every_parameter():
    network = randomised().train()
    image, text, mask = a_batch()
    mask[0] = False
    (network(image, text, mask) * torch.rand(2, 1, 16, 16)).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("described", [True, False])
def test_no_parameter_is_left_out_of_the_graph(described):
    """Distributed training waits for a gradient of every parameter, whatever the batch."""
    network = randomised().train()
    image, text, mask = a_batch()
    network(*((image, text, mask) if described else (image,))).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_training_moves_the_result_towards_the_target():
    torch.manual_seed(0)
    network = SMFusion(**TINY).train()
    image, text, mask = a_batch()
    target = image.mean(1, keepdim=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-4)
    losses = []
    for _ in range(6):
        loss = (network(image, text, mask) - target).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


# errors


@pytest.mark.parametrize("shape", [(1, 1, 16, 16), (1, 3, 16, 16), (2, 16, 16), (1, 2, 16, 16, 3), (16,)])
def test_other_images_are_refused(network, shape):
    with pytest.raises(ValueError, match=r"\(B, 2, H, W\)"):
        network(torch.rand(shape))


@pytest.mark.parametrize("shape", [(1, 2, 5, TEXT_WIDTH), (2, 1, 5, TEXT_WIDTH), (2, 2, 5, 384), (2, 2, TEXT_WIDTH)])
def test_other_texts_are_refused(network, shape):
    image, _, _ = a_batch()
    with pytest.raises(ValueError, match=rf"text of \(2, 2, L, {TEXT_WIDTH}\)"):
        network(image, torch.rand(shape))


@pytest.mark.parametrize("shape", [(2, 2, 4), (2, 5), (1, 2, 5), (2, 2, 5, 1)])
def test_other_masks_are_refused(network, shape):
    image, text, _ = a_batch()
    with pytest.raises(ValueError, match=r"text_mask of \[2, 2, 5\]"):
        network(image, text, torch.ones(shape, dtype=torch.bool))


@pytest.mark.parametrize("how", [{"widths": (8, 16)}, {"blocks": ()}, {"heads": (1, 2, 4, 8)}])
def test_levels_that_do_not_agree_are_refused(how):
    with pytest.raises(ValueError, match=r"widths .* blocks .* heads"):
        SMFusion(**{**TINY, **how})


# parts


@torch.no_grad()
def test_channel_attention_to_oneself_is_monais():
    torch.manual_seed(0)
    ours, theirs = ChannelAttention(16, 4).eval(), CABlock(2, 16, 4, bias=False).eval()
    ours.temperature.copy_(torch.rand(4, 1, 1) * 3)
    theirs.load_state_dict(ours.state_dict())
    x, other = torch.randn(2, 2, 16, 7, 9)
    close(ours(x), theirs(x), atol=1e-6)
    close(ours(x, x), theirs(x), atol=1e-6)
    assert differ(ours(x, other), theirs(x))


@torch.no_grad()
def test_feed_forward_is_monais():
    torch.manual_seed(0)
    how = {"spatial_dims": 2, "dim": 12, "ffn_expansion_factor": 2.66, "bias": False}
    ours, theirs = GatedFeedForward(**how), FeedForward(**how)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 12, 7, 9)
    close(ours(x), theirs(x), atol=1e-6)


@torch.no_grad()
def test_channel_norm_is_layer_norm_over_channels():
    torch.manual_seed(0)
    ours, theirs = ChannelNorm(10), torch.nn.LayerNorm(10)
    theirs.weight.normal_()
    theirs.bias.normal_()
    ours.weight.copy_(theirs.weight.reshape(1, 10, 1, 1))
    ours.bias.copy_(theirs.bias.reshape(1, 10, 1, 1))
    x = torch.randn(2, 10, 5, 6) * 3 + 1
    close(ours(x), theirs(x.movedim(1, -1)).movedim(-1, 1))


@torch.no_grad()
def test_interaction_gives_a_feature_map_and_one_vector():
    torch.manual_seed(0)
    interaction = SemanticInteraction(width=16, text_width=12, heads=2).eval()
    x, text = torch.randn(2, 16, 5, 6), torch.randn(2, 4, 12)
    mask = torch.tensor([[True, True, False, False], [False] * 4])
    aligned, meaning = interaction(x, text, mask)
    assert aligned.shape == x.shape
    assert meaning.shape == (2, 16)
    order = [1, 0, 3, 2]
    for first, second in zip(interaction(x, text[:, order], mask[:, order]), (aligned, meaning), strict=True):
        close(first, second)
    moved, same = interaction(x.flip(-1), text, mask)
    close(moved, aligned.flip(-1))
    close(same, meaning)


@torch.no_grad()
def test_injection_scales_and_shifts_channels():
    injection = TextInjection(3, 2)
    x, meaning = torch.randn(4, 2, 5, 6), torch.randn(4, 3)
    assert torch.equal(injection(x, meaning), x)
    injection.modulation.bias.copy_(torch.tensor([1.0, 0.0, 0.5, -3.0]))
    close(injection(x, meaning)[:, 0], 2 * x[:, 0] + 0.5)
    close(injection(x, meaning)[:, 1], x[:, 1] - 3)

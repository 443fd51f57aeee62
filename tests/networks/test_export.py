"""Both networks, reduced, as ONNX graphs of free size in onnxruntime, and traced."""

import pytest
import torch
from monai.networks.utils import convert_to_onnx

from fusion_nets.networks import DMFNet, SMFusion, TextGuidedUNet

pytestmark = pytest.mark.slow

onnx = pytest.importorskip("onnx", reason='needs pip install ".[export]"')
onnxruntime = pytest.importorskip("onnxruntime", reason='needs pip install ".[export]"')

SIZES = [(1, 32, 32), (3, 33, 47), (1, 128, 160), (2, 130, 41)]
FREE = {0: "batch", 2: "height", 3: "width"}
WORDS = {0: "batch", 2: "words"}


def exported(network, *inputs):
    names = ["image", "text", "text_mask"][: len(inputs)]
    axes = {"image": FREE, "text": WORDS, "text_mask": WORDS, "pred": FREE}
    model = convert_to_onnx(
        network,
        inputs,
        input_names=names,
        output_names=["pred"],
        dynamic_axes={name: axes[name] for name in (*names, "pred")},
        dynamo=False,
    )
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert [item.name for item in session.get_inputs()] == names

    def fuse(*arguments):
        given = {name: value.numpy() for name, value in zip(names, arguments, strict=True)}
        return torch.from_numpy(session.run(["pred"], given)[0])

    return fuse


@pytest.fixture(scope="module")
def dmfnet():
    torch.manual_seed(0)
    how = {"width": 8, "multipliers": (1, 1, 2), "blocks": 1, "norm_groups": 4, "head_width": 4}
    return DMFNet(**how, noise_pixels=128 * 160).eval()


@pytest.fixture(scope="module")
def smfusion():
    torch.manual_seed(0)
    network = SMFusion(widths=(8, 16, 24), blocks=(1, 1, 1), heads=(1, 2, 4), refinement_blocks=1, text_width=12).eval()
    for name, value in network.named_parameters():
        if name.startswith("head.") or "modulation" in name:
            torch.nn.init.normal_(value, std=0.1)
    return network


@pytest.fixture(scope="module")
def guided_by_features():
    how = {"width": 8, "multipliers": (1, 1, 2), "blocks": 1, "norm_groups": 4, "steps": (10,), "detail_width": 8}
    return stirred(DMFNet(**how, feature_reduction=2, noise_pixels=128 * 160))


@pytest.fixture(scope="module")
def guided_by_texts():
    network = TextGuidedUNet(8, 2, grounding={"text_width": 12, "widths": (8, 16), "said_width": 8, "threshold": 0.0})
    return stirred(network)


def stirred(network):
    torch.manual_seed(0)
    for name, value in network.named_parameters():
        if "head." in name or "guides." in name or "modulation" in name:
            torch.nn.init.normal_(value, std=0.1)
    return network.eval()


@pytest.mark.parametrize("which", ["dmfnet", "guided_by_features"])
@torch.no_grad()
def test_dmfnet(which, request):
    dmfnet = request.getfixturevalue(which)
    fuse = exported(dmfnet, torch.rand(2, 2, 64, 96))
    for batch, *size in SIZES:
        image = torch.rand(batch, 2, *size)
        expected = dmfnet(image)
        assert expected.std() > 1e-3
        torch.testing.assert_close(fuse(image), expected, atol=1e-5, rtol=0)
    with pytest.raises(Exception, match="reshaped"):
        fuse(torch.rand(1, 2, 128, 161))


@pytest.mark.parametrize("which", ["smfusion", "guided_by_texts"])
@torch.no_grad()
def test_smfusion(which, request):
    smfusion = request.getfixturevalue(which)
    fuse = exported(smfusion, torch.rand(2, 2, 64, 72))
    for batch, *size in [*SIZES, (1, 5, 7)]:
        image = torch.rand(batch, 2, *size)
        expected = smfusion(image)
        assert (expected - image.amax(dim=1, keepdim=True)).abs().max() > 0.01
        torch.testing.assert_close(fuse(image), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("which", ["smfusion", "guided_by_texts"])
@torch.no_grad()
def test_smfusion_with_texts(which, request):
    """Of any length; a source without words, and no words at all, are as in torch."""
    smfusion = request.getfixturevalue(which)
    fuse = exported(smfusion, torch.rand(2, 2, 64, 72), torch.rand(2, 2, 5, 12), torch.ones(2, 2, 5, dtype=torch.bool))
    for length, (batch, *size) in zip((1, 9, 0, 4), SIZES, strict=True):
        image, text = torch.rand(batch, 2, *size), torch.randn(batch, 2, length, 12)
        mask = torch.rand(batch, 2, length) > 0.5
        mask[0, 1] = False
        expected = smfusion(image, text, mask)
        torch.testing.assert_close(fuse(image, text, mask), expected, atol=5e-4, rtol=0)
        if length == 0:
            torch.testing.assert_close(expected, smfusion(image), atol=1e-5, rtol=0)
        elif length == 9:
            assert (expected - smfusion(image)).abs().max() > 1e-3


@pytest.mark.parametrize("which", ["dmfnet", "smfusion", "guided_by_features", "guided_by_texts"])
@torch.no_grad()
def test_trace(which, request):
    network = request.getfixturevalue(which)
    traced = torch.jit.trace(network, torch.rand(2, 2, 64, 96), check_trace=False)
    for batch, *size in SIZES:
        image = torch.rand(batch, 2, *size)
        torch.testing.assert_close(traced(image), network(image), atol=1e-5, rtol=0)

"""Engines fuse as torch does, and are chosen, refused and passed over as they should be."""

import json
import logging
import sys

import pytest
import torch

from fusion_nets.clinical import write_image
from fusion_nets.networks import DMFNet, FusionUNet, SMFusion, TextGuidedUNet
from fusion_nets.workflows import CaseRecords, EngineNetwork, engines, fuse_pair
from fusion_nets.workflows.converted import engine_cache
from fusion_nets.workflows.digests import digest
from fusion_nets.workflows.engines import EngineChoice, engine_choices

OTHERS = ["openvino", "onnxruntime"]
SIZES = [(1, 64, 64), (2, 47, 61), (1, 100, 130)]


@pytest.fixture(autouse=True)
def as_users_have_it(monkeypatch, tmp_path):
    """Nothing said by the environment, and a cache of its own."""
    monkeypatch.delenv("FUSION_NETS_ENGINE", raising=False)
    monkeypatch.delenv("FUSION_NETS_PRECISION", raising=False)
    monkeypatch.setenv("FUSION_NETS_CACHE", str(tmp_path / "cache"))


def needs(engine):
    for package in engines._NEEDS[engine]:
        pytest.importorskip(package, reason='needs pip install ".[fast,export]"')


@pytest.fixture(params=["dmfnet", "smfusion", "instant"])
def network(request):
    torch.manual_seed(0)
    if request.param == "dmfnet":
        how = {"width": 8, "multipliers": (1, 1, 2), "blocks": 1, "norm_groups": 4, "steps": (10,), "detail_width": 8}
        made = DMFNet(**how, feature_reduction=2)
    elif request.param == "instant":
        made = FusionUNet(8)
    else:
        grounding = {"text_width": 12, "widths": (8, 16), "said_width": 8, "threshold": 0.0}
        made = TextGuidedUNet(8, 3, grounding=grounding)
    for name, value in made.named_parameters():
        if "head." in name or "guides." in name:
            torch.nn.init.normal_(value, std=0.05)
    return made.eval()


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("engine", OTHERS)
def test_in_float32_it_is_torchs_result_for_any_size(network, engine):
    needs(engine)
    fast = EngineNetwork(network, engine=engine, precision="float32")
    for batch, *size in SIZES:
        image = torch.rand(batch, 2, *size)
        expected = network(image)
        assert (expected - image.amax(dim=1, keepdim=True)).abs().max() > 0.01
        torch.testing.assert_close(fast(image), expected, atol=1e-5, rtol=0)
    if isinstance(network, TextGuidedUNet):
        image, text = torch.rand(3, 2, 40, 56), torch.randn(3, 2, 4, 12)
        mask = torch.rand(3, 2, 4) > 0.3
        mask[1] = False
        expected = network(image, text, mask)
        assert (expected - network(image))[[0, 2]].abs().max() > 0.01
        torch.testing.assert_close(fast(image, text, mask), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(fast(image, text=text, text_mask=mask), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(fast(image, text), network(image, text), atol=1e-5, rtol=0)
    assert fast.told()["name"] == engine
    assert fast.told()["precision"] == "float32"


@torch.no_grad()
def test_a_source_of_which_no_text_names_anything_is_not_searched(monkeypatch):
    torch.manual_seed(0)
    grounding = {"text_width": 12, "widths": (8, 16), "said_width": 8, "threshold": 0.0}
    network = TextGuidedUNet(8, 2, grounding=grounding).eval()
    searched, find = [], network.grounding.find
    monkeypatch.setattr(
        network.grounding, "find", lambda image, *said: searched.append(len(image)) or find(image, *said)
    )
    image, text, mask = torch.rand(3, 2, 40, 56), torch.randn(3, 2, 4, 12), torch.zeros(3, 2, 4, dtype=torch.bool)
    mask[0, 1] = mask[2] = True
    expected = network(image, text, mask)
    fast = EngineNetwork(network, engine="torch", precision="float32")
    torch.testing.assert_close(fast(image, text, mask), expected)
    torch.testing.assert_close(fast(image, text, torch.zeros_like(mask)), network(image))
    assert searched == [6, 3]
    with pytest.raises(ValueError, match=r"\[3, 2, 3\]"):
        fast(image, text, mask[..., :3])
    with pytest.raises(ValueError, match=r"\[1, 2, 4, 12\]"):
        fast(image, text[:1], mask)


@torch.no_grad()
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_in_bfloat16_it_is_near(network, engine):
    needs(engine)
    if not engines._has_bfloat16():
        pytest.skip("this machine computes no bfloat16")
    fast = EngineNetwork(network, engine=engine, precision="bfloat16")
    image = torch.nn.functional.interpolate(torch.rand(1, 2, 9, 9), (96, 80), mode="bilinear")
    fused = fast(image)
    assert fused.dtype == torch.float32
    apart = 255 * (fused - network(image)).abs()
    assert 0 < apart.max() <= 6
    assert apart.mean() <= 0.5
    assert torch.equal(fast(image), fused)
    assert torch.equal(fast(image.expand(2, -1, -1, -1))[1:], fused)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("engine", OTHERS)
def test_the_same_bytes_again_and_from_the_cache(network, engine, monkeypatch):
    needs(engine)
    image = torch.rand(1, 2, 70, 90)
    first = EngineNetwork(network, engine=engine, precision="float32")(image)
    (kept,) = engine_cache().iterdir()
    assert kept.suffix == ".onnx"

    def never(*args, **kwargs):
        raise AssertionError("is converted again")

    monkeypatch.setattr(torch.onnx, "export", never)
    assert torch.equal(EngineNetwork(network, engine=engine, precision="float32")(image), first)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("damage", [lambda kept: b"", lambda kept: kept[:-40], lambda kept: b"\0" + kept[1:]])
def test_what_is_damaged_in_the_cache_is_converted_anew(network, damage):
    needs("onnxruntime")
    image = torch.rand(1, 2, 64, 64)
    first = EngineNetwork(network, engine="onnxruntime")(image)
    (kept,) = engine_cache().iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    assert torch.equal(EngineNetwork(network, engine="onnxruntime")(image), first)
    assert kept.read_bytes() == whole


@pytest.mark.slow
@torch.no_grad()
def test_a_network_of_the_same_weights_that_computes_otherwise_is_another():
    """What it does may stand in a number alone, which no weight and no name of a layer tells."""
    needs("onnxruntime")
    how = {"width": 8, "multipliers": (1, 1, 2), "blocks": 1, "norm_groups": 4, "steps": (10,), "detail_width": 8}
    image, made = torch.rand(1, 2, 64, 64), []
    for by in (1, 2):
        torch.manual_seed(0)
        other = DMFNet(**how, feature_reduction=by).eval()
        for name, value in other.named_parameters():
            if "head." in name or "guides." in name:
                torch.nn.init.normal_(value, std=0.05)
        made.append(EngineNetwork(other, engine="onnxruntime", precision="float32")(image))
        torch.testing.assert_close(made[-1], other(image), atol=1e-5, rtol=0)
    assert (made[0] - made[1]).abs().max() > 1e-4


@pytest.mark.slow
@torch.no_grad()
def test_weights_that_changed_are_converted_anew(network):
    needs("onnxruntime")
    fast = EngineNetwork(network, engine="onnxruntime")
    image = torch.rand(1, 2, 64, 64)
    before = fast(image)
    network.load_state_dict({name: 1.1 * value for name, value in network.state_dict().items()})
    assert (network(image) - before).abs().max() > 1e-3
    torch.testing.assert_close(fast(image), network(image), atol=1e-5, rtol=0)


@pytest.mark.slow
@torch.no_grad()
def test_without_a_folder_to_keep_it_in_it_is_converted_every_time(network, monkeypatch, tmp_path):
    needs("onnxruntime")
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("FUSION_NETS_CACHE", str(tmp_path / "file"))
    image = torch.rand(1, 2, 64, 64)
    fast = EngineNetwork(network, engine="onnxruntime")
    torch.testing.assert_close(fast(image), network(image), atol=1e-5, rtol=0)


# which is taken


def pretend(monkeypatch, installed=(), bfloat16=True):
    monkeypatch.setattr(engines, "_missing", lambda engine: [] if engine in ("torch", *installed) else [engine])
    monkeypatch.setattr(engines, "_has_bfloat16", lambda: bfloat16)


def test_auto_takes_what_is_there(monkeypatch):
    pretend(monkeypatch, OTHERS)
    assert engine_choices()[0] == EngineChoice("openvino", "bfloat16")
    in_float32 = [(engine, "float32") for engine in (*OTHERS, "torch")]
    assert engine_choices(precision="float32") == in_float32
    assert {choice.engine for choice in engine_choices(engine="openvino")} == {"openvino"}
    assert engine_choices(device="cuda") == [EngineChoice("torch", "float32")]
    assert engine_choices(device="cuda", precision="bfloat16") == [EngineChoice("torch", "bfloat16")]
    pretend(monkeypatch, OTHERS, bfloat16=False)
    assert engine_choices() == in_float32
    pretend(monkeypatch, bfloat16=False)
    assert engine_choices() == [EngineChoice("torch", "float32")]
    assert engine_choices("torch", "bfloat16") == [EngineChoice("torch", "bfloat16")]


def test_the_environment_says_what_auto_is(monkeypatch):
    pretend(monkeypatch, OTHERS)
    monkeypatch.setenv("FUSION_NETS_ENGINE", "torch")
    monkeypatch.setenv("FUSION_NETS_PRECISION", "float32")
    assert engine_choices() == [EngineChoice("torch", "float32")]
    assert engine_choices("onnxruntime") == [EngineChoice("onnxruntime", "float32")]
    monkeypatch.setenv("FUSION_NETS_ENGINE", "tensorflow")
    with pytest.raises(ValueError, match="FUSION_NETS_ENGINE is 'tensorflow'; accepted are auto, torch, openvino"):
        engine_choices()


@pytest.mark.parametrize(
    ("options", "installed", "kind", "message"),
    [
        ({"engine": "fast"}, OTHERS, ValueError, "engine is 'fast'; accepted are auto, torch, openvino, onnxruntime"),
        ({"precision": 16}, OTHERS, ValueError, "precision is 16; accepted are auto, float32, bfloat16"),
        ({"engine": "openvino"}, [], ModuleNotFoundError, r'not installed; pip install "fusion-nets\[fast\]"'),
        ({"engine": "onnxruntime"}, [], ModuleNotFoundError, r'pip install "fusion-nets\[export\]"'),
        ({"engine": "openvino", "device": "cuda"}, OTHERS, ValueError, "on the processor alone"),
        ({"engine": "onnxruntime", "precision": "bfloat16"}, OTHERS, ValueError, "computes in float32"),
    ],
)
def test_refusals(options, installed, kind, message, monkeypatch):
    pretend(monkeypatch, installed)
    with pytest.raises(kind, match=message):
        engine_choices(**options)


def test_bfloat16_where_there_is_none(monkeypatch):
    pretend(monkeypatch, OTHERS, bfloat16=False)
    with pytest.raises(ValueError, match="which this processor does not compute; float32 is accepted"):
        engine_choices("openvino", "bfloat16")


@torch.no_grad()
@pytest.mark.parametrize("how", ["fails", "departs"])
def test_an_engine_that_does_not_do_is_passed_over_with_its_reason(network, how, monkeypatch, caplog):
    pretend(monkeypatch, ["onnxruntime"], bfloat16=False)

    def start(part, precision):
        if how == "fails":
            raise RuntimeError("no such\ninstruction")
        return lambda *given: part(*given) + 0.01

    monkeypatch.setitem(engines.STARTED, "onnxruntime", start)
    image = torch.rand(1, 2, 64, 64)
    with caplog.at_level(logging.WARNING):
        fast = EngineNetwork(network)
        assert torch.equal(fast(image), network(image))
        fast(image)
    (record,) = caplog.records
    reason = "no such instruction" if how == "fails" else "departs from torch's by 2.5 levels"
    assert record.getMessage().startswith("onnxruntime in float32 is not used, the next engine is: ")
    assert reason in record.getMessage()
    assert fast.told()["name"] == "torch"
    with pytest.raises(ValueError, match=f"engine is 'onnxruntime', which cannot run this network here .*{reason}"):
        EngineNetwork(network, engine="onnxruntime")(image)


def test_other_networks_run_in_torch(monkeypatch):
    pretend(monkeypatch, OTHERS)
    network = SMFusion(widths=(8, 16, 24), blocks=(1, 1, 1), heads=(1, 2, 4), refinement_blocks=1, text_width=12)
    assert EngineNetwork(network).told()["name"] == "torch"
    with pytest.raises(ValueError, match="the network is a SMFusion; engine torch is accepted"):
        EngineNetwork(network, engine="openvino")


# through the bundle


@pytest.fixture
def pair(tmp_path):
    for name in ("anatomy", "overlay"):
        write_image(tmp_path / f"{name}.nii.gz", torch.rand(1, 48, 56, 2))
    return tmp_path / "anatomy.nii.gz", tmp_path / "overlay.nii.gz"


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_the_record_tells_what_ran(pair, engine, tmp_path):
    needs(engine)
    fuse_pair(*pair, tmp_path / "out", "smfusion", register="none", name="x", engine=engine, precision="float32")
    told = json.loads((tmp_path / "out" / "x_fused.json").read_text())["record"]["engine"]
    assert told.keys() == {"name", "version", "precision"}
    assert (told["name"], told["precision"]) == (engine, "float32")


def test_a_case_that_another_engine_made_is_not_done(network, tmp_path):
    made = {
        choice: digest(CaseRecords(tmp_path, [], [EngineNetwork(network, "cpu", *choice)]).settings)
        for choice in (("torch", "float32"), ("torch", "bfloat16"))
    }
    assert made["torch", "float32"] != made["torch", "bfloat16"]
    again = CaseRecords(tmp_path, [], [EngineNetwork(network, "cpu", "torch", "float32")])
    assert digest(again.settings) == made["torch", "float32"]


def test_amp_is_bfloat16_by_its_old_name(pair, tmp_path):
    fuse_pair(*pair, tmp_path / "out", "smfusion", register="none", name="x", engine="torch", amp=True)
    assert json.loads((tmp_path / "out" / "x_fused.json").read_text())["record"]["engine"]["precision"] == "bfloat16"


@pytest.mark.parametrize("said", ["$open('mark', 'w')", "@network_def", "%output_dir", "openvino"])
def test_a_string_of_the_user_is_an_engines_name_or_refused(pair, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "openvino", None)
    kind = ModuleNotFoundError if said == "openvino" else ValueError
    with pytest.raises(kind, match="engine is "):
        fuse_pair(*pair, tmp_path / "out", "smfusion", register="none", engine=said)
    assert not (tmp_path / "mark").exists()


class Several(TextGuidedUNet):
    """Stands for a network of any number of sources."""

    def __init__(self):
        super().__init__(8)
        self.fusion = Brightest()

    def emphasise(self, image, *args, **kwargs):
        return image


class Brightest(torch.nn.Module):
    def forward(self, image):
        return image.amax(1, keepdim=True)


@pytest.mark.parametrize("count", [3, 4])
def test_several_overlays_run_in_torch(count):
    """Whatever else is installed, and the record says so."""
    network = EngineNetwork(Several().eval())
    image = torch.rand(1, count, 70, 90)
    assert torch.equal(network(image), image.amax(1, keepdim=True))
    assert {name: network.told(count)[name] for name in ("name", "precision")} == {
        "name": "torch",
        "precision": "float32",
    }


@pytest.mark.parametrize("engine", OTHERS)
def test_an_engine_that_was_named_refuses_several_overlays(engine):
    needs(engine)
    network = EngineNetwork(Several().eval(), engine=engine)
    for refused in (lambda: network(torch.rand(1, 3, 64, 64)), lambda: network.told(3)):
        with pytest.raises(ValueError, match=f"engine is '{engine}', which runs an anatomy and one overlay"):
            refused()

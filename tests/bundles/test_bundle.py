import json

import pytest
import torch
from monai.bundle import ConfigParser, ckpt_export, verify_metadata, verify_net_in_out
from monai.data import load_net_with_metadata

from .conftest import BUNDLES

ROOT = BUNDLES / "dmfnet"
CONFIGS = ROOT / "configs"
META = str(CONFIGS / "metadata.json")
INFERENCE = str(CONFIGS / "inference.json")


def test_files_of_the_bundle_specification():
    for name in (
        "configs/metadata.json",
        "configs/inference.json",
        "configs/logging.conf",
        "docs/README.md",
        "docs/data_license.txt",
        "models/model.pt",
        "LICENSE",
    ):
        assert (ROOT / name).is_file(), name
    assert (ROOT / "models/model.pt").stat().st_size < 50e6


def test_metadata_follows_the_schema_without_a_network():
    verify_metadata(meta_file=META, filepath=str(BUNDLES / "metadata_schema.json"))


@pytest.mark.parametrize(
    ("key", "value"), [("version", 1), ("task", ""), ("network_data_format", {"inputs": {}}), ("authors", None)]
)
def test_the_schema_refuses_other_metadata(tmp_path, key, value):
    metadata = json.loads((CONFIGS / "metadata.json").read_text())
    (tmp_path / "metadata.json").write_text(json.dumps({**metadata, key: value}))
    with pytest.raises(ValueError, match="Failed validating"):
        verify_metadata(meta_file=str(tmp_path / "metadata.json"), filepath=str(BUNDLES / "metadata_schema.json"))


def test_network_takes_and_gives_what_the_metadata_says():
    verify_net_in_out(net_id="network_def", meta_file=META, config_file=INFERENCE, n=2, device="cpu")


def test_exported_network_gives_the_same(tmp_path):
    exported = tmp_path / "model.ts"
    ckpt_export(
        net_id="network_def",
        filepath=str(exported),
        ckpt_file=str(ROOT / "models/model.pt"),
        meta_file=META,
        config_file=INFERENCE,
    )
    scripted, metadata, _ = load_net_with_metadata(str(exported), more_extra_files=("inference.json",))
    assert metadata["version"] == json.loads((CONFIGS / "metadata.json").read_text())["version"]
    parser = ConfigParser()
    parser.read_config(INFERENCE)
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(ROOT / "models/model.pt", weights_only=True))
    image = torch.rand(1, 2, 64, 72)
    with torch.no_grad():
        torch.testing.assert_close(scripted(image), network(image), atol=1e-5, rtol=0)


def test_every_configuration_names_the_same_network():
    definitions = [json.loads((CONFIGS / name).read_text())["network_def"] for name in ("train.json", "inference.json")]
    assert definitions[0] == definitions[1]
    unet = json.loads((CONFIGS / "train_diffusion.json").read_text())["network_def"]
    assert {key: unet[key] for key in ("width", "norm_groups")} == {
        key: definitions[0][key] for key in ("width", "norm_groups")
    }

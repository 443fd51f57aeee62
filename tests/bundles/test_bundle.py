import json
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser, verify_metadata, verify_net_in_out

from .conftest import DMFNET, EVERY, SMFUSION

SCHEMA = str(Path(__file__).parent / "metadata_schema.json")
SHIPPED = [bundle for bundle in (DMFNET, SMFUSION) if (bundle.root / "models/model.pt").is_file()]


def read(bundle, name):
    return json.loads((bundle.configs / name).read_text())


def configured(bundle):
    parser = ConfigParser()
    parser.read_config(str(bundle.configs / "inference.json"))
    return parser.get_parsed_content("network_def").eval()


@pytest.mark.parametrize("bundle", SHIPPED, ids=lambda bundle: bundle.name)
def test_shipped_weights_are_those_of_the_network(bundle):
    configured(bundle).load_state_dict(torch.load(bundle.root / "models/model.pt", weights_only=True))


@EVERY
def test_metadata_follows_the_schema_without_a_network(bundle):
    verify_metadata(meta_file=str(bundle.configs / "metadata.json"), filepath=SCHEMA)


@pytest.mark.parametrize(
    ("key", "value"), [("version", 1), ("task", ""), ("network_data_format", {"inputs": {}}), ("authors", None)]
)
def test_the_schema_refuses_other_metadata(tmp_path, key, value):
    (tmp_path / "metadata.json").write_text(json.dumps({**read(DMFNET, "metadata.json"), key: value}))
    with pytest.raises(ValueError, match="Failed validating"):
        verify_metadata(meta_file=str(tmp_path / "metadata.json"), filepath=SCHEMA)


@pytest.mark.parametrize(
    ("bundle", "size"), [(DMFNET, {"n": 2}), (SMFUSION, {}), (SMFUSION, {"any": 8}), (SMFUSION, {"any": 37})]
)
def test_network_takes_and_gives_what_the_metadata_says(bundle, size):
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(bundle.configs / "metadata.json"),
        config_file=str(bundle.configs / "inference.json"),
        device="cpu",
        **size,
    )


@EVERY
def test_every_configuration_names_the_same_network(bundle):
    assert read(bundle, "train.json")["network_def"] == read(bundle, "inference.json")["network_def"]


def test_both_stages_of_dmfnet_name_the_same_unet():
    first, second = (read(DMFNET, name)["network_def"] for name in ("train_diffusion.json", "train.json"))
    assert {key: first[key] for key in ("width", "norm_groups")} == {
        key: second[key] for key in ("width", "norm_groups")
    }


def test_the_published_configuration_of_smfusion():
    parser = ConfigParser()
    parser.read_config([str(SMFUSION.configs / name) for name in ("train.json", "published.json")])
    network = parser.get_parsed_content("network_def")
    assert [len(level) for level in network.anatomy_encoder.levels] == [2, 2, 4]
    assert network.anatomy_encoder.embedding.out_channels == 32
    loss = parser.get_parsed_content("loss")
    assert type(loss.fusion.fusion).__name__ == "FusionLoss"
    assert loss.fusion.weight == 0
    assert loss.semantic is not None

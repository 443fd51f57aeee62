"""Names of version 0.1 that stand elsewhere now."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pydoc import ErrorDuringImport, locate

import pytest
from monai.bundle import ConfigParser

from fusion_nets import clinical
from fusion_nets.moved import MODULES, NAMES
from fusion_nets.workflows import fuse_pair

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"
NAMED_BY_BUNDLES = [
    "clinical.aanlib_pairs",
    "clinical.balanced_weights",
    "clinical.file_sha256",
    "clinical.load_pairs",
    "clinical.single_images",
    "clinical.single_sources",
    "clinical.with_texts",
    "losses.ContrastiveLoss",
    "losses.DMFNetLoss",
    "losses.FusionLoss",
    "losses.MetricLoss",
    "losses.SMFusionLoss",
    "losses.SemanticLoss",
    "networks.DMFNet",
    "networks.DiffusionUNet",
    "networks.ImageTextCritic",
    "networks.SMFusion",
    "text.MeasuredText",
    "text.PretrainedCritic",
    "text.TextEncoder",
    "text.displayed",
    "text.ofa.LearningDescriber",
    "text.parse_findings",
    "transforms.CheckLuminancesd",
    "transforms.CheckSourcesd",
    "transforms.CommonGridd",
    "transforms.Described",
    "transforms.EncodeTextd",
    "transforms.LoadStudyImaged",
    "transforms.MergeChromad",
    "transforms.PaletteChromad",
    "transforms.RandForgetTextd",
    "transforms.RandMirrord",
    "transforms.RandRedescribed",
    "transforms.RecordChoicesd",
    "transforms.SaveFusedd",
    "transforms.ScaleToDisplayRanged",
    "transforms.SplitLuminanced",
    "transforms.TakeSourced",
    "transforms.WhereGivend",
    "transforms.luminance",
    "workflows.BestCheckpoint",
    "workflows.BestDescriber",
    "workflows.CaptionBatch",
    "workflows.CaseMetrics",
    "workflows.CaseRecords",
    "workflows.CriticBatch",
    "workflows.DescribedBatch",
    "workflows.EpochSeed",
    "workflows.FeatureReplay",
    "workflows.GeneratingInferer",
    "workflows.NoisyBatch",
    "workflows.PairBatch",
    "workflows.PairStream",
    "workflows.ReportSaver",
    "workflows.RunningCheckpoint",
    "workflows.SlicewiseInferer",
    "workflows.TextScore",
    "workflows.describe_pairs",
    "workflows.leave_process_group",
    "workflows.load_weights",
]
"""All that the configurations of the bundles 0.1 name in ``fusion_nets``."""


@pytest.mark.parametrize("name", NAMED_BY_BUNDLES)
def test_what_a_bundle_of_the_first_version_names_is_there_or_told(name):
    """Looked up as MONAI does for a ``_target_``."""
    path = f"fusion_nets.{name}"
    if path in NAMES:
        with pytest.raises(ModuleNotFoundError, match=f"{path}: .*0.1, now {NAMES[path]}. .*bundle's version 0.2"):
            locate(path)
    else:
        assert locate(path) is not None


@pytest.mark.parametrize(("old", "new"), NAMES.items())
def test_a_name_that_moved_is_told_and_is_where_it_is_said_to_be(old, new):
    (old_room, name), (new_room, new_name) = old.rsplit(".", 1), new.rsplit(".", 1)
    assert name not in import_module(old_room).__all__
    assert new_name in import_module(new_room).__all__
    for ask in (f"import {old_room}; {old}", f"from {old_room} import {name}"):
        with pytest.raises(ModuleNotFoundError, match=f"{old}: .*now {new}"):
            exec(ask, {})


@pytest.mark.parametrize(("old", "new"), MODULES.items())
def test_a_module_that_moved_is_told_and_is_where_it_is_said_to_be(old, new):
    assert import_module(new)
    room, _, name = old.rpartition(".")
    for ask in (f"import {old}", f"from {old} import anything", f"from {room} import {name}"):
        with pytest.raises(ModuleNotFoundError, match=f"{old}: .*now {new}"):
            exec(ask, {})
    with pytest.raises(ErrorDuringImport, match=f"{old}: .*now {new}"):
        locate(f"{old}.anything")


@pytest.mark.slow
def test_a_module_is_told_whatever_was_imported_before():
    run = subprocess.run([sys.executable, "-c", "import fusion_nets.losses.fusion"], capture_output=True, text=True)
    assert "now fusion_nets.losses.image_losses" in run.stderr


def test_what_never_was_is_told_as_ever():
    assert not hasattr(clinical, "nonsense")
    with pytest.raises(ImportError, match="cannot import name 'nonsense'"):
        from fusion_nets.clinical import nonsense  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'fusion_nets\.nonsense'"):
        import fusion_nets.nonsense  # noqa: F401


def of_first_version(folder):
    """A bundle's configuration with the names, and the way to pairs and weights, of 0.1."""
    config = json.loads((BUNDLES / "smfusion/configs/inference.json").read_text(encoding="utf-8"))
    config["imports"] = ["$import fusion_nets.clinical as clinical"]
    config["pairs"] = "$clinical.load_pairs(@datalist, @anatomy, @overlay)"
    config["made_by"]["weights_sha256"] = "$clinical.file_sha256(@weights)"
    (folder / "configs").mkdir(exist_ok=True)
    path = folder / "configs" / "inference.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def test_a_configuration_says_what_to_do(tmp_path):
    parser = ConfigParser(ConfigParser.load_config_file(str(of_first_version(tmp_path))))
    parser["anatomy"] = parser["overlay"] = "image.nii"
    with pytest.raises(RuntimeError) as told:
        parser.get_parsed_content("pairs")
    assert "fusion_nets.clinical.load_pairs: a name of fusion-nets 0.1, now" in str(told.value.__cause__)


def test_fusing_by_an_old_bundle_says_what_to_do(tmp_path):
    of_first_version(tmp_path)
    with pytest.raises(ModuleNotFoundError, match=r"now fusion_nets\.datalists\.load_pairs.*version 0\.2"):
        fuse_pair("a.nii", "b.nii", tmp_path / "out", bundle_root=tmp_path)

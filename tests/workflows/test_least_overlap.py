"""Sources that hardly show one place: refused by all that brings them onto one grid, and taken where that is asked."""

import json
import logging

import nibabel as nib
import numpy as np
import pytest

from fusion_nets import cli
from fusion_nets.clinical import ImageError
from fusion_nets.workflows import evaluate_methods, fuse_pair

SIZE = (48, 48, 4)


@pytest.fixture
def apart(tmp_path):
    """Two balls of which a tenth or so lies in the field of view of the other, in a datalist."""
    generator, pair = np.random.default_rng(0), {"name": "a", "anatomy_modality": "MR", "overlay_modality": "CT"}
    places = np.stack(np.meshgrid(*(np.arange(n) for n in SIZE), indexing="ij"))
    ball = np.hypot(places[0] - 24, places[1] - 24) < 22
    for key, shift in (("anatomy", 0), ("overlay", 40)):
        values = np.where(ball, generator.uniform(30, 90, SIZE), 0).astype(np.float32)
        affine = np.diag([1.0, 1, 1, 1])
        affine[0, 3] = shift
        nib.save(nib.Nifti1Image(values, affine), tmp_path / f"{key}.nii")
        pair[key] = str(tmp_path / f"{key}.nii")
    (tmp_path / "pairs.json").write_text(json.dumps([pair]))
    return pair


def test_fusing(apart, tmp_path, caplog):
    how = {"register": "none", "output_format": "nifti", "method": "smfusion"}
    with pytest.raises(ImageError, match="least_overlap"):
        fuse_pair(apart["anatomy"], apart["overlay"], tmp_path / "out", **how)
    with caplog.at_level(logging.WARNING):
        assert fuse_pair(apart["anatomy"], apart["overlay"], tmp_path / "out", **how, least_overlap=0.01)
    assert "% of what it or" in caplog.text


def test_evaluating(apart, tmp_path):
    (tmp_path / "fused").mkdir()
    nib.save(nib.load(apart["anatomy"]), tmp_path / "fused" / "a.nii")
    how = {"register": "none", "metrics": ["MI"], "progress": False}
    with pytest.raises(ImageError):
        evaluate_methods([apart], {"copy": tmp_path / "fused"}, tmp_path / "out", **how)
    assert evaluate_methods([apart], {"copy": tmp_path / "fused"}, tmp_path / "out", **how, least_overlap=0)


@pytest.mark.parametrize("command", ["evaluate", "slices", "lesions"])
def test_commands(apart, tmp_path, capsys, command):
    (tmp_path / "fused").mkdir()
    nib.save(nib.load(apart["anatomy"]), tmp_path / "fused" / "a.nii")
    arguments = [command, "--datalist", str(tmp_path / "pairs.json"), "--register", "none"]
    arguments += ["--dataset_dir" if command == "slices" else "--output_dir", str(tmp_path / "out")]
    arguments += ["--method", f"copy={tmp_path / 'fused'}", "--metrics", "MI"] if command == "evaluate" else []
    assert cli.main(arguments) == 2
    assert "% of what it or" in capsys.readouterr().err
    assert cli.main([*arguments, "--least_overlap", "1.5"]) == 2
    assert "least_overlap is 1.5; a share" in capsys.readouterr().err
    done = cli.main([*arguments, "--least_overlap", "0.01"])
    told = capsys.readouterr().err
    if command == "lesions":  # which takes no volumes, but comes so far
        assert "a volume; 2-D pairs" in told
    else:
        assert done == 0

"""A BIDS dataset through both bundles: derivatives that the validator accepts, done once, by one process or two."""

import json
import subprocess

import nibabel as nib
import numpy as np
import pytest
from bids_sets import SIDECAR, complaints, content, dataset

from fusion_nets import cli
from fusion_nets.clinical import read_image
from fusion_nets.registration import read_transform
from fusion_nets.workflows import fuse_dataset
from fusion_nets.workflows.settings import repeated_settings

from .conftest import DMFNET, EVERY, SMFUSION
from .test_distributed_inference import HERE, changed, command

pytestmark = pytest.mark.slow

NAMES = ("sub-01_T1w", "sub-01_trc-FDG_pet", "sub-01_ct", "sub-02_T1w", "sub-03_ses-a_FLAIR", "sub-03_ses-b_run-1_pet")
FUSED = (
    "sub-01/anat/sub-01_desc-fusedct_T1w",
    "sub-01/anat/sub-01_desc-fusedpetTrcFDG_T1w",
    "sub-03/ses-a/anat/sub-03_ses-a_desc-fusedpetSesbRun1_FLAIR",
)


def visible(folder):
    return {name for name in content(folder) if not name.startswith(".cases/")}


@EVERY
def test_derivatives(bundle, tiny_weights, tmp_path, caplog):
    root = dataset(tmp_path / "set", *NAMES)
    out = root / "derivatives" / "fusion-nets"
    before = content(root)
    options = {
        "output_format": ["nifti", "png", "html"],
        "transform": [[1, 0, 0, 2], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
    }
    bundle.fuse(tiny_weights, out, bids_dir=str(root), **options)
    assert "sub-02: has no overlay (pet, ct)" in caplog.text
    found = visible(out)
    assert {f"{name}{ending}" for name in FUSED for ending in (".nii.gz", ".json")} < found
    assert {"dataset_description.json", ".bidsignore"} < found
    assert "sub-01/anat/sub-01_from-pet_to-T1w_mode-image_desc-fusedpetTrcFDG_xfm.tfm" in found
    assert "sub-01/figures/sub-01_desc-fusedpetTrcFDG_T1w.html" in found
    assert "sub-03/ses-a/figures/sub-03_ses-a_desc-fusedpetSesbRun1_FLAIR_checkerboard.png" in found
    assert [path for path in out.iterdir() if path.is_file() and path.name.startswith("sub-")] == []
    assert {name: content(root)[name] for name in before} == before
    assert complaints(out) == []

    about = json.loads((out / "dataset_description.json").read_text())
    assert (about["DatasetType"], about["GeneratedBy"][0]["Name"]) == ("derivative", "fusion-nets")
    assert (out / about["DatasetLinks"]["raw"]).samefile(root)
    assert about["SourceDatasets"] == [{"URL": about["DatasetLinks"]["raw"], "DOI": "doi:10.5072/nobody"}]

    told = json.loads((out / f"{FUSED[1]}.json").read_text())
    assert told["Sources"] == [
        "bids:raw:sub-01/anat/sub-01_T1w.nii.gz",
        "bids:raw:sub-01/pet/sub-01_trc-FDG_pet.nii.gz",
        "bids::sub-01/anat/sub-01_from-pet_to-T1w_mode-image_desc-fusedpetTrcFDG_xfm.tfm",
    ]
    assert all((root / source[9:]).is_file() for source in told["Sources"][:2])
    assert (told["record"]["overlay"]["units"], told["record"]["anatomy"]["modality"]) == ("SUV", "MR")
    np.testing.assert_allclose(read_transform(out / told["Sources"][2][6:]), told["transform"], atol=1e-9)
    assert nib.load(out / f"{FUSED[1]}.nii.gz").shape[:3] == (48, 44, 8)
    pair = {key: str(root / told["Sources"][n][9:]) for n, key in enumerate(("anatomy", "overlay"))}
    assert repeated_settings(out / f"{FUSED[1]}.json", pair, {})["transform"] == told["transform"]


def test_a_complaint_would_be_heard(tmp_path):
    root = dataset(tmp_path, "sub-01_T1w")
    assert complaints(root) == []
    (root / "sub-01/anat/sub-01_T1w.nii.gz").rename(root / "sub-01/anat/sub-01_fused_T1w.nii.gz")
    assert complaints(root)


def test_done_once_and_again_where_something_changed(tiny_weights, tmp_path):
    root, out = dataset(tmp_path / "set", *NAMES), tmp_path / "out"
    options = {"bids_dir": str(root), "register": "none"}
    DMFNET.fuse(tiny_weights, out, participant_label="sub-01", **options)
    done = changed(out)
    assert {str(path) for path in done if "T1w.nii" in path.name} == {f"{name}.nii.gz" for name in FUSED[:2]}
    DMFNET.fuse(tiny_weights, out, **options)
    assert done.items() < changed(out).items()
    done = changed(out)
    (root / "sub-01/pet/sub-01_trc-FDG_pet.json").write_text(json.dumps({**SIDECAR, "BodyWeight": 60}))
    (out / f"{FUSED[2]}.nii.gz").write_bytes(b"cut")
    DMFNET.fuse(tiny_weights, out, **options)
    assert {str(path) for path, time in changed(out).items() if time != done.get(path)} == {
        f"{name}{ending}" for name in FUSED[1:] for ending in (".nii.gz", ".json")
    } | {f".cases/{name.rpartition('/')[2]}.json" for name in FUSED[1:]}


def test_what_cannot_be_fused_is_told_at_the_end(tiny_weights, tmp_path, capsys):
    """One without content, one whose sidecar contradicts; by the command."""
    root, out = dataset(tmp_path / "set", *NAMES), tmp_path / "out"
    (root / "sub-01/anat/sub-01_T1w.json").write_text("{")  # of which nothing is needed
    (root / "sub-01/ct/sub-01_ct.nii.gz").write_bytes(b"no image")
    sidecar = root / "sub-03/ses-b/pet/sub-03_ses-b_run-1_pet.json"
    sidecar.write_text(json.dumps({**SIDECAR, "RadionuclideHalfLife": 100}))
    words = ["fuse", "--bids_dir", str(root), "--output_dir", str(out), "--method", "smfusion", "--register", "none"]
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert "2 of 3 pairs could not be fused" in said
    assert visible(out) == {"dataset_description.json", ".bidsignore", f"{FUSED[1]}.nii.gz", f"{FUSED[1]}.json"}
    sidecar.write_text(json.dumps(SIDECAR))
    assert cli.main([*words, "--participant_label", "03", "--overlay_suffix", "pet"]) == 0
    assert capsys.readouterr().out.split() == [str(out / f"{FUSED[2]}{ending}") for ending in (".nii.gz", ".json")]
    with pytest.raises(ValueError, match="transform is of one pair"):
        fuse_dataset(root, out, transform=np.eye(4))


def test_dynamic_pet(tiny_weights, tmp_path):
    """Is refused by name, unless it is said which frame, or their mean, is meant."""
    root, out = dataset(tmp_path / "set", "sub-01_T1w", "sub-01_pet"), tmp_path / "out"
    path = root / "sub-01/pet/sub-01_pet.nii.gz"
    frame = nib.load(path)
    nib.save(nib.Nifti1Image(np.stack([frame.get_fdata(dtype=np.float32)] * 2, -1), frame.affine, frame.header), path)
    path.with_name("sub-01_pet.json").write_text(
        json.dumps({**SIDECAR, "FrameTimesStart": [0, 300], "FrameDuration": [300, 600]})
    )
    options = {"bids_dir": str(root), "register": "none"}
    with pytest.raises(SystemExit, match="1 of 1"):
        DMFNET.fuse(tiny_weights, out, **options)
    assert not list(out.rglob("*.nii.gz"))
    DMFNET.fuse(tiny_weights, out, **options, overlay_volume="mean")
    (sidecar,) = out.glob("sub-01/anat/*.json")
    assert json.loads(sidecar.read_text())["record"]["overlay"]["volume"] == "mean"


def test_two_processes_leave_what_one_leaves(tiny_weights, text_encoder, tmp_path):
    root = dataset(tmp_path / "set", *NAMES)
    options = {"bids_dir": str(root), "register": "none", "describe": True, "text_encoder_model": text_encoder}
    alone, both = tmp_path / "alone", tmp_path / "both"
    configs = ["inference.json", "evaluate.json"]
    SMFUSION.fuse(tiny_weights, alone, configs, **options)
    words = command(
        SMFUSION, [*configs, "multi_gpu_inference.json"], **options, weights=tiny_weights["smfusion"], output_dir=both
    )
    done = subprocess.run(words, env=HERE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert content(both) == content(alone)
    assert "sub-01/figures/sub-01_desc-fusedct_T1w_description.json" in content(both)
    assert complaints(both) == []


def test_sources_on_the_grid_have_names_by_bids(tiny_weights, tmp_path, capsys):
    root, out = dataset(tmp_path / "set", *NAMES), tmp_path / "out"
    words = ["fuse", "--bids_dir", str(root), "--output_dir", str(out), "--register", "rigid", "--register_fallback"]
    assert cli.main([*words, "--save", "overlay", "anatomy"]) == 0
    said = capsys.readouterr().out.split()
    overlays = {
        "sub-01/ct/sub-01_space-T1w_ct": "sub-01/ct/sub-01_ct",
        "sub-01/pet/sub-01_trc-FDG_space-T1w_pet": "sub-01/pet/sub-01_trc-FDG_pet",
        "sub-03/ses-b/pet/sub-03_ses-b_run-1_space-FLAIRSesa_pet": "sub-03/ses-b/pet/sub-03_ses-b_run-1_pet",
    }
    anatomies = "sub-01/anat/sub-01_desc-values_T1w", "sub-03/ses-a/anat/sub-03_ses-a_desc-values_FLAIR"
    for name in (*overlays, *anatomies):
        assert {str(out / f"{name}.nii.gz"), str(out / f"{name}.json")} <= set(said)
    assert [name for name in visible(out) if "on_grid" in name] == []
    assert complaints(out) == []
    for (name, raw), fused in zip(overlays.items(), FUSED, strict=True):
        told = json.loads((out / f"{name}.json").read_text())
        record = json.loads((out / f"{fused}.json").read_text())
        anatomy = record["Sources"][0]
        assert (told["Sources"][0], told["SpatialReference"]) == (f"bids:raw:{raw}.nii.gz", anatomy)
        assert record["record"]["overlay"]["on_grid"]["files"] == [f"{name}.nii.gz"]
        image, overlay = read_image(out / f"{name}.nii.gz"), read_image(root / f"{raw}.nii.gz")
        assert image.meta["units"] == overlay.meta["units"]
        source = read_image(root / anatomy.removeprefix("bids:raw:"))
        assert image.shape == source.shape
        np.testing.assert_allclose(image.affine, source.affine, atol=1e-5)
        assert np.isclose(image.max(), overlay.max(), rtol=0.2)
    assert json.loads((out / "sub-01/pet/sub-01_trc-FDG_space-T1w_pet.json").read_text())["Units"] == "g/mL"
    for name in anatomies:
        raw = read_image(root / f"{name.replace('_desc-values', '')}.nii.gz")
        assert np.array_equal(read_image(out / f"{name}.nii.gz"), raw)
    done = changed(out)
    assert cli.main([*words, "--save", "overlay", "anatomy"]) == 0
    assert changed(out) == done
    (out / "sub-01/ct/sub-01_space-T1w_ct.json").unlink()
    assert cli.main([*words, "--save", "overlay", "anatomy"]) == 0
    assert (out / "sub-01/ct/sub-01_space-T1w_ct.json").is_file()


def test_pages_of_a_dataset_are_found_and_made(tiny_weights, tmp_path, capsys):
    root, out = dataset(tmp_path / "set", *NAMES), tmp_path / "out"
    options = {"bids_dir": str(root), "register": "none", "output_format": ["nifti", "html"]}
    SMFUSION.fuse(tiny_weights, out, participant_label="01", **options)
    pages = [out / f"{name.replace('/anat/', '/figures/')}.html" for name in FUSED[:2]]
    assert cli.main(["view", str(out), "--no_browser"]) == 0
    assert capsys.readouterr().out.split() == [str(page) for page in pages]
    name = pages[1].stem
    assert cli.main(["view", str(out), "--name", name, "--no_browser"]) == 0
    assert capsys.readouterr().out.split() == [str(pages[1])]
    for folder in pages[1].parents[:2]:  # figures, and the participant's
        assert cli.main(["view", str(folder), "--name", name, "--no_browser"]) == 0
        assert capsys.readouterr().out.split() == [str(pages[1])]
    before = pages[1].read_text()
    for page in pages:
        page.unlink()
    pages[1].parent.rmdir()
    assert cli.main(["view", str(out), "--no_browser"]) == 2
    assert "no page; `fuse --format html`" in capsys.readouterr().err
    sources = ["--anatomy", str(root / "sub-01/anat/sub-01_T1w.nii.gz")]
    sources += ["--overlay", str(root / "sub-01/pet/sub-01_trc-FDG_pet.nii.gz"), "--no_browser"]
    assert cli.main(["view", str(out), *sources]) == 2
    assert "2 fused images; a folder with one, or a name, is accepted" in capsys.readouterr().err
    assert cli.main(["view", str(out), *sources, "--name", name]) == 0
    assert capsys.readouterr().out.split() == [str(pages[1])]
    assert len(pages[1].read_text()) == pytest.approx(len(before), rel=0.01)
    assert cli.main(["view", str(out), "--no_browser"]) == 0

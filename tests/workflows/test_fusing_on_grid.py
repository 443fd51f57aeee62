"""`fuse --save overlay`: the overlay as it lies on the anatomy's grid, beside the fused image, through the bundles."""

import json

import numpy as np
import pydicom
import pytest
import torch
from judges import dciodvfy_errors

from fusion_nets.cli import build_parser
from fusion_nets.clinical import read_image
from fusion_nets.networks import DMFNet
from fusion_nets.registration import read_transform, resample_onto
from fusion_nets.workflows import fuse_pair

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    torch.manual_seed(0)
    network = DMFNet(width=8, norm_groups=4, head_width=4)
    weights = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.save(network.state_dict(), weights)
    return {"network_def": network, "weights": str(weights), "slices_at_once": 8}


FORMATS = ["dicom", "nifti", "nrrd"]


@pytest.fixture(scope="module")
def fused(dicom_study, tiny, tmp_path_factory):
    """Of the PET, registered."""
    folder = tmp_path_factory.mktemp("fused")
    how = {"output_format": FORMATS, "name": "case", "save": ["overlay", "anatomy"], **tiny}
    return folder, fuse_pair(dicom_study["mri"], dicom_study["pet"], folder, **how)


def test_it_is_what_the_transform_makes_of_the_source(fused, dicom_study):
    folder, written = fused
    names = {path.name for path in written}
    for key in ("overlay", "anatomy"):
        assert {f"case_{key}_on_grid{end}" for end in (".nii.gz", ".nrrd", "_dicom")} <= names
    anatomy, pet = read_image(dicom_study["mri"]), read_image(dicom_study["pet"])
    expected = resample_onto(pet, anatomy, read_transform(folder / "case_registration.tfm"))
    record = json.loads((folder / "case_fused.json").read_text())["record"]
    step = record["overlay"]["on_grid"]["dicom"]["step"]
    assert step < 1e-3 * float(expected.max())
    for end, most in ((".nii.gz", 1e-4), (".nrrd", 1e-4), ("_dicom", 0.5 * step + 1e-4)):
        image = read_image(folder / f"case_overlay_on_grid{end}")
        assert (image.meta["units"], image.meta["modality"]) == ("SUV", "PT")
        assert image.shape == anatomy.shape
        np.testing.assert_allclose(image.affine, anatomy.affine, atol=1e-4)
        assert float((image.as_tensor() - expected.as_tensor()).abs().max()) <= most
        assert torch.equal(read_image(folder / f"case_anatomy_on_grid{end}").as_tensor(), anatomy.as_tensor())


def test_it_joins_the_study_and_names_the_registration(fused):
    folder, _ = fused
    fused_objects = [pydicom.dcmread(path) for path in (folder / "case_dicom").iterdir()]
    (registration,) = (one for one in fused_objects if one.Modality == "REG")
    of_fusion = next(one for one in fused_objects if one.Modality == "MR")
    file = sorted((folder / "case_overlay_on_grid_dicom").iterdir())[3]
    overlay = pydicom.dcmread(file)
    assert overlay.Modality == "PT"
    assert overlay.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == registration.SOPInstanceUID
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID"):
        assert overlay[keyword].value == of_fusion[keyword].value
    assert "registered (rigid), 0 SUV outside its field of view" in overlay.DerivationDescription
    assert dciodvfy_errors(file) == []


def test_of_one_patient_without_a_name_there_is_one_study(dicom_study, tiny, tmp_path):
    how = {"output_format": "dicom", "name": "case", "save": "overlay", "deidentify": True, "register": "none"}
    fuse_pair(dicom_study["mri"], dicom_study["pet"], tmp_path, **how, **tiny)
    found = [pydicom.dcmread(path) for path in tmp_path.rglob("*.dcm")]
    assert {one.Modality for one in found} >= {"MR", "PT"}
    assert len({(one.StudyInstanceUID, one.PatientID) for one in found}) == 1
    assert {one.Units for one in found if one.Modality == "PT"} == {"GML"}
    assert read_image(tmp_path / "case_overlay_on_grid_dicom").meta["units"] == "SUV"


def test_computed_tomography_in_a_window_keeps_its_units(dicom_study, tiny, tmp_path):
    """What is shown of it, 0 to 80 HU, is not what is written."""
    how = {"output_format": ["dicom", "nifti"], "name": "case", "save": "overlay", "overlay_window": "brain"}
    fuse_pair(dicom_study["mri"], dicom_study["ct"], tmp_path, register="none", least_overlap=0, **how, **tiny)
    for end in (".nii.gz", "_dicom"):
        image = read_image(tmp_path / f"case_overlay_on_grid{end}")
        assert (image.meta["units"], image.meta["modality"]) == ("HU", "CT")
        assert float(image.min()) < -900
        assert float(image.max()) > 300
    assert dciodvfy_errors(sorted((tmp_path / "case_overlay_on_grid_dicom").iterdir())[0]) == []


def test_without_the_option_nothing_is_added(dicom_study, tiny, tmp_path):
    written = fuse_pair(dicom_study["mri"], dicom_study["pet"], tmp_path, register="none", **tiny)
    assert not any("on_grid" in path.name for path in written)


def test_a_case_without_its_overlay_is_not_done(dicom_study, tiny, tmp_path):
    def run():
        how = {"name": "case", "save": "overlay", "register": "none", "resume": True, **tiny}
        fuse_pair(dicom_study["mri"], dicom_study["pet"], tmp_path, **how)
        return (tmp_path / "case_fused.nii.gz").stat().st_mtime_ns

    overlay = tmp_path / "case_overlay_on_grid.nii.gz"
    first = run()
    assert run() == first
    overlay.unlink()
    assert run() != first
    assert overlay.is_file()


def test_a_source_is_not_written_over(dicom_study, tiny, tmp_path):
    from fusion_nets.clinical import ImageError, convert_image

    source = tmp_path / "case_overlay_on_grid.nii.gz"
    convert_image(dicom_study["pet"], source)
    before = source.read_bytes()
    with pytest.raises(ImageError, match="would be written over"):
        fuse_pair(dicom_study["mri"], source, tmp_path, name="case", save="overlay", **tiny)
    assert source.read_bytes() == before


def test_an_unknown_source_is_told(dicom_study, tiny, tmp_path):
    with pytest.raises(ValueError, match="save is 'overley', perhaps 'overlay'"):
        fuse_pair(dicom_study["mri"], dicom_study["pet"], tmp_path, save="overley", **tiny)


def test_the_command_takes_one_or_more():
    parser = build_parser()
    command = ["fuse", "--anatomy", "a", "--overlay", "b", "--output_dir", "c"]
    assert parser.parse_args(command).save is None
    assert parser.parse_args([*command, "--save", "overlay"]).save == ["overlay"]
    assert parser.parse_args([*command, "--save", "overlay", "--save", "anatomy"]).save == ["overlay", "anatomy"]
    assert parser.parse_args([*command, "--save", "overlay", "anatomy"]).save == ["overlay", "anatomy"]

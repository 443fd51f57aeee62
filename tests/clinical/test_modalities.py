"""Modalities given by hand: understood as people say them, and refused where they are none or not the file's."""

import nibabel as nib
import numpy as np
import pytest
from judges import CT, MR, series_of, written
from refusals import refused

from fusion_nets.clinical import Reason, modality_code, read_image
from fusion_nets.clinical.dicom import pick_series
from fusion_nets.clinical.volume_files import save_volume
from fusion_nets.datalists import load_pairs


@pytest.mark.parametrize(
    ("given", "code"),
    [
        *(("MR", "MR"), ("mr", "MR"), ("MRI", "MR"), ("mri", "MR"), ("ct", "CT"), ("PET", "PT"), ("pt", "PT")),
        *(("Spect", "NM"), (" nm ", "NM"), ("US", "US"), ("mg", "MG"), ("ot", "OT")),
    ],
)
def test_as_people_and_dicom_say(given, code):
    assert modality_code(given) == code


@pytest.mark.parametrize("given", ["", "liver", "PETCT", "MRT", "XX", "SEG", "PT\\CT"])
def test_what_is_none_is_refused(given):
    with pytest.raises(ValueError, match=r"overlay_modality is .*; accepted are MR or MRI, CT, PT or PET, NM or SPECT"):
        modality_code(given, "overlay_modality")


def test_datalists():
    entry = {"anatomy": "a.nii", "overlay": "b.nii"}
    (pair,) = load_pairs([{**entry, "anatomy_modality": "mri", "overlay_modality": "PET"}])
    assert (pair["anatomy_modality"], pair["overlay_modality"]) == ("MR", "PT")
    with pytest.raises(ValueError, match=r"datalist, entry 1: 'overlay_modality' is 'fdg'; accepted are"):
        load_pairs([{**entry, "overlay_modality": "fdg"}])
    with pytest.raises(ValueError, match="'anatomy_modality' is 'T1'"):
        load_pairs(anatomy="a.nii", overlay="b.nii", anatomy_modality="T1")


def test_files_that_say_and_do_not_say_their_own(tmp_path):
    values = np.arange(64, dtype=np.float32).reshape(4, 4, 4)
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii")
    assert read_image(tmp_path / "a.nii", modality="pet").meta["modality"] == "PT"
    with pytest.raises(ValueError, match="modality is 'pte'"):
        read_image(tmp_path / "a.nii", modality="pte")
    for name in ("b.nii", "b.nrrd", "b.mha"):
        save_volume(tmp_path / name, values[None], np.eye(4), {"modality": "CT", "units": "HU"})
        assert read_image(tmp_path / name, modality="ct").meta["modality"] == "CT"
        with refused(Reason.KIND, name, "CT, not MR"):
            read_image(tmp_path / name, modality="MRI")


def test_series(tmp_path):
    for number, modality in enumerate((MR, CT)):
        written(tmp_path / modality, series_of(modality, number=number + 1)[0])
    for given in ("mri", "MR"):
        assert pick_series(tmp_path, modality=given).modality == "MR"
    with pytest.raises(ValueError, match="modality is 'M'"):
        pick_series(tmp_path, modality="M")
    with refused(Reason.MISSING, "modality"):
        pick_series(tmp_path, modality="PET")

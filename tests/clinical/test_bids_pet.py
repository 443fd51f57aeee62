"""PET by its sidecar: SUV, Bq/ml where something is missing, refused where it contradicts itself.

That SUV is that of an equivalent DICOM series, dicom/test_dcm2niix_agreement.py shows.
"""

import json
import logging

import nibabel as nib
import numpy as np
import pytest
from bids_sets import SIDECAR
from refusals import refused

from fusion_nets.clinical import Reason, read_image
from fusion_nets.clinical.bids_names import bids_name, read_metadata
from fusion_nets.workflows.digests import files_of

FULL = {
    **SIDECAR,
    "ModeOfAdministration": "bolus",
    "FrameTimesStart": [0],
    "FrameDuration": [600],
}
FACTOR = 70e3 / (370e6 * 2 ** (-3600 / 6586.2))


def pet(folder, said=FULL, shape=(5, 6, 4), name="sub-01_pet", values=None):
    """A PET of 1000 Bq/ml and more, and its sidecar."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.nii.gz"
    values = np.linspace(1000, 9000, int(np.prod(shape)), dtype=np.float32).reshape(shape) if values is None else values
    nib.save(nib.Nifti1Image(values, np.diag([2, 2, 2, 1])), path)
    if said is not None:
        (folder / f"{name}.json").write_text(said if isinstance(said, str) else json.dumps(said))
    return path


def dataset(folder, weights=None, units=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset_description.json").write_text(json.dumps({"Name": "n", "BIDSVersion": "1.11.0"}))
    if weights is not None:
        rows = "".join(f"{name}\t{weight}\n" for name, weight in weights.items())
        (folder / "participants.tsv").write_text(f"participant_id\tweight\n{rows}")
    if units is not None:
        (folder / "participants.json").write_text(json.dumps({"weight": {"Units": units}}))
    return folder


def without(*names, **others):
    return {key: value for key, value in (FULL | others).items() if key not in names}


@pytest.mark.parametrize(
    ("said", "factor"),
    [
        (FULL, FACTOR),
        ({**FULL, "Units": "kBq/mL"}, 1000 * FACTOR),
        ({**FULL, "Units": "BQML"}, FACTOR),
        ({**FULL, "InjectedRadioactivity": 370e6, "InjectedRadioactivityUnits": "Bq"}, FACTOR),
        ({**FULL, "InjectedRadioactivity": 10, "InjectedRadioactivityUnits": "mCi"}, FACTOR),
        ({**FULL, "TracerRadionuclide": "18F"}, FACTOR),
        (without("TracerRadionuclide", RadionuclideHalfLife=6586.2), FACTOR),
        (without("BodyWeight", PatientWeight=70), FACTOR),
        ({**FULL, "TimeZero": "12:00:00", "InjectionStart": 0, "ImageDecayCorrectionTime": 3600}, FACTOR),
        (without("TracerRadionuclide", InjectionStart=0), 70e3 / 370e6),  # corrected to the injection
        (without("TimeZero", "ModeOfAdministration"), FACTOR),
        ({**FULL, "Units": "SUV"}, 1),
        ({**FULL, "Units": "g/mL"}, 1),
    ],
)
def test_suv(tmp_path, caplog, said, factor):
    image = read_image(pet(tmp_path, said))
    assert image.meta["units"] == "SUV"
    np.testing.assert_allclose(image.numpy().min(), 1000 * factor, rtol=1e-5)
    assert not caplog.records


@pytest.mark.parametrize(
    ("said", "named"),
    [
        (without("InjectedRadioactivity"), "InjectedRadioactivity is missing"),
        ({**FULL, "InjectedRadioactivity": "370"}, "InjectedRadioactivity is no number"),
        ({**FULL, "InjectedRadioactivity": True}, "InjectedRadioactivity is no number"),
        ({**FULL, "InjectedRadioactivity": float("nan")}, "InjectedRadioactivity is no number"),
        ({**FULL, "InjectedRadioactivity": 10**400}, "InjectedRadioactivity is no number"),
        ({**FULL, "InjectedRadioactivity": -1}, "InjectedRadioactivity is not positive"),
        ({**FULL, "InjectedRadioactivityUnits": "Bq"}, "InjectedRadioactivity is not plausible"),
        (without("InjectedRadioactivityUnits"), "InjectedRadioactivityUnits is missing"),
        ({**FULL, "InjectedRadioactivityUnits": "$os"}, "InjectedRadioactivityUnits is another"),
        (without("BodyWeight"), "BodyWeight is missing"),
        ({**FULL, "BodyWeight": 70000}, "BodyWeight is not plausible"),
        ({**FULL, "ImageDecayCorrected": False}, "ImageDecayCorrected is another"),
        ({**FULL, "ImageDecayCorrected": "true"}, "ImageDecayCorrected is another"),
        (without("ImageDecayCorrectionTime"), "ImageDecayCorrectionTime is missing"),
        (without("InjectionStart"), "InjectionStart is missing"),
        ({**FULL, "InjectionStart": -1e6}, "ImageDecayCorrectionTime does not fit InjectionStart"),
        ({**FULL, "InjectionStart": 3600}, "ImageDecayCorrectionTime does not fit InjectionStart"),
        ({**FULL, "TimeZero": "noon"}, "TimeZero is no time of day"),
        (without("TracerRadionuclide"), "TracerRadionuclide is missing"),
        ({**FULL, "TracerRadionuclide": "Unobtainium"}, "TracerRadionuclide is another"),
        ({**FULL, "RadionuclideHalfLife": 109.77, "TracerRadionuclide": None}, "ImageDecayCorrectionTime does not fit"),
        ({**FULL, "RadionuclideHalfLife": 1.8}, "RadionuclideHalfLife is not plausible"),
        ({**FULL, "ModeOfAdministration": "bolus-infusion"}, "ModeOfAdministration is not bolus"),
        ({**FULL, "AttenuationCorrection": "none"}, "AttenuationCorrection"),
    ],
)
def test_what_keeps_it_in_becquerel(tmp_path, caplog, said, named):
    with caplog.at_level(logging.WARNING):
        image = read_image(pet(tmp_path, said))
    assert (image.meta["units"], image.meta["modality"]) == ("Bq/ml", "PT")
    assert float(image.min()) == 1000
    (record,) = caplog.records
    assert f"stays in Bq/ml, not SUV: {named}" in record.getMessage()


@pytest.mark.parametrize("said", [without("Units"), {**FULL, "Units": "mBq/mL"}, {**FULL, "Units": ["Bq/mL"]}, None])
def test_without_units(tmp_path, caplog, said):
    with caplog.at_level(logging.WARNING):
        assert read_image(pet(tmp_path, said)).meta["units"] == "stored"
    assert "not SUV: Units is" in caplog.text


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("{", Reason.DAMAGED),
        ("[]", Reason.DAMAGED),
        ("[" * 100000, Reason.DAMAGED),
        ({**FULL, "RadionuclideHalfLife": 1221.8}, Reason.DAMAGED),
        ({**FULL, "Modality": "MR"}, Reason.KIND),
    ],
)
def test_what_contradicts_is_refused(tmp_path, said, reason):
    with refused(reason, "sub-01_pet"):
        read_image(pet(tmp_path, said))


def test_weight_of_the_table(tmp_path, caplog):
    root = dataset(tmp_path, {"sub-01": 70, "sub-02": "n/a"})
    assert read_image(pet(root / "sub-01" / "pet", without("BodyWeight"))).meta["units"] == "SUV"
    assert not caplog.records
    assert read_image(pet(root / "sub-02" / "pet", without("BodyWeight"), name="sub-02_pet")).meta["units"] == "Bq/ml"
    path = pet(root / "sub-01" / "pet", {**FULL, "BodyWeight": 80})
    assert read_image(path).meta["units"] == "SUV"
    dataset(root, {"sub-01": 154})
    with refused(Reason.DAMAGED, "BodyWeight", "participants.tsv"):
        read_image(path)
    dataset(root, {"sub-01": 176.4}, units="lb")
    assert read_image(path).meta["units"] == "SUV"


def test_inheritance(tmp_path):
    root = dataset(tmp_path)
    (root / "pet.json").write_text(json.dumps({**FULL, "BodyWeight": 1}))
    (root / "trc-FDG_pet.json").write_text(json.dumps({"BodyWeight": 2}))
    (root / "trc-PIB_pet.json").write_text(json.dumps({"BodyWeight": 3}))
    (root / "sub-01").mkdir()
    (root / "sub-01" / "sub-01_pet.json").write_text(json.dumps({"BodyWeight": 70}))
    path = pet(root / "sub-01" / "ses-1" / "pet", None, name="sub-01_ses-1_trc-FDG_pet")
    assert read_metadata(path)["BodyWeight"] == 70
    np.testing.assert_allclose(float(read_image(path).min()), 1000 * FACTOR, rtol=1e-5)
    (root / "dataset_description.json").unlink()
    assert read_metadata(path) == {}  # of no dataset, only what lies beside the image


def test_dynamic(tmp_path):
    """Which frame is not guessed; their mean is weighted by how long each took."""
    frames = np.stack([np.full((4, 4, 4), value, np.float32) + np.arange(4) for value in (1000, 2000, 6000)], axis=-1)
    said = {**FULL, "FrameTimesStart": [0, 60, 120], "FrameDuration": [60, 60, 240]}
    path = pet(tmp_path, said, values=frames)
    with refused(Reason.AMBIGUOUS, "3 (FrameTimesStart 120, FrameDuration 240)"):
        read_image(path)
    np.testing.assert_allclose(float(read_image(path, volume="time=120").min()), 6000 * FACTOR, rtol=1e-5)
    np.testing.assert_allclose(float(read_image(path, volume="mean").min()), 4500 * FACTOR, rtol=1e-5)
    for key, value in (("FrameDuration", [60, 60]), ("FrameDuration", [60, 60, -1]), ("FrameTimesStart", "0, 1, 2")):
        with refused(Reason.DAMAGED, key):
            read_image(pet(tmp_path, {**said, key: value}, values=frames), volume="mean")


def test_other_names_and_other_modalities(tmp_path):
    for name in ("pet", "01_pet", "sub-01_ses_pet", "sub-01_sub-02_pet"):
        assert bids_name(f"{name}.nii.gz") is None
        assert read_image(pet(tmp_path / name, name=name)).meta["units"] == "stored"
    assert read_image(pet(tmp_path), modality="NM").meta["units"] == "stored"  # SPECT, for want of a suffix of its own
    assert read_image(pet(tmp_path, None, name="sub-01_T1w")).meta["modality"] == "MR"
    assert read_image(pet(tmp_path, None, name="sub-01_ct")).meta["modality"] == "CT"


def test_a_changed_sidecar_is_another_source(tmp_path):
    path = pet(dataset(tmp_path) / "sub-01" / "pet")
    before = files_of(path)
    (path.parent / "sub-01_pet.json").write_text(json.dumps({**FULL, "BodyWeight": 71}))
    assert files_of(path) != before
    dataset(tmp_path, {"sub-01": 75})
    assert files_of(path) != before
    (path.parent / "sub-01_pet.json").write_text("{")
    assert files_of(path) != before
    assert files_of(tmp_path / "gone" / "sub-01_pet.nii.gz") != []  # it is told of where it is read
    assert files_of(tmp_path / "gone" / "sub-01_T1w.nii.gz") == []

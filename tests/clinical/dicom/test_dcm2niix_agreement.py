import json

import nibabel as nib
import numpy as np
import pytest
from dicom_phantoms import assert_same_image, canonical, dcm2niix, instances, sagittal, save, tilted

from fusion_nets.clinical import read_image
from fusion_nets.clinical.dicom import pick_series, read_series
from fusion_nets.simulation import write_sample_study
from fusion_nets.simulation.sample_scans import ACTIVITY_PER_SUV


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    pytest.importorskip("nilearn")
    return write_sample_study(tmp_path_factory.mktemp("study"), form="dicom", spacing=4.0)


@pytest.mark.parametrize(("name", "units"), [("mri", "stored"), ("ct", "HU"), ("pet", "SUV")])
def test_sample_study(study, tmp_path, name, units):
    image = read_series(pick_series(study[name]))
    assert image.meta["units"] == units
    (theirs,) = dcm2niix(study[name], tmp_path / "out").values()
    assert_same_image(image, theirs, scale=ACTIVITY_PER_SUV if name == "pet" else 1)


def test_pet_by_a_sidecar_as_by_its_header(study, tmp_path):
    """The file that dcm2niix makes, which knows nothing of SUV, and what the header says in the words of BIDS."""
    (theirs,) = dcm2niix(study["pet"], tmp_path / "out").values()
    nib.save(theirs, tmp_path / "sub-01_pet.nii.gz")
    said = {
        "Units": "Bq/mL",
        "TracerRadionuclide": "F18",
        "InjectedRadioactivity": 370,
        "InjectedRadioactivityUnits": "MBq",
        "BodyWeight": 70,
        "TimeZero": "12:00:00",
        "InjectionStart": 0,
        "ImageDecayCorrected": True,
        "ImageDecayCorrectionTime": 3600,
    }
    (tmp_path / "sub-01_pet.json").write_text(json.dumps(said))
    image, series = read_image(tmp_path / "sub-01_pet.nii.gz"), read_image(study["pet"])
    assert image.meta["units"] == series.meta["units"] == "SUV"
    assert_same_image(series, canonical(image))
    assert float(image.max()) > 5


@pytest.mark.parametrize(("modality", "affine"), [("MR", sagittal()), ("MR", None), ("PT", None)])
def test_other_planes(tmp_path, modality, affine):
    series = instances(modality, affine, (44, 40, 12) if affine is not None else (40, 44, 12))
    folder = save(tmp_path / "series", series)
    (theirs,) = dcm2niix(folder, tmp_path / "out").values()
    assert_same_image(read_series(pick_series(folder)), theirs)


@pytest.mark.parametrize("degrees", [12, 18])
def test_tilted_gantry(tmp_path, degrees):
    """To the whole numbers to which dcm2niix rounds what it interpolates.

    A tilt the other way is compared with the truth alone: there, dcm2niix 1.0.20260724 misplaces the slices.
    """
    folder = save(tmp_path / "series", tilted(degrees))
    mine = canonical(read_series(pick_series(folder)))
    images = dcm2niix(folder, tmp_path / "out")
    theirs = canonical(next(image for name, image in images.items() if "Tilt" in name))
    assert mine.shape == theirs.shape
    np.testing.assert_allclose(mine.affine, theirs.affine, atol=1e-3)
    both = (mine.get_fdata() > -990) & (theirs.get_fdata() > -990)  # another value outside, and other edges
    assert both.mean() > 0.5
    np.testing.assert_allclose(mine.get_fdata()[both], theirs.get_fdata()[both], atol=0.51)

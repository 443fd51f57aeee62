import pytest
from refusals import refused

from fusion_nets.clinical import Reason
from fusion_nets.workflows.matching import ENDINGS, FusedImages

PAIRS = [
    {"name": "a", "anatomy": "in/mri_1.nii.gz", "overlay": "in/pet_1.nii.gz"},
    {"name": "a.b", "anatomy": "in/mri_2.PNG", "overlay": "in/pet_2.png"},
]
ATLAS = [
    {"name": f"{kind}_7", "pair": kind, "anatomy": f"{kind}/MRI/7.png", "overlay": f"{kind}/X/7.png"}
    for kind in ("CT-MRI", "PET-MRI")
]


def folder_with(tmp_path, *names):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def found(folder, pairs, number=0):
    return str(FusedImages(folder, pairs).find(pairs[number]).relative_to(folder))


@pytest.mark.parametrize("ending", [*ENDINGS, ".NII.GZ", ".Png"])
@pytest.mark.parametrize("name", ["a_fused", "a", "mri_1_fused", "mri_1"])
def test_by_name_or_by_the_anatomys_file(tmp_path, name, ending):
    folder = folder_with(tmp_path, f"{name}{ending}", "b.png", "a_pred.png", "aa.png", "a.json")
    assert found(folder, PAIRS) == f"{name}{ending}"


def test_one_name_within_another_is_not_mixed_up(tmp_path):
    folder = folder_with(tmp_path, "a.b.png", "a.png", "mri_2.png")
    assert [found(folder, PAIRS, i) for i in (0, 1)] == ["a.png", "a.b.png"]


def test_the_most_exact_form_is_taken(tmp_path):
    folder = folder_with(tmp_path, "a_fused.jpg", "a_fused.png", "a_fused.nrrd", "a_fused.nii.gz")
    assert found(folder, PAIRS) == "a_fused.nii.gz"


def test_folders_of_an_atlas(tmp_path):
    folder = folder_with(tmp_path, "CT-MRI/7.jpg", "PET-MRI/7.jpg")
    assert [found(folder, ATLAS, i) for i in (0, 1)] == ["CT-MRI/7.jpg", "PET-MRI/7.jpg"]


def test_a_file_that_two_pairs_could_claim_is_neithers(tmp_path):
    with refused(Reason.MISSING, "CT-MRI_7_fused"):
        FusedImages(folder_with(tmp_path, "7.jpg"), ATLAS).find(ATLAS[0])


def test_a_dicom_series_is_a_folder(tmp_path):
    folder = folder_with(tmp_path, "a_fused/1.dcm")
    assert found(folder, PAIRS) == "a_fused"


def test_no_folder(tmp_path):
    with pytest.raises(ValueError, match="none"):
        FusedImages(tmp_path / "none", PAIRS)

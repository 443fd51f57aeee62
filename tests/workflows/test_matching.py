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


CALLED_SO = [{"name": name, "anatomy": f"in/{number}.png"} for number, name in enumerate(("a", "a_fused"))]


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (("a.png", "a_fused.png"), ["a.png", "a_fused.png"]),
        (("a_fused.png", "a_fused_fused.png"), ["a_fused.png", "a_fused_fused.png"]),
        (("a_fused.nii.gz", "a_fused_fused.nii.gz"), ["a_fused.nii.gz", "a_fused_fused.nii.gz"]),
        (("a_fused.png",), [None, None]),  # either's
        (("a.png",), ["a.png", None]),
        (("a.png", "a_fused.png", "a_fused_fused.png"), ["a_fused.png", "a_fused_fused.png"]),
    ],
)
@pytest.mark.parametrize("pairs", [CALLED_SO, CALLED_SO[::-1]])
def test_a_pair_that_is_called_as_anothers_result(tmp_path, pairs, files, wanted):
    folder, images = folder_with(tmp_path, *files), FusedImages(tmp_path, pairs)
    for pair, file in zip(CALLED_SO, wanted, strict=True):
        if file is None:
            with refused(Reason.MISSING, pair["name"]):
                images.find(pair)
        else:
            assert images.find(pair) == folder / file


def test_a_pair_whose_anatomy_is_called_as_a_result(tmp_path):
    """Which is no other pair's."""
    pairs = [{"name": "a", "anatomy": "in/a_fused.png", "overlay": "in/b.png"}]
    assert found(folder_with(tmp_path, "a_fused.png"), pairs) == "a_fused.png"


@pytest.mark.parametrize("kind", ["../other", "/", "a\0b", 300 * "k"])
def test_a_kind_of_pair_does_not_lead_out_of_the_folder(tmp_path, kind):
    folder_with(tmp_path, "other/a.png", "method/b.png")
    pair = {**PAIRS[0], "pair": kind}
    with refused(Reason.MISSING, "a_fused"):
        FusedImages(tmp_path / "method", [pair]).find(pair)


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

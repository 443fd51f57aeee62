"""What a fusion adds to a study: a registration only where one was made and used, which says by what it was found."""

from pathlib import Path

import numpy as np
import pytest
from judges import CT, MR, PT, dciodvfy_errors, rotation, series_of, written

from fusion_nets.clinical.dicom import spatial_registration
from fusion_nets.clinical.dicom.fused_study import fused_study
from fusion_nets.clinical.dicom.series import Series


def series(instances):
    files = tuple(Path(f"{number}.dcm") for number in range(len(instances)))
    return Series(Path(), files, tuple(instances))


def matrix_of(moves):
    matrix = np.eye(4)
    if moves:
        matrix[:3, :3], matrix[:3, 3] = rotation((3, -4, 12)), (4, -6, 9)
    return matrix


def study(mode, moves, one_frame):
    """The objects by modality."""
    instances, image = series_of(MR)
    overlay = series_of(PT, frame="2.25.1111" if one_frame else "2.25.2222", number=5)[0]
    record = {
        "anatomy_window": [0, 900],
        "overlay_window": [0, 4000],
        "transform": matrix_of(moves).tolist(),
        "record": {"method": "DM-FNet", "registration": {"mode": mode}},
    }
    fused = (image - image.min()) / (image.max() - image.min())
    found = {}
    for one in fused_study(fused, series(instances), series(overlay), record):
        found.setdefault(one.Modality, []).append(one)
    return found


@pytest.mark.parametrize("one_frame", [True, False])
@pytest.mark.parametrize(("mode", "code"), [("rigid", "125024"), ("affine", "125024"), ("given", None)])
def test_a_registration_that_was_used_says_by_what_it_was_found(tmp_path, mode, code, one_frame):
    found = study(mode, True, one_frame)
    (registration,), (state,) = found["REG"], found["PR"]
    stays, moves = (item.MatrixRegistrationSequence[0] for item in registration.RegistrationSequence)
    assert [item.CodeValue for item in stays.RegistrationTypeCodeSequence] == ["125021"]  # its own frame of reference
    assert [item.CodeValue for item in moves.RegistrationTypeCodeSequence] == ([code] if code else [])
    assert ("Imported" in moves.get("FrameOfReferenceTransformationComment", "")) == (code is None)
    assert state.AdvancedBlendingSequence[1].ReferencedSpatialRegistrationSequence
    written(tmp_path, [registration])
    assert dciodvfy_errors(tmp_path / "IM0001.dcm") == []


@pytest.mark.parametrize("one_frame", [True, False])
def test_without_a_registration_none_is_claimed(one_frame):
    """As with register none, after one that failed, or for a transform that moves nothing."""
    found = study("none", False, one_frame)
    assert "REG" not in found
    assert ("PR" in found) == one_frame  # which could not say how the frames relate
    assert len(found["MR"]) == len(series_of(MR)[0])


def test_what_it_was_found_by_is_one_of_dicoms_ways():
    anatomy, overlay = series_of(CT)[0], series_of(PT, frame="2.25.2222", number=5)[0]
    by_hand = spatial_registration(anatomy, overlay, np.eye(4), how="VisualAlignment")
    (item,) = by_hand.RegistrationSequence[1].MatrixRegistrationSequence[0].RegistrationTypeCodeSequence
    assert (item.CodeValue, item.CodingSchemeDesignator) == ("125025", "DCM")
    assert by_hand.SOPInstanceUID != spatial_registration(anatomy, overlay, np.eye(4)).SOPInstanceUID
    with pytest.raises(ValueError, match=r"how is 'Guessed'.*FiducialAlignment"):
        spatial_registration(anatomy, overlay, np.eye(4), how="Guessed")

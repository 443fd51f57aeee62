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


def bent(points):
    """A displacement in mm that differs from place to place."""
    return np.stack([3 * np.sin(points[:, 1] / 20), 0.05 * points[:, 2], np.full(len(points), -2.0)], axis=-1)


@pytest.mark.parametrize(("mode", "code"), [("deformable", ["125024"]), ("given", [])])
def test_registration_that_bends(tmp_path, mode, code):
    """Valid, and a point goes where the standard's equation (PS3.3 C.20.3.1.1) sends it; nothing shows it unbent."""
    instances, image = series_of(MR)
    overlay = series_of(PT, frame="2.25.2222", number=5)[0]
    matrix = matrix_of(True)
    told = {"mode": mode, "matrix_ras_mm": matrix.tolist(), "bending": {"folded": 0.0}}
    record = {"register": mode, "record": {"method": "DM-FNet", "registration": told}}
    fused = (image - image.min()) / (image.max() - image.min())
    sources = series(instances), series(overlay)
    objects = fused_study(fused, *sources, record, bent)
    assert not [one for one in objects if one.Modality == "PR"]
    (registration,) = (one for one in objects if one.Modality == "REG")
    (item,) = registration.DeformableRegistrationSequence
    assert [one.CodeValue for one in item.RegistrationTypeCodeSequence] == code
    assert item.SourceFrameOfReferenceUID == overlay[0].FrameOfReferenceUID
    assert registration.FrameOfReferenceUID == instances[0].FrameOfReferenceUID
    (grid,), (after,) = item.DeformableRegistrationGridSequence, item.PostDeformationMatrixRegistrationSequence
    size = np.array(grid.GridDimensions)
    vectors = np.frombuffer(grid.VectorGridData, "<f4").reshape(*size[::-1], 3)
    index = np.array([3, 2, 1])
    point = np.array(grid.ImagePositionPatient, dtype=float) + index * grid.GridResolution
    there = point + vectors[tuple(index[::-1])]
    post = np.array(after.FrameOfReferenceTransformationMatrix, dtype=float).reshape(4, 4)
    flip = np.array([-1.0, -1, 1])
    ras = point * flip
    wanted = matrix[:3, :3] @ (ras + bent(ras[None])[0]) + matrix[:3, 3]
    np.testing.assert_allclose((post[:3, :3] @ there + post[:3, 3]) * flip, wanted, atol=1e-4)
    ends = np.array(grid.ImagePositionPatient, dtype=float) + (size - 1) * grid.GridResolution
    for instance in instances:  # the grid holds the anatomy
        position = np.array(instance.ImagePositionPatient, dtype=float)
        assert (position >= np.array(grid.ImagePositionPatient, dtype=float) - 1e-3).all()
        assert (position <= ends + 1e-3).all()
    written(tmp_path, [registration])
    assert dciodvfy_errors(tmp_path / "IM0001.dcm") == []
    again = fused_study(fused, *sources, record, bent)
    assert [one.SOPInstanceUID for one in again] == [one.SOPInstanceUID for one in objects]
    with pytest.raises(ValueError, match="displacement is needed"):
        fused_study(fused, *sources, record)


# several overlays


def of_two(first, second):
    """The objects of a fusion of CT and PET onto an MR, by what is told of how each came onto it."""
    instances, image = series_of(MR)
    overlays = [
        series_of(CT, frame="2.25.2222", number=5)[0],
        series_of(PT, frame=instances[0].FrameOfReferenceUID, number=6)[0],
    ]
    record = {
        "anatomy_window": [0, 900],
        "overlay_window": [[0, 80], [0, 4000]],
        "overlay_palette": ["none", "hot"],
        "transform": [one.get("matrix_ras_mm") for one in (first, second)],
        "record": {
            "method": "DM-FNet",
            "overlay": {"modality": "CT", "units": "HU", "registration": first},
            "overlay2": {"modality": "PT", "registration": second},
        },
    }
    fused = (image - image.min()) / (image.max() - image.min())
    displaced = [bent if "bending" in one else None for one in (first, second)]
    others = [(series(overlays[1]), displaced[1])]
    objects = fused_study(fused, series(instances), series(overlays[0]), record, displaced[0], others)
    return instances, overlays, objects


MOVED = {"mode": "rigid", "matrix_ras_mm": matrix_of(True).tolist()}
STAYED = {"mode": "none"}
BENT = {"mode": "deformable", "matrix_ras_mm": np.eye(4).tolist(), "bending": {"folded": 0.0}}


@pytest.mark.parametrize(
    ("first", "second", "frames", "shown"),
    [
        (MOVED, MOVED, [3], ["CT", "PT"]),
        (MOVED, STAYED, [2], ["CT", "PT"]),  # the PET shares the anatomy's frame of reference
        (STAYED, MOVED, [2], ["PT"]),  # where the CT lies is known to nobody
        (STAYED, STAYED, [], ["PT"]),
        (BENT, MOVED, [0, 2], ["PT"]),
        (BENT, BENT, [0, 0], []),
    ],
)
def test_one_registration_and_one_presentation_of_several_overlays(tmp_path, first, second, frames, shown):
    instances, overlays, objects = of_two(first, second)
    registrations = [one for one in objects if one.Modality == "REG"]
    assert [len(one.get("RegistrationSequence", ())) for one in registrations] == frames
    states = [one for one in objects if one.Modality == "PR"]
    modality = {series[0].SeriesInstanceUID: series[0].Modality for series in (instances, *overlays)}
    seen = [modality[item.SeriesInstanceUID] for state in states for item in state.AdvancedBlendingSequence]
    assert seen == ["MR", *shown] if shown else seen == []
    images = [one for one in objects if one.Modality == "MR"]
    purposes = {len(one.ReferencedSeriesSequence) for one in images}
    assert max(purposes) == 3, "the anatomy and both overlays"
    assert "CT 0 to 80 HU, PT 0 to 4000" in images[0].DerivationDescription
    assert images[0].DerivationCodeSequence[1].CodeMeaning == "Fusion of images of several modalities"
    written(tmp_path, [images[len(images) // 2], *registrations])
    assert [error for path in sorted(tmp_path.iterdir()) for error in dciodvfy_errors(path)] == []
    again = of_two(first, second)[2]
    assert [one.SOPInstanceUID for one in again] == [one.SOPInstanceUID for one in objects]


def test_several_overlays_are_blended_alike():
    _, _, objects = of_two(MOVED, STAYED)
    (state,), (registration,) = ([one for one in objects if one.Modality == kind] for kind in ("PR", "REG"))
    (blend,) = state.BlendingDisplaySequence
    assert (blend.BlendingMode, len(blend.BlendingDisplayInputSequence)) == ("EQUAL", 3)
    _, ct, pet = state.AdvancedBlendingSequence
    hierarchy = ct.ReferencedSpatialRegistrationSequence[0].ReferencedSeriesSequence[0]
    assert hierarchy.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == registration.SOPInstanceUID
    assert "ReferencedSpatialRegistrationSequence" not in pet
    palettes = [item.PaletteColorLookupTableSequence[0].get("PaletteColorLookupTableUID") for item in (ct, pet)]
    assert palettes == [None, "1.2.840.10008.1.5.1"]  # grey, and hot iron

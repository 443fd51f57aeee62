"""The presentation state and the registration that it may need."""

import numpy as np
import pytest
from judges import CT, MR, PT, dciodvfy_errors, enhanced, rotation, series_of, written
from pydicom import Dataset

from fusion_nets.clinical.dicom import PALETTES, derived_series, presentation_state, spatial_registration

WINDOWS = {"anatomy_window": (-100.0, 300.0), "overlay_window": (0.0, 4000.0)}
RAS_TO_LPS = np.diag([-1.0, -1, 1, 1])


def pair(same_frame=True, anatomy=CT, body_part=None):
    return series_of(anatomy, body_part=body_part)[0], series_of(
        PT, frame="2.25.1111" if same_frame else "2.25.2222", number=5
    )[0]


def motion(scale=(1, 1, 1), shear=0.0):
    matrix = np.eye(4)
    matrix[:3, :3] = rotation((3, -4, 12)) @ np.diag(scale)
    matrix[0, 1] += shear
    matrix[:3, 3] = 4, -6, 9
    return matrix


@pytest.mark.parametrize("same_frame", [True, False])
@pytest.mark.parametrize(("anatomy", "body_part"), [(CT, None), (MR, "HEAD")])
def test_dciodvfy_finds_no_error(tmp_path, anatomy, body_part, same_frame):
    first, second = pair(same_frame, anatomy, body_part)
    registration = None if same_frame else spatial_registration(first, second, motion())
    state = presentation_state(first, second, **WINDOWS, registration=registration)
    written(tmp_path, [state, *([registration] if registration else [])])
    for path in tmp_path.iterdir():
        assert dciodvfy_errors(path) == []


def test_refers_to_the_originals_and_says_how_to_show_them(tmp_path):
    anatomy, overlay = pair()
    (state,) = written(tmp_path, [presentation_state(anatomy, overlay, **WINDOWS, palette="pet", opacity=0.25)])
    for item, series, window in zip(state.AdvancedBlendingSequence, (anatomy, overlay), WINDOWS.values(), strict=True):
        assert [x.ReferencedSOPInstanceUID for x in item.ReferencedImageSequence] == [x.SOPInstanceUID for x in series]
        assert item.SeriesInstanceUID == series[0].SeriesInstanceUID
        voi = item.SoftcopyVOILUTSequence[0]
        assert voi.VOILUTFunction == "LINEAR_EXACT"
        assert (voi.WindowCenter - voi.WindowWidth / 2, voi.WindowCenter + voi.WindowWidth / 2) == window
        assert "RescaleSlope" not in item  # each image keeps its own, which may differ from slice to slice
    assert [item.GeometryForDisplay for item in state.AdvancedBlendingSequence] == ["TRUE", "FALSE"]
    (blend,) = state.BlendingDisplaySequence
    assert [item.BlendingInputNumber for item in blend.BlendingDisplayInputSequence] == [2, 1]
    assert (blend.BlendingMode, blend.RelativeOpacity) == ("FOREGROUND", 0.25)
    grey, colours = (item.PaletteColorLookupTableSequence[0] for item in state.AdvancedBlendingSequence)
    assert colours.PaletteColorLookupTableUID == "1.2.840.10008.1.5.2"
    assert (
        bytes(grey.RedPaletteColorLookupTableData) == bytes(range(256)) == bytes(grey.BluePaletteColorLookupTableData)
    )
    assert bytes(colours.RedPaletteColorLookupTableData) != bytes(colours.BluePaletteColorLookupTableData)
    assert (str(state.PatientName), state.StudyInstanceUID) == ("Marked^Name", anatomy[0].StudyInstanceUID)
    assert state.FrameOfReferenceUID == "2.25.1111"
    assert "PixelData" not in state


def test_window_in_suv_is_written_in_what_the_header_gives():
    anatomy, overlay = pair()
    tracer = Dataset()
    tracer.RadionuclideTotalDose, tracer.RadionuclideHalfLife = "2e8", "6586.2"
    for instance in overlay:
        instance.PatientWeight, instance.DecayCorrection = "80", "ADMIN"
        instance.CorrectedImage = ["ATTN", "DECY"]
        instance.RadiopharmaceuticalInformationSequence = [tracer]
    state = presentation_state(anatomy, overlay, anatomy_window=(0, 80), overlay_window=(0, 10))
    voi = state.AdvancedBlendingSequence[1].SoftcopyVOILUTSequence[0]
    assert float(voi.WindowWidth) == pytest.approx(10 * 2e8 / 80e3)  # Bq/ml


def test_palettes_are_the_standards():
    anatomy, overlay = pair()
    for number, name in enumerate(PALETTES, start=1):
        state = presentation_state(anatomy, overlay, **WINDOWS, palette=name)
        table = state.AdvancedBlendingSequence[1].PaletteColorLookupTableSequence[0]
        assert table.PaletteColorLookupTableUID == f"1.2.840.10008.1.5.{number}"


def test_overlay_of_another_study_and_frame_is_referred_to_as_that():
    anatomy, overlay = pair(same_frame=False)
    for instance in overlay:
        instance.StudyInstanceUID = "2.25.99"
    registration = spatial_registration(anatomy, overlay, motion())
    state = presentation_state(anatomy, overlay, **WINDOWS, registration=registration)
    assert state.AdvancedBlendingSequence[1].StudyInstanceUID == "2.25.99"
    assert state.StudiesContainingOtherReferencedInstancesSequence[0].StudyInstanceUID == "2.25.99"
    (hierarchy,) = state.AdvancedBlendingSequence[1].ReferencedSpatialRegistrationSequence
    item = hierarchy.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert item.ReferencedSOPInstanceUID == registration.SOPInstanceUID
    listed = {series.SeriesInstanceUID for series in state.ReferencedSeriesSequence}
    assert listed == {anatomy[0].SeriesInstanceUID, registration.SeriesInstanceUID}


def test_enhanced_anatomy(tmp_path):
    anatomy, overlay = pair(anatomy=MR)
    written(tmp_path, [presentation_state([enhanced(anatomy)], overlay, **WINDOWS)])
    assert dciodvfy_errors(tmp_path / "IM0001.dcm") == []


def test_coloured_overlay_needs_no_window():
    anatomy, overlay = pair()
    image = series_of(CT)[1]
    colours = derived_series(image.expand(3, *image.shape[1:]) * 0, anatomy, overlay, method="x")
    state = presentation_state(anatomy, colours, anatomy_window=(0, 80), overlay_window=None)
    assert "PaletteColorLookupTableSequence" not in state.AdvancedBlendingSequence[1]


def test_registration_takes_the_overlay_to_the_anatomy(tmp_path):
    anatomy, overlay = pair(same_frame=False)
    matrix = motion()
    (registration,) = written(tmp_path, [spatial_registration(anatomy, overlay, matrix)])
    assert registration.FrameOfReferenceUID == "2.25.1111"
    stays, moves = registration.RegistrationSequence
    assert (stays.FrameOfReferenceUID, moves.FrameOfReferenceUID) == ("2.25.1111", "2.25.2222")
    matrices = []
    for item in (stays, moves):
        step = item.MatrixRegistrationSequence[0].MatrixSequence[0]
        assert step.FrameOfReferenceTransformationMatrixType == "RIGID"
        matrices.append(np.array(step.FrameOfReferenceTransformationMatrix, dtype=float).reshape(4, 4))
    np.testing.assert_array_equal(matrices[0], np.eye(4))
    in_anatomy = np.array([11.0, -22.0, 33.0, 1.0])  # RAS
    in_overlay = matrix @ in_anatomy
    np.testing.assert_allclose(matrices[1] @ RAS_TO_LPS @ in_overlay, RAS_TO_LPS @ in_anatomy, atol=1e-6)


@pytest.mark.parametrize(
    ("how", "kind"),
    [({"scale": (1.1, 0.9, 1)}, "AFFINE"), ({"scale": (1.1, 1.1, 1.1)}, "RIGID_SCALE"), ({"shear": 0.2}, "AFFINE")],
)
def test_kind_of_matrix(how, kind):
    registration = spatial_registration(*pair(), motion(**how))
    step = registration.RegistrationSequence[1].MatrixRegistrationSequence[0].MatrixSequence[0]
    assert step.FrameOfReferenceTransformationMatrixType == kind


def test_same_input_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        anatomy, overlay = pair(same_frame=False)
        registration = spatial_registration(anatomy, overlay, motion())
        written(
            tmp_path / name, [presentation_state(anatomy, overlay, **WINDOWS, registration=registration), registration]
        )
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    other = presentation_state(anatomy, overlay, **WINDOWS, registration=registration, opacity=0.6)
    assert (
        other.SOPInstanceUID
        != presentation_state(anatomy, overlay, **WINDOWS, registration=registration).SOPInstanceUID
    )


def test_refuses_what_cannot_be_shown():
    anatomy, overlay = pair(same_frame=False)
    with pytest.raises(ValueError, match="frame of reference"):
        presentation_state(anatomy, overlay, **WINDOWS)
    with pytest.raises(ValueError, match="palette is 'jet'"):
        presentation_state(anatomy, anatomy, **WINDOWS, palette="jet")
    with pytest.raises(ValueError, match="opacity is 2"):
        presentation_state(anatomy, anatomy, **WINDOWS, opacity=2)
    for window in ((3, 3), (3, 2), (0, np.inf), (np.nan, 1), None):
        with pytest.raises(ValueError, match="window is"):
            presentation_state(anatomy, anatomy, anatomy_window=window, overlay_window=(0, 1))
    with pytest.raises(ValueError, match="anatomy_to_overlay"):
        spatial_registration(anatomy, overlay, np.zeros((4, 4)))
    del overlay[0].FrameOfReferenceUID
    with pytest.raises(ValueError, match="Frame of Reference"):
        spatial_registration(anatomy, overlay, motion())


def test_says_no_uid(caplog):
    anatomy, overlay = pair()
    with caplog.at_level("DEBUG"):
        presentation_state(anatomy, overlay, **WINDOWS)
    assert not [image.SOPInstanceUID for image in (*anatomy, *overlay) if image.SOPInstanceUID in caplog.text]

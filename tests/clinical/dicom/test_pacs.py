"""What a PACS makes of the objects: it takes them, gives them back as they were, and knows them again."""

import json

import numpy as np
import pytest
from judges import CT, MR, PT, image_of, series_of, written

from fusion_nets.clinical.dicom import deidentify, derived_series, presentation_state, spatial_registration


def fused(channels, anatomy=MR):
    (first, image), (second, _) = series_of(anatomy), series_of(PT, frame="2.25.2222", number=5)
    values = np.random.default_rng(channels).random((channels, *image.shape[1:]), dtype=np.float32)
    return derived_series(image_of(values, image.affine.numpy()), first, second, method="x"), first, second


def moved():
    _, first, second = fused(1)
    registration = spatial_registration(first, second, np.eye(4))
    windows = {"anatomy_window": (0, 900), "overlay_window": (0, 6000)}
    return [registration, presentation_state(first, second, **windows, registration=registration)]


OBJECTS = {
    "MR": lambda: series_of(MR)[0],
    "CT": lambda: series_of(CT)[0],
    "PET": lambda: series_of(PT)[0],
    "fused MR": lambda: fused(1)[0],
    "fused CT": lambda: fused(1, CT)[0],
    "colour": lambda: fused(3)[0],
    "capture": lambda: fused(1, PT)[0],
    "presentation": moved,
    "de-identified": lambda: deidentify(fused(1)[0], key="a test"),
}


@pytest.mark.parametrize("kind", list(OBJECTS))
def test_takes_an_object_and_returns_it_as_it_was(orthanc, tmp_path, kind):
    sent = written(tmp_path / "sent", OBJECTS[kind]())
    before = orthanc.instances()
    orthanc.store(tmp_path / "sent")
    assert orthanc.instances() == before + len(sent)
    for instance in (sent[0], sent[-1]):
        returned = orthanc.retrieve(instance)
        assert returned == instance
        if "PixelData" in instance:
            np.testing.assert_array_equal(returned.pixel_array, instance.pixel_array)


def test_second_import_of_the_same_result_is_recognised(orthanc, tmp_path):
    result, anatomy, overlay = fused(1)
    written(tmp_path / "first", result)
    orthanc.store(tmp_path / "first")
    count = orthanc.instances()
    written(tmp_path / "again", fused(1)[0])
    orthanc.store(tmp_path / "again")
    assert orthanc.instances() == count
    other = derived_series(
        image_of(np.zeros((1, 20, 24, 7), dtype=np.float32), series_of(MR)[1].affine.numpy()),
        anatomy,
        overlay,
        method="x",
    )
    written(tmp_path / "other", other)
    orthanc.store(tmp_path / "other")
    assert orthanc.instances() == count + len(other)


def test_is_part_of_the_study_of_its_anatomy(orthanc, tmp_path):
    result, anatomy, _ = fused(1)
    for name, series in (("a", anatomy), ("b", result)):
        written(tmp_path / name, series)
        orthanc.store(tmp_path / name)
    found = json.loads(orthanc.get(f"/dicom-web/studies/{anatomy[0].StudyInstanceUID}/series")[1])
    uids = {one["0020000E"]["Value"][0] for one in found}
    assert {anatomy[0].SeriesInstanceUID, result[0].SeriesInstanceUID} <= uids

"""What is left of marked values when DICOM objects are de-identified."""

import re
from copy import deepcopy

import numpy as np
import pytest
from judges import CT, MR, PT, dciodvfy_errors, image_of, series_of, written
from pydicom import DataElement, Dataset, dcmread
from pydicom.datadict import DicomDictionary, keyword_for_tag
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from fusion_nets.clinical.dicom import deidentify, derived_series, presentation_state, spatial_registration

pytest.importorskip("dicomanonymizer", reason="pip install dicom-anonymizer")

MARK = "MARKED7"
TEXTS = dict.fromkeys(("AE", "LO", "LT", "SH", "ST", "UC", "UR", "UT"), MARK) | {
    "PN": f"{MARK}^Name",
    "UN": b"MARKED7 ",
}
DATES = {"DA": "19470811", "DT": "19470811121212", "TM": "123456.789", "AS": "078Y"}
PATIENTS = {
    "PatientName": "Wanderfalke^Adelheid",
    "PatientID": "PID-73519",
    "PatientBirthDate": "19470811",
    "AccessionNumber": "ACC-90817",
    "InstitutionName": "Klinikum Rabenstein",
    "OperatorsName": "Siebenschlaefer^Otto",
    "StudyDescription": "after the fall of Adelheid W.",
}


def everything():
    """All attributes that the standard has with a text or a date, marked."""
    dataset = Dataset()
    for tag, (vr, multiplicity, _, retired, keyword) in DicomDictionary.items():
        if keyword and not retired and tag >> 16 not in (0, 2, 4) and keyword != "SpecificCharacterSet":
            value = TEXTS.get(vr, DATES.get(vr))
            if value is not None:
                dataset.add(DataElement(tag, vr, [value, value] if multiplicity == "2-n" else value))
    dataset.private_block(0x0029, f"{MARK} BLOCK", create=True).add_new(1, "LO", MARK)
    dataset.add_new(0x60003000, "OW", MARK.encode() + b" ")
    dataset.add_new(0x60000022, "LO", MARK)
    dataset.add_new(0x50003000, "OW", MARK.encode() + b" ")
    dataset.add_new(0x00420011, "OB", MARK.encode() + b" ")
    del dataset[0x00420011]
    return dataset


def survivors(dataset, marks, place=()):
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from survivors(item, marks, (*place, element.keyword))
        elif any(mark in str(element.value) for mark in marks):
            yield (*place, element.keyword or str(element.tag))


def marked():
    dataset = series_of(CT)[0][0]
    dataset.update(everything())
    outer, inner = everything(), everything()
    inner.add_new(0x00080110, "SQ", [everything()])
    outer.PurposeOfReferenceCodeSequence = [inner]
    dataset.SourceImageSequence, dataset.RequestAttributesSequence = [outer], [everything()]
    dataset.DerivationCodeSequence = [everything()]
    dataset.DimensionOrganizationSequence = [everything()]
    return dataset


TECHNICAL = {
    *("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "RescaleType", "ModalityLUTType", "SequenceName"),
    *(
        "CodeValue",
        "CodingSchemeDesignator",
        "CodingSchemeVersion",
        "CodeMeaning",
        "LongCodeValue",
        "ConvolutionKernel",
    ),
    *("ReceiveCoilName", "ReconstructionMethod", "AttenuationCorrectionMethod", "ScatterCorrectionMethod"),
    "Radiopharmaceutical",
}


def test_of_all_texts_only_technical_ones_survive():
    before = marked()
    assert len(set(survivors(before, [MARK]))) > 2000
    (after,) = deidentify([before])
    assert {place[-1] for place in survivors(after, [MARK])} == TECHNICAL


def test_no_date_survives():
    before = marked()
    assert len(set(survivors(before, list(DATES.values())))) > 500
    (after,) = deidentify([before])
    assert list(survivors(after, list(DATES.values()))) == []


def test_private_attributes_curves_and_overlays_go():
    (after,) = deidentify([marked()])
    assert not any(
        element.tag.is_private or element.tag.group & 0xFF00 in (0x5000, 0x6000) for element in after.iterall()
    )


def study(key=None):
    """A study with marked values, made anonymous: originals, what is derived from them, and what shows them."""
    (anatomy, image), (overlay, _) = series_of(MR), series_of(PT, frame="2.25.2222", number=5)
    for instance in (*anatomy, *overlay):
        for keyword, value in PATIENTS.items():
            setattr(instance, keyword, value)
    values = np.random.default_rng(0).random(image.shape, dtype=np.float32)
    fused = derived_series(image_of(values, image.affine.numpy()), anatomy, overlay, method="x")
    registration = spatial_registration(anatomy, overlay, np.eye(4))
    windows = {"anatomy_window": (0, 900), "overlay_window": (0, 6000)}
    state = presentation_state(anatomy, overlay, **windows, registration=registration)
    before = [*anatomy, *overlay, *fused, registration, state]
    return before, deidentify(before, key)


def test_nothing_of_a_patient_is_left_in_the_files_and_dciodvfy_finds_no_error(tmp_path):
    before, after = study()
    written(tmp_path, after)
    secrets = [re.escape(part.encode()) for value in PATIENTS.values() for part in value.split("^")]
    for instance in before:
        for element in instance.iterall():
            if element.VR == "UI" and element.value and not str(element.value).startswith("1.2.840.10008."):
                secrets.append(re.escape(str(element.value).encode()) + rb"(?![.\d])")  # not the start of another
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        assert not [secret for secret in secrets if re.search(secret, content)]
    kinds = {}
    for number, instance in enumerate(after, start=1):
        kinds[instance.SOPClassUID, instance.SeriesInstanceUID] = number
    assert len(kinds) == 5
    for number in kinds.values():
        assert dciodvfy_errors(tmp_path / f"IM{number:04d}.dcm") == []


def test_objects_still_refer_to_each_other():
    before, after = study()
    new = {str(old.SOPInstanceUID): str(one.SOPInstanceUID) for old, one in zip(before, after, strict=True)}
    assert len(set(new.values())) == len(new)
    for old, one in zip(before, after, strict=True):
        assert one.StudyInstanceUID == after[0].StudyInstanceUID != old.StudyInstanceUID
        was = [element.value for element in old.iterall() if element.keyword == "ReferencedSOPInstanceUID"]
        now = [element.value for element in one.iterall() if element.keyword == "ReferencedSOPInstanceUID"]
        assert now == [new[uid] for uid in was]
    assert len({one.FrameOfReferenceUID for one in after}) == 2
    table = after[-1].AdvancedBlendingSequence[1].PaletteColorLookupTableSequence[0]
    assert table.PaletteColorLookupTableUID == "1.2.840.10008.1.5.1"


def test_key_makes_uids_the_same_again():
    one, same, other = (study(key)[1] for key in ("key", b"key", "other"))
    unknown, again = study()[1], study()[1]
    assert [x.SOPInstanceUID for x in one] == [x.SOPInstanceUID for x in same]
    assert one[0].PatientID == same[0].PatientID
    uids = [x[0].SOPInstanceUID for x in (one, other, unknown, again)]
    assert len(set(uids)) == 4


def test_says_what_was_done():
    before, after = study()
    for instance in after:
        assert instance.PatientIdentityRemoved == "YES"
        assert instance.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
        assert instance.DeidentificationMethodCodeSequence[0].CodingSchemeDesignator == "DCM"
        assert instance.LongitudinalTemporalInformationModified == "REMOVED"
        assert (instance.PatientBirthDate, instance.StudyDate, instance.AccessionNumber) == ("", "", "")
    assert len({instance.PatientID for instance in after}) == 1
    assert before[0].PatientID == "PID-73519"  # what came in stays as it was


def test_pixels_geometry_and_compression_stay(tmp_path):
    instances, _ = series_of(CT)
    expected = [instance.pixel_array.copy() for instance in instances]
    compressed = deepcopy(instances)
    for instance in compressed:
        instance.compress(RLELossless, generate_instance_uid=False)
    for kind in (instances, compressed):
        for instance, old, pixels in zip(deidentify(kind), kind, expected, strict=True):
            np.testing.assert_array_equal(instance.pixel_array, pixels)
            for keyword in (
                "ImagePositionPatient",
                "ImageOrientationPatient",
                "PixelSpacing",
                "RescaleIntercept",
                "KVP",
            ):
                assert instance[keyword].value == old[keyword].value
    back = written(tmp_path, deidentify(compressed))
    assert back[0].file_meta.TransferSyntaxUID == RLELossless
    np.testing.assert_array_equal(back[0].pixel_array, expected[0])
    assert dciodvfy_errors(tmp_path / "IM0001.dcm") == []


def hiding(signed=False, high=11, seed=0):
    """A slice of 12 bit, all other bits of its words set at random; and its words without them."""
    (instance, *_), _ = series_of(CT)
    rng = np.random.default_rng(seed)
    values = rng.integers(*((-2048, 2048) if signed else (0, 4096)), (instance.Rows, instance.Columns))
    words = (values << (high - 11)) & 0xFFFF
    mask = (0xFFF << (high - 11)) & 0xFFFF
    noise = rng.integers(0, 2**16, values.shape) & ~mask
    instance.BitsStored, instance.HighBit, instance.PixelRepresentation = 12, high, int(signed)
    instance.PixelData = ((words & mask) | noise).astype("<u2").tobytes()
    overlay = {0x0010: ("US", instance.Rows), 0x0011: ("US", instance.Columns), 0x0100: ("US", 16), 0x0102: ("US", 15)}
    for element, (vr, value) in overlay.items():
        instance.add_new(0x60000000 | element, vr, value)
    return instance, words.astype(np.uint16).view(np.int16 if signed else np.uint16)


@pytest.mark.parametrize("rle", [False, True])
@pytest.mark.parametrize(("signed", "high"), [(False, 11), (True, 11), (False, 15), (True, 15), (False, 13)])
def test_what_lies_in_unused_bits_goes(tmp_path, signed, high, rle):
    instance, words = hiding(signed, high)
    before = instance.PixelData
    if rle:
        instance.BitsStored, instance.HighBit = 16, 15  # or pydicom would not encode all bits
        instance.compress(RLELossless, generate_instance_uid=False)
        instance.BitsStored, instance.HighBit = 12, high
    (after,) = written(tmp_path, deidentify([instance]))
    assert not any(element.tag.group == 0x6000 for element in after)
    found = np.frombuffer(after.PixelData, words.dtype).reshape(words.shape)
    np.testing.assert_array_equal(found, words)
    assert not np.array_equal(np.frombuffer(before, words.dtype).reshape(words.shape), words)
    assert dciodvfy_errors(tmp_path / "IM0001.dcm") == []
    assert instance.file_meta.TransferSyntaxUID == (RLELossless if rle else ExplicitVRLittleEndian)  # as it came


def test_compressed_pixels_that_hide_nothing_stay_as_they_are():
    instance, words = hiding()
    instance.PixelData = words.tobytes()
    instance.compress(RLELossless, generate_instance_uid=False)
    (after,) = deidentify([instance])
    assert after.file_meta.TransferSyntaxUID == RLELossless
    assert after.PixelData == instance.PixelData


def test_padding_of_more_bits_stays_and_bytes_after_the_last_pixel_go():
    instance, words = hiding()
    padded = words.copy()
    padded[:2] = 0xF830
    instance.PixelPaddingValue = 0xF830
    instance.PixelData = padded.tobytes() + b"Wanderfalke "
    (after,) = deidentify([instance])
    assert after.PixelData == padded.tobytes()
    assert instance.PixelData.endswith(b"Wanderfalke ")


def test_unused_bits_that_cannot_be_told_are_refused():
    instance, _ = hiding()
    instance.HighBit = 7
    with pytest.raises(ValueError, match="High Bit is 7 with Bits Stored 12"):
        deidentify([instance])
    instance, _ = hiding()
    instance.BitsAllocated = 12
    instance.BitsStored, instance.HighBit = 10, 9
    with pytest.raises(ValueError, match="Bits Allocated is 12"):
        deidentify([instance])


def test_file_meta_information_tells_nothing(tmp_path):
    instances, _ = series_of(CT)
    instances[0].file_meta.SourceApplicationEntityTitle = MARK
    instances[0].preamble = MARK.encode().ljust(128, b"\0")
    written(tmp_path, deidentify(instances[:1]))
    assert MARK.encode() not in (tmp_path / "IM0001.dcm").read_bytes()
    meta = dcmread(tmp_path / "IM0001.dcm").file_meta
    assert meta.MediaStorageSOPInstanceUID != instances[0].SOPInstanceUID


def test_every_action_of_the_table_is_met():
    """Against the table itself: what it removes is gone, UIDs are others, the rest is empty or a dummy."""
    from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table

    (after,) = deidentify([marked()])
    items = [after, after.SourceImageSequence[0], after.DerivationCodeSequence[0]]
    needed = {"PatientIdentityRemoved", "PresentationCreationDate", "PresentationCreationTime"}
    for tag in (tag for tag in table.X_TAGS if len(tag) == 2):
        assert all(tag not in item or keyword_for_tag(tag) in needed for item in items), keyword_for_tag(tag)
    for tag in (*table.Z_TAGS, *table.X_Z_TAGS):
        if keyword_for_tag(tag) not in ("PatientName", "PatientID"):
            assert all(not item[tag].value for item in items if tag in item), keyword_for_tag(tag)


def test_refuses_what_pixels_or_texts_would_tell():
    instances, _ = series_of(CT)
    instances[1].BurnedInAnnotation = "YES"
    with pytest.raises(ValueError, match="Burned In Annotation"):
        deidentify(instances)
    report = series_of(CT)[0][0]
    report.ContentSequence = [Dataset()]
    with pytest.raises(ValueError, match="Content Sequence"):
        deidentify([report])

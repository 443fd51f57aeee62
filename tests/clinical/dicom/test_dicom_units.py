"""Standardised uptake, each vendor's way, against values that follow from the header by hand."""

import logging

import numpy as np
import pytest
from dicom_phantoms import instances, save
from pydicom.dataset import Dataset

from fusion_nets.clinical.dicom import pick_series, read_series

SHAPE = (16, 18, 4)
DOSE, HALF_LIFE, WEIGHT = 350e6, 6586.2, 72.5


def pet(**changes):
    """PET in Bq/ml by a scanner that says all that is needed: injected 3600 s before the start of the series."""
    series = instances("PT", shape=SHAPE)
    for instance in series:
        instance.Units, instance.DecayCorrection = "BQML", "START"
        instance.CorrectedImage = ["DECY", "ATTN", "SCAT"]
        instance.PatientWeight = str(WEIGHT)
        instance.SeriesDate = instance.AcquisitionDate = "20260105"
        instance.SeriesTime, instance.AcquisitionTime = "130000", "130200"
        tracer = Dataset()
        tracer.RadiopharmaceuticalStartTime = "120000.00"
        tracer.RadionuclideTotalDose, tracer.RadionuclideHalfLife = str(DOSE), str(HALF_LIFE)
        instance.RadiopharmaceuticalInformationSequence = [tracer]
        for keyword, value in changes.items():
            target = tracer if keyword.startswith("Radio") and keyword[-8:] != "Sequence" else instance
            if value is None:
                delattr(target, keyword)
            else:
                setattr(target, keyword, value)
    return series


def expected(uptake_seconds, half_life=HALF_LIFE):
    return WEIGHT * 1000 / (DOSE * 0.5 ** (uptake_seconds / half_life))


def assert_factor(folder, series, factor, units="SUV"):
    image = read_series(pick_series(save(folder, series)))
    assert image.meta["units"] == units
    slices = sorted(series, key=lambda instance: float(instance.ImagePositionPatient[2]))
    slopes = [float(instance.RescaleSlope) for instance in slices]
    assert len(set(slopes)) > 1  # another slope in every slice
    stored = np.stack([instance.pixel_array.T * slope for instance, slope in zip(slices, slopes, strict=True)], axis=-1)
    np.testing.assert_allclose(image[0], stored * factor, rtol=1e-6)
    return image


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({}, 3600),
        ({"RadiopharmaceuticalStartTime": "123000"}, 1800),
        ({"RadiopharmaceuticalStartDateTime": "20260105110000.5"}, 7199.5),
        ({"RadiopharmaceuticalStartDateTime": "20260104130000"}, 86400),
        ({"RadiopharmaceuticalStartTime": "235000", "SeriesTime": "001000", "AcquisitionTime": "001200"}, 1200),
        ({"SeriesTime": "130000", "AcquisitionTime": "130000"}, 3600),
        ({"DecayCorrectionDateTime": "20260105131500"}, 4500),
        ({"AcquisitionDateTime": "20260105124000", "FrameReferenceTime": None}, 2400),
    ],
)
def test_decay_corrected_to_the_start(tmp_path, changes, seconds):
    assert_factor(tmp_path / "pt", pet(**changes), expected(seconds))


def test_offset_from_utc_of_the_injection(tmp_path):
    changes = {"RadiopharmaceuticalStartDateTime": "20260105110000+0000", "TimezoneOffsetFromUTC": "+0100"}
    assert_factor(tmp_path / "pt", pet(**changes), expected(3600))
    changes["RadiopharmaceuticalStartDateTime"] = "20260105120000+0100"
    assert_factor(tmp_path / "same", pet(**changes), expected(3600))
    del changes["TimezoneOffsetFromUTC"]
    assert_factor(tmp_path / "none", pet(**changes), expected(3600))


def test_decay_corrected_to_administration(tmp_path):
    changes = {"DecayCorrection": "ADMIN", "RadiopharmaceuticalStartTime": None, "RadionuclideHalfLife": None}
    assert_factor(tmp_path / "pt", pet(**changes), expected(0))


def test_ge_series_that_was_processed_later(tmp_path):
    """Its time is that of processing; when the scan began is in a private attribute."""
    series = pet(SeriesTime="170000")
    for instance in series:
        instance.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", "20260105130000.00")
    assert_factor(tmp_path / "pt", series, expected(3600))


def test_siemens_series_that_was_processed_later(tmp_path):
    """The start follows from when the frames had their average count rate."""
    frame, rate = 1200.0, np.log(2) / HALF_LIFE
    average = np.log(rate * frame / (1 - np.exp(-rate * frame))) / rate  # seconds into the frame
    acquired = 720.0  # from the start of the scan to that of the frame
    changes = {
        "SeriesTime": "170000",
        "AcquisitionTime": "131200",
        "FrameReferenceTime": f"{(acquired + average) * 1000:.6f}",
        "ActualFrameDuration": "1200000",
    }
    image = assert_factor(tmp_path / "pt", pet(**changes), expected(3600))
    later = assert_factor(tmp_path / "x", pet(**{**changes, "FrameReferenceTime": "0"}), expected(3600 + acquired))
    assert image.max() < later.max()


def philips(**factors):
    series = pet(Units="CNTS")
    for instance in series:
        block = instance.private_block(0x7053, "Philips PET Private Group", create=True)
        for element, value in factors.items():
            block.add_new(int(element[1:], 16), "DS", value)
    return series


def test_philips(tmp_path):
    assert_factor(tmp_path / "suv", philips(x00="0.000125", x09="3.5"), 0.000125)
    assert_factor(tmp_path / "activity", philips(x09="3.5"), 3.5 * expected(3600))


def test_philips_without_factors(tmp_path, caplog):
    assert_factor(tmp_path / "none", philips(), 1.0, "counts")
    assert "Units is CNTS" in caplog.text


def test_uptake_as_it_is(tmp_path, caplog):
    assert_factor(tmp_path / "bw", pet(Units="GML"), 1.0)
    assert not caplog.text
    assert_factor(tmp_path / "lbm", pet(Units="GML", SUVType="LBM"), 1.0)
    assert "SUVType is LBM" in caplog.text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"PatientWeight": None}, "PatientWeight is missing"),
        ({"PatientWeight": "0"}, "PatientWeight is not positive"),
        ({"RadionuclideTotalDose": None}, "RadionuclideTotalDose is missing"),
        ({"RadionuclideTotalDose": "350"}, "RadionuclideTotalDose is not plausible"),
        ({"RadionuclideHalfLife": None}, "RadionuclideHalfLife is missing"),
        ({"RadiopharmaceuticalStartTime": None}, "RadiopharmaceuticalStartTime are missing"),
        ({"RadiopharmaceuticalStartDateTime": "20260105140000"}, "does not fit the time of the scan"),
        ({"RadiopharmaceuticalStartDateTime": "20200105140000"}, "does not fit the time of the scan"),
        ({"DecayCorrection": "NONE"}, "DecayCorrection is NONE"),
        ({"DecayCorrection": None}, "DecayCorrection is missing"),
        ({"CorrectedImage": ["DECY"]}, "CorrectedImage lacks ATTN"),
        ({"CorrectedImage": ["ATTN"]}, "CorrectedImage lacks DECY"),
        ({"RadiopharmaceuticalInformationSequence": []}, "RadiopharmaceuticalInformationSequence has 0 items"),
        ({"SeriesTime": None, "AcquisitionTime": None}, "SeriesTime and AcquisitionTime are missing"),
    ],
)
def test_activity_with_a_warning_that_names_what_is_missing(tmp_path, caplog, changes, words):
    with caplog.at_level(logging.WARNING):
        assert_factor(tmp_path / "pt", pet(**changes), 1.0, "Bq/ml")
    assert words in caplog.text
    assert not any(told in caplog.text for told in ("Roe", "PID4711", "2.25."))


def test_other_units_stay_as_stored(tmp_path, caplog):
    assert_factor(tmp_path / "pt", pet(Units="PCNT"), 1.0, "stored")
    assert "Units is PCNT" in caplog.text


def test_window_is_in_the_units_given(tmp_path):
    image = assert_factor(tmp_path / "pt", pet(WindowCenter="5000", WindowWidth="10000"), expected(3600))
    np.testing.assert_allclose(image.meta["window"], (0, 10000 * expected(3600)))


def test_ct_in_other_units_than_hounsfield(tmp_path, caplog):
    series = instances("CT", shape=SHAPE)
    for instance in series:
        instance.RescaleType, instance.RescaleSlope, instance.RescaleIntercept = "HU_MOD", "2", "-100"
    image = read_series(pick_series(save(tmp_path / "ct", series)))
    assert image.meta["units"] == "stored"
    assert "RescaleType" in caplog.text
    np.testing.assert_array_equal(image[0, ..., 0], series[0].pixel_array.T * 2.0 - 100)

"""Standardised uptake, each vendor's way, against values that follow from the header by hand."""

import logging

import numpy as np
import pytest
from dicom_phantoms import instances, save
from pydicom.dataset import Dataset

from fusion_nets.clinical import convert_image, read_image
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
        ({"RadiopharmaceuticalStartDateTime": "20260104230000"}, 50400),
        ({"RadiopharmaceuticalStartDateTime": "20260105120000.000"}, 3600),
        ({"RadiopharmaceuticalStartDateTime": "20260105130000"}, 0),
        ({"RadiopharmaceuticalStartTime": "130000"}, 0),
        ({"SeriesDate": "2026.01.05"}, 3600),
        (
            {
                "SeriesDate": "20260106",
                "AcquisitionDate": "20260106",
                "SeriesTime": "001000",
                "AcquisitionTime": "001200",
                "RadiopharmaceuticalStartTime": "235959.5",
            },
            600.5,
        ),
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
    changes = {"RadiopharmaceuticalStartDateTime": "20260105110000+0000", "RadiopharmaceuticalStartTime": "120000"}
    scan = {"SeriesTime": None, "AcquisitionDateTime": "20260105143000+0200"}
    assert_factor(tmp_path / "both", pet(**changes, **scan), expected(5400))


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


@pytest.mark.parametrize(
    ("units", "kind", "name"),
    [
        ("GML", "LBM", "SUVlbm"),
        ("GML", "LBMJAMES128", "SUVlbm(James128)"),
        ("GML", "LBMJANMA", "SUVlbm(Janma)"),
        ("GML", "IBW", "SUVibw"),
        ("CM2ML", "BSA", "SUVbsa"),
        ("CM2ML", None, "SUVbsa"),
    ],
)
def test_uptake_by_other_measures_stays_what_it_is(tmp_path, caplog, units, kind, name):
    """Through every form and back: it is never taken for uptake by body weight."""
    series = pet(Units=units, **({"SUVType": kind} if kind else {}))
    image = assert_factor(tmp_path / "pt", series, 1.0, name)
    assert name in caplog.text
    for ending in (".nii.gz", ".nrrd", ".mha"):
        (file,) = convert_image(tmp_path / "pt", tmp_path / f"a{ending}")
        assert read_image(file).meta["units"] == name
        convert_image(file, tmp_path / "back")
        back = read_series(pick_series(tmp_path / "back"))
        assert (back.meta["units"], back.meta["modality"]) == (name, "PT")
        np.testing.assert_allclose(np.sort(back, axis=None), np.sort(image, axis=None), rtol=1e-3, atol=1)


def test_uptake_of_an_unknown_kind(tmp_path, caplog):
    assert_factor(tmp_path / "pt", pet(Units="GML", SUVType="MINE"), 1.0, "stored")
    assert "SUVType MINE" in caplog.text


@pytest.mark.parametrize("seconds", [1, 30, 240])
@pytest.mark.parametrize("told", ["RadiopharmaceuticalStartTime", "RadiopharmaceuticalStartDateTime"])
def test_injection_soon_after_the_scan_began(tmp_path, caplog, seconds, told):
    """As clocks differ, or a dynamic scan begins: not the day before."""
    time = f"{'20260105' if told.endswith('DateTime') else ''}13{seconds // 60:02d}{seconds % 60:02d}"
    changes = {"RadiopharmaceuticalStartTime": time[-6:], told: time}
    assert_factor(tmp_path / "pt", pet(**changes), expected(-seconds))
    assert told in caplog.text


@pytest.mark.parametrize(
    ("half_life", "injected", "seconds"),
    [
        (76.4, "125600", 240),  # rubidium-82
        (122.2, "125955", 5),  # oxygen-15
        (1223.4, "120000", 3600),  # carbon-11
        (4062.6, "114500", 4500),  # gallium-68
        (14292.0, "080000", 18000),  # scandium-44
    ],
)
def test_half_lives_of_minutes_to_hours(tmp_path, half_life, injected, seconds):
    changes = {"RadionuclideHalfLife": half_life, "RadiopharmaceuticalStartTime": injected}
    assert_factor(tmp_path / "pt", pet(**changes), expected(seconds, half_life))


@pytest.mark.parametrize("half_life", [45721.0, 282276.0, 360806.0])  # copper-64, zirconium-89, iodine-124
def test_half_life_of_days_needs_a_date(tmp_path, caplog, half_life):
    assert_factor(tmp_path / "time", pet(RadionuclideHalfLife=half_life), 1.0, "Bq/ml")
    assert "RadiopharmaceuticalStartTime has no date" in caplog.text
    changes = {"RadionuclideHalfLife": half_life, "RadiopharmaceuticalStartDateTime": "20260101120000"}
    assert_factor(tmp_path / "date", pet(**changes), expected(4 * 86400 + 3600, half_life))


def test_two_times_of_injection_that_differ_are_told(tmp_path, caplog):
    assert_factor(tmp_path / "pt", pet(RadiopharmaceuticalStartDateTime="20260105110000"), expected(7200))
    assert "RadiopharmaceuticalStartTime is another" in caplog.text


def test_processed_later_and_in_part(tmp_path, caplog):
    """When the slices that are missing were acquired is not known, and so not when the scan began."""
    assert_factor(tmp_path / "whole", pet(SeriesTime="170000"), expected(3720))
    assert_factor(tmp_path / "part", pet(SeriesTime="170000", NumberOfSlices=40), 1.0, "Bq/ml")
    assert "SeriesTime is later" in caplog.text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"PatientWeight": None}, "PatientWeight is missing"),
        ({"PatientWeight": "0"}, "PatientWeight is not positive"),
        ({"RadionuclideTotalDose": None}, "RadionuclideTotalDose is missing"),
        ({"RadionuclideTotalDose": "350"}, "RadionuclideTotalDose is not plausible"),  # MBq
        ({"RadionuclideTotalDose": "350000"}, "RadionuclideTotalDose is not plausible"),  # kBq
        ({"RadionuclideTotalDose": "3.5e11"}, "RadionuclideTotalDose is not plausible"),
        ({"PatientWeight": "72500"}, "PatientWeight is not plausible"),  # g
        ({"PatientWeight": "0.0000725"}, "PatientWeight is not plausible"),
        ({"RadionuclideHalfLife": "1.83"}, "RadionuclideHalfLife is not plausible"),  # hours
        ({"RadionuclideHalfLife": "109.77"}, "does not fit the time of the scan"),  # minutes
        ({"RadiopharmaceuticalStartTime": "130600"}, "does not fit the time of the scan"),
        ({"RadiopharmaceuticalStartDateTime": "20260104130000"}, "does not fit the time of the scan"),
        ({"RadiopharmaceuticalStartDateTime": "20260105"}, "RadiopharmaceuticalStartDateTime is damaged"),
        ({"RadiopharmaceuticalStartTime": "12"}, "RadiopharmaceuticalStartTime is damaged"),
        ({"RadiopharmaceuticalStartDateTime": "20260105110000+0000"}, "has an offset from UTC"),
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

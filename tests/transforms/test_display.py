import json

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from refusals import refused

from fusion_nets.clinical import Reason
from fusion_nets.transforms import ScaleToDisplayRange, ScaleToDisplayRanged


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def measured(values, **meta):
    return MetaTensor(torch.as_tensor(values, dtype=torch.float32), meta=meta)


@pytest.mark.parametrize("white", [1, 255, 65535])
@pytest.mark.parametrize("channels", [1, 3])
def test_picture_is_scaled_by_its_white(white, channels):
    levels = torch.linspace(0.1, 0.6, 20 * channels).reshape(channels, 4, 5)  # neither black nor white is reached
    image = ScaleToDisplayRange()(measured(levels * white, white=white))
    torch.testing.assert_close(image.as_tensor(), levels)
    assert image.meta["display_range"] == [0, white]


def test_window():
    hounsfield = measured([[[-1000, 0, 20], [80, 60, 3000]]])
    image = ScaleToDisplayRange(window=(0, 80))(hounsfield)
    torch.testing.assert_close(image.as_tensor(), torch.tensor([[[0, 0, 0.25], [1, 0.75, 1]]]))
    assert image.meta["display_range"] == [0, 80]


def test_window_of_negative_values():
    image = ScaleToDisplayRange(window=[-1000, -500])(measured([[[-1200, -750, -600, 40]]]))
    torch.testing.assert_close(image.as_tensor(), torch.tensor([[[0, 0.5, 0.8, 1]]]))


def test_window_comes_before_white():
    image = ScaleToDisplayRange(window=(0, 51))(measured([[[0, 51, 255]]], white=255))
    assert image.flatten().tolist() == [0, 1, 1]


def test_percentiles_are_those_above_the_background():
    inside = np.random.default_rng(0).permutation(np.arange(1, 2002))
    values = np.concatenate([np.zeros(50_000), inside]).reshape(1, 149, 349)  # air is most of the image
    image = ScaleToDisplayRange(percentiles=(1, 99))(measured(values))
    low, high = image.meta["display_range"]
    assert (low, high) == tuple(np.percentile(inside, [1, 99]))
    np.testing.assert_allclose(image.numpy(), np.clip((values - low) / (high - low), 0, 1), atol=1e-6)


def test_background_of_negative_values():
    """CT: what lies below the patient's own values, even the -2000 around a circular field of view, is black."""
    patient = 40 + 10 * normal(1, 40, 40)
    framed = torch.full((1, 60, 60), -2000.0)
    framed[:, 10:50, 10:50] = patient
    image = ScaleToDisplayRange()(measured(framed))
    low, high = image.meta["display_range"]
    assert low == pytest.approx(np.percentile(patient, 0.5), abs=0.5)
    assert high == pytest.approx(np.percentile(patient, 99.5), abs=0.5)
    assert (image[framed == -2000] == 0).all()
    assert 0.4 < image[:, 10:50, 10:50].mean() < 0.6


@pytest.mark.parametrize("scale", [1e-3, 1, 1e6])
def test_outliers_do_not_darken_the_rest(scale):
    values = normal(1, 60, 60).abs() + 1
    clean = ScaleToDisplayRange()(measured(values * scale))
    spoilt = values.clone()
    spoilt[0, 30, 30], spoilt[0, 5, 5] = 1e6, -1e6
    image = ScaleToDisplayRange()(measured(spoilt * scale))
    assert image[0, 30, 30] == 1
    assert image[0, 5, 5] == 0
    rest = torch.ones(1, 60, 60, dtype=torch.bool)
    rest[0, 30, 30] = rest[0, 5, 5] = False
    assert (image - clean)[rest].abs().max() < 0.02


def test_two_values_become_black_and_white():
    image = ScaleToDisplayRange()(measured([[[3, 3, 7], [7, 3, 3]]]))
    assert image.tolist() == [[[0, 0, 1], [1, 0, 0]]]
    assert image.meta["display_range"] == [3, 7]


def test_scaled_image_is_in_its_display_range():
    once = ScaleToDisplayRange()(measured(100 + 20 * normal(1, 30, 30)))
    assert once.min() == 0
    assert once.max() == 1
    assert torch.equal(ScaleToDisplayRange()(once), once)


def test_recorded_beside_what_was_known():
    affine = torch.diag(torch.tensor([2.0, 3, 4, 1], dtype=torch.float64))
    source = MetaTensor(100 + normal(1, 9, 7, 5), affine=affine, meta={"filename_or_obj": "a.nii"})
    before = source.clone()
    image = ScaleToDisplayRange()(source)
    assert image.dtype == torch.float32
    assert torch.equal(image.affine, affine)
    assert image.meta["filename_or_obj"] == "a.nii"
    assert torch.equal(source, before)
    assert "display_range" not in source.meta
    assert "white" not in source.meta


def test_plain_tensor():
    values = 100 + normal(1, 9, 7)
    image = ScaleToDisplayRange()(values)
    assert not isinstance(image, MetaTensor)
    assert torch.equal(image, ScaleToDisplayRange()(MetaTensor(values)).as_tensor())


@pytest.mark.parametrize(
    "window",
    [(80, 0), (5, 5), (0, 80, 160), (80,), 80, (0, float("nan")), (0, float("inf")), (-float("inf"), 80), ("a", "b")],
)
@pytest.mark.parametrize("twin", [ScaleToDisplayRange, lambda window: ScaleToDisplayRanged("a", window)])
def test_window_out_of_order(twin, window):
    with pytest.raises(ValueError, match="window is"):
        twin(window)


@pytest.mark.parametrize("percentiles", [(99, 1), (-1, 50), (50, 101), (50, 50)])
def test_percentiles_out_of_order(percentiles):
    with pytest.raises(ValueError, match="percentiles must be"):
        ScaleToDisplayRange(percentiles=percentiles)


def test_constant_image():
    with refused(Reason.EMPTY):
        ScaleToDisplayRange()(torch.full((1, 4, 5), 7.0))
    assert (ScaleToDisplayRange(window=(0, 14))(torch.full((1, 4, 5), 7.0)) == 0.5).all()


def head(level=100.0, fluid=20.0):
    """A noisy head in air, a slice of it, with fluid inside; and where it is."""
    y, x = np.mgrid[:80, :90]
    inside = ((y - 40) / 30) ** 2 + ((x - 45) / 34) ** 2 < 1
    ventricle = ((y - 40) / 8) ** 2 + ((x - 45) / 6) ** 2 < 1
    values = np.where(inside, level, 0) + np.where(ventricle, fluid - level, 0)
    return values + np.abs(np.random.default_rng(0).normal(0, 3, values.shape)), inside


@pytest.mark.parametrize(
    ("name", "width", "level"),
    [("brain", 80, 40), ("subdural", 200, 75), ("bone", 1800, 400), ("soft_tissue", 400, 40)],
)
@pytest.mark.parametrize("meta", [{"units": "HU"}, {"modality": "CT"}, {}])
def test_ct_windows(name, width, level, meta):
    wanted = [level - width / 2, level + width / 2]
    image = ScaleToDisplayRange(name)(measured([[[-3000, wanted[0], level, wanted[1], 9000]]], **meta))
    assert image.flatten().tolist() == [0, 0, 0.5, 1, 1]
    assert image.meta["display_range"] == wanted
    assert image.meta["display"] == {"window": name, "range": wanted, "units": meta.get("units", "stored")}


@pytest.mark.parametrize("meta", [{"units": "HU", "modality": "CT"}, {"units": "HU"}, {"modality": "CT"}])
def test_ct_is_shown_in_the_brain_window(meta):
    image = ScaleToDisplayRange()(measured([[[-1000, 20, 80]]], **meta))
    assert image.flatten().tolist() == [0, 0.25, 1]
    assert image.meta["display"]["window"] == "brain"


@pytest.mark.parametrize("meta", [{"modality": "MR"}, {"units": "SUV"}, {"modality": "PT"}, {"white": 255}])
def test_ct_windows_are_for_ct(meta):
    with refused(Reason.UNITS, "a.nii", "window 'bone'"):
        ScaleToDisplayRange("bone")(measured([[[1, 2, 3]]], filename_or_obj="a.nii", **meta))


def test_window_of_the_header():
    image = ScaleToDisplayRange("header")(measured([[[0, 50, 100]]], modality="MR", window=(0, 200)))
    assert image.flatten().tolist() == [0, 0.25, 0.5]
    assert image.meta["display"] == {"window": "header", "range": [0, 200], "units": "stored"}
    with refused(Reason.INCOMPLETE, "a.nii", "window"):
        ScaleToDisplayRange("header")(measured([[[0, 1]]], filename_or_obj="a.nii"))


@pytest.mark.parametrize("window", [None, "percentiles"])
def test_mr_by_percentiles_inside_the_head(window):
    """Noise in air is above the lowest value, too, and would decide the lower percentile."""
    values, inside = head()
    image = ScaleToDisplayRange(window)(measured(values[None], modality="MR"))
    low, high = image.meta["display_range"]
    assert (low, high) == pytest.approx(np.percentile(values[inside], (0.5, 99.5)), abs=2)
    assert image.meta["display"]["window"] == "percentiles"
    plain = ScaleToDisplayRange()(measured(values[None]))
    assert plain.meta["display_range"][0] < 1


@pytest.mark.parametrize("meta", [{"units": "SUV"}, {"units": "Bq/ml"}, {"modality": "PT"}, {"modality": "NM"}])
def test_uptake_from_zero_to_the_hottest_inside_the_head(meta):
    values, inside = head(level=8.0, fluid=1.0)
    values = values / 10
    values[30, 30] = 3  # a small lesion is not to be lost in white
    image = ScaleToDisplayRange()(measured(values[None], **meta))
    assert (image == 1).sum() <= 2
    low, high = image.meta["display_range"]
    assert low == 0
    assert high == pytest.approx(values[inside].max(), abs=0.05)
    display = {**image.meta["display"]}
    assert display.pop("shows", "unknown").startswith("unknown")
    assert display == {"window": "uptake", "range": [0, high], "units": meta.get("units", "stored")}


def test_an_image_without_a_patient_falls_back():
    values = measured(torch.arange(64).reshape(1, 8, 8) - 10_000, modality="CT")
    low, high = ScaleToDisplayRange("percentiles")(values).meta["display_range"]
    assert -10_000 <= low < high <= -9_936


@pytest.mark.parametrize("meta", [{"modality": "MR"}, {"units": "SUV"}, {"units": "HU"}, {"white": 200}, {}])
def test_the_recorded_range_gives_the_same_image_again(meta):
    values, _ = head()
    image = ScaleToDisplayRange()(measured(values[None], **meta))
    display = json.loads(json.dumps(image.meta["display"]))
    again = ScaleToDisplayRange(display["range"])(measured(values[None], **meta))
    assert torch.equal(again, image)
    assert again.meta["display"]["window"] == "given"


def test_unknown_name():
    with pytest.raises(ValueError, match="window is 'liver'"):
        ScaleToDisplayRanged("a", "liver")


def test_dictionary_twin_agrees():
    anatomy, overlay = measured(100 + normal(1, 9, 7)), measured(normal(1, 9, 7, seed=1))
    data = {"anatomy": anatomy, "overlay": overlay, "name": "a"}
    scaled = ScaleToDisplayRanged(["anatomy", "overlay"], percentiles=(2, 98))(data)
    for key in ("anatomy", "overlay"):
        expected = ScaleToDisplayRange(percentiles=(2, 98))(data[key])
        assert torch.equal(scaled[key], expected)
        assert scaled[key].meta["display_range"] == expected.meta["display_range"]
    assert scaled["name"] == "a"
    assert data["anatomy"] is anatomy
    windowed = ScaleToDisplayRanged("anatomy", window=(90, 110))(data)
    assert torch.equal(windowed["anatomy"], ScaleToDisplayRange((90, 110))(anatomy))
    assert windowed["overlay"] is overlay


def test_missing_keys():
    with pytest.raises(KeyError):
        ScaleToDisplayRanged("absent")({})
    assert ScaleToDisplayRanged("absent", allow_missing_keys=True)({"name": "a"}) == {"name": "a"}


def of_body(shape, **meta):
    affine = torch.diag(torch.tensor([5.0, 5, 5, 1], dtype=torch.float64))
    return MetaTensor(normal(1, *shape).abs(), affine=affine, meta=meta)


def test_ct_of_a_body_is_shown_in_the_soft_tissue_window():
    image = ScaleToDisplayRange()(of_body((8, 8, 70), units="HU"))
    assert image.meta["display"] == {
        "window": "soft_tissue",
        "range": [-160, 240],
        "units": "HU",
        "shows": "body: 345 mm from feet to head",
    }
    assert ScaleToDisplayRange("brain")(of_body((8, 8, 70), units="HU")).meta["display_range"] == [0, 80]


@pytest.mark.parametrize(("units", "white"), [("SUV", 7), ("SUVlbm", 5), ("SUVibw", 7)])
def test_bladder_does_not_set_the_range_of_a_body(units, white):
    pet = of_body((8, 8, 70), units=units, modality="PT")
    pet[0, 4, 4, 10] = 44
    image = ScaleToDisplayRange()(pet)
    assert (image.meta["display"]["window"], image.meta["display_range"]) == ("body_uptake", [0, white])
    torch.testing.assert_close(image.as_tensor(), (pet.as_tensor() / white).clamp(0, 1))
    assert ScaleToDisplayRange((0, 10))(pet).meta["display"] == {"window": "given", "range": [0, 10], "units": units}


@pytest.mark.parametrize("units", ["Bq/ml", "counts", "SUVbsa"])
def test_uptake_in_units_without_a_usual_range_is_shown_as_before(units):
    image = ScaleToDisplayRange()(of_body((8, 8, 70), units=units, modality="PT"))
    assert image.meta["display"]["window"] == "uptake"


@pytest.mark.parametrize("part", ["HEAD", None])
@pytest.mark.parametrize("units", ["HU", "SUV"])
def test_head_or_unknown_is_shown_as_a_head(part, units):
    known = {} if part is None else {"body_part": part}
    image = ScaleToDisplayRange()(of_body((8, 8, 30), units=units, **known))
    rule = {"HU": "brain", "SUV": "uptake"}[units]
    assert image.meta["display"]["window"] == rule
    assert image.meta["display"]["shows"].startswith("unknown: " if part is None else "head: ")

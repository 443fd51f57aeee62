"""An overlay that ends inside the anatomy ends there without a seam, and no lesion goes with it."""

import pytest
import torch
from monai.data import MetaTensor

from fusion_nets.registration import NEAR_BORDER, field_of_view
from fusion_nets.transforms import CommonGrid, CommonGridd, FadeAtBorder, FadeAtBorderd, MergeChroma, PairUpd
from fusion_nets.workflows import SlicewiseInferer

AFFINE = torch.eye(4, dtype=torch.float64)
ENDS = 32


@pytest.fixture
def anatomy():
    """A head of .4 with stripes, in air."""
    values = torch.zeros(1, 64, 64, 12)
    values[:, 8:56, 8:56] = 0.4
    values[:, 8:56, 8:56:4] = 0.5
    return MetaTensor(values, affine=AFFINE)


@pytest.fixture
def overlay():
    """Brighter, of the first rows alone."""
    values = torch.zeros(1, ENDS, 64, 12)
    values[:, 8:, 8:56] = 0.8
    return MetaTensor(values, affine=AFFINE, meta={"modality": "PT"})


def on_grid(overlay, anatomy):
    return CommonGrid()(overlay, anatomy)


def steps(image):
    return (image[0, ENDS] - image[0, ENDS - 1])[12:52].abs()


def test_the_step_at_the_border_goes(anatomy, overlay):
    moved = on_grid(overlay, anatomy)
    faded = FadeAtBorder()(moved, anatomy, moved.meta["field_of_view"])
    assert steps(moved).mean() > 0.7
    assert steps(faded).mean() < 0.08  # its level is the anatomy's, its stripes are not
    assert torch.equal(faded[0, ENDS:], anatomy.as_tensor()[0, ENDS:])
    assert torch.equal(faded[0, : ENDS - int(NEAR_BORDER) - 4], moved.as_tensor()[0, : ENDS - int(NEAR_BORDER) - 4])
    assert (faded[0, :ENDS, :6] == 0).all()  # no halo in air


@pytest.mark.parametrize("contrast", [0.15, -0.15])
@pytest.mark.parametrize("row", [ENDS - 4, ENDS - 8, ENDS - 14])
def test_a_lesion_at_the_border_is_kept(anatomy, overlay, contrast, row):
    rows, columns = torch.meshgrid(torch.arange(ENDS), torch.arange(64), indexing="ij")
    lesion = contrast * (((rows - row) ** 2 + (columns - 30) ** 2) <= 9).float()
    with_lesion = MetaTensor(overlay.as_tensor() + lesion[None, ..., None], meta=overlay.meta)
    faded = [
        FadeAtBorder()(moved, anatomy, moved.meta["field_of_view"]).as_tensor()[0, row, 30, 6]
        for moved in (on_grid(one, anatomy) for one in (overlay, with_lesion))
    ]
    assert ((faded[1] - faded[0]) / contrast).item() > 0.75


def test_the_fused_image_is_the_anatomy_beyond(anatomy, overlay):
    data = CommonGridd("overlay")({"anatomy": anatomy, "overlay": overlay})
    data = FadeAtBorderd("overlay")(PairUpd()(data))
    assert "field_of_view" not in data["overlay"].meta
    fused = SlicewiseInferer(4)(
        data["image"][None], lambda image: image.amax(1, keepdim=True) * 0.9, coverage=data["coverage"][None]
    )
    beyond = ENDS + int(NEAR_BORDER) + 4
    assert torch.equal(fused[0, 0, beyond:].as_tensor(), anatomy.as_tensor()[0, beyond:])
    within = data["image"].amax(0)[:ENDS] * 0.9
    assert torch.equal(fused[0, 0, :ENDS].as_tensor(), within.as_tensor())


def test_colour_goes_with_the_overlay(anatomy, overlay):
    data = CommonGridd("overlay")({"anatomy": anatomy, "overlay": overlay})
    data["overlay_chroma"] = torch.full((3, 64, 64, 12), 0.2)
    data = FadeAtBorderd("overlay")(PairUpd()(data))
    assert (data["overlay_chroma"][:, ENDS - 1, 30].abs() < 0.1 * 0.2).all()
    assert (data["overlay"][0, ENDS - 1, 30] < 0.1 * 0.8).all()
    assert (data["overlay_chroma"][:, ENDS:] == 0).all()
    assert torch.equal(data["overlay_chroma"][:, 10], torch.full((3, 64, 12), 0.2))


def test_a_strong_colour_goes_evenly(anatomy, overlay):
    """On bright tissue as on dark, although there most of it has no room."""
    data = CommonGridd("overlay")({"anatomy": anatomy + 0.45, "overlay": overlay})
    data["overlay_chroma"] = torch.tensor([0.7, -0.3, -0.3]).reshape(3, 1, 1, 1).expand(3, 64, 64, 12).clone()
    data = FadeAtBorderd("overlay")(PairUpd()(data))
    fused = MergeChroma()(data["image"].amax(0, keepdim=True), data["overlay_chroma"])
    seen = (fused[0] - fused[2])[12:ENDS, 30, 6]  # from where all is seen down to none
    assert seen[0] > 0.1
    assert seen[-1] < 0.1 * seen[0]
    assert -seen.diff().min() < 0.35 * seen[0]


def test_of_two_overlays_the_network_has_what_either_covers(anatomy, overlay):
    second = MetaTensor(torch.full((1, 64, 64, 12), 0.5), affine=AFFINE)
    for other, has_coverage in ((second, False), (overlay, True)):
        data = CommonGridd(["overlay", "overlay2"])({"anatomy": anatomy, "overlay": overlay, "overlay2": other})
        data = FadeAtBorderd(["overlay", "overlay2"])(PairUpd(["anatomy", "overlay", "overlay2"])(data))
        assert ("coverage" in data) == has_coverage
        assert steps(data["image"][1:2].as_tensor()).mean() < 0.08


def test_what_covers_the_anatomy_stays_as_it_is(anatomy):
    whole = MetaTensor(torch.rand(1, 32, 32, 12), affine=torch.diag(torch.tensor([2.0, 2, 1, 1])).double())
    data = PairUpd()(CommonGridd("overlay")({"anatomy": anatomy, "overlay": whole}))
    before = data["image"].clone()
    assert torch.equal(FadeAtBorderd("overlay")(data)["image"], before)
    assert FadeAtBorder()(before, anatomy, None) is before


def test_slab_by_slab_it_is_the_same(anatomy, overlay, monkeypatch):
    moved = on_grid(overlay, anatomy)
    view = field_of_view(overlay, anatomy)
    whole = FadeAtBorder()(moved, anatomy, view)
    monkeypatch.setattr("fusion_nets.slabs.LARGE", 1)
    monkeypatch.setattr("fusion_nets.slabs.SLAB", 64 * 64 * 5)
    assert torch.equal(FadeAtBorder()(moved, anatomy, view), whole)


def test_it_is_said_how_much_lies_beyond(anatomy, overlay, caplog):
    moved = on_grid(overlay, anatomy)
    assert moved.meta["covers"] == pytest.approx(0.5, abs=0.05)
    assert "of what the anatomy shows lie beyond its field of view" in caplog.text

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from fusion_nets import slabs
from fusion_nets.drawing import write_projections

SHAPE = (30, 24, 60)


def body(axes="RAS", spots=()):
    """Voxels of 5 mm, uptake 0.2 in a box and more at single places, whatever the order of the axes."""
    values = np.zeros(SHAPE, dtype=np.float32)
    values[4:-4, 4:-4, 2:-2] = 0.2
    for place, uptake in spots:
        values[place] = uptake
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(tuple(axes))
    )
    affine = np.diag([5.0, 5, 5, 1]) @ nib.orientations.inv_ornt_aff(turn, SHAPE)
    turned = np.ascontiguousarray(nib.orientations.apply_orientation(values, turn))
    return MetaTensor(torch.from_numpy(turned)[None], meta={"affine": torch.from_numpy(affine)})


def drawn(path, *args, **kwargs):
    return np.asarray(Image.open(write_projections(path, *args, **kwargs))).astype(int)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAR", "PIR"])
def test_greatest_uptake_along_every_line_black_on_white(tmp_path, axes):
    """A spot high up on the patient's right and in front: on the left of the coronal, and of the sagittal picture."""
    picture = drawn(tmp_path / "a.png", body(axes, [((24, 18, 50), 1.0)]))
    rows, columns = np.nonzero(picture[:, 20 : 360 - 20] < 60)
    inside = (rows > 20) & (rows < 660)  # letters and scale lie at the edges
    assert rows[inside].mean() == pytest.approx(720 * (1 - 50.5 / 60), abs=3)
    assert columns[inside].mean() + 20 == pytest.approx(360 * (1 - 24.5 / 30), abs=3)
    sagittal = picture[:700, 384:]
    rows, columns = np.nonzero(sagittal < 60)
    inside = (rows > 20) & (rows < 660) & (columns > 20) & (columns < 270)
    assert columns[inside].mean() == pytest.approx(288 * (1 - 18.5 / 24), abs=3)


def test_window(tmp_path):
    picture = drawn(tmp_path / "a.png", body(), window=(0, 0.4))
    assert picture[300, 180] == pytest.approx(255 / 2, abs=2)
    assert picture[300, 40] == 255


def test_slab_by_slab_is_the_same(tmp_path, monkeypatch):
    image = body("PIR", [((20, 10, 30), 1.0)])
    whole = write_projections(tmp_path / "a.png", image).read_bytes()
    monkeypatch.setattr(slabs, "LARGE", 1000)
    monkeypatch.setattr(slabs, "SLAB", 4000)
    assert write_projections(tmp_path / "b.png", image).read_bytes() == whole


def test_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a\.jpg"):
        write_projections(tmp_path / "a.jpg", body())
    with pytest.raises(ValueError, match="no projections"):
        write_projections(tmp_path / "a.png", body()[..., 0])
    with pytest.raises(ValueError, match="window of the projections"):
        write_projections(tmp_path / "a.png", body(), window=(1, 0))
    assert not list(tmp_path.iterdir())

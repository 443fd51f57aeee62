import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from nibabel.orientations import apply_orientation, axcodes2ornt, ornt_transform
from PIL import Image
from refusals import refused

from fusion_nets.clinical import Reason
from fusion_nets.drawing import checkerboard, write_checkerboard
from fusion_nets.drawing.checkerboard import _box
from fusion_nets.registration import foreground

SIZE = (40, 48, 32)


def head(affine, bright=None, shape=SIZE):
    """An ellipsoid on voxels of 4 mm in the world, brighter at one point."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    x = nib.affines.apply_affine(affine, index)
    values = 100.0 * (np.linalg.norm(x / [60, 75, 50], axis=-1) < 1)
    if bright is not None:
        values[np.linalg.norm(x - bright, axis=-1) < 18] = 300
    return MetaTensor(torch.tensor(values[None], dtype=torch.float32), meta={"affine": torch.from_numpy(affine)})


def centred(*axes):
    """Voxels of 4 mm that run along the given axes, such as "LPS"."""
    turn = nib.orientations.inv_ornt_aff(
        nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(axes)),
        SIZE,
    )
    shape = [SIZE["RAS".index({"L": "R", "P": "A", "I": "S"}.get(axis, axis))] for axis in axes]
    base = nib.affines.from_matvec(np.diag([4.0] * 3), -4 * (np.array(SIZE) - 1) / 2)
    return base @ turn, shape


def red_and_blue(path):
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return picture[..., 0], picture[..., 2]


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAR", "PIR", "IRA"])
def test_the_same_picture_whatever_the_order_of_the_voxels(tmp_path, axes):
    (affine, shape), (plain, _) = centred(*axes), centred("R", "A", "S")
    spot = (30, 40, 15)
    image, other = (head(place, spot, size) for place, size in ((affine, shape), (plain, SIZE)))
    write_checkerboard(tmp_path / "a.png", image, image)
    write_checkerboard(tmp_path / "b.png", other, other)
    found, wanted = (np.asarray(Image.open(tmp_path / name)).astype(int) for name in ("a.png", "b.png"))
    assert found.shape == wanted.shape
    assert (np.abs(found - wanted) > 40).mean() < 0.01


def test_radiological_display(tmp_path):
    """Patient's right on the left, front on top; seen from the side, front on the left."""
    affine, _ = centred("R", "A", "S")
    for spot, place in (((35, 0, 0), "left"), ((-35, 0, 0), "right"), ((0, 50, 0), "top"), ((0, -50, 0), "bottom")):
        image = head(affine, spot)
        write_checkerboard(tmp_path / "a.png", image, image)
        red, _ = red_and_blue(tmp_path / "a.png")
        axial = red[:, : round(480 * 140 / 170)]
        rows, columns = np.nonzero(axial > 220)
        middle = {"left": columns, "right": columns, "top": rows, "bottom": rows}[place].mean()
        half = axial.shape[1 if place in ("left", "right") else 0] / 2
        assert (middle < half) == (place in ("left", "top")), place


def test_fields_of_both_in_turn(tmp_path):
    affine, _ = centred("R", "A", "S")
    anatomy, overlay = head(affine), head(affine, (0, 0, 0))
    path = write_checkerboard(tmp_path / "out" / "a.png", anatomy, overlay)
    red, blue = red_and_blue(path)
    grey = (red == blue) & (red > 50)
    tinted = red > blue + 20
    assert 0.4 < grey.sum() / (grey | tinted).sum() < 0.6
    field = 60
    rows, columns = np.nonzero(tinted[:, :300])
    first = (rows // field + columns // field) % 2
    assert min(first.mean(), 1 - first.mean()) < 0.1
    again = write_checkerboard(tmp_path / "b.png", anatomy, overlay)
    assert again.read_bytes() == path.read_bytes()


def test_a_slice_has_one_plane(tmp_path):
    affine, _ = centred("R", "A", "S")
    volume = head(affine)
    whole = write_checkerboard(tmp_path / "a.png", volume, volume)
    single = MetaTensor(volume.as_tensor()[..., 16], meta=volume.meta)
    one = write_checkerboard(tmp_path / "b.png", single, single)
    assert Image.open(one).width < 0.5 * Image.open(whole).width


def test_refused(tmp_path):
    affine, _ = centred("R", "A", "S")
    image = head(affine)
    with pytest.raises(ValueError, match=r"a\.jpg"):
        write_checkerboard(tmp_path / "a.jpg", image, image)
    with pytest.raises(ValueError, match="3 channels"):
        write_checkerboard(tmp_path / "a.png", image, MetaTensor(image.as_tensor().repeat(3, 1, 1, 1), meta=image.meta))
    with refused(Reason.GRID):
        write_checkerboard(tmp_path / "a.png", image, head(affine @ np.diag([1.1, 1, 1, 1])))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("axes", ["LAS", "RPI", "SAL", "PIR", "IRA"])
def test_the_patient_is_found_among_some_voxels_of_a_volume_in_whatever_order(axes):
    shape, turn = (200, 100, 80), ornt_transform(axcodes2ornt(axes), axcodes2ornt("LAS"))
    whole = np.zeros(shape, bool)
    whole[50:100, 30:70, 12:27] = True
    turned = apply_orientation(whole, turn)
    fine, coarse = np.diag([1.0, 1, 1.5, 1]), np.diag([2.0, 2, 1.5, 1])
    box, middle = _box(whole[::2, ::2], coarse, fine, turn, turned.shape)
    held = np.argwhere(turned)
    assert np.abs(middle - held.mean(0)).max() <= 1
    for part, low, high, edge, n in zip(
        box,
        held.min(0),
        held.max(0),
        [np.diag(fine)[np.argwhere(turn[:, 0] == into)[0, 0]] for into in range(3)],
        turned.shape,
        strict=True,
    ):
        assert abs(part.start - max(low - 10 / edge, 0)) <= 1
        assert abs(part.stop - min(high + 1 + 10 / edge, n)) <= 2


def test_all_of_a_volume_in_which_nothing_is_seen():
    turn = ornt_transform(axcodes2ornt("SAL"), axcodes2ornt("LAS"))
    box, middle = _box(np.zeros((4, 5, 6), bool), np.eye(4), np.eye(4), turn, (6, 5, 4))
    assert box == (slice(0, 6), slice(0, 5), slice(0, 4))
    assert middle.tolist() == [3, 2, 2]


def test_a_long_study_is_looked_at_where_it_is_enough(tmp_path, monkeypatch):
    """Its foreground, of every voxel, took longer than its resampling."""
    seen = []

    def looked_at(image):
        seen.append(tuple(image.shape))
        return foreground(image)

    monkeypatch.setattr(checkerboard, "foreground", looked_at)
    image = head(np.diag([0.5, 1, 2, 1]), shape=(80, 48, 32))
    write_checkerboard(tmp_path / "a.png", image, image)
    assert seen == [(1, 20, 24, 32)]

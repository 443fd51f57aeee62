import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from nibabel import orientations
from PIL import Image

from fusion_nets.drawing import montage, write_montage

pytest.importorskip("matplotlib")

BODY, MARKER, ALONE = (0, 255, 0), (255, 0, 0), (0, 0, 255)


def phantom(orientation="RAS", shape=(40, 44, 12), spacing=(1.0, 1.0, 1.0)):
    """A green box in air; in it a red marker at patient right and front, a blue one at the front of the top slices."""
    volume = np.zeros((*shape, 3), dtype=np.uint8)
    x, y, z = shape
    volume[x // 8 : -(x // 8), y // 8 : -(y // 8), 1:-1] = BODY
    volume[x // 2 + x // 5 : -(x // 8), -(y // 4) : -(y // 8), 1:-1] = MARKER
    volume[x // 2 - 1 : x // 2 + 1, -(y // 4) : -(y // 8), z // 2 : -1] = ALONE
    turn = orientations.ornt_transform(orientations.axcodes2ornt("RAS"), orientations.axcodes2ornt(tuple(orientation)))
    affine = nib.affines.from_matvec(np.diag(spacing), (-20, -22, 7)) @ orientations.inv_ornt_aff(turn, shape)
    return orientations.apply_orientation(volume, turn), affine


def grey(volume):
    return volume.max(axis=-1).astype(np.float32)[None] / 255


def draw(path, fused, affine, **arguments):
    """The fused row as pixels, from a montage whose other rows are grey."""
    source = (grey(fused), affine)
    write_montage(path, source, source, (np.moveaxis(fused, -1, 0), affine), **arguments)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def pixels(picture, *colours):
    """Rows and columns of the pixels of these colours."""
    return np.argwhere(np.any([(picture == colour).all(axis=-1) for colour in colours], axis=0))


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "LAS", "PIR", "SRA", "AIL"])
def test_right_is_left_and_front_is_up(tmp_path, orientation):
    picture = draw(tmp_path / "montage.png", *phantom(orientation), slices=1)
    box, marker = pixels(picture, BODY, MARKER, ALONE), pixels(picture, MARKER)
    assert len(marker) > 100
    top, left = box.min(axis=0)
    assert abs(marker[:, 0].min() - top) <= 1
    assert abs(marker[:, 1].min() - left) <= 1
    assert (marker.max(axis=0) < box.mean(axis=0)).all()


@pytest.mark.parametrize("orientation", ["RAS", "SRA", "LPI"])
def test_slices_rise_from_left_to_right(tmp_path, orientation):
    picture = draw(tmp_path / "montage.png", *phantom(orientation), slices=2)
    only_above = pixels(picture, ALONE)
    assert len(only_above) > 10
    assert only_above[:, 1].min() > picture.shape[1] / 2
    assert pixels(picture, MARKER)[:, 1].min() < picture.shape[1] / 2


def test_rows_are_in_order(tmp_path):
    fused, affine = phantom()
    path = write_montage(
        tmp_path / "montage.png",
        *(
            (np.moveaxis((fused > 0).any(-1, keepdims=True) * np.array(c, "uint8"), -1, 0), affine)
            for c in (MARKER, BODY, ALONE)
        ),
    )
    picture = np.asarray(Image.open(path).convert("RGB"))
    first, second, third = (pixels(picture, colour)[:, 0] for colour in (MARKER, BODY, ALONE))
    assert first.max() < second.min()
    assert second.max() < third.min()


def test_voxels_keep_their_proportions(tmp_path):
    picture = draw(tmp_path / "montage.png", *phantom(shape=(80, 20, 12), spacing=(1.0, 3.0, 5.0)), slices=1)
    height, width = np.ptp(pixels(picture, BODY, MARKER, ALONE), axis=0) + 1
    np.testing.assert_allclose(height / width, (20 - 2 * 2) * 3 / (80 - 2 * 10), rtol=0.03)


def test_overlay_on_another_grid_is_brought_onto_the_anatomys(tmp_path):
    fused, affine = phantom()
    finer, finer_affine = phantom("LPS")
    finer = finer.repeat(2, axis=0)
    finer_affine = finer_affine @ nib.affines.from_matvec(np.diag([0.5, 1, 1]), (-0.25, 0, 0))
    source = (grey(fused), affine)
    same, moved = (
        np.asarray(Image.open(write_montage(tmp_path / f"{n}.png", source, overlay, source)).convert("L"), dtype=float)
        for n, overlay in enumerate((source, (grey(finer), finer_affine)))
    )
    assert (np.abs(same - moved) > 100).mean() < 0.01
    shifted = finer_affine.copy()
    shifted[0, 3] += 10
    path = write_montage(tmp_path / "shifted.png", source, (grey(finer), shifted), source)
    assert (np.abs(same - np.asarray(Image.open(path).convert("L"), dtype=float)) > 100).mean() > 0.02


def test_every_kind_of_image_gives_the_same_picture(tmp_path):
    fused, affine = phantom()
    rgb24 = np.zeros(fused.shape[:3], dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    for channel, name in enumerate("RGB"):
        rgb24[name] = fused[..., channel]
    first = np.moveaxis(fused, -1, 0)
    kinds = [
        (first, affine),
        MetaTensor(torch.from_numpy(first.copy()), affine=torch.from_numpy(affine)),
        MetaTensor(torch.from_numpy(first / np.float32(255)), affine=torch.from_numpy(affine)),
        MetaTensor(torch.from_numpy(first.astype(np.float32)), affine=torch.from_numpy(affine)),
        nib.Nifti1Image(fused, affine),
        nib.Nifti1Image(fused[:, :, :, None], affine),
        nib.Nifti1Image(rgb24, affine),
    ]
    written = [
        write_montage(tmp_path / f"{n}.png", kind, kind, kind, dpi=50).read_bytes() for n, kind in enumerate(kinds)
    ]
    assert len(set(written)) == 1


def test_grey_kinds_give_the_same_picture(tmp_path):
    fused, affine = phantom()
    image = grey(fused)
    kinds = [
        (image, affine),
        MetaTensor(torch.from_numpy(image), affine=torch.from_numpy(affine)),
        MetaTensor(torch.from_numpy(image).bfloat16(), affine=torch.from_numpy(affine)),
        nib.Nifti1Image(image[0], affine),
        (image * 700 - 100, affine),  # any other range is stretched
    ]
    how = {"dpi": 50, "window_words": [None] * 3}
    written = [
        write_montage(tmp_path / f"{n}.png", kind, kind, kind, **how).read_bytes() for n, kind in enumerate(kinds)
    ]
    assert len(set(written)) == 1


@pytest.mark.parametrize("form", ["colour", "grey"])
def test_picture_is_shown_as_it_is(tmp_path, form):
    image = np.empty((3, 30, 50), dtype=np.uint8)
    image[:] = np.array(BODY)[:, None, None]
    image[:, 2:6, 3:10] = np.array(MARKER)[:, None, None]
    anatomy = image // 2 if form == "colour" else image.max(axis=0) // 2
    path = write_montage(tmp_path / "montage.png", anatomy, anatomy, image)
    picture = np.asarray(Image.open(path).convert("RGB"))
    marker, whole = pixels(picture, MARKER), pixels(picture, MARKER, BODY)
    size = np.ptp(whole, axis=0) + 1
    np.testing.assert_allclose(size[1] / size[0], 50 / 30, rtol=0.03)
    np.testing.assert_allclose((marker.min(axis=0) - whole.min(axis=0)) / size, (2 / 30, 3 / 50), atol=0.02)
    np.testing.assert_allclose((marker.max(axis=0) - whole.min(axis=0)) / size, (6 / 30, 10 / 50), atol=0.02)


def test_window_sets_black_and_white(tmp_path):
    image = np.zeros((1, 30, 30), dtype=np.int16)
    image[:, :, 10:20], image[:, :, 20:] = 40, 80
    path = write_montage(tmp_path / "montage.png", image, image, image, windows=(None, None, (20, 60)))
    row = np.asarray(Image.open(path).convert("L"))
    row = row[int(len(row) * 0.8)]
    assert np.isin([0, 128, 255], np.unique(row)).all()


def test_overlay_takes_a_colour_map(tmp_path):
    fused, affine = phantom()
    path = write_montage(tmp_path / "montage.png", *((grey(fused), affine),) * 3, overlay_cmap="hot")
    grey_path = write_montage(tmp_path / "grey.png", *((grey(fused) * 0.4, affine),) * 3)
    hot_path = write_montage(tmp_path / "hot.png", *((grey(fused) * 0.4, affine),) * 3, overlay_cmap="hot")
    coloured = [
        np.ptp(np.asarray(Image.open(p).convert("RGB")).astype(int), axis=-1).max() for p in (grey_path, hot_path)
    ]
    assert path.is_file()
    assert coloured[0] == 0
    assert coloured[1] > 100


def test_slices_divide_the_content_evenly():
    shown = np.zeros((10, 10, 50), dtype=bool)
    shown[2:8, 2:8, 10:30] = True
    shown[5, 5, 30:40] = True  # a tip that shows next to nothing
    shown = shown.sum(axis=(0, 1))
    assert montage._slices_with_content(shown, 4) == [12, 17, 22, 27]
    assert montage._slices_with_content(shown[..., 10:12], 5) == [0, 1]
    assert montage._slices_with_content(np.zeros(3, dtype=int), 3) == [0, 1, 2]


def test_empty_image_is_drawn(tmp_path):
    empty = (np.zeros((1, 8, 8, 3), dtype=np.float32), np.eye(4))
    assert write_montage(tmp_path / "montage.png", empty, empty, empty).is_file()


VOLUME = (np.ones((1, 8, 8, 4), dtype=np.float32), np.eye(4))


@pytest.mark.parametrize(
    ("anatomy", "overlay", "arguments", "message"),
    [
        (VOLUME, np.ones((1, 8, 8, 5)), {}, "Overlay has 8 x 8 x 5"),
        (np.ones((8, 8)), np.ones((8, 9)), {}, "Overlay has 8 x 9 x 1"),
        (VOLUME, np.ones((2, 8, 8, 4)), {}, r"Overlay has shape \(2, 8, 8, 4\)"),
        (nib.Nifti1Image(np.ones((8, 8, 4, 2), "f4"), np.eye(4)), VOLUME, {}, r"Anatomy has shape \(8, 8, 4, 2\)"),
        (VOLUME, (np.full((1, 8, 8, 4), np.nan), np.eye(4)), {}, "Overlay holds NaN"),
        (VOLUME, VOLUME, {"slices": 0}, "slices is 0"),
        (VOLUME, VOLUME, {"names": ("a", "b")}, "names"),
        (VOLUME, VOLUME, {"windows": (None, (80, 0), None)}, r"window of Overlay is \(80, 0\)"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, anatomy, overlay, arguments, message):
    with pytest.raises(ValueError, match=message):
        write_montage(tmp_path / "montage.png", anatomy, overlay, anatomy, **arguments)
    assert not any(tmp_path.iterdir())


def test_only_png_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"montage\.jpg"):
        write_montage(tmp_path / "montage.jpg", VOLUME, VOLUME, VOLUME)


def test_no_global_plotting_state(tmp_path):
    import matplotlib.pyplot as plt

    mine = plt.figure()
    write_montage(tmp_path / "montage.png", *[np.eye(8)] * 3)
    assert plt.get_fignums() == [mine.number]
    plt.close(mine)


def test_several_fused_images(tmp_path):
    """A row for each fused image, in their order."""
    volume, affine = phantom()
    source, fused = (grey(volume), affine), (np.moveaxis(volume, -1, 0), affine)
    top = {}
    for row in (2, 3):
        images = [fused if row == number else source for number in (2, 3)]
        write_montage(tmp_path / "montage.png", source, source, images, names=list("ABCD"), slices=2)
        picture = np.asarray(Image.open(tmp_path / "montage.png").convert("RGB"))
        top[row] = pixels(picture, BODY, MARKER, ALONE)[:, 0].min() / picture.shape[0]
    assert 0.4 < top[2] < 0.6
    assert 0.65 < top[3] < 0.85


@pytest.mark.parametrize("text", ["$x_{$", "$\\alpha$", "\\frac", "\ud800", "a\nb", "\x1b[0m", "%s{0}"])
def test_words_are_no_formulas(tmp_path, text):
    """Whatever a title or a text on an image holds."""
    volume, affine = phantom()
    draw(
        tmp_path / "a.png", volume, affine, slices=1, names=[text] * 3, notes=[text, f"A text with {text}."], title=text
    )


def test_notes_are_written_below(tmp_path):
    volume, affine = phantom()
    plain = draw(tmp_path / "plain.png", volume, affine, slices=2)
    noted = draw(tmp_path / "noted.png", volume, affine, slices=2, notes=["Anatomy: " + "a word " * 60, "Overlay."])
    assert noted.shape[0] > plain.shape[0] + 100
    assert noted.shape[1] == plain.shape[1]
    body = pixels(noted, BODY, MARKER, ALONE)
    assert len(body) == pytest.approx(len(pixels(plain, BODY, MARKER, ALONE)), rel=0.01)
    lines = (noted[body[:, 0].max() + 1 :] > 128).any(axis=(1, 2))
    assert lines.sum() > 60


def texts(figure):
    """All that is written on a figure."""
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """What a montage has written on it, and its axes."""
    figures = []
    draw_figure = montage._draw
    monkeypatch.setattr(montage, "_draw", lambda *a, **k: figures.append(draw_figure(*a, **k)) or figures[-1])

    def told(*images, **arguments):
        write_montage(tmp_path / "montage.png", *images, **arguments)
        return texts(figures[-1]), figures[-1]

    return told


@pytest.mark.parametrize(
    ("axis", "sides", "caption"), [(2, "RLAP", "z = +20 mm"), (1, "RLSI", "y = +20 mm"), (0, "APSI", "x = +20 mm")]
)
def test_every_plane_carries_its_sides_and_a_scale(drawn, axis, sides, caption):
    """A single slice stays in its plane: letters at its edges, 5 cm of a slice that is 120 mm wide."""
    shape = [60, 60, 60]
    shape[axis] = 1
    affine = nib.affines.from_matvec(np.diag([2.0, 2, 2]), [20 if a == axis else 0 for a in range(3)])
    image = (np.full((1, *shape), 0.5, dtype=np.float32), affine)
    words, figure = drawn(image, image, image)
    panel = figure.axes[0]
    placed = {text.get_text(): text.get_position() for text in panel.texts}
    left, right, top, bottom = (placed[side] for side in sides)
    assert left[0] < 0.1 < 0.9 < right[0]
    assert bottom[1] < 0.1 < 0.9 < top[1]
    assert words.count("2 cm") == 3  # the longest that fits, on each row
    (bar,) = panel.lines
    assert np.ptp(bar.get_xdata()) * 120 == pytest.approx(20)
    assert caption in words


def test_window_is_told_of_what_is_not_shown_as_it_is(drawn):
    volume, affine = phantom()
    ct = MetaTensor(
        torch.from_numpy(grey(volume)) * 900 - 100, meta={"affine": torch.from_numpy(affine), "units": "HU"}
    )
    source = (grey(volume), affine)
    words, _ = drawn(ct, source, source, windows=[(-160, 240), None, None])
    assert [word for word in words if " to " in word] == ["-160 to 240 HU"]
    words, _ = drawn(ct, source, source, window_words=["soft", None, "all"])
    assert {"soft", "all"} < set(words)


def test_picture_has_no_sides_and_no_scale(drawn):
    image = np.full((30, 30), 128, dtype=np.uint8)
    words, figure = drawn(image, image, image)
    assert not {"R", "L", "A", "P", "S", "I"} & set(words)
    assert not any(axes.lines for axes in figure.axes)


def test_several_overlays_have_rows_and_a_legend(drawn):
    volume, affine = phantom()
    source = (grey(volume), affine)
    legend = [("CT: grey", np.linspace(0, 1, 9)[:, None].repeat(3, 1)), ("PET: its own colours", None)]
    words, figure = drawn(
        source, [source, source], source, names=["MRI", "CT", "PET", "Fused"], windows=[(0, 1)] * 4, legend=legend
    )
    assert {"MRI, CT and PET, fused", "CT: grey", "PET: its own colours"} <= set(words)
    assert sum(axes.get_ylabel() != "" for axes in figure.axes) == 4
    (bar,) = [axes for axes in figure.axes if axes.images and axes.images[0].get_array().shape == (1, 9, 3)]
    np.testing.assert_allclose(bar.images[0].get_array()[0, :, 0], np.linspace(0, 1, 9))

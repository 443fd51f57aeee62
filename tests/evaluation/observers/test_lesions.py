import numpy as np
import pytest
from heads import head_pair
from scipy.ndimage import label

from evaluation.observers import (
    LESION_KINDS,
    LESION_MAKES,
    Lesion,
    LesionMake,
    draw_lesions,
    insert_lesions,
    lesion_cases,
    lesion_change,
    lesion_places,
)


@pytest.mark.parametrize("ct", [True, False])
def test_places_are_tissue_in_both_sources_and_apart(ct):
    anatomy, overlay = head_pair(1, ct)
    places = lesion_places(anatomy, overlay, np.random.default_rng(0), ct, most=9)
    assert len(places) > 2
    for i, (row, column) in enumerate(places):
        assert min(row, column) >= 24
        assert max(row, column) < anatomy.shape[0] - 24
        for source in (anatomy, overlay):
            assert 0.05 < source[row - 1 : row + 2, column - 1 : column + 2].mean() < 0.9
        assert all(np.hypot(row - r, column - c) > 34 for r, c in places[:i])
    assert lesion_places(anatomy, overlay, np.random.default_rng(0), ct, most=2) == places[:2]
    assert lesion_places(anatomy, overlay, np.random.default_rng(1), ct, most=9) != places


def test_no_place_no_case():
    black = np.zeros((64, 64))
    assert draw_lesions(black, black, np.random.default_rng(0)) == []
    assert list(lesion_cases(black, black, np.random.default_rng(0))) == []
    assert lesion_places(np.full((40, 40), 0.5), np.full((40, 40), 0.5), np.random.default_rng(0)) == []


@pytest.mark.parametrize("make", LESION_MAKES.values(), ids=LESION_MAKES)
def test_every_make_is_drawn_as_it_says(make):
    anatomy, overlay = head_pair(2, ct=True)
    lesions = draw_lesions(anatomy, overlay, np.random.default_rng(0), ct=True, make=make, most=3)
    assert len(lesions) == 3
    assert {lesion.radius for lesion in lesions} <= set(make.radii)
    for lesion in lesions:
        middle = lesion._replace(row=40, column=40)
        change = lesion_change([middle], (81, 81), blur=0.0)
        assert 0 <= change.min() <= change.max() <= make.amplitude
        within = change > make.amplitude / 4
        _, parts = label(within)
        assert parts == 1
        reach = np.hypot(*(np.argwhere(within) - 40).T).max()
        assert reach == pytest.approx(lesion.radius, abs=0.6 * lesion.radius + 1 if make.form == "ragged" else 1.5)
        hole = change[40, 40] < 0.25 * make.amplitude
        assert hole == (make.form == "ring")


def test_ragged_edges_are_their_seeds():
    lesions = [Lesion(30, 30, 8.0, form="ragged", seed=seed) for seed in (1, 1, 2)]
    first, again, other = (lesion_change([lesion], (61, 61), 0.7) for lesion in lesions)
    assert np.array_equal(first, again)
    assert not np.allclose(first, other, atol=0.02)
    rays = [np.argmax(np.rot90(first, turn)[30, 30:] < 0.08) for turn in range(4)]
    assert max(rays) - min(rays) >= 1


def test_kinds_change_the_sources_that_they_name():
    anatomy, overlay = head_pair(3, ct=False)
    none, *cases = lesion_cases(anatomy, overlay, np.random.default_rng(0), make=LESION_MAKES["strong"])
    assert none.kind == "none"
    np.testing.assert_array_equal(none.images, np.rint(np.stack([anatomy, overlay]) * 255) / 255)
    assert [case.kind for case in cases] == list(LESION_KINDS)
    for case in cases:
        for sign, image, before in zip(case.signs, case.images, none.images, strict=True):
            at = [(image - before)[lesion.row, lesion.column] for lesion in case.lesions]
            assert np.sign(at).tolist() == [sign] * len(case.lesions)
    # nuclear medicine is blurred more
    changes = [lesion_change(none.lesions, anatomy.shape, blur) for blur in (0.7, 2.5)]
    assert changes[0].max() > changes[1].max()
    assert changes[0].sum() == pytest.approx(changes[1].sum(), rel=0.01)


def test_the_same_seed_gives_the_same_cases():
    pair = head_pair(4, ct=True)
    first, again, other = (
        [case.images for case in lesion_cases(*pair, np.random.default_rng([seed, *b"pair"]), ct=True)]
        for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first[1], other[1])


def test_large_images_raise_no_warning(recwarn):
    lesion_change([Lesion(1000, 1000, 4.0)], (1001, 1001), 0.7)
    assert not recwarn.list


def test_inserted_values_stay_levels():
    images = insert_lesions(np.full((2, 2, 2), 0.9), (1, -1), [np.full((2, 2), 0.2)] * 2)
    assert images[0].max() == 1
    np.testing.assert_array_equal(images * 255, np.rint(images * 255))


def test_what_cannot_be_drawn_is_refused():
    image, generator = np.full((64, 64), 0.5), np.random.default_rng(0)
    with pytest.raises(ValueError, match="of one shape"):
        draw_lesions(image, image[1:], generator)
    for make in (LesionMake(()), LesionMake(form="star")):
        with pytest.raises(ValueError, match="disc, ring, ragged"):
            draw_lesions(image, image, generator, make=make)

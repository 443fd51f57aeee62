"""Images that are not in the range that they are said to be in."""

import pytest
import torch
from fusion_images import FUNCTIONS, SMALLEST, taken, triple

from evaluation.functional import fusion_metrics, quantise


@pytest.mark.parametrize("name", FUNCTIONS)
def test_images_of_another_range_are_refused(name):
    """By which every value would be wrong: 8 bit or 12 bit where white is 1, and what comes from networks' -1 to 1."""
    images, metric = taken(name, triple(batch=1, side=max(48, SMALLEST.get(name, 1)))), FUNCTIONS[name]
    kinds = (
        [(image * 255).to(torch.uint8) for image in images],
        [image * 255 for image in images],
        [image * 2 - 1 for image in images],
        [(image > 0.5).to(torch.uint8) for image in images],
    )
    for wrong in kinds:
        for place in range(len(images)):
            mixed = [*images[:place], wrong[place], *images[place + 1 :]]
            with pytest.raises(ValueError, match="data_range"):
                metric(*mixed)
    with pytest.raises(ValueError, match=r"to [34]\d\d\d.*data_range, white, is 255"):
        metric(*(image * 4095 for image in images), data_range=255)


def test_a_table_of_another_range_is_refused():
    images = triple(batch=2)
    with pytest.raises(ValueError, match=r"torch\.uint8, and data_range, white, is 1; .* data_range=255"):
        fusion_metrics(*((image * 255).to(torch.uint8) for image in images), names=["EN"])
    with pytest.raises(ValueError, match=r"data_range, white, is 1; .*data_range=255 for 8 bit"):
        fusion_metrics(*(image * 255 for image in images), names=["EN"])
    with pytest.raises(ValueError, match="data_range"):
        quantise(images[0] * 255)
    overshoot = [images[0] * 1.3 - 0.15, *images[1:]]  # which fusion and interpolation make
    assert fusion_metrics(*overshoot, names=["EN"])["EN"].isfinite().all()

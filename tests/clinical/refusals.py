"""What tests ask of an image that cannot be used: the reason and what is named, never the words."""

from contextlib import contextmanager

import pytest

from fusion_nets.clinical import ImageError


@contextmanager
def refused(reason, *names, error=ImageError):
    """The block raises an image error for this reason, whose message names these files, attributes or options."""
    with pytest.raises(error) as caught:
        yield caught
    assert caught.value.reason is reason, caught.value
    assert all(name in str(caught.value) for name in names), caught.value

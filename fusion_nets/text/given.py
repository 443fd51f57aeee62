"""Text that came with the image: a radiologist's description, a caption of the datalist."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.data import MetaTensor

from fusion_nets.clinical import ImageError, Reason

from .protocol import Describer

__all__ = ["GivenText"]


class GivenText:
    """Gives ``meta["text"]`` of every image, and asks another describer where there is none.

    Args:
        otherwise: describes the images that came without a text; None refuses them.
    """

    def __init__(self, otherwise: Describer | None = None) -> None:
        self.otherwise = otherwise

    @property
    def configuration(self) -> dict[str, Any]:
        """Kind, and the configuration of the other describer."""
        return {"kind": "given", "otherwise": self.otherwise and self.otherwise.configuration}

    def __call__(self, images: Sequence[MetaTensor]) -> list[str]:
        """One text per image, in order.

        Raises:
            ImageError: a ValueError that names the image without a text, if there is no other describer.
        """
        without = [image for image in images if not image.meta.get("text")]
        if without and self.otherwise is None:
            file = without[0].meta.get("filename_or_obj", "image")
            raise ImageError(
                Reason.TEXT,
                f'{file}: came without a text; an image with meta["text"] is accepted, which the keys "anatomy_text" '
                'and "overlay_text" of a datalist give, or a describer for the others',
            )
        others = iter(self.otherwise(without) if without and self.otherwise else [])
        return [image.meta.get("text") or next(others) for image in images]

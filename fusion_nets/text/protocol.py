"""What every describer is: a callable that gives one text per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from monai.data import MetaTensor

__all__ = ["Describer"]


class Describer(Protocol):
    """Puts images into words.

    Images are (1 | 3, H, W[, D]) MetaTensors in [0, 1]. What is known about one besides its pixels stands in its
    ``meta``: "modality" (a DICOM code: "MR", "CT", "PT", "NM"; "fused" for a fused image; absent if unknown), and
    "text" (a text that came with it; absent if none did).
    """

    @property
    def configuration(self) -> dict[str, Any]:
        """Everything the texts depend on besides the images, as JSON: kind, model, revision, prompt, settings."""
        ...

    def __call__(self, images: Sequence[MetaTensor]) -> list[str]:
        """One text per image, in order."""
        ...

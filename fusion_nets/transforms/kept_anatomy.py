"""More of the anatomy under a bright PET, whose colour shows what grey then shows less of."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from monai.config import KeysCollection
from monai.networks.layers import gaussian_1d, separable_filtering
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, convert_to_tensor

from fusion_nets.cautions import caution
from fusion_nets.overlays import overlays_of
from fusion_nets.slabs import slabwise

__all__ = ["KeepAnatomy", "KeepAnatomyD", "KeepAnatomyDict", "KeepAnatomyd"]

_NEAR = 6.0
"""Standard deviation in mm of the Gaussian that says what is local, and how bright an overlay is there."""

_SHOWN = 0.06
"""From which level on something is shown wholly; in the air nothing changes."""


class KeepAnatomy(Transform):
    """Draw the local contrast of a fused luminance from the overlay's to the anatomy's, where the overlay is bright.

    What a bright overlay covers in grey its colour shows as well, so that grey can give room to the anatomy. With X' an
    image less its Gaussian of 6 mm, and b that of the overlay, F becomes F + share b (A' - O'), kept in 0 to 1; where
    both sources agree, and in the air, it stays. Without colour, more lesions of opposite signs are lost for it.

    Args:
        share: 0 changes nothing; under white, 1 adds all of the one and takes all of the other.

    Raises:
        ValueError: for a share outside 0 to 1.

    Examples:
        >>> anatomy, overlay = torch.full((2, 1, 64, 64), 0.5)
        >>> anatomy[:, 30:34, 30:34] = 0.8
        >>> kept = KeepAnatomy(0.4)(torch.full((1, 64, 64), 0.5), anatomy, overlay)
        >>> [round(kept[0, 32, column].item(), 2) for column in (32, 60)]
        [0.56, 0.5]
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, share: float) -> None:
        if not isinstance(share, Real) or isinstance(share, bool) or not 0 <= share <= 1:
            raise ValueError(f"keep_anatomy is {str(share)[:80]}; a share from 0 to 1 is accepted")
        self.share: float = float(share)

    def __call__(  # type: ignore[override]
        self, fused: torch.Tensor, anatomy: torch.Tensor, overlay: torch.Tensor, spacing: Sequence[float] = (1.0, 1.0)
    ) -> torch.Tensor:
        """Keep more of the anatomy.

        Args:
            fused: (1, H, W[, D]), the fused luminance in [0, 1]; the metadata of the result are its.
            anatomy: of the same size, in [0, 1], on any device.
            overlay: likewise.
            spacing: mm between rows and between columns.
        """
        # no wider than the image: a header may say micrometres
        sigmas = [min(_NEAR / float(step), float(size)) for step, size in zip(spacing, fused.shape[1:3], strict=True)]
        windows = [gaussian_1d(torch.tensor(sigma)).to(fused.device) for sigma in sigmas]

        def blurred(image: torch.Tensor) -> torch.Tensor:
            slices = image.movedim(-1, 0) if image.ndim > 3 else image[None]
            slices = separable_filtering(slices, windows, mode="replicate")
            return slices.movedim(0, -1) if image.ndim > 3 else slices[0]

        def drawn(fused: torch.Tensor, anatomy: torch.Tensor, overlay: torch.Tensor) -> torch.Tensor:
            near = blurred(overlay)
            local = anatomy - blurred(anatomy) - (overlay - near)
            shown = (torch.maximum(anatomy, overlay) / _SHOWN).clamp(max=1)
            return (fused + self.share * near * shown * local).clamp(0, 1).to(fused.dtype)

        plain = (
            convert_to_tensor(of, dtype=torch.float32, track_meta=False, device=fused.device)
            for of in (anatomy, overlay)
        )
        return slabwise(drawn, fused, *plain)


class KeepAnatomyd(MapTransform):
    """Dictionary twin of :class:`KeepAnatomy`: under those of the overlays that are a PET, one after the other.

    It comes before anything that looks at the fused luminance. A pair none of whose overlays is a PET is warned of.

    Args:
        keys: the fused luminance.
        share: as :class:`KeepAnatomy` takes it.
        overlay_keys: of the overlays, those that are there, in their order; their ``meta`` have the modality.
        image_key: the sources as they were fused, anatomy first, (1 + overlays, ...).
        allow_missing_keys: pass over keys that are not there.
        name_key: whose value a warning names.
    """

    backend = KeepAnatomy.backend

    def __init__(
        self,
        keys: KeysCollection = "pred",
        share: float = 0.3,
        overlay_keys: Sequence[str] = ("overlay",),
        image_key: str = "image",
        allow_missing_keys: bool = False,
        name_key: str = "name",
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.keep = KeepAnatomy(share)
        self.overlay_keys, self.image_key, self.name_key = tuple(overlay_keys), image_key, name_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Keep more of the anatomy under every PET."""
        d = dict(data)
        which = overlays_of(d, self.overlay_keys, "PT")
        if not which:
            words = "keep_anatomy changes nothing: no overlay is known to be a PET (overlay_modality PT says so)"
            caution(logging.getLogger(__name__), d.get(self.name_key, "pair"), words)
        for key in self.key_iterator(d):
            for k, overlay in which.items():
                anatomy, shown = d[self.image_key][:1], d[self.image_key][k : k + 1]
                d[key] = self.keep(d[key], anatomy, shown, d[overlay].pixdim[:2].tolist())
        return d


KeepAnatomyD = KeepAnatomyDict = KeepAnatomyd

"""Bone that stays bone: a fused image drawn to a CT where that is nearly white."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, convert_to_tensor

from fusion_nets.cautions import caution
from fusion_nets.overlays import overlays_of
from fusion_nets.slabs import slabwise

__all__ = ["KeepBone", "KeepBoneD", "KeepBoneDict", "KeepBoned"]

_BONE, _ALL_BONE = 0.85, 0.95
"""Levels of a CT in its window from which on it is taken for bone: in part, and wholly."""


class KeepBone(Transform):
    """Draw a fused image to a CT where that is nearly white and the fused image is darker: to its bone.

    A network that keeps the edges of both sources draws the marrow and scalp of an MRI into the CT's skull, which then
    shows rings. This takes a share of what is darker there away, and nothing anywhere else: it costs edges of the MRI
    within the bone (Qabf), and VIF and SSIM rise.

    Args:
        share: of the difference to the CT; 0 changes nothing, 1 leaves the CT's bone alone.

    Raises:
        ValueError: for a share outside 0 to 1.

    Examples:
        >>> ct = torch.tensor([[[0.3, 0.8, 0.9, 1.0]]])
        >>> KeepBone(0.5)(torch.full((1, 1, 4), 0.6), ct)
        tensor([[[0.6000, 0.6000, 0.6750, 0.8000]]])
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, share: float) -> None:
        if not isinstance(share, Real) or isinstance(share, bool) or not 0 <= share <= 1:
            raise ValueError(f"keep_bone is {str(share)[:80]}; a share from 0 to 1 is accepted")
        self.share: float = float(share)

    def __call__(self, fused: torch.Tensor, ct: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Keep bone.

        Args:
            fused: (1, ...), the fused luminance in [0, 1]; the metadata of the result are its.
            ct: (1, ...), the CT on the same grid, in [0, 1], on any device.
        """

        def drawn(fused: torch.Tensor, ct: torch.Tensor) -> torch.Tensor:
            white = ((ct - _BONE) / (_ALL_BONE - _BONE)).clamp(0, 1)
            return fused + (self.share * white * (ct - fused).clamp(min=0)).to(fused.dtype)

        return slabwise(drawn, fused, convert_to_tensor(ct, track_meta=False, device=fused.device))


class KeepBoned(MapTransform):
    """Dictionary twin of :class:`KeepBone`: each key is drawn to those of the overlays that are a CT.

    It comes before anything that looks at the fused luminance. A pair none of whose overlays is a CT is warned of.

    Args:
        keys: the fused luminance.
        share: as :class:`KeepBone` takes it.
        overlay_keys: of the overlays, those that are there, in their order; their ``meta`` have the modality.
        image_key: the sources as they were fused, anatomy first, (1 + overlays, ...).
        allow_missing_keys: pass over keys that are not there.
        name_key: whose value a warning names.
    """

    backend = KeepBone.backend

    def __init__(
        self,
        keys: KeysCollection = "pred",
        share: float = 0.5,
        overlay_keys: Sequence[str] = ("overlay",),
        image_key: str = "image",
        allow_missing_keys: bool = False,
        name_key: str = "name",
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.keep = KeepBone(share)
        self.overlay_keys, self.image_key, self.name_key = tuple(overlay_keys), image_key, name_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Keep the bone of every CT."""
        d = dict(data)
        which = overlays_of(d, self.overlay_keys, "CT")
        if not which:
            words = "keep_bone changes nothing: no overlay is known to be a CT (overlay_modality CT says so)"
            caution(logging.getLogger(__name__), d.get(self.name_key, "pair"), words)
        for key in self.key_iterator(d):
            for k in which:
                d[key] = self.keep(d[key], d[self.image_key][k : k + 1])
        return d


KeepBoneD = KeepBoneDict = KeepBoned

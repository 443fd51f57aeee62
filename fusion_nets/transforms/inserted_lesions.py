"""Lesions put into sources that have none, for training that asks for them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, get_args

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable, Transform
from monai.utils import TransformBackends

from evaluation.observers import LESION_KINDS, draw_lesions, lesion_change
from evaluation.observers.insertion import Form

__all__ = [
    "RandInsertLesions",
    "RandInsertLesionsD",
    "RandInsertLesionsDict",
    "RandInsertLesionsd",
]

_FORMS: tuple[Form, ...] = get_args(Form)
_SIGNS = tuple(LESION_KINDS.values())


class RandInsertLesions(Randomizable, Transform):
    """A pair with lesions, of random size, contrast, form and kind, where both sources show tissue.

    Of an anatomy and several overlays, each lesion is in one of them, where the anatomy and an overlay show tissue.

    Args:
        most: lesions in an image; fewer where there is no place for them.
        radii: limits of their radii in pixels.
        amplitudes: limits of their heights, in parts of the display range.

    Examples:
        >>> insert = RandInsertLesions(most=2).set_random_state(seed=0)
        >>> head = torch.nn.functional.pad(torch.full((2, 64, 64), 0.5), (32, 32, 32, 32))
        >>> lesion_image, lesion_map = insert(head)
        >>> lesion_map.unique().tolist(), bool((lesion_image != head).any(0).equal(lesion_map[0] > 0))
        ([0, 1, 2], True)
    """

    backend = [TransformBackends.NUMPY]

    def __init__(
        self, most: int = 3, radii: tuple[float, float] = (2.0, 12.0), amplitudes: tuple[float, float] = (0.06, 0.3)
    ) -> None:
        if most < 1 or not 0 < radii[0] <= radii[1] or not 0 < amplitudes[0] <= amplitudes[1] <= 1:
            raise ValueError(
                f"most is {most}, radii {radii}, amplitudes {amplitudes}; one or more lesions, and rising limits above "
                "0 are accepted"
            )
        self.most = most
        self.radii, self.amplitudes = radii, amplitudes

    def __call__(self, img: torch.Tensor, ct: bool | Sequence[bool] = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Put lesions into a pair, or a set of several sources.

        Args:
            img: (S, H, W) in [0, 1], anatomy first.
            ct: whether the overlay is a CT, whose bone has none; of several, one for each or for all.

        Returns:
            The sources with lesions, and (1, H, W) uint8, which of them changes a pixel, from 1, or 0.

        Raises:
            ValueError: for an image of another shape, or another number of ``ct``.
        """
        overlays = img.shape[0] - 1 if img.ndim == 3 else 0
        cts = [ct] * overlays if isinstance(ct, bool) else list(ct)
        if overlays < 1 or len(cts) != overlays:
            raise ValueError(f"expected (2 or more, H, W) and as many ct as overlays, got {tuple(img.shape)} and {ct}")
        plain = np.asarray(torch.as_tensor(img).as_subclass(torch.Tensor).cpu(), dtype=np.float64)
        changed, lesion_map = plain.copy(), np.zeros(plain.shape[1:], dtype=np.uint8)
        generator = np.random.default_rng(self.R.randint(2**31))
        # what a scanner blurs, it blurs in all lesions alike
        blurs = [generator.uniform(0.5, 1.0)]
        blurs += [generator.uniform(0.5, 1.0) if one else generator.uniform(1.5, 3.2) for one in cts]
        beside = 0 if overlays == 1 else int(generator.integers(overlays))
        places = draw_lesions(plain[0], plain[1 + beside], generator, ct=cts[beside], most=self.most)
        for label, place in enumerate(places, start=1):
            lesion = place._replace(
                radius=float(generator.uniform(self.radii[0], self.radii[1])),
                amplitude=float(generator.uniform(self.amplitudes[0], self.amplitudes[1])),
                form=_FORMS[generator.integers(len(_FORMS))],
            )
            signs: Sequence[int] = _SIGNS[generator.integers(len(_SIGNS))]
            if overlays > 1:
                signs = np.eye(1 + overlays, dtype=int)[generator.integers(1 + overlays)].tolist()
            flip = generator.choice((-1, 1))  # both dark, too, and the anatomy bright where the overlay is dark
            for source, (sign, blur) in enumerate(zip(signs, blurs, strict=True)):
                if sign:
                    change = flip * sign * lesion_change([lesion], plain.shape[1:], blur)
                    change[np.abs(change) < 0.5 / 255] = 0
                    changed[source] += change
                    lesion_map[change != 0] = label
        levels = np.rint(np.clip(changed, 0, 1) * 255) / 255
        changed = np.where(lesion_map > 0, levels, plain)
        lesion_map[(changed == plain).all(0)] = 0
        return torch.from_numpy(changed.astype(np.float32)), torch.from_numpy(lesion_map)[None]


class RandInsertLesionsd(Randomizable, MapTransform):
    """Dictionary twin of :class:`RandInsertLesions`: writes "lesion_image" and "lesion_map".

    Args:
        keys: the pair, or anatomy and overlays, one key.
        pair_key: the kind of the pair; lesions of "CT-MRI" are those of a CT. Of several overlays,
            the kinds of all in their order, such as "CT-PET-MRI".
        most: as of the twin.
        radii: likewise.
        amplitudes: likewise.
        allow_missing_keys: leave an item without the key as it is.
    """

    backend = RandInsertLesions.backend

    def __init__(
        self,
        keys: KeysCollection = "image",
        pair_key: str = "pair",
        most: int = 3,
        radii: tuple[float, float] = (2.0, 12.0),
        amplitudes: tuple[float, float] = (0.06, 0.3),
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise ValueError(f"keys are {self.keys}; one key, of the pair, is accepted")
        self.pair_key = pair_key
        self.insert = RandInsertLesions(most, radii, amplitudes)

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandInsertLesionsd:
        """Seed it."""
        self.insert.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Put lesions into the pair."""
        d = dict(data)
        for key in self.key_iterator(d):
            cts = [kind == "CT" for kind in str(d.get(self.pair_key, "")).split("-")[:-1]]
            d["lesion_image"], d["lesion_map"] = self.insert(d[key], cts if len(cts) == len(d[key]) - 1 else False)
        return d


RandInsertLesionsD = RandInsertLesionsDict = RandInsertLesionsd

"""Descriptions on their way into a network: encoded, mirrored with the image, left out."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform, Transform
from monai.utils import TransformBackends, ensure_tuple

from fusion_nets.clinical import ImageError, Reason

__all__ = [
    "EncodeText",
    "EncodeTextD",
    "EncodeTextDict",
    "EncodeTextd",
    "RandForgetText",
    "RandForgetTextD",
    "RandForgetTextDict",
    "RandForgetTextd",
    "RandMirror",
    "RandMirrorD",
    "RandMirrorDict",
    "RandMirrord",
    "swap_sides",
]


class EncodeText(Transform):
    """Encode the texts on several sources as one tensor.

    Args:
        encoder: gives the states (B, L, D), mask (B, L) and vector (B, D) of texts, such as
            :class:`fusion_nets.text.TextEncoder`.

    Examples:
        >>> def encoder(texts):
        ...     return torch.ones(len(texts), 5, 8), torch.ones(len(texts), 5), torch.ones(len(texts), 8)
        >>> states, mask, vector = EncodeText(encoder)(["Axial T1.", "FDG uptake."])
        >>> tuple(states.shape), tuple(mask.shape), tuple(vector.shape)
        ((2, 5, 8), (2, 5), (2, 8))
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, encoder: Callable[[list[str]], Any]) -> None:
        self.encoder = encoder

    def __call__(self, texts: list[str | list[str]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Encode.

        Args:
            texts: one a source; or, where one is a list of texts, one a slice, the others holding for every slice.

        Returns:
            States (N, L, D), mask (N, L) and vectors (N, D) for N sources; with a list, (S, N, L, D) and so on for S
            slices.

        Raises:
            ValueError: for lists of different lengths.
        """
        lengths = {len(text) for text in texts if not isinstance(text, str)}
        if len(lengths) > 1:
            raise ValueError(f"texts on {' and '.join(map(str, sorted(lengths)))} slices do not belong together")
        slices = lengths.pop() if lengths else 1
        rows = [[text] * slices if isinstance(text, str) else text for text in texts]
        encoded = self.encoder([row[i] for i in range(slices) for row in rows])
        states, mask, vector = (part.reshape(slices, len(rows), *part.shape[1:]) for part in encoded)
        if all(isinstance(text, str) for text in texts):
            return states[0], mask[0], vector[0]
        return states, mask, vector


class EncodeTextd(MapTransform):
    """Dictionary twin of :class:`EncodeText`: writes ``{name}``, ``{name}_mask`` and ``{name}_vector``.

    Where no source has a text, nothing is written and no language model is needed.

    Args:
        keys: the texts, one a source, in the order of the sources; one that is not there is empty.
        encoder: as for :class:`EncodeText`.
        name: what the result is called.
        slices_of: key of an image; where it is a volume, the result has a row for every slice of it. Its channels are
            the sources: keys beyond their number are passed over.
    """

    backend = EncodeText.backend

    def __init__(
        self,
        keys: KeysCollection,
        encoder: Callable[[list[str]], Any],
        name: str = "text",
        slices_of: Hashable | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.encode = EncodeText(encoder)
        self.name = name
        self.slices_of = slices_of

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Encode.

        Raises:
            ImageError: if there are texts on another number of slices than the image of ``slices_of`` or another
                source has.
        """
        d = dict(data)
        keys = self.keys if self.slices_of is None else self.keys[: len(d[self.slices_of])]
        texts: list[str | list[str]] = [d.get(key) or "" for key in keys]
        if not any(one.strip() for text in texts for one in ([text] if isinstance(text, str) else text)):
            return d
        if self.slices_of is None:
            slices = next((len(text) for text in texts if not isinstance(text, str)), None)
        else:
            slices = d[self.slices_of].shape[-1] if d[self.slices_of].ndim == 4 else None
        for key, text in zip(keys, texts, strict=True):
            if not isinstance(text, str) and len(text) != slices:
                raise ImageError(
                    Reason.TEXT,
                    f"{d.get('name', 'an image')}: {key}: {len(text)} texts for "
                    f"{'a picture' if slices is None else f'{slices} slices'}; one text, or one for each slice of a "
                    "volume, is accepted",
                )
        encoded = self.encode(texts)
        if slices is not None and encoded[0].ndim == 3:
            encoded = tuple(part.expand(slices, *part.shape) for part in encoded)  # type: ignore[assignment]
        d[self.name], d[f"{self.name}_mask"], d[f"{self.name}_vector"] = encoded
        return d


class RandForgetText(RandomizableTransform):
    """Now and then, mask a source's text, so that a network learns to do without.

    Args:
        prob: of each source's text.

    Examples:
        >>> RandForgetText(prob=1.0)(torch.ones(2, 3, dtype=torch.bool)).any().item()
        False
    """

    backend = EncodeText.backend

    def __init__(self, prob: float = 0.1) -> None:
        super().__init__(prob)

    def __call__(self, mask: torch.Tensor) -> torch.Tensor:
        """Mask texts (N, L), those of N sources."""
        keep = torch.from_numpy(self.R.random_sample(len(mask)) >= self.prob)
        return mask & keep[:, None]


class RandForgetTextd(RandomizableTransform, MapTransform):
    """Dictionary twin of :class:`RandForgetText`.

    Args:
        keys: masks (N, L).
        prob: of each source's text.
        allow_missing_keys: pass over masks that are not there, as where no source has a text.
    """

    backend = RandForgetText.backend

    def __init__(self, keys: KeysCollection = "text_mask", prob: float = 0.1, allow_missing_keys: bool = False) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.forget = RandForgetText(prob)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandForgetTextd:
        """Seed this transform and its twin."""
        super().set_random_state(seed, state)
        self.forget.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Mask."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.forget(d[key])
        return d


class RandMirror(RandomizableTransform):
    """Now and then, mirror an axial slice left to right.

    The patient is mirrored, not the way the image is stored: the affine stays, so that what was seen on the left is on
    the right afterwards, in the image's own geometry, and in a text on it after :func:`swap_sides`.

    Args:
        prob: how often.

    Examples:
        >>> RandMirror(prob=1.0)(torch.tensor([[[1, 2, 3]]])).tolist()
        [[[3, 2, 1]]]
    """

    backend = EncodeText.backend

    def __init__(self, prob: float = 0.5) -> None:
        super().__init__(prob)

    def __call__(self, img: torch.Tensor, randomize: bool = True) -> torch.Tensor:
        """Mirror (C, H, W), whose last axis runs from one side of the body to the other, or not."""
        if randomize:
            self.randomize(None)
        return torch.flip(img, [-1]) if self._do_transform else img


class RandMirrord(RandomizableTransform, MapTransform):
    """Dictionary twin of :class:`RandMirror`: all images or none, and in the texts on them the sides change, too.

    Args:
        keys: images (C, H, W) whose last axis runs from one side of the body to the other.
        text_keys: texts, or lists of texts; missing ones are passed over.
        prob: how often.
        allow_missing_keys: mirror the images that are there.
    """

    backend = RandMirror.backend

    def __init__(
        self,
        keys: KeysCollection,
        text_keys: KeysCollection = (),
        prob: float = 0.5,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.mirror = RandMirror(prob)
        self.text_keys = ensure_tuple(text_keys)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandMirrord:
        """Seed this transform and its twin."""
        super().set_random_state(seed, state)
        self.mirror.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Mirror."""
        d = dict(data)
        self.mirror.randomize(None)
        for key in self.key_iterator(d):
            d[key] = self.mirror(d[key], randomize=False)
        if self.mirror._do_transform:
            for key in self.text_keys:
                text = d.get(key)
                if text:
                    d[key] = swap_sides(text) if isinstance(text, str) else [swap_sides(one) for one in text]
        return d


EncodeTextD = EncodeTextDict = EncodeTextd
RandForgetTextD = RandForgetTextDict = RandForgetTextd
RandMirrorD = RandMirrorDict = RandMirrord


def swap_sides(text: str) -> str:
    """The text with every "left" a "right" and the other way round; also "LEFT", "left-sided" and "leftward"."""
    return re.sub(r"\b(left|right)(?=(?:wards?|most)?\b)", _other_side, text, flags=re.IGNORECASE)


def _other_side(match: re.Match[str]) -> str:
    side = match.group()
    other = "right" if side.lower() == "left" else "left"
    return other.upper() if side.isupper() else other.capitalize() if side[0].isupper() else other

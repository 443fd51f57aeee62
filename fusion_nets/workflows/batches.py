"""Batches as MONAI's engines take them apart: pairs, pairs with their texts, single images, noised images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.distributed as dist
from monai.data import MetaTensor, list_data_collate
from monai.engines import PrepareBatch
from torch import nn

from fusion_nets.networks import cosine_alpha_bar, noise_level_range
from fusion_nets.slabs import is_large

from .processes import gathered

__all__ = [
    "CriticBatch",
    "DescribedBatch",
    "FeatureReplay",
    "GroundingBatch",
    "LesionBatch",
    "NoisyBatch",
    "PairBatch",
    "SourcesBatch",
    "collate_pairs",
    "own_text",
    "sources_apart",
]


class PairBatch(PrepareBatch):
    """Turn "image" (B, 2, H, W) into (image, image): fusion losses and metrics compare with the sources.

    With "coverage", see :class:`fusion_nets.transforms.FadeAtBorderd`, it is (image, image, (), {"coverage"}).
    """

    def __call__(self, batchdata, device=None, non_blocking=False, **kwargs):  # type: ignore[no-untyped-def]
        """Prepare a batch."""
        image = batchdata["image"].to(device=device, non_blocking=non_blocking, **kwargs)
        coverage = _coverage(batchdata, image)
        return (image, image, (), coverage) if coverage else (image, image)


def _coverage(batchdata: Mapping[str, Any], image: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"coverage": plain_tensor(batchdata["coverage"]).to(image.device)} if "coverage" in batchdata else {}


def collate_pairs(pairs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """As MONAI's ``list_data_collate``; the large volumes of a pair that is alone are its own, not copies."""
    if len(pairs) > 1:
        return list_data_collate(pairs)
    (pair,) = pairs
    large = {key for key, value in pair.items() if isinstance(value, torch.Tensor) and is_large(value.shape)}
    # a voxel stands for a volume whose metadata are collated
    one = list_data_collate([{key: _voxel(value) if key in large else value for key, value in pair.items()}])
    for key in large:
        volume = pair[key].as_subclass(torch.Tensor)[None]
        if isinstance(one[key], MetaTensor):
            volume = MetaTensor(volume).copy_meta_from(one[key])
        one[key] = volume
    return one


def _voxel(volume: torch.Tensor) -> torch.Tensor:
    voxel = volume.as_subclass(torch.Tensor)[(slice(1),) * volume.ndim]
    return MetaTensor(voxel, meta=volume.meta) if isinstance(volume, MetaTensor) else voxel


def sources_apart(batch: Sequence[Mapping[str, torch.Tensor]]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Anatomies and overlays of decollated pairs, each (1, H, W), as ``TensorBoardImageHandler`` shows them."""
    return [pair["image"][:1] for pair in batch], [pair["image"][1:] for pair in batch]


class LesionBatch(PrepareBatch):
    """Prepare pairs for :class:`fusion_nets.losses.LesionLoss`: each is fused without and with its lesions.

    From "image" (B, 2, H, W) and, where there are lesions, "lesion_image" (B, 2, H, W) and "lesion_map" (B, 1, H, W):
    the images and behind them the first of them with lesions, {"image", "lesion_map"}. Where texts are encoded, the
    vectors of those of the last pairs, "vector" (B, 2, D), for :class:`fusion_nets.losses.SMFusionLoss`.

    Args:
        share: of the pairs, how many are fused with lesions, too.
        vector_key: the text vectors that the critic of the semantic loss understands; another name where the critic has
            a text encoder of its own.
    """

    def __init__(self, share: float = 1.0, vector_key: str = "text_vector") -> None:
        if not 0 < share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, got {share}")
        self.share = share
        self.vector_key = vector_key

    def __call__(self, batchdata, device=None, non_blocking=False, **kwargs):  # type: ignore[no-untyped-def]
        """Prepare a batch."""

        def here(key: str) -> torch.Tensor:
            return plain_tensor(batchdata[key]).to(device=device, non_blocking=non_blocking)

        image = here("image").to(**kwargs)
        target: dict[str, Any] = {}
        count = len(image)
        if "lesion_image" in batchdata:
            count = math.ceil(self.share * len(image))
            image = torch.cat([image, here("lesion_image")[:count].to(image)])
            target["lesion_map"] = here("lesion_map")[:count]
        if self.vector_key in batchdata:
            target["vector"] = here(self.vector_key)[:count]
        return image, {"image": image, **target}


class SourcesBatch(LesionBatch):
    """As :class:`LesionBatch` of sets of an anatomy and several overlays, some of which are left out.

    Every batch has the anatomy and two or more of its overlays, drawn by torch's generator, in any order; one that has
    no more than two keeps both.

    Args:
        share: of the sets, how many are fused with lesions, too.
        vector_key: as of LesionBatch.
        network: a :class:`fusion_nets.networks.DMFNet` in training, whose features of the batch go with it,
            {"features": features}: under one noise, so that lesions alone change them.
        amp: compute the features in bfloat16 where that is safe.
    """

    def __init__(
        self,
        share: float = 1.0,
        vector_key: str = "text_vector",
        network: nn.Module | None = None,
        amp: bool = False,
    ) -> None:
        super().__init__(share, vector_key)
        self.network = network
        self.amp = amp

    def __call__(self, batchdata, device=None, non_blocking=False, **kwargs):  # type: ignore[no-untyped-def]
        """Prepare a batch."""
        image, target = super().__call__(batchdata, device, non_blocking, **kwargs)
        overlays = image.shape[1] - 1
        count = int(torch.randint(min(2, overlays), overlays + 1, [1]))
        kept = [0, *(torch.randperm(overlays)[:count] + 1).tolist()]
        image = image[:, kept]
        target = {**target, "image": image}
        if self.network is None:
            return image, target
        return image, target, (), {"features": _features(self.network, image, self.amp)}


class FeatureReplay(PrepareBatch):
    """Train on a pool of pairs whose UNet features are kept, a few of them renewed at every iteration.

    The frozen UNet takes most of an iteration's time, its features being the same however often they are fused. Each
    loaded pair enters the pool once; a batch is drawn from the pool, so that every pair is seen about
    ``batch_size / loaded`` times with slightly different companions. A pair with lesions is noised as it is without.

    The pool is part of the run: name it among the objects of the trainer's :class:`RunningCheckpoint`. Kept are the
    pairs, and the state of torch's generator that their noise was drawn in, from which the features are computed anew;
    in a distributed run those of all processes.

    Args:
        network: the :class:`fusion_nets.networks.DMFNet` in training.
        batch_size: pairs drawn from the pool at each iteration.
        pool_size: pairs in the pool.
        amp: compute the features in bfloat16 where that is safe.
    """

    def __init__(self, network: nn.Module, batch_size: int = 4, pool_size: int = 32, amp: bool = False) -> None:
        if pool_size < batch_size:
            raise ValueError(f"pool_size {pool_size} is smaller than batch_size {batch_size}")
        self.network = network
        self.batch_size = batch_size
        self.pool_size = pool_size
        self.amp = amp
        self.pool: list[_Kept] = []
        self.restored: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]] = []
        self.pairs = LesionBatch()

    def __call__(self, batchdata, device=None, non_blocking=False, **kwargs):  # type: ignore[no-untyped-def]
        """Take the loaded pairs into the pool and draw a batch, as of LesionBatch, with {"features": features}."""
        images, target = self.pairs(batchdata, device, non_blocking, **kwargs)
        lesion_maps = target.get("lesion_map")
        loaded = len(images) if lesion_maps is None else len(lesion_maps)
        self._restore(images.device)
        for i in range(loaded):
            self._keep(images[i::loaded], None if lesion_maps is None else lesion_maps[i])
        del self.pool[: -self.pool_size]
        drawn = [self.pool[i] for i in torch.randperm(len(self.pool))[: self.batch_size].tolist()]
        # the plain versions of all, then those with lesions
        image = torch.stack([kept.versions for kept in drawn], dim=1).flatten(0, 1)
        levels = zip(*(kept.features for kept in drawn), strict=True)
        features = [torch.stack(level, dim=3).flatten(2, 3) for level in levels]
        target = {"image": image}
        if lesion_maps is not None:
            target["lesion_map"] = torch.stack([kept.lesion_map for kept in drawn])
        return image, target, (), {"features": features}

    def _keep(self, versions: torch.Tensor, lesion_map: torch.Tensor | None) -> None:
        state = torch.get_rng_state()
        self.pool.append(_Kept(versions, _features(self.network, versions, self.amp), lesion_map, state))

    def _restore(self, device: torch.device) -> None:
        """Compute the features of what a checkpoint kept, now that network and device are those of the training."""
        with torch.random.fork_rng([]):
            for versions, state, lesion_map in self.restored:
                torch.set_rng_state(state)
                self._keep(versions.to(device), None if lesion_map is None else lesion_map.to(device))
        self.restored = []

    def state_dict(self) -> dict[str, Any]:
        """The pools of all processes; every process must ask for it."""
        kept = [(one.versions.cpu().clone(), one.state, _copied(one.lesion_map)) for one in self.pool]
        return {"pools": gathered(kept or self.restored)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the pool that this process had; a process that was not there begins with none."""
        rank = dist.get_rank() if dist.is_initialized() else 0
        self.pool, self.restored = [], list(state["pools"][rank]) if rank < len(state["pools"]) else []


class _Kept(NamedTuple):
    versions: torch.Tensor
    """Of a pair, (V, 2, H, W): without and, where there are lesions, with them."""
    features: list[torch.Tensor]
    lesion_map: Any
    """A tensor, or None where there are no lesions."""
    state: torch.Tensor
    """Of torch's generator, before the noise was drawn."""


def _features(network: nn.Module, image: torch.Tensor, amp: bool) -> list[torch.Tensor]:
    """Of DM-FNet, of all images under one noise."""
    with torch.autocast(image.device.type, torch.bfloat16, enabled=amp):
        return cast(Any, network).encode(image, same_noise=True)


def _copied(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.cpu().clone()


class DescribedBatch(PrepareBatch):
    """Prepare pairs with encoded texts for SMFusion and its loss.

    From "image" (B, 2, H, W[, S]) and what :class:`fusion_nets.transforms.EncodeTextd` wrote, "text" (B[, S], 2, L, D),
    "text_mask" (B[, S], 2, L) and "text_vector" (B[, S], 2, D): image, {"image", "vector"}, (), {"text",
    "text_mask"}. Without texts the network gets none. Of simulated pairs the version with lesions, "lesion_image", is
    the one that the texts describe.

    Args:
        vector_key: the text vectors that the critic of the semantic loss understands; another name where the critic has
            a text encoder of its own.
    """

    def __init__(self, vector_key: str = "text_vector") -> None:
        self.vector_key = vector_key

    def __call__(self, batchdata, device=None, non_blocking=False, **kwargs):  # type: ignore[no-untyped-def]
        """Prepare a batch."""
        described = batchdata["lesion_image" if "lesion_image" in batchdata else "image"]
        image = described.to(device=device, non_blocking=non_blocking, **kwargs)
        target = {"image": image}
        coverage = _coverage(batchdata, image)
        if "text" not in batchdata:
            return image, target, (), coverage
        text, mask, vector = (
            batchdata[key].to(device=device, non_blocking=non_blocking)
            for key in ("text", "text_mask", self.vector_key)
        )
        return image, {**target, "vector": vector}, (), {"text": text, "text_mask": mask, **coverage}


class CriticBatch(PrepareBatch):
    """Prepare single images with their text vectors for the critic: image, vector, (vector,), {}.

    From "image" (B, 1, H, W) and "text_vector" (B, 1, D).
    """

    def __call__(self, batchdata, device=None, non_blocking=False, **kwargs):  # type: ignore[no-untyped-def]
        """Prepare a batch."""
        image = batchdata["image"].to(device=device, non_blocking=non_blocking, **kwargs)
        vector = batchdata["text_vector"].to(device=device, non_blocking=non_blocking, **kwargs)[:, 0]
        return image, vector, (vector,), {}


class GroundingBatch(PrepareBatch):
    """Prepare single images with their texts for phrase grounding: image, named, (text, text_mask), {}.

    From "image" (B, 1, H, W), "named" (B, 2, H, W), "text" (B, 1, L, D) and "text_mask" (B, 1, L).
    """

    def __call__(self, batchdata, device=None, non_blocking=False, **kwargs):  # type: ignore[no-untyped-def]
        """Prepare a batch."""
        image, named, text, mask = (
            plain_tensor(batchdata[key]).to(device=device, non_blocking=non_blocking)
            for key in ("image", "named", "text", "text_mask")
        )
        return image, named, (text[:, 0], mask[:, 0]), {}


def own_text(output: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Similarities (B, B) of B images and texts that a critic gave, and which text is each image's own: an accuracy."""
    similarities = output["pred"]
    return similarities, torch.arange(len(similarities), device=similarities.device)


class NoisyBatch(PrepareBatch):
    """Turn "image" in [0, 1] into (noisy, clean, (noise_level,), {}) in [-1, 1], for x0 prediction.

    The channels are images of their own: a pair (B, 2, H, W) gives (2 B, 1, H, W). A step is drawn for every image,
    then the level between that step's bounds, then the noise (DM-FNet, section III-B; WaveGrad, section 3.1).

    Args:
        steps: length of the cosine schedule.
        seed: draw the same steps, levels and noise for every batch, as validation needs; None draws from torch's
            global generator.
    """

    def __init__(self, steps: int = 2000, seed: int | None = None) -> None:
        self.alpha_bar = cosine_alpha_bar(steps)
        self.seed = seed

    def __call__(self, batchdata, device=None, non_blocking=False, **kwargs):  # type: ignore[no-untyped-def]
        """Prepare a batch."""
        clean = plain_tensor(batchdata["image"]).to(device=device, non_blocking=non_blocking, **kwargs)
        clean = clean.flatten(0, 1)[:, None] * 2 - 1
        generator = None if self.seed is None else torch.Generator().manual_seed(self.seed)
        step = torch.randint(1, len(self.alpha_bar), [len(clean)], generator=generator)
        lower, upper = noise_level_range(self.alpha_bar, step)
        level = (lower + torch.rand(len(clean), generator=generator) * (upper - lower)).to(clean)
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        g = level[:, None, None, None]
        return g * clean + torch.sqrt(1 - g**2) * noise, clean, (level,), {}


def plain_tensor(images: torch.Tensor) -> torch.Tensor:
    """Without metadata, which takes a row for each image and stacks none."""
    return torch.as_tensor(images).as_subclass(torch.Tensor)

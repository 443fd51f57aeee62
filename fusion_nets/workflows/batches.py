"""Batches as MONAI's engines take them apart: pairs, pairs with their texts, single images, noised images."""

from __future__ import annotations

import torch
from monai.engines import PrepareBatch
from torch import nn

from fusion_nets.networks import cosine_alpha_bar, noise_level_range

__all__ = ["CriticBatch", "DescribedBatch", "FeatureReplay", "NoisyBatch", "PairBatch"]


class PairBatch(PrepareBatch):
    """Turn "image" (B, 2, H, W) into (image, image): fusion losses and metrics compare with the sources."""

    def __call__(self, batchdata, device=None, non_blocking=False, **kwargs):  # type: ignore[no-untyped-def]
        """Prepare a batch."""
        image = batchdata["image"].to(device=device, non_blocking=non_blocking, **kwargs)
        return image, image


class FeatureReplay(PrepareBatch):
    """Train on a pool of pairs whose UNet features are kept, a few of them renewed at every iteration.

    The frozen UNet takes most of an iteration's time, its features being the same however often they are fused. Each
    loaded pair enters the pool once; a batch is drawn from the pool, so that every pair is seen about
    ``batch_size / loaded`` times with slightly different companions.

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
        self.pool: list[tuple[torch.Tensor, list[torch.Tensor]]] = []

    def __call__(self, batchdata, device=None, non_blocking=False, **kwargs):  # type: ignore[no-untyped-def]
        """Take the loaded pairs into the pool and draw a batch: (image, image, (), {"features": features})."""
        images = batchdata["image"].as_tensor().to(device=device, non_blocking=non_blocking, **kwargs)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.amp):
            features = self.network.encode(images)
        self.pool += [(images[i], [level[:, :, i] for level in features]) for i in range(len(images))]
        del self.pool[: -self.pool_size]
        drawn = [self.pool[i] for i in torch.randperm(len(self.pool))[: self.batch_size].tolist()]
        image = torch.stack([pair for pair, _ in drawn])
        features = [torch.stack(level, dim=2) for level in zip(*(f for _, f in drawn), strict=True)]
        return image, image, (), {"features": features}


class DescribedBatch(PrepareBatch):
    """Prepare pairs with encoded texts for SMFusion and its loss.

    From "image" (B, 2, H, W[, S]) and what :class:`fusion_nets.transforms.EncodeTextd` wrote, "text" (B[, S], 2, L, D),
    "text_mask" (B[, S], 2, L) and "text_vector" (B[, S], 2, D): image, {"image", "vector", "pair"?}, (), {"text",
    "text_mask"}. Without texts the network gets none.

    Args:
        vector_key: the text vectors that the critic of the semantic loss understands; another name where the critic has
            a text encoder of its own.
    """

    def __init__(self, vector_key: str = "text_vector") -> None:
        self.vector_key = vector_key

    def __call__(self, batchdata, device=None, non_blocking=False, **kwargs):  # type: ignore[no-untyped-def]
        """Prepare a batch."""
        image = batchdata["image"].to(device=device, non_blocking=non_blocking, **kwargs)
        target = {"image": image, **({"pair": batchdata["pair"]} if "pair" in batchdata else {})}
        if "text" not in batchdata:
            return image, target, (), {}
        text, mask, vector = (
            batchdata[key].to(device=device, non_blocking=non_blocking)
            for key in ("text", "text_mask", self.vector_key)
        )
        return image, {**target, "vector": vector}, (), {"text": text, "text_mask": mask}


class CriticBatch(PrepareBatch):
    """Prepare single images with their text vectors for the critic: image, vector, (vector,), {}.

    From "image" (B, 1, H, W) and "text_vector" (B, 1, D).
    """

    def __call__(self, batchdata, device=None, non_blocking=False, **kwargs):  # type: ignore[no-untyped-def]
        """Prepare a batch."""
        image = batchdata["image"].to(device=device, non_blocking=non_blocking, **kwargs)
        vector = batchdata["text_vector"].to(device=device, non_blocking=non_blocking, **kwargs)[:, 0]
        return image, vector, (vector,), {}


class NoisyBatch(PrepareBatch):
    """Turn "image" in [0, 1] into (noisy, clean, (noise_level,), {}) in [-1, 1], for x0 prediction.

    The channels are images of their own: a pair (B, 2, H, W) gives (2 B, 1, H, W). A step is drawn for every image, then the level between that step's bounds, then the noise (DM-FNet, section III-B;
    WaveGrad, section 3.1).

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
        image = torch.as_tensor(batchdata["image"]).as_subclass(torch.Tensor)
        clean = image.to(device=device, non_blocking=non_blocking, **kwargs).flatten(0, 1)[:, None] * 2 - 1
        generator = None if self.seed is None else torch.Generator().manual_seed(self.seed)
        step = torch.randint(1, len(self.alpha_bar), [len(clean)], generator=generator)
        lower, upper = noise_level_range(self.alpha_bar, step)
        level = (lower + torch.rand(len(clean), generator=generator) * (upper - lower)).to(clean)
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        g = level[:, None, None, None]
        return g * clean + torch.sqrt(1 - g**2) * noise, clean, (level,), {}

"""Batches for the second training stage and for validation: pairs that are their own target."""

from __future__ import annotations

import torch
from monai.engines import PrepareBatch
from torch import nn

__all__ = ["FeatureReplay", "PairBatch"]


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

"""Batches of images with their descriptions."""

from __future__ import annotations

from monai.engines import PrepareBatch

__all__ = ["CriticBatch", "DescribedBatch"]


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

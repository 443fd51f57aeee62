"""Losses of a fused image against its two sources, no ground truth needed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from evaluation.functional import (
    average_gradient,
    correlation,
    parzen_mutual_information,
    qabf,
    scd,
    spatial_frequency,
    ssim,
    vif,
)

__all__ = ["DMFNetLoss", "FusionLoss", "MetricLoss"]


class DMFNetLoss(nn.Module):
    """The loss DM-FNet was published with (He et al., IEEE TMM 2025, section III-D).

    On luminance in [-1, 1], with sources A, B and fused image F:
    ``intensity * |F - max(A, B)| + gradient * |S(F) - max(S(A), S(B))| + structure * (1 - C)``, S being the sum of
    absolute Sobel responses and C the mean contrast-structure term of SSIM against whichever source varies more there.
    """

    window: torch.Tensor

    def __init__(self, intensity: float = 1.5, gradient: float = 1.0, structure: float = 0.5) -> None:
        super().__init__()
        self.intensity = intensity
        self.gradient = gradient
        self.structure = structure
        offset = torch.arange(11) - 5.0
        window = torch.exp(-(offset**2) / (2 * 1.5**2))
        self.register_buffer("window", window / window.sum(), persistent=False)

    def forward(self, pred: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Loss of a batch.

        Args:
            pred: (B, 1, H, W) in [0, 1].
            image: (B, 2, H, W) in [0, 1], the two sources.

        Returns:
            A scalar.
        """
        fused, sources = plain(pred) * 2 - 1, plain(image) * 2 - 1
        intensity = F.l1_loss(fused, sources.amax(dim=1, keepdim=True))
        edges = [_sobel(images).abs().sum(dim=2) for images in (fused, sources)]
        gradient = F.l1_loss(edges[0], edges[1].amax(dim=1, keepdim=True))
        return (
            self.intensity * intensity
            + self.gradient * gradient
            + self.structure * (1 - self._contrast_structure(fused, sources).mean())
        )

    def _contrast_structure(self, fused: torch.Tensor, sources: torch.Tensor) -> torch.Tensor:
        mean_f, mean_s = self._blur(fused), self._blur(sources)
        variance_f = self._blur(fused**2) - mean_f**2
        variance_s = self._blur(sources**2) - mean_s**2
        covariance = self._blur(fused * sources) - mean_f * mean_s
        c2 = 0.03**2
        term = (2 * covariance + c2) / (variance_f + variance_s + c2)
        livelier = variance_s.argmax(dim=1, keepdim=True)
        return term.gather(1, livelier)

    def _blur(self, images: torch.Tensor) -> torch.Tensor:
        channels = images.shape[1]
        window = self.window.to(images)
        column = window.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
        row = window.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
        return F.conv2d(F.conv2d(images, column, groups=channels), row, groups=channels)


class FusionLoss(nn.Module):
    """Intensity, gradient and structure: the pixel part of the loss of SMFusion.

    On luminance in [0, 1], with sources A, B and fused image F: ``intensity * |F - max(A, B)| + gradient * |S(F) -
    max(S(A), S(B))| + structure * (2 - SSIM(F, A) - SSIM(F, B))``, S being the Sobel magnitude.

    Args:
        intensity: weight of the mean distance to the pointwise maximum of the sources.
        gradient: weight of the mean distance to the stronger of both sources' edges.
        structure: weight of structural dissimilarity, summed over the sources.
    """

    def __init__(self, intensity: float = 1.0, gradient: float = 1.0, structure: float = 0.5) -> None:
        super().__init__()
        self.intensity = intensity
        self.gradient = gradient
        self.structure = structure

    def forward(self, pred: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Loss of a batch; shapes and ranges as for :class:`DMFNetLoss`."""
        fused, sources = plain(pred), plain(image)
        # the square root has no gradient at 0
        edges = [(_sobel(images).square().sum(dim=2) + 1e-6).sqrt() for images in (fused, sources)]
        return (
            self.intensity * F.l1_loss(fused, sources.amax(dim=1, keepdim=True))
            + self.gradient * F.l1_loss(edges[0], edges[1].amax(dim=1, keepdim=True))
            + self.structure * (2 - ssim(fused, sources[:, :1], sources[:, 1:]).mean())
        )


class MetricLoss(nn.Module):
    """What the fused image is measured by, as a loss: weighted 1 - Qabf, VIF and SSIM, and closeness to the maximum.

    The terms are the functions of :mod:`evaluation.functional` themselves, on the image rounded to 8 bit as it will be
    stored, the gradient passing the rounding as if it were not there (Bengio et al., 2013, straight-through). VIF,
    mutual information, spatial frequency and average gradient have no upper bound of their own, so the loss may become
    negative. A term of weight 0 is not computed. Sums over more than two sources count as much as those over two: their
    weight is divided by half the number of sources.

    Args:
        qabf: weight of edges kept.
        vif: weight of visual information, summed over the sources.
        ssim: weight of structural similarity, summed over the sources.
        intensity: weight of the mean distance to the pointwise maximum of the sources.
        mi: weight of mutual information, summed over the sources, in nats, by a Parzen window.
        cc: weight of the mean correlation with the sources.
        scd: weight of the sum of the correlations of differences, of two sources alone.
        sf: weight of spatial frequency, as a share of white.
        ag: weight of average gradient, as a share of white.
    """

    def __init__(
        self,
        qabf: float = 2.0,
        vif: float = 1.0,
        ssim: float = 1.0,
        intensity: float = 3.0,
        mi: float = 0.0,
        cc: float = 0.0,
        scd: float = 0.0,
        sf: float = 0.0,
        ag: float = 0.0,
    ) -> None:
        super().__init__()
        self.qabf = qabf
        self.vif = vif
        self.ssim = ssim
        self.intensity = intensity
        self.mi = mi
        self.cc = cc
        self.scd = scd
        self.sf = sf
        self.ag = ag

    def forward(self, pred: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Loss of a batch.

        Args:
            pred: (B, 1, H, W) in [0, 1].
            image: (B, S, H, W) in [0, 1], the anatomy and one or more overlays.

        Returns:
            A scalar.

        Raises:
            ValueError: of more than two sources, if ``scd`` has a weight, which is defined for two.
        """
        fused, sources = plain(pred), plain(image)
        fused = fused + ((fused * 255).round() / 255 - fused).detach()
        images = fused, sources[:, :1], sources[:, 1:].split(1, dim=1)
        count = sources.shape[1]
        of_sum = 2 / count
        # the weight, what a metric is subtracted from, and the metric
        terms = (
            (self.qabf, 1, lambda: qabf(*images)),
            (self.vif * of_sum, count, lambda: vif(*images)),
            (self.ssim * of_sum, count, lambda: ssim(*images)),
            (self.mi * of_sum, 0, lambda: parzen_mutual_information(*images)),
            (self.cc, 1, lambda: correlation(*images)),
            (self.scd, 2, lambda: scd(*images)),
            (self.sf, 0, lambda: spatial_frequency(fused) / 255),
            (self.ag, 0, lambda: average_gradient(fused) / 255),
        )
        loss = self.intensity * F.l1_loss(fused, sources.amax(dim=1, keepdim=True))
        for weight, best, metric in terms:
            if weight:
                loss = loss + weight * (best - metric().mean())
        return loss


def _sobel(images: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) -> the responses across and down, (B, C, 2, H, W)."""
    batch, channels, height, width = images.shape
    edge = images.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    flat = F.pad(images.reshape(-1, 1, height, width), [1, 1, 1, 1], mode="replicate")
    return F.conv2d(flat, torch.stack([edge, edge.T])[:, None]).reshape(batch, channels, 2, height, width)


def plain(images: torch.Tensor) -> torch.Tensor:
    """A plain float32 tensor, whatever precision or metadata came in."""
    return torch.as_tensor(images).as_subclass(torch.Tensor).float()

"""DM-FNet: the features of a diffusion-trained UNet, fused level by level."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .attention_fusion import FusionDecoder
from .diffusion_unet import DiffusionUNet
from .fusion_unet import FusionUNet
from .noise import normal_from_uniform, seeded
from .released import load_released
from .schedules import linear_alpha_bar, noise_level_range

__all__ = ["DMFNet"]


class DMFNet(nn.Module):
    """Fuse an anatomical slice and its overlays (He et al., "DM-FNet", IEEE TMM 2025).

    All sources are noised at a few early diffusion steps and go through one frozen :class:`DiffusionUNet`; the first
    decoder feature of each resolution, of every step, of the anatomy and each overlay, goes through the trained
    :class:`FusionDecoder`.
    In evaluation mode noise and noise level come from a generator seeded with ``seed`` and are shared by the batch, so
    that a result depends on its own pair alone; in training mode they are fresh for every sample.

    Args:
        width: channels of the UNet at full size.
        multipliers: width multiplier of each level, finest first.
        blocks: residual blocks a level on the UNet's way down.
        norm_groups: groups of each group normalisation.
        dropout: of the UNet; used in its own training only.
        steps: diffusion steps at which features are taken.
        schedule_steps: length of the linear noise schedule.
        beta_start: first beta of the schedule.
        beta_end: last beta of the schedule.
        head_width: channels between the two convolutions of the head.
        residual: let the head predict the departure from the pointwise maximum of the sources, instead of the
            image itself (not in the paper; a small network then spends nothing on copying what is already there).
        detail_width: instead of the head, a :class:`FusionUNet` of so many channels, which sees the sources themselves
            and is guided by the fused features of the finest levels (not in the paper: what noise has covered is no
            longer in the features, and a faint lesion must not be lost with it). 0 for the paper's head.
        feature_reduction: features are those of the sources made so many times smaller (means of blocks), and what
            guides is made larger again, at a fraction of the work (not in the paper; with ``detail_width`` alone).
        seed: of noise and noise level in evaluation mode.
        noise_pixels: for export to formats without a generator: pixels (H times W) of the largest image whose noise is
            kept as a constant, 24 bytes a pixel with three steps. Results are those of drawing it, but for rounding.

    Raises:
        ValueError: if ``steps`` lie outside the schedule, a level's width is no multiple of ``norm_groups``, or
            features cannot be reduced so.
    """

    def __init__(
        self,
        width: int = 128,
        multipliers: Sequence[int] = (1, 1, 1, 1, 2),
        blocks: int = 2,
        norm_groups: int = 32,
        dropout: float = 0.2,
        steps: Sequence[int] = (5, 10, 20),
        schedule_steps: int = 2000,
        beta_start: float = 1e-6,
        beta_end: float = 1e-2,
        head_width: int = 64,
        residual: bool = False,
        detail_width: int = 0,
        feature_reduction: int = 1,
        seed: int = 0,
        noise_pixels: int = 0,
    ) -> None:
        super().__init__()
        if feature_reduction < 1 or (feature_reduction > 1 and not detail_width):
            raise ValueError(f"feature_reduction is {feature_reduction}; 1, and with detail_width more, is accepted")
        if not steps or not all(1 <= step <= schedule_steps for step in steps):
            raise ValueError(f"steps must lie in 1..{schedule_steps}, got {tuple(steps)}")
        self.residual = residual
        self.feature_reduction = feature_reduction
        self.seed = seed
        self.unet = DiffusionUNet(1, width, multipliers, blocks, norm_groups, dropout).requires_grad_(False).eval()
        self.feature_indices = self.unet.feature_indices
        self.stride = self.unet.stride
        self.fusion = FusionDecoder([width * m for m in multipliers], len(steps), 0 if detail_width else head_width)
        self.detail = FusionUNet(detail_width, guide_widths=self.fusion.fused_widths[:3]) if detail_width else None
        lower, upper = noise_level_range(linear_alpha_bar(schedule_steps, beta_start, beta_end), torch.tensor(steps))
        self.register_buffer("level_lower", lower.float().reshape(-1, 1, 1), persistent=False)
        self.register_buffer("level_upper", upper.float().reshape(-1, 1, 1), persistent=False)
        self.noise_pixels = noise_pixels
        drawn_ahead = 2 * len(steps) * (1 + noise_pixels) + 16 if noise_pixels > 0 else 0
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("uniform", torch.rand(drawn_ahead, generator=generator), persistent=False)

    @property
    def reach(self) -> int | None:
        """Pixels around what shows that its result needs; None where all of an image needs all of it.

        The features know the whole image (normalisation, attention, the channels' means), and what black around it adds
        to them hardly matters to :class:`FusionUNet`, which fuses: less than half an 8-bit level with the shipped
        weights.
        """
        return None if self.detail is None else self.detail.reach

    @classmethod
    def load_released(cls, stage1: str | os.PathLike[str], stage2: str | os.PathLike[str]) -> DMFNet:
        """The published network with the authors' released weights, see :func:`fusion_nets.networks.load_released`."""
        return load_released(cls(), stage1, stage2)

    def train(self, mode: bool = True) -> DMFNet:
        """Set the mode of the fusion network; the UNet is frozen and stays in evaluation mode."""
        super().train(mode)
        self.unet.eval()
        return self

    def forward(
        self,
        image: torch.Tensor,
        noise: torch.Tensor | None = None,
        noise_level: torch.Tensor | None = None,
        features: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Fuse a batch.

        Args:
            image: (B, 1 + K, H, W) in [0, 1], the anatomy and K overlays, of which the paper has one, and several need
                ``detail_width``; H and W at least 32. Overlays are noised alike, so that their order does not matter.
            noise: (steps, 2, B or 1, H, W), standard normal; drawn if not given.
            noise_level: (steps, 2, B or 1), share of the clean image; drawn if not given.
            features: what :meth:`encode` gave for this image, if it is at hand.

        Returns:
            (B, 1, H, W) in [0, 1], the fused luminance.

        Raises:
            ValueError: if the image has another number of channels, is smaller than 32 x 32, or has more pixels than
                noise is kept for, or if it is traced without ``noise_pixels``.
        """
        if self.detail is None and image.shape[1] > 2:
            raise ValueError(f"expected (B, 2, H, W) without detail_width, got {list(image.shape)}")
        if features is None:
            features = self.encode(image, noise, noise_level)
        if self.detail is not None:
            guides = self.fusion.fused([_in_pairs(level) for level in features])
            if self.feature_reduction > 1:
                larger = float(self.feature_reduction)
                guides = [F.interpolate(g, scale_factor=larger, mode="bilinear", align_corners=False) for g in guides]
            return self.detail(image, guides)
        fused = self.fusion(features)[..., : image.shape[2], : image.shape[3]].to(image.dtype)
        if self.residual:
            fused = fused + 2 * image.amax(dim=1, keepdim=True) - 1
        return (fused.clamp(-1, 1) + 1) / 2

    def encode(
        self,
        image: torch.Tensor,
        noise: torch.Tensor | None = None,
        noise_level: torch.Tensor | None = None,
        same_noise: bool = False,
    ) -> list[torch.Tensor]:
        """Features of all sources at every step, all passes of the frozen UNet in one batch.

        Args:
            image: as for :meth:`forward`.
            noise: likewise.
            noise_level: likewise.
            same_noise: in training mode, draw one noise for all of the batch.

        Returns:
            One (steps, 1 + K, B, C, h, w) a level, finest first; h and w of the padded image, reduced as
            ``feature_reduction`` says.
        """
        batch, channels, height, width = image.shape
        if channels < 2 or height < 32 or width < 32:
            raise ValueError(f"expected (B, 2 or more, H, W) with H, W >= 32, got {list(image.shape)}")
        steps = self.level_lower.shape[0]
        if noise is None or noise_level is None:
            if self.noise_pixels > 0 and not self.training:
                noise, noise_level = self._recall(image, noise, noise_level)
            else:
                noise, noise_level = self._draw(image[:1] if same_noise else image, noise, noise_level)
        if self.feature_reduction > 1:
            step = self.feature_reduction
            image = F.avg_pool2d(image, step, ceil_mode=True, count_include_pad=False)
            noise = noise[..., ::step, ::step]
            height, width = image.shape[2], image.shape[3]
        noise, noise_level = _alike(noise, channels), _alike(noise_level, channels)
        level = noise_level.to(image.dtype)[..., None, None]
        clean = image.transpose(0, 1) * 2 - 1
        noisy = level * clean + torch.sqrt(1 - level**2) * noise.to(image.dtype)
        with torch.no_grad():
            features = self.unet.features(
                pad_for_levels(noisy.reshape(-1, 1, height, width), self.stride),
                noise_level.expand(steps, channels, batch).reshape(-1),
                self.feature_indices,
            )
        return [f.reshape(steps, channels, batch, f.shape[1], f.shape[2], f.shape[3]) for f in features]

    def drawn(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise (steps, 2, 1, H, W) and noise level (steps, 2, 1) of images of this size, in evaluation mode."""
        if self.training:
            raise ValueError("a network in training draws anew at every call; one in evaluation mode is accepted")
        return self._recall(image, None, None) if self.noise_pixels > 0 else self._draw(image, None, None)

    def _draw(
        self, image: torch.Tensor, noise: torch.Tensor | None, noise_level: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise and noise level from a generator, where they are not given."""
        if torch.jit.is_tracing():
            raise ValueError("a traced network has no generator: make it with noise_pixels")
        steps, draws = self.level_lower.shape[0], image.shape[0] if self.training else 1
        levels = [steps, 2, draws] if noise_level is None else [0]
        size = [steps, 2, draws, image.shape[2], image.shape[3]] if noise is None else [0]
        seed = torch.randint(0x7FFFFFFF, [1]) if self.training else torch.tensor([self.seed])
        if torch.jit.is_scripting():  # which knows generators, and no operator of one's own
            generator = torch.Generator()
            generator.manual_seed(int(seed.item()))
            where = torch.rand(levels, generator=generator).to(image.device)
            drawn = torch.randn(size, generator=generator).to(image.device)
        else:
            where, drawn = seeded(image, seed, levels, size)
        if noise_level is None:
            noise_level = self.level_lower + where * (self.level_upper - self.level_lower)
        return drawn if noise is None else noise, noise_level

    def _recall(
        self, image: torch.Tensor, noise: torch.Tensor | None, noise_level: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same of the numbers that the generator gave when the network was made."""
        steps, height, width = self.level_lower.shape[0], image.shape[2], image.shape[3]
        if height * width > self.noise_pixels:
            raise ValueError(f"expected at most noise_pixels={self.noise_pixels}, got {list(image.shape)}")
        used = 2 * steps if noise_level is None else 0
        if noise_level is None:
            where = self.uniform[:used].reshape(steps, 2, 1)
            noise_level = self.level_lower + where * (self.level_upper - self.level_lower)
        if noise is None:
            normal = normal_from_uniform(self.uniform[used:], 2 * steps * height * width)
            noise = normal.reshape(steps, 2, 1, height, width)
        return noise, noise_level


def _alike(drawn: torch.Tensor, sources: int) -> torch.Tensor:
    """What was drawn for an anatomy and an overlay (steps, 2, ...), for all overlays alike: (steps, sources, ...)."""
    return torch.cat([drawn[:, :1]] + [drawn[:, 1:]] * (sources - 1), dim=1)


def _in_pairs(features: torch.Tensor) -> torch.Tensor:
    """(steps, 1 + K, B, C, h, w) as pairs of the anatomy with each overlay, (steps, 2, B * K, C, h, w)."""
    if features.shape[1] == 2:
        return features
    overlays = features[:, 1:]
    pairs = torch.stack([features[:, :1].expand_as(overlays), overlays], dim=1)
    return pairs.transpose(2, 3).flatten(2, 3)


def pad_for_levels(x: torch.Tensor, stride: int) -> torch.Tensor:
    """Repeat the border at the end of the last two axes, up to the next multiple of the stride.

    The coarsest level gets at least 4 pixels, which the reflecting 7 x 7 window of the spatial attention needs.
    """
    height, width = x.shape[-2:]
    return F.pad(x, [0, _missing(width, stride), 0, _missing(height, stride)], mode="replicate")


def _missing(size: int, stride: int) -> int:
    cells = (size + stride - 1) // stride
    # the larger of cells and 4; max() would leave an exported graph with the one it was traced with
    return (cells + 4 + abs(cells - 4)) // 2 * stride - size

"""The encoder of OFA: patches of an image and tokens of a text in one sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.utils import ModelOutput

from .configuration import TRUNKS, OFAConfig
from .layers import OFAEncoderLayer
from .positions import absolute_bias, patch_buckets, patch_positions, relative_bias, token_buckets
from .trunk import ImageTrunk

__all__ = ["OFAEncoder", "OFAEncoderOutput"]


@dataclass
class OFAEncoderOutput(ModelOutput):
    """What the decoder needs of the encoder; S = N patches, row by row, then L tokens.

    Args:
        last_hidden_state: (B, S, D).
        positions: normalised embeddings of the positions, (B, S, D), alike for the whole batch.
        mask: (B, S), false where there is padding. It travels with the states, because ``generate`` loses the mask that
            the encoder found by the padding token.
    """

    last_hidden_state: torch.Tensor | None = None
    positions: torch.Tensor | None = None
    mask: torch.Tensor | None = None


class OFAEncoder(nn.Module):
    """Reads an image and a text.

    Args:
        config: the network's.
    """

    main_input_name = "input_ids"
    gradient_checkpointing = False

    def __init__(self, config: OFAConfig) -> None:
        super().__init__()
        self.config = config
        width, layers, heads = config.d_model, config.encoder_layers, config.encoder_attention_heads
        side = config.image_bucket_size
        self.dropout = nn.Dropout(config.dropout)
        self.embed_tokens: nn.Module = nn.Embedding(config.vocab_size, width, config.pad_token_id)
        self.layernorm_embedding = nn.LayerNorm(width)
        self.type_embedding = nn.Embedding(2, width)
        self.embed_images = ImageTrunk(TRUNKS[config.resnet_type])
        self.image_proj = nn.Linear(1024, width)
        self.patch_layernorm_embedding = nn.LayerNorm(width)
        self.embed_positions = nn.Embedding(config.max_position_embeddings + 2, width)
        self.embed_image_positions = nn.Embedding(side**2 + 1, width)
        self.pos_ln = nn.LayerNorm(width)
        self.image_pos_ln = nn.LayerNorm(width)
        self.pos_q_linear = nn.Linear(width, width)
        self.pos_k_linear = nn.Linear(width, width)
        drop_path = torch.linspace(0, config.encoder_drop_path_rate, layers, device="cpu").tolist()
        self.layers = nn.ModuleList(OFAEncoderLayer(config, rate, i) for i, rate in enumerate(drop_path))
        self.layer_norm = nn.LayerNorm(width)
        self.token_rel_pos_table_list = nn.ModuleList(
            nn.Embedding(2 * config.token_bucket_size - 1, heads) for _ in range(layers)
        )
        self.image_rel_pos_table_list = nn.ModuleList(
            nn.Embedding((2 * side - 1) ** 2 + 3, heads) for _ in range(layers)
        )

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        **_: Any,
    ) -> OFAEncoderOutput:
        """States of patches and tokens.

        Args:
            input_ids: (B, L), padded behind.
            attention_mask: (B, L), 0 where there is padding; None finds it by the padding token.
            pixel_values: images, (B, 3, H, W) in [-1, 1], up to ``16 * image_bucket_size`` pixels high and wide; None
                for text alone.

        Raises:
            ValueError: for a text or an image that is too large.
        """
        config = self.config
        mask = input_ids != config.pad_token_id if attention_mask is None else attention_mask.bool()
        if input_ids.shape[1] > config.max_position_embeddings:
            raise ValueError(
                f"a text of {input_ids.shape[1]} tokens; up to {config.max_position_embeddings} are accepted"
            )
        order = torch.arange(input_ids.shape[1], device=input_ids.device)
        states = self.layernorm_embedding(self.embed_tokens(input_ids) + self.type_embedding.weight[0])
        positions = self.pos_ln(self.embed_positions(order))
        buckets = token_buckets(order, order, config.token_bucket_size, config.max_position_embeddings)
        patches = None
        if pixel_values is not None:
            features = self._patches(pixel_values)
            height, width = features.shape[-2:]
            side = config.image_bucket_size
            patches = patch_buckets(height, width, side, input_ids.device)
            embedded = self.image_proj(features.flatten(2).transpose(1, 2)) + self.type_embedding.weight[1]
            states = torch.cat([self.patch_layernorm_embedding(embedded), states], dim=1)
            where = self.embed_image_positions(patch_positions(height, width, side, input_ids.device))
            positions = torch.cat([self.image_pos_ln(where), positions])
            mask = torch.cat([mask.new_ones(len(mask), height * width), mask], dim=1)
        states = self.dropout(states) * mask[:, :, None]
        positions = positions[None]
        absolute = absolute_bias(
            positions, positions, self.pos_q_linear, self.pos_k_linear, config.encoder_attention_heads
        )
        hidden = None if mask.all() else ~mask[:, None, None, :]
        for i, layer in enumerate(self.layers):
            bias = absolute + self._relative(i, buckets, patches)
            if hidden is not None:
                bias = bias.masked_fill(hidden, torch.finfo(bias.dtype).min)
            states = layer(states, bias)
        return OFAEncoderOutput(self.layer_norm(states), positions.expand(len(states), -1, -1), mask)

    def _patches(self, pixel_values: torch.Tensor) -> torch.Tensor:
        longest = 16 * self.config.image_bucket_size
        if pixel_values.ndim != 4 or pixel_values.shape[1] != 3 or max(pixel_values.shape[2:]) > longest:
            raise ValueError(
                f"pixel_values are {tuple(pixel_values.shape)}; (B, 3, H, W) with up to {longest} pixels is accepted"
            )
        return self.embed_images(pixel_values)

    def _relative(self, layer: int, tokens: torch.Tensor, patches: torch.Tensor | None) -> torch.Tensor:
        """Between patches and between tokens; none from one to the other: (H, S, S)."""
        bias = relative_bias(self.token_rel_pos_table_list[layer], tokens)
        if patches is None:
            return bias
        first = relative_bias(self.image_rel_pos_table_list[layer], patches)
        size = first.shape[-1] + bias.shape[-1]
        both = bias.new_zeros(len(bias), size, size)
        both[:, : first.shape[-1], : first.shape[-1]] = first
        both[:, first.shape[-1] :, first.shape[-1] :] = bias
        return both

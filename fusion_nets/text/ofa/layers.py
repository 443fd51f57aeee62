"""The layers of OFA: pre-norm, with a second layer norm in every block (NormFormer)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from monai.networks.layers import DropPath
from torch import nn
from transformers import EncoderDecoderCache
from transformers.modeling_layers import GradientCheckpointingLayer

if TYPE_CHECKING:
    from .configuration import OFAConfig

__all__ = ["OFAAttention", "OFADecoderLayer", "OFAEncoderLayer"]


class OFAAttention(nn.Module):
    """Attention whose heads are each multiplied by a learned number.

    Args:
        width: D.
        heads: H.
        dropout: of the weights.
        layer: which layer of the decoder it belongs to; under this index a cache keeps its keys and values.
    """

    def __init__(self, width: int, heads: int, dropout: float, layer: int) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.layer = layer
        self.scale = (2 * width // heads) ** -0.5
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.c_attn = nn.Parameter(torch.ones(heads))

    def forward(
        self,
        states: torch.Tensor,
        bias: torch.Tensor,
        memory: torch.Tensor | None = None,
        cache: EncoderDecoderCache | None = None,
    ) -> torch.Tensor:
        """Attend to the states themselves, or to a memory.

        Args:
            states: (B, Q, D).
            bias: added to the scores, (B or 1, H, Q, K); the lowest number of its type where nothing may be seen.
            memory: what to attend to, (B, K, D); None for the states, those before them in the cache included.
            cache: of the decoder. It keeps the memory's keys and values from the first call on.

        Returns:
            (B, Q, D).
        """
        query = self._split(self.q_proj(states))
        if memory is not None and cache is not None and cache.is_updated.get(self.layer):
            kept: Any = cache.cross_attention_cache.layers[self.layer]
            key, value = kept.keys, kept.values
        else:
            source = states if memory is None else memory
            key, value = self._split(self.k_proj(source)), self._split(self.v_proj(source))
            if cache is not None:
                part = cache.self_attention_cache if memory is None else cache.cross_attention_cache
                key, value = part.update(key, value, self.layer)
                if memory is not None:
                    cache.is_updated[self.layer] = True
        dropout = self.dropout if self.training else 0.0
        bias = bias.to(query.dtype).expand(len(query), -1, -1, -1)
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout, scale=self.scale)
        return self.out_proj((seen * self.c_attn[:, None, None]).transpose(1, 2).flatten(2))

    def _split(self, states: torch.Tensor) -> torch.Tensor:
        return states.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class _Layer(GradientCheckpointingLayer):
    """Self-attention and feed-forward, which both kinds of layer have."""

    def __init__(self, config: OFAConfig, heads: int, ffn_width: int, drop_path: float, layer: int) -> None:
        super().__init__()
        width = config.d_model
        self.dropout = nn.Dropout(config.dropout)
        self.activation_dropout = nn.Dropout(config.activation_dropout)
        self.drop_path = DropPath(drop_path)
        self.self_attn = OFAAttention(width, heads, config.attention_dropout, layer)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.self_attn_mid_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, ffn_width)
        self.fc2 = nn.Linear(ffn_width, width)
        self.ffn_layer_norm = nn.LayerNorm(ffn_width)
        self.final_layer_norm = nn.LayerNorm(width)

    def attend(self, states: torch.Tensor, bias: torch.Tensor, **cache: Any) -> torch.Tensor:
        attended = self.self_attn(self.self_attn_layer_norm(states), bias, **cache)
        return self.add(states, self.self_attn_mid_layer_norm(attended))

    def feed(self, states: torch.Tensor) -> torch.Tensor:
        inner = self.activation_dropout(F.gelu(self.fc1(self.final_layer_norm(states))))
        return self.add(states, self.fc2(self.ffn_layer_norm(inner)))

    def add(self, states: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        return states + self.drop_path(self.dropout(branch))


class OFAEncoderLayer(_Layer):
    """A layer of the encoder.

    Args:
        config: the network's.
        drop_path: share of residual branches left out in training.
        layer: its index.
    """

    def __init__(self, config: OFAConfig, drop_path: float, layer: int) -> None:
        super().__init__(config, config.encoder_attention_heads, config.encoder_ffn_dim, drop_path, layer)

    def forward(self, states: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """States (B, S, D) under a bias (B or 1, H, S, S) -> (B, S, D)."""
        return self.feed(self.attend(states, bias))


class OFADecoderLayer(_Layer):
    """A layer of the decoder.

    Args:
        config: the network's.
        drop_path: share of residual branches left out in training.
        layer: its index.
    """

    def __init__(self, config: OFAConfig, drop_path: float, layer: int) -> None:
        super().__init__(config, config.decoder_attention_heads, config.decoder_ffn_dim, drop_path, layer)
        width, heads = config.d_model, config.decoder_attention_heads
        self.cross_attn = OFAAttention(width, heads, config.attention_dropout, layer)
        self.cross_attn_layer_norm = nn.LayerNorm(width)
        self.cross_attn_mid_layer_norm = nn.LayerNorm(width)

    def forward(
        self,
        states: torch.Tensor,
        bias: torch.Tensor,
        memory: torch.Tensor,
        memory_bias: torch.Tensor,
        cache: EncoderDecoderCache | None = None,
    ) -> torch.Tensor:
        """States (B, T, D) and the encoder's (B, S, D), under biases (B or 1, H, T, K) and (B or 1, H, T, S)."""
        states = self.attend(states, bias, cache=cache)
        attended = self.cross_attn(self.cross_attn_layer_norm(states), memory_bias, memory, cache)
        return self.feed(self.add(states, self.cross_attn_mid_layer_norm(attended)))

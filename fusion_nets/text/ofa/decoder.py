"""The decoder of OFA: a text, token by token."""

from __future__ import annotations

import torch
from torch import nn
from transformers import EncoderDecoderCache

from .configuration import OFAConfig
from .encoder import OFAEncoderOutput
from .layers import OFADecoderLayer
from .positions import absolute_bias, relative_bias, token_buckets

__all__ = ["OFADecoder"]


class OFADecoder(nn.Module):
    """Writes a text under what the encoder read.

    Checkpoints have tables for image codes here, which this network neither reads nor writes: they are kept, so that a
    checkpoint is whole, and take no part in training.

    Args:
        config: the network's.
    """

    gradient_checkpointing = False

    def __init__(self, config: OFAConfig) -> None:
        super().__init__()
        self.config = config
        width, layers, heads = config.d_model, config.decoder_layers, config.decoder_attention_heads
        side = config.image_bucket_size
        self.dropout = nn.Dropout(config.dropout)
        self.embed_tokens: nn.Module = nn.Embedding(config.vocab_size, width, config.pad_token_id)
        self.layernorm_embedding = nn.LayerNorm(width)
        self.embed_positions = nn.Embedding(config.max_position_embeddings + 2, width)
        self.pos_ln = nn.LayerNorm(width)
        self.self_pos_q_linear = nn.Linear(width, width)
        self.self_pos_k_linear = nn.Linear(width, width)
        self.cross_pos_q_linear = nn.Linear(width, width)
        self.cross_pos_k_linear = nn.Linear(width, width)
        drop_path = torch.linspace(0, config.decoder_drop_path_rate, layers, device="cpu").tolist()
        self.layers = nn.ModuleList(OFADecoderLayer(config, rate, i) for i, rate in enumerate(drop_path))
        self.layer_norm = nn.LayerNorm(width)
        self.token_rel_pos_table_list = nn.ModuleList(
            nn.Embedding(2 * config.token_bucket_size - 1, heads) for _ in range(layers)
        )
        self.output_projection: nn.Module = nn.Linear(width, config.vocab_size, bias=False)
        self.embed_image_positions = nn.Embedding(side**2 + 1, width)
        self.image_pos_ln = nn.LayerNorm(width)
        self.code_layernorm_embedding = nn.LayerNorm(width)
        self.image_rel_pos_table_list = nn.ModuleList(
            nn.Embedding((2 * side - 1) ** 2 + 3, heads) for _ in range(layers)
        )
        for unused in (
            self.embed_image_positions,
            self.image_pos_ln,
            self.code_layernorm_embedding,
            self.image_rel_pos_table_list,
        ):
            unused.requires_grad_(False)

    def forward(
        self,
        input_ids: torch.Tensor,
        memory: OFAEncoderOutput,
        attention_mask: torch.Tensor | None = None,
        cache: EncoderDecoderCache | None = None,
    ) -> torch.Tensor:
        """States of the tokens behind those in the cache.

        Args:
            input_ids: (B, T).
            memory: of the encoder, S long.
            attention_mask: (B, P + T) of the text so far, P of it in the cache, 0 where there is padding; None for
                none.
            cache: keys and values of P tokens; grows by T.

        Returns:
            (B, T, D).

        Raises:
            ValueError: for a text that is too long.
        """
        config = self.config
        past = 0 if cache is None else int(cache.get_seq_length())
        total = past + input_ids.shape[1]
        if total > config.max_position_embeddings:
            raise ValueError(f"a text of {total} tokens; up to {config.max_position_embeddings} are accepted")
        order = torch.arange(total, device=input_ids.device)
        positions = self.pos_ln(self.embed_positions(order))[None]
        new = positions[:, past:]
        heads = config.decoder_attention_heads
        absolute = absolute_bias(new, positions, self.self_pos_q_linear, self.self_pos_k_linear, heads)
        buckets = token_buckets(order[past:], order, config.token_bucket_size, config.max_position_embeddings)
        hidden = (order[None, :] > order[past:, None])[None, None]
        if attention_mask is not None:
            hidden = hidden | (attention_mask == 0)[:, None, None, :]
        assert memory.last_hidden_state is not None
        assert memory.positions is not None
        assert memory.mask is not None
        # positions are alike for the whole batch, and so is their bias
        crossing = absolute_bias(new, memory.positions[:1], self.cross_pos_q_linear, self.cross_pos_k_linear, heads)
        if not memory.mask.all():
            crossing = crossing.masked_fill(~memory.mask[:, None, None, :], torch.finfo(crossing.dtype).min)
        states = self.dropout(self.layernorm_embedding(self.embed_tokens(input_ids)))
        for layer, table in zip(self.layers, self.token_rel_pos_table_list, strict=True):
            bias = absolute + relative_bias(table, buckets)
            bias = bias.masked_fill(hidden, torch.finfo(bias.dtype).min)
            states = layer(states, bias, memory.last_hidden_state, crossing, cache=cache)
        return self.layer_norm(states)

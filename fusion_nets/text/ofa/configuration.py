"""Configuration of the OFA architecture."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig

__all__ = ["OFAConfig"]

TRUNKS = {
    "resnet14": (1, 1, 1),
    "resnet26": (2, 2, 2),
    "resnet50": (3, 4, 6),
    "resnet101": (3, 4, 23),
    "resnet152": (3, 8, 36),
}
"""Bottleneck blocks of the image trunk's three stages; checkpoints of BiomedGPT have one of the last three."""


class OFAConfig(PreTrainedConfig):
    """The sizes of an OFA network; those of the small one by default.

    A ``config.json`` of BiomedGPT has these keys, and others that say how its network was trained: they are kept, and
    mean nothing here. Dropout and drop path act in training alone, and are zero unless a configuration names them.

    Args:
        vocab_size: entries of the token table.
        d_model: width of the states, a multiple of both numbers of heads.
        encoder_layers: layers of the encoder.
        decoder_layers: layers of the decoder.
        encoder_attention_heads: heads in each layer of the encoder.
        decoder_attention_heads: heads in each layer of the decoder.
        encoder_ffn_dim: width inside the encoder's feed-forward blocks.
        decoder_ffn_dim: width inside the decoder's feed-forward blocks.
        resnet_type: image trunk, "resnet50", "resnet101" or "resnet152"; "resnet14" and "resnet26" are
            shallower ones for training from scratch.
        image_size: side in pixels of the square that images are brought to.
        token_bucket_size: distances of tokens are told apart exactly up to half of it.
        image_bucket_size: side of the largest grid of patches, of 16 pixels each.
        max_position_embeddings: longest text in tokens.
        dropout: of embeddings and of every block's result.
        attention_dropout: of attention weights.
        activation_dropout: inside feed-forward blocks.
        encoder_drop_path_rate: share of the last layer's residual branches left out; it grows linearly from the first.
        decoder_drop_path_rate: the same of the decoder.
        label_smoothing: of the training loss.
        init_std: spread of new weights.
        use_cache: keep keys and values while decoding.
        pad_token_id: padding.
        bos_token_id: begin of a text.
        eos_token_id: end of a text.
        decoder_start_token_id: what decoding starts with.
        tie_word_embeddings: whether the output projection is the token table.
        **kwargs: of ``PreTrainedConfig``, and whatever else a ``config.json`` says.

    Raises:
        ValueError: for an unknown trunk, or a width that its heads do not divide.

    Source: Wang et al., OFA, ICML 2022; Zhang et al., BiomedGPT, Nature Medicine 2024.
    """

    model_type = "ofa"
    keys_to_ignore_at_inference = ["past_key_values", "cache"]
    attribute_map = {
        "hidden_size": "d_model",
        "num_attention_heads": "encoder_attention_heads",
        "num_hidden_layers": "encoder_layers",
    }

    def __init__(
        self,
        vocab_size: int = 59457,
        d_model: int = 256,
        encoder_layers: int = 4,
        decoder_layers: int = 4,
        encoder_attention_heads: int = 4,
        decoder_attention_heads: int = 4,
        encoder_ffn_dim: int = 1024,
        decoder_ffn_dim: int = 1024,
        resnet_type: str = "resnet50",
        image_size: int = 256,
        token_bucket_size: int = 256,
        image_bucket_size: int = 42,
        max_position_embeddings: int = 1024,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        activation_dropout: float = 0.0,
        encoder_drop_path_rate: float = 0.0,
        decoder_drop_path_rate: float = 0.0,
        label_smoothing: float = 0.0,
        init_std: float = 0.02,
        use_cache: bool = True,
        pad_token_id: int = 1,
        bos_token_id: int = 0,
        eos_token_id: int = 2,
        decoder_start_token_id: int = 0,
        tie_word_embeddings: bool = True,
        **kwargs: Any,
    ) -> None:
        kwargs.pop("is_encoder_decoder", None)
        super().__init__(**kwargs)
        if resnet_type not in TRUNKS:
            raise ValueError(f"resnet_type is {resnet_type!r}; accepted are {', '.join(TRUNKS)}")
        for name, heads in (("encoder", encoder_attention_heads), ("decoder", decoder_attention_heads)):
            if d_model % heads:
                raise ValueError(f"d_model is {d_model}; a multiple of {name}_attention_heads, {heads}, is accepted")
        self.vocab_size = vocab_size
        self.d_model = d_model
        self.encoder_layers = encoder_layers
        self.decoder_layers = decoder_layers
        self.encoder_attention_heads = encoder_attention_heads
        self.decoder_attention_heads = decoder_attention_heads
        self.encoder_ffn_dim = encoder_ffn_dim
        self.decoder_ffn_dim = decoder_ffn_dim
        self.resnet_type = resnet_type
        self.image_size = image_size
        self.token_bucket_size = token_bucket_size
        self.image_bucket_size = image_bucket_size
        self.max_position_embeddings = max_position_embeddings
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.activation_dropout = activation_dropout
        self.encoder_drop_path_rate = encoder_drop_path_rate
        self.decoder_drop_path_rate = decoder_drop_path_rate
        self.label_smoothing = label_smoothing
        self.init_std = init_std
        self.use_cache = use_cache
        self.pad_token_id = pad_token_id
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id
        self.decoder_start_token_id = decoder_start_token_id
        self.tie_word_embeddings = tie_word_embeddings
        self.is_encoder_decoder = True

"""The OFA network, as `transformers` wants a model to be."""

from __future__ import annotations

import os
import re
from dataclasses import fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import DynamicCache, EncoderDecoderCache, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import Seq2SeqLMOutput
from transformers.utils import can_return_tuple

from ..biomedgpt import GENERATION, check_licence
from .configuration import OFAConfig
from .decoder import OFADecoder
from .encoder import OFAEncoder, OFAEncoderOutput
from .layers import OFAAttention

__all__ = ["OFAForConditionalGeneration"]

_DEPTH = re.compile(r"\b(layers|layer\d|\w+_table_list)\.\d+\.")
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
_NAMED = 5
"""Tensors that an error names."""
_CACHE = "cache" if "cache" in {field.name for field in fields(Seq2SeqLMOutput)} else "past_key_values"
"""What `transformers` calls the cache, given and handed back: the first since its 5.24, the second before."""


class OFAForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """OFA, the network of BiomedGPT: answers in text to a text and an image.

    It loads checkpoints as BiomedGPT's authors publish them and writes safetensors. Their weights are for research
    only: commercial and clinical use is forbidden.

    Without a ``generation_config.json``, it answers with 16 to 128 new tokens by 5 beams that repeat no three tokens.
    In training mode the image trunk's batch norms learn, too.

    Args:
        config: sizes.

    Source: Wang et al., OFA: unifying architectures, tasks, and modalities through a simple sequence-to-sequence
    learning framework, ICML 2022; Zhang et al., A generalist vision-language foundation model for diverse biomedical
    tasks, Nature Medicine 2024.
    """

    config_class = OFAConfig
    config: OFAConfig
    main_input_name = "input_ids"
    input_modalities = ["image", "text"]
    supports_gradient_checkpointing = True
    _no_split_modules = ["OFAEncoderLayer", "OFADecoderLayer"]
    _skip_keys_device_placement = ["past_key_values", "cache"]
    _tied_weights_keys = {
        "decoder.embed_tokens.weight": "encoder.embed_tokens.weight",
        "decoder.output_projection.weight": "encoder.embed_tokens.weight",
    }
    # index tables that the authors' program computes and saves, and a count that batch norms do not use
    _keys_to_ignore_on_load_unexpected = [r"_rp_bucket$", r"_position_idx$", r"\.version$"]
    _keys_to_ignore_on_load_missing = [r"\.num_batches_tracked$"]

    def __init__(self, config: OFAConfig) -> None:
        super().__init__(config)
        self.encoder = OFAEncoder(config)
        self.decoder = OFADecoder(config)
        self._complete_generation()
        self.post_init()

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *args: Any,
        accept_research_licence: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Load a checkpoint, whole or not at all.

        Args:
            pretrained_model_name_or_path: a folder, or a name on the hub.
            *args: of ``PreTrainedModel.from_pretrained``.
            accept_research_licence: needed for BiomedGPT by its name on the hub.
            **kwargs: of ``PreTrainedModel.from_pretrained``.

        Raises:
            ValueError: for a licence that is not accepted, and for tensors that are missing, have another shape than
                the configuration says, or belong to layers that it does not have; some of them are named.
        """
        check_licence(str(pretrained_model_name_or_path), accept_research_licence)
        report = kwargs.pop("output_loading_info", False)
        lenient = kwargs.pop("ignore_mismatched_sizes", False)
        loaded: Any = super().from_pretrained(
            pretrained_model_name_or_path, *args, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
        )
        model, info = loaded
        if not lenient:
            _refuse(str(pretrained_model_name_or_path), info)
        model._complete_generation()
        return (model, info) if report else model

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: OFAEncoderOutput | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        cache: EncoderDecoderCache | None = None,
    ) -> Seq2SeqLMOutput:
        """Logits of the next token at every place, and their loss.

        Args:
            input_ids: the prompt, (B, L), padded behind.
            attention_mask: (B, L), 0 where there is padding; None finds it by the padding token.
            pixel_values: images, (B, 3, H, W) in [-1, 1]; None for text alone.
            decoder_input_ids: the answer so far, (B, T); with a cache, what is not in it. None takes the labels, moved
                by one place behind the start token.
            decoder_attention_mask: of the whole answer so far, 0 where there is padding; None for none.
            encoder_outputs: what the encoder gave for this prompt; None computes it.
            past_key_values: the cache, by the name it had before `transformers` 5.24.
            labels: the wanted answer, (B, T), end token included, -100 where it does not count.
            use_cache: hand back a cache; by default as configured, and not with labels.
            cache: keys and values of the answer so far. None are kept while gradients are checkpointed, as layers that
                run twice would keep them twice.

        Returns:
            Logits (B, T, vocabulary); the mean cross entropy, with ``config.label_smoothing``, where there are labels;
            the cache.

        Raises:
            ValueError: for inputs that are too long, or if there is nothing to decode.
            TypeError: for an argument of another name. What `transformers` hands over in decoding is never ignored: a
                cache that went by a name unknown here would be lost, and the answer be another.
        """
        if encoder_outputs is None:
            if input_ids is None:
                raise ValueError("neither input_ids nor encoder_outputs; one of them is needed")
            encoder_outputs = self.encoder(input_ids, attention_mask, pixel_values)
        if decoder_input_ids is None:
            if labels is None:
                raise ValueError("neither decoder_input_ids nor labels; one of them is needed")
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        if use_cache is None:
            use_cache = self.config.use_cache and labels is None and not self.training
        cache = past_key_values if cache is None else cache
        layer: Any = self.decoder.layers[0]
        if layer.gradient_checkpointing and self.training and torch.is_grad_enabled():
            cache = None
        elif use_cache and cache is None:
            cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        states = self.decoder(decoder_input_ids, encoder_outputs, decoder_attention_mask, cache)
        logits = self.decoder.output_projection(states)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(
                logits.flatten(0, 1).float(), labels.flatten(), label_smoothing=self.config.label_smoothing
            )
        kept: dict[str, Any] = {_CACHE: cache}
        return Seq2SeqLMOutput(
            loss=loss, logits=logits, encoder_last_hidden_state=encoder_outputs.last_hidden_state, **kept
        )

    def prepare_decoder_input_ids_from_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """Labels (B, T) moved by one place behind the start token; padding where they do not count."""
        moved = F.pad(labels[:, :-1], (1, 0), value=self.config.decoder_start_token_id)
        return moved.masked_fill(moved == -100, self.config.pad_token_id)

    def tie_weights(self, missing_keys: set[str] | None = None, recompute_mapping: bool = True) -> None:
        """Make the three token tables one."""
        if missing_keys is not None:  # while loading: a table of another shape was not loaded, and has no values yet
            missing_keys |= {name for name in self._tied_weights_keys if self.get_parameter(name).is_meta}
        super().tie_weights(missing_keys, recompute_mapping)

    def get_input_embeddings(self) -> nn.Module:
        """The token table."""
        return self.encoder.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Another token table, for encoder and decoder."""
        self.encoder.embed_tokens = self.decoder.embed_tokens = value

    def get_output_embeddings(self) -> nn.Module:
        """The projection to logits."""
        return self.decoder.output_projection

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Another projection to logits."""
        self.decoder.output_projection = new_embeddings

    def _complete_generation(self) -> None:
        """Give what a checkpoint leaves open the values of BiomedGPT, and the configuration's tokens."""
        tokens = {name: getattr(self.config, name) for name in _TOKENS}
        for name, value in {**GENERATION, **tokens}.items():
            if getattr(self.generation_config, name, None) is None:
                setattr(self.generation_config, name, value)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, OFAAttention):
            nn.init.ones_(module.c_attn)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        else:
            super()._init_weights(module)


def _refuse(source: str, info: dict[str, Any]) -> None:
    """An error that names the tensors with which a checkpoint and its configuration disagree."""
    found = [f"{name} is {tuple(got)} instead of {tuple(want)}" for name, got, want in sorted(info["mismatched_keys"])]
    found += [f"{name} is missing" for name in sorted(info["missing_keys"])]
    found += [f"{name} has no place" for name in sorted(info["unexpected_keys"]) if _DEPTH.search(name)]
    if found:
        more = f", and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise ValueError(
            f"{source}: weights and config.json do not belong together: {', '.join(found[:_NAMED])}{more}; a whole "
            "checkpoint of the OFA architecture is accepted, with the sizes its configuration names"
        )

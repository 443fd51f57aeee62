"""The tokenizer of OFA: BART's, with pieces for image codes and for places in an image."""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken
from transformers import BartTokenizer

__all__ = ["OFATokenizer"]

CODES, BINS = 8192, 1000


class OFATokenizer(BartTokenizer):
    """BART's byte-level pieces, then ``<code_0>`` to ``<code_8191>``, then ``<bin_0>`` to ``<bin_999>``.

    BART's 50,265 pieces make 59,457. A text begins with ``<s>`` and ends with ``</s>``; a blank belongs to the word
    behind it.

    Args:
        vocab: the file ``vocab.json``, or what is in it.
        merges: the file ``merges.txt``, or what is in it.
        codes: how many pieces for image codes to add.
        bins: how many pieces for places to add.
        **kwargs: of ``BartTokenizer``.

    Source: Lewis et al., BART, ACL 2020; the added pieces, Wang et al., OFA, ICML 2022.
    """

    def __init__(
        self,
        vocab: str | dict[str, int] | None = None,
        merges: str | list[str] | None = None,
        codes: int = CODES,
        bins: int = BINS,
        **kwargs: Any,
    ) -> None:
        super().__init__(vocab, merges, codes=codes, bins=bins, **kwargs)
        pieces = [f"<code_{i}>" for i in range(codes)] + [f"<bin_{i}>" for i in range(bins)]
        known = self.get_added_vocab()
        self.add_tokens([AddedToken(piece, normalized=False) for piece in pieces if piece not in known])

"""Formulas of a page, between two dollar signs each, as MathML: browsers draw it themselves, without a script."""

import re
from typing import Any

from latex2mathml.converter import convert

BLOCK = re.compile(r"^\$\$(.+?)\$\$$", re.MULTILINE | re.DOTALL)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Turn the formulas of a page into MathML."""
    return BLOCK.sub(lambda tex: f'<div class="formula">{convert(tex[1].strip(), display="block")}</div>', markdown)

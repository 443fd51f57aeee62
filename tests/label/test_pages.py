"""What the documentation says of MONAI Label, done in its environment."""

import pytest
from pages import LABEL, ROOT, Newcomer, blocks, pages

SAID = [page for page in pages() if any(block.runner == LABEL for block in blocks(page))]


@pytest.mark.parametrize("page", SAID, ids=lambda page: str(page.relative_to(ROOT)))
def test_page(page, tmp_path):
    newcomer = Newcomer(tmp_path)
    for block in blocks(page):
        if block.runner == LABEL:
            newcomer.does(block)

"""The documentation, followed page by page: `make test-docs`, as it takes minutes."""

import pytest
from pages import HERE, LANGUAGES, ROOT, Newcomer, blocks, pages

FOLLOWED = [
    page for page in pages() if any(block.runner == HERE for block in blocks(page) if block.language in LANGUAGES)
]


@pytest.mark.parametrize("page", FOLLOWED, ids=lambda page: str(page.relative_to(ROOT)))
def test_page(page, tmp_path):
    newcomer = Newcomer(tmp_path)
    for block in blocks(page):
        if block.language in LANGUAGES and block.runner == HERE:
            newcomer.does(block)

"""The site as it is built: `make test-docs`."""

import importlib
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from pages import ROOT

LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "link": "href"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    return folder


class Loads(HTMLParser):
    """What a page loads."""

    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "link" and attributes.get("rel") in ("canonical", "next", "prev"):
            return
        if LOADING.get(tag) in attributes:
            self.addresses.append(attributes[LOADING[tag]])


def test_nothing_is_loaded_from_elsewhere(site):
    read = 0
    for page in site.rglob("*.html"):
        loads = Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        assert loads.addresses
        for address in loads.addresses:
            assert not re.match(r"(\w+:)?//", address), f"{page.name} loads {address}"
            if page.name != "404.html":
                assert (page.parent / address.split("?")[0].split("#")[0]).exists(), f"{page.name}: {address}"
        read += 1
    assert read > 20
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(https?:)?//|@import\s+(url\()?['\"]?(https?:)?//", style.read_text())


def test_every_public_name_has_its_place(site):
    spec = importlib.util.spec_from_file_location("api", ROOT / "docs" / "hooks" / "api.py")
    api = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(api)
    written = "".join(page.read_text(encoding="utf-8") for page in (site / "api").glob("*.html"))
    assert not re.search(r":(?:func|class|meth|data):", written)
    for package in api.PACKAGES:
        for name in api.public_names(package):
            one = getattr(importlib.import_module(package), name)
            if inspect.isclass(one):
                name = one.__name__  # as MONAI has them, FooD and FooDict are other names of Food
            assert f'id="{package}.{name}"' in written, f"{package}.{name}"


def test_small(site):
    sizes = {path.name: path.stat().st_size for path in site.rglob("*.png")}
    assert max(sizes.values()) < 2**20, sizes
    assert sum(sizes.values()) < 2**22, sizes

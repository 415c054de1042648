"""One browser for all tests of a process, and an empty page in it."""

from collections.abc import Iterator

import pytest
from selenium import webdriver

from tests.dashboard.browser import Page, open_browser


@pytest.fixture(scope="session")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with open_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
async def page(chrome: webdriver.Chrome) -> Page:
    page = Page(chrome)
    await page.open("about:blank")
    await page.emulate()
    await page.complaints()
    return page

"""A headless Chromium, and a page in it whose conditions a test can await while its own server answers."""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    StaleElementReferenceException,
)
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.patience import PATIENCE_SECONDS
from tests.ports import free_port

# The page replaces its rows at any moment, and shows a form when the server has answered.
REPLACED = (StaleElementReferenceException, ElementClickInterceptedException, ElementNotInteractableException)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def find_browser() -> tuple[str, str]:
    """The browser and its driver. Without them a test is skipped, and on CI it fails."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        message = "needs Chromium and its driver (Debian: apt-get install chromium chromium-driver)"
        if os.environ.get("CI"):
            pytest.fail(f"CI {message}")
        pytest.skip(message)
    return browser, driver


@contextmanager
def open_browser(profile: Path) -> Iterator[webdriver.Chrome]:
    browser, driver = find_browser()
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver, port=free_port()))
    chrome.set_script_timeout(PATIENCE_SECONDS)
    try:
        yield chrome
    finally:
        chrome.quit()


class Page:
    """Every method runs in a thread, so that the server in the test's event loop goes on."""

    def __init__(self, browser: webdriver.Chrome) -> None:
        self._browser = browser

    async def open(self, url: str) -> None:
        await asyncio.to_thread(self._browser.get, url)

    async def emulate(
        self, *, width: int = 1200, height: int = 900, scheme: str = "light", phone: bool = False
    ) -> None:
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1.5, "mobile": phone}
        await self._command("Page.setBypassCSP", {"enabled": False})
        await self._command("Emulation.setEmulatedMedia", media)
        await self._command("Emulation.setDeviceMetricsOverride", metrics)

    async def bypass_policy(self) -> None:
        """The next page is opened without its content security policy."""
        await self._command("Page.enable", {})
        await self._command("Page.setBypassCSP", {"enabled": True})

    async def until(self, selector: str, text: str) -> None:
        """Waits until the visible text of an element contains `text`."""
        await self._until(lambda: text in self._text(selector), f"{selector} to show {text!r}")

    async def until_shown(self, selector: str, *, shown: bool = True) -> None:
        await self._until(lambda: self._find(selector).is_displayed() is shown, f"{selector} shown: {shown}")

    async def text(self, selector: str) -> str:
        return await asyncio.to_thread(self._text, selector)

    async def attribute(self, selector: str, name: str) -> str:
        return await asyncio.to_thread(lambda: self._find(selector).get_attribute(name) or "")

    async def type(self, selector: str, keys: str) -> None:
        await self._until(lambda: self._type(selector, keys), f"{selector} to take keys")

    async def click(self, selector: str) -> None:
        await self._until(lambda: self._click(selector), f"a click on {selector}")

    async def script(self, expression: str) -> Any:
        return await asyncio.to_thread(self._browser.execute_script, f"return {expression}")

    async def screenshot(self, path: Path) -> None:
        await asyncio.to_thread(self._browser.save_screenshot, str(path))

    async def complaints(self) -> list[str]:
        """What the browser logged since the last call: script errors, and what the page's policy refused."""
        entries = await asyncio.to_thread(self._browser.get_log, "browser")
        return [entry["message"] for entry in entries]

    def _text(self, selector: str) -> str:
        """Read in one go: the page may put another element in its place at any moment. None of what is hidden, whose
        `innerText` is all of its text."""
        script = (
            "const found = document.querySelector(arguments[0]); return found?.checkVisibility() ? found.innerText : ''"
        )
        return str(self._browser.execute_script(script, selector))

    def _find(self, selector: str) -> WebElement:
        return self._browser.find_element(By.CSS_SELECTOR, selector)

    def _type(self, selector: str, keys: str) -> bool:
        self._find(selector).send_keys(keys)
        return True

    def _click(self, selector: str) -> bool:
        self._find(selector).click()
        return True

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        wait = WebDriverWait(self._browser, PATIENCE_SECONDS, poll_frequency=0.05, ignored_exceptions=REPLACED)
        await asyncio.to_thread(wait.until, lambda _: condition(), f"waited for {what}")

    async def _command(self, name: str, parameters: dict[str, Any]) -> None:
        await asyncio.to_thread(self._browser.execute_cdp_cmd, name, parameters)

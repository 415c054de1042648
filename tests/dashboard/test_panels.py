"""The panels Cache, Models, Logs and Connect in a real browser, against a real server."""

import logging
from pathlib import Path

import msgspec
import pytest
from selenium.webdriver.common.keys import Keys

from cache_backends import open_backend
from service.app import create_app
from service.executor.process.call_messages import EngineSpec
from service.executor.process.engine_process import EngineProcess
from service.executor.scripted import ScriptedExecutor
from service.logs import configure
from service.own_python import OWN_FOLDER
from service.queries import PrefixBranch
from service.settings import Settings
from tests.dashboard.browser import Page
from tests.executor.process.engines import spec
from tests.serving import client_of, running, settings


async def ask(url: str, *texts: str) -> list[str]:
    async with client_of(url) as client:
        bodies = [{"messages": [{"role": "user", "content": text}]} for text in texts]
        answers = [await client.post("/v1/chat/completions", json=body) for body in bodies]
    return [answer.headers["cache-status"].removeprefix("anyclaude; ") for answer in answers]


async def test_stored_answers_are_listed_deleted_and_cleared(page: Page, tmp_path: Path) -> None:
    configured = settings(tmp_path)
    cache = open_backend(("memory://", f"disk://{tmp_path}/store"))
    async with running(create_app(configured, cache=cache), configured) as url:
        await page.open(url + "/dashboard#cache")
        await page.until("#cache-empty", "Nothing is stored.")
        await ask(url, "zanzibar", "zanzibar", "two words", "three more words")
        await page.click("#cache-refresh")
        await page.until("#cache-tiers", "memory: 3 answers")
        assert "disk: 3 answers" in await page.text("#cache-tiers")
        assert "zanzibar" not in await page.text("body")
        assert await page.text("#cache-rows tr:last-child td:nth-child(3)") == "1"
        await page.click("#cache-rows tr:first-child button")
        await page.until("#cache-status", "1 answer removed.")
        await page.until("#cache-tiers", "memory: 2 answers")
        assert await page.script("document.activeElement.id") == "cache-title"
        await page.click("#cache-clear")
        await page.until("#cache-dialog", "Remove every answer")
        await page.script("document.activeElement.click()")  # the safe choice has the focus
        await page.until_shown("#cache-dialog", shown=False)
        await page.until("#cache-tiers", "memory: 2 answers")
        await page.click("#cache-clear")
        await page.click("#cache-dialog .danger")
        await page.until("#cache-status", "2 answers removed.")
        await page.until("#cache-empty", "Nothing is stored.")
        assert await ask(url, "zanzibar") == ["fwd=uri-miss; stored"]
        assert await page.complaints() == []


def branch(depth: int, start: int, end: int, prompts: int, *, on_disk: bool = False) -> PrefixBranch:
    tokens = end - start
    held, stored = (0, tokens) if on_disk else (tokens, 0)
    return PrefixBranch(
        depth=depth,
        start=start,
        end=end,
        prompts=prompts,
        memory_tokens=held,
        memory_bytes=held * 1024,
        disk_tokens=stored,
        disk_bytes=stored * 1024,
    )


BRANCHES = [
    branch(0, 0, 1000, 3),
    branch(1, 1000, 1500, 1, on_disk=True),
    branch(1, 1000, 1400, 2),
    branch(2, 1200, 1400, 1),
    branch(0, 0, 7, 1),
]


async def test_the_prefix_cache_is_a_tree(page: Page, tmp_path: Path) -> None:
    configured = settings(tmp_path)
    executor = ScriptedExecutor()
    async with running(create_app(configured, executor=executor), configured) as url:
        await page.open(url + "/dashboard#cache")
        await page.until("#prefix-models", "Nothing is kept yet.")
        executor.prefixes = BRANCHES
        await page.click("#prefix-refresh")
        await page.until(".tree > li:first-child > p", "1,000 tokens from 0 shared by 3 prompts; in memory, 1000 KiB")
        deeper = ".tree > li:first-child > ul > li"
        assert await page.text(f"{deeper}:first-child > p") == "500 tokens from 1,000 on disk, 500 KiB"
        assert await page.text(f"{deeper}:last-child > ul > li > p") == "200 tokens from 1,200 in memory, 200 KiB"
        assert await page.script("document.querySelectorAll('.tree > li').length") == 2
        assert await page.complaints() == []


async def test_clients_get_the_address_and_the_model(page: Page, tmp_path: Path) -> None:
    configured = settings(tmp_path)
    async with running(create_app(configured), configured) as url:
        await page.open(url + "/dashboard#connect")
        await page.until("#connect-root", url)
        claude = await page.text(".client:first-child")
        assert f"export ANTHROPIC_BASE_URL={url}\n" in claude
        assert "export ANTHROPIC_MODEL=scripted\n" in claude
        assert "npm install -g @anthropic-ai/claude-code" in claude
        await page.click(".client:last-child summary")
        await page.until(".client:last-child", f"export ANTHROPIC_BASE_URL={url}")
        assert await page.complaints() == []


async def test_a_required_key_is_not_on_the_screen(page: Page, tmp_path: Path) -> None:
    configured = settings(tmp_path, require_api_key=True, api_key="open-sesame")
    async with running(create_app(configured), configured) as url:
        await page.open(url + "/dashboard#connect")
        await page.type("#key", "open-sesame" + Keys.ENTER)
        await page.until("#connect-key", "Your key is filled in when you copy.")
        assert "export ANTHROPIC_AUTH_TOKEN=ANYCLAUDE-API-KEY" in await page.text(".client:first-child")
        assert "open-sesame" not in await page.script("document.documentElement.outerHTML")


async def test_the_log_is_followed_without_content(page: Page, tmp_path: Path, logging_restored: None) -> None:
    configured = settings(tmp_path)
    configure(configured)
    async with running(create_app(configured), configured) as url:
        await page.open(url + "/dashboard#logs")
        await page.until("#log-lines", "ready after")
        await ask(url, "zanzibar")
        await page.until("#log-lines", "openai_chat 200 miss")
        logging.getLogger("anyclaude.server").warning("<b>trouble</b>")
        await page.until("#log-lines li:last-child", "<b>trouble</b>")
        await page.click("#log-trouble")
        await page.until_shown("#log-lines li:first-child", shown=False)
        assert "<b>trouble</b>" in await page.text("#log-lines")
        assert "zanzibar" not in await page.text("body")
        assert await page.complaints() == []


def engine(name: str, configured: Settings) -> EngineSpec:
    made = spec("scripted", configured)
    return msgspec.structs.replace(made, profile=msgspec.structs.replace(made.profile, id=name))


async def test_models_are_unloaded_and_loaded(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(OWN_FOLDER))  # for the engine processes
    configured = settings(tmp_path)
    one, two = (EngineProcess(engine(name, configured)) for name in ("one", "two"))
    app = create_app(configured, executor=one, others={"two": two})
    async with running(app, configured) as url:
        await page.open(url + "/dashboard#models")
        await page.until("#models-rows tr:first-child", "healthy")
        await page.until("#models-rows tr:last-child", "unloaded: the next request loads it")
        await page.click("#models-rows tr:last-child button")
        await page.until("#models-status", "two: loaded.")
        await page.until("#models-rows tr:last-child", "Unload")
        await page.click("#models-rows tr:last-child button")
        await page.until("#models-status", "two: unloaded.")
        await page.until("#recommended", "anyclaude models pull mlx-community/")
        assert await page.complaints() == []


async def test_a_model_without_an_engine_process_has_no_buttons(page: Page, tmp_path: Path) -> None:
    configured = settings(tmp_path)
    async with running(create_app(configured), configured) as url:
        await page.open(url + "/dashboard#models")
        await page.until("#models-rows", "healthy")
        assert await page.script("document.querySelectorAll('#models-rows button').length") == 0


@pytest.mark.parametrize(
    ("panel", "shown"),
    [("cache", "Delete"), ("connect", "ANTHROPIC_BASE_URL"), ("models", "Settings in force"), ("logs", "log")],
)
@pytest.mark.parametrize("width", [320, 390, 768, 1200])
async def test_no_width_needs_sideways_scrolling(
    page: Page, tmp_path: Path, panel: str, shown: str, width: int
) -> None:
    configured = settings(tmp_path)
    async with running(create_app(configured), configured) as url:
        await ask(url, "one", "two")
        await page.emulate(width=width, phone=width < 500)
        await page.open(f"{url}/dashboard#{panel}")
        await page.until(f"#{panel}", shown)
        if panel == "models":
            await page.click("#models summary")
        assert await page.script("document.documentElement.scrollWidth <= innerWidth")

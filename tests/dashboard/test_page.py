"""The dashboard in a real browser, against a real server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from selenium.webdriver.common.keys import Keys

from service.app import create_app
from service.events import Event
from service.executor.base import ExecutorStatus
from service.executor.process.engine_process import EngineProcess
from service.executor.scripted import PROFILE, ScriptedExecutor
from service.generation import GenerationRequest
from service.own_python import OWN_FOLDER
from service.tallies import CallTally, StateTally
from tests.dashboard.browser import Page
from tests.executor.process.engines import spec
from tests.ports import free_port
from tests.serving import client_of, running, settings

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "zanzibar quokka"}]}


async def ask(url: str, times: int = 1, *, status: int = 200, **changes: object) -> None:
    async with client_of(url) as client:
        for _ in range(times):
            assert (await client.post(CHAT, json={**HELLO, **changes})).status_code == status


async def test_the_page_follows_what_happens(page: Page, tmp_path: Path) -> None:
    configured = settings(tmp_path)
    async with running(create_app(configured), configured) as url:
        await page.open(url + "/dashboard#now")
        await page.until("#status", "healthy")
        await page.until("#no-recent", "None yet")
        assert await page.text("#latency .legend") == "Hits: none yet\nMisses: none yet"
        await ask(url, 4)
        await page.until("#hit-rate", "75.0%")
        assert await page.text("#hit-counts") == "3 of 4 requests since the start, 1 answer kept"
        await page.until("#recent tr:nth-child(4)", "miss")
        assert "hit" in await page.text("#recent tr:first-child")
        assert await page.text("#outcomes .legend") == "Hits 3\nMisses 1"
        assert await page.text("#latency .readout") == "share of the last 3 hits, 1 miss"
        await ask(url, temperature=9, status=400)
        await page.until("#recent tr:first-child", "400 invalid_value")
        await page.until("#outcomes .legend", "Failed 1")
        assert "zanzibar" not in await page.text("body")
        assert (await page.script("document.title")).startswith("75.0% hits")
        assert await page.complaints() == []


async def test_the_reason_for_reading_again_and_the_times_are_shown(page: Page, tmp_path: Path) -> None:
    configured = settings(tmp_path)
    async with running(create_app(configured), configured) as url:
        await page.open(url + "/dashboard#now")
        await page.until("#no-recent", "None yet")
        await ask(url)
        await page.until("#recent", "2 read")
        await ask(url, messages=[{"role": "system", "content": "other"}, *HELLO["messages"]], stream=True)
        await page.until("#recent tr:first-child", "first difference: system changed")
        assert "first token after" in await page.attribute("#recent tr:first-child .course", "aria-label")


async def test_a_clients_retry_is_shown(page: Page, tmp_path: Path) -> None:
    configured = settings(tmp_path)
    async with running(create_app(configured), configured) as url:
        await page.open(url + "/dashboard#now")
        async with client_of(url) as client:
            for sent in ("0", "2", "many"):
                await client.post(CHAT, json=HELLO, headers={"x-stainless-retry-count": sent})
        await page.until("#recent tr:nth-child(3)", "miss")
        assert "the client's retry 2" in await page.text("#recent tr:nth-child(2)")
        assert (await page.text("#recent")).count("retry") == 1


async def test_content_is_shown_with_traces_only(page: Page, tmp_path: Path) -> None:
    configured = settings(tmp_path, debug_level=2)
    async with running(create_app(configured), configured) as url:
        await ask(url)
        await page.open(url + "/dashboard#now")
        await page.until("#recent", "miss")
        assert "quokka" not in await page.text("body")
        await page.click("#recent tr:first-child button")
        await page.until("#trace-text", '"content": "zanzibar quokka"')
        await page.script("document.activeElement.click()")  # closing has the focus
        await page.until_shown("#trace-dialog", shown=False)
        assert await page.complaints() == []


async def test_trouble_of_the_engine_is_shown(page: Page, tmp_path: Path) -> None:
    configured = settings(tmp_path)
    executor = ScriptedExecutor()
    async with running(create_app(configured, executor=executor), configured) as url:
        await page.open(url + "/dashboard#now")
        await page.until("#waiting", "0 waiting, of at most 64")
        executor.state = ExecutorStatus(
            state="degraded",
            engine_restarts=1,
            tool_calls=CallTally(repaired=2),
            memory_bytes=3 * 2**30,
            prefix_cache_bytes=2**29,
            states=StateTally(turns=4, kept_bytes=2**28),
        )
        executor.running, executor.waiting = 2, 7
        await page.until("#status", "degraded")
        assert await page.text("#running") == "2 of 2"
        assert await page.text("#waiting") == "7 waiting, of at most 64; 1 engine restart; 2 repairs of tool calls"
        assert await page.text("#memory") == "3.0 GiB"
        assert "prefix cache 512 MiB, 64.0 MiB a turn" in await page.text("#memory-note")
        executor.state = ExecutorStatus(
            state="healthy", tool_calls=CallTally(cut=1, broken=2, unknown=1, mismatched=1500)
        )
        await page.until("#status", "healthy")
        assert (await page.text("#waiting")).split("; ")[1:] == [
            "1 tool call cut off",
            "2 unreadable tool calls",
            "1 call of an unknown tool",
            "1,500 tool calls against their schema",
        ]


async def test_settings_are_shown_without_secrets(page: Page, tmp_path: Path) -> None:
    configured = settings(tmp_path, api_key="do-not-show", max_queue=77)
    async with running(create_app(configured), configured) as url:
        await page.open(url + "/dashboard#models")
        await page.until_shown("#models details")
        await page.click("#models summary")
        await page.until("#settings", "maxQueue\n77")
        shown = await page.text("#settings")
        assert "contextLength\n200000 (not set)" in shown
        assert "record\nnone" in shown
        assert "default" not in shown.splitlines()
        assert "do-not-show" not in await page.script("document.documentElement.outerHTML")


async def test_what_runs_is_shown_while_it_runs(page: Page, tmp_path: Path) -> None:
    configured = settings(tmp_path, max_concurrency=1)
    write, end = asyncio.Event(), asyncio.Event()

    async def script(_: GenerationRequest) -> AsyncIterator[str | Event]:
        await write.wait()
        while not end.is_set():
            yield "on "
            await asyncio.sleep(0.2)

    executor = ScriptedExecutor(script, concurrency=1)
    async with running(create_app(configured, executor=executor), configured) as url, asyncio.TaskGroup() as asking:
        await page.open(url + "/dashboard#now")
        await page.until("#no-running", "No request runs.")
        asking.create_task(ask(url))
        await page.until("#running-rows .step", "reading 2 tokens")
        asking.create_task(ask(url, seed=1))
        await page.until("#running-rows tr:nth-child(2)", "waiting or reading 2 tokens")
        write.set()
        await page.until("#running-rows tr:first-child .step", "writing")
        await page.until("#running-rows tr:first-child td:nth-child(4)", ".")  # below 10 tokens/s
        assert "zanzibar" not in await page.text("body")
        end.set()
        await page.until("#no-running", "No request runs.")
        await page.until("#recent tr:nth-child(2)", "miss")


async def test_the_reading_of_a_long_prompt_is_shown(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(OWN_FOLDER))  # for the engine process
    configured = settings(tmp_path, max_concurrency=1)
    engine = EngineProcess(spec("counting", configured, step_seconds=0.2))
    async with running(create_app(configured, executor=engine), configured) as url, asyncio.TaskGroup() as asking:
        await page.open(url + "/dashboard#now")
        await page.until("#status", "healthy")
        long = [{"role": "user", "content": "word " * 400}]
        left = [asking.create_task(ask(url, messages=long, max_tokens=1, seed=seed)) for seed in range(2)]
        await page.until("#running-rows tr:nth-child(2)", "waiting to read 400 tokens")
        await page.until("#running-rows tr:first-child .step", " of 400 tokens")
        assert 0 < await page.script("document.querySelector('#running-rows progress').position") < 1
        assert await page.complaints() == []
        for task in left:
            task.cancel()


async def test_what_others_say_is_text(page: Page, tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    configured = settings(tmp_path)
    executor = ScriptedExecutor(profile=msgspec.structs.replace(PROFILE, id=name))
    async with running(create_app(configured, executor=executor), configured) as url:
        await page.open(url + "/dashboard#now")
        await page.until("#model", name)
        assert await page.script("document.querySelectorAll('#model *').length") == 0
        assert await page.complaints() == []


@pytest.mark.parametrize(
    "attempt",
    [
        "document.body.innerHTML = '<b>x</b>'",
        "document.body.insertAdjacentHTML('beforeend', '<b>x</b>')",
        "document.body.setAttribute('onclick', 'x()')",
        "document.head.append(Object.assign(document.createElement('script'), {src: 'https://evil.example'}))",
    ],
)
async def test_the_browser_refuses_what_could_run_foreign_text(page: Page, tmp_path: Path, attempt: str) -> None:
    configured = settings(tmp_path)
    async with running(create_app(configured), configured) as url:
        await page.open(url + "/dashboard#now")
        await page.until("#status", "healthy")
        refused = await page.script(f"(() => {{ try {{ {attempt}; }} catch (error) {{ return error.name; }} }})()")
    assert refused == "TypeError"


async def test_the_key_is_asked_for_and_kept_in_the_tab(page: Page, tmp_path: Path) -> None:
    configured = settings(tmp_path, require_api_key=True, api_key="open-sesame")
    async with running(create_app(configured), configured) as url:
        await page.open(url + "/dashboard")
        await page.until("#key-form", "This server requires an API key")
        await page.type("#key", "wrong" + Keys.ENTER)
        await page.until("#key-error", "That is not a key of this server.")
        await page.type("#key", "clé" + Keys.ENTER)
        await page.until_shown("#key-form")
        await page.type("#key", "open-sesame" + Keys.ENTER)
        await page.until("#status", "healthy")
        await page.until_shown("#key-form", shown=False)
        await page.open(url + "/dashboard")
        await page.until("#status", "healthy")
        assert await page.script("document.cookie") == ""
        assert await page.script("location.href") == url + "/dashboard"


async def test_a_server_that_restarts_is_followed_again(page: Page, tmp_path: Path) -> None:
    configured = settings(tmp_path, port=free_port())
    async with running(create_app(configured), configured) as url:
        await ask(url, 2)
        await page.open(url + "/dashboard#now")
        await page.until("#hit-rate", "50.0%")
    await page.until("#notice", "Trying again")
    assert await page.text("#status") == "not connected"
    async with running(create_app(configured), configured) as url:
        await ask(url, 4)
        await page.until("#hit-rate", "75.0%")
        await page.until_shown("#notice", shown=False)


async def test_charts_are_read_with_the_keyboard_and_aloud(page: Page, tmp_path: Path) -> None:
    configured = settings(tmp_path)
    async with running(create_app(configured), configured) as url:
        await ask(url, 3)
        await page.open(url + "/dashboard#now")
        await page.until("#outcomes .readout", "3 requests in the last five minutes")
        assert await page.attribute("#outcomes svg", "aria-label") == "3 requests in the last five minutes"
        await page.type("#outcomes svg", Keys.ARROW_LEFT)
        await page.until("#outcomes .readout", ":")
        for _ in range(2):
            await page.type("#outcomes svg", Keys.ARROW_LEFT)
        await page.until("#outcomes .readout", "no requests")
        await page.script("document.activeElement.blur()")
        await page.until("#outcomes .readout", "in the last five minutes")


@pytest.mark.parametrize("width", [320, 390, 768, 1200])
async def test_no_width_needs_sideways_scrolling(page: Page, tmp_path: Path, width: int) -> None:
    configured = settings(tmp_path)
    async with running(create_app(configured), configured) as url:
        await ask(url, 3)
        await page.emulate(width=width, phone=width < 500)
        await page.open(url + "/dashboard#now")
        await page.until("#recent tr:nth-child(3)", "miss")
        assert await page.script("document.documentElement.scrollWidth <= innerWidth")


async def test_light_and_dark(page: Page, tmp_path: Path) -> None:
    configured = settings(tmp_path)
    colours = {}
    async with running(create_app(configured), configured) as url:
        for scheme in ("light", "dark"):
            await page.emulate(scheme=scheme)
            await page.open(url + "/dashboard#now")
            await page.until("#status", "healthy")
            colours[scheme] = await page.script(
                "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
                ".map((colour) => colour.match(/\\d+/g).reduce((sum, part) => sum + Number(part), 0))"
            )
    assert colours["light"][0] > 700 > 200 > colours["light"][1]
    assert colours["dark"][1] > 600 > 200 > colours["dark"][0]

"""The chat in a real browser, against a real server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from service.app import create_app
from service.errors import EngineFailed
from service.events import Event, ReasoningDelta, ToolCallDelta, ToolCallStarted
from service.executor.scripted import PROFILE, ScriptedExecutor
from service.generation import GenerationRequest
from tests.dashboard.browser import Page
from tests.patience import PATIENCE_SECONDS
from tests.serving import running, settings

MARKDOWN = """# Title

Some *soft*, **loud** and `coded` words.

- one
- two

```python
print("**not loud**")
```

<img src=x onerror=alert(1)> [link](javascript:alert(2))"""


async def markdown(_: GenerationRequest) -> AsyncIterator[str | Event]:
    yield ReasoningDelta(0, "I think, therefore.")
    yield MARKDOWN


async def calls(_: GenerationRequest) -> AsyncIterator[str | Event]:
    yield ToolCallStarted(0, "call_0", "look_up")
    yield ToolCallDelta(0, '{"word": "quokka"}')


async def broken(_: GenerationRequest) -> AsyncIterator[str | Event]:
    yield "Half an"
    raise EngineFailed("The engine fell over.")


async def ask(page: Page, text: str) -> None:
    await page.type("#question", text + Keys.ENTER)


async def test_an_answer_is_streamed_and_its_repetition_is_a_hit(page: Page, tmp_path: Path) -> None:
    configured = settings(tmp_path)
    async with running(create_app(configured), configured) as url:
        await page.open(url + "/dashboard")
        await page.until("#chat-empty", "Ask the model something")
        assert f"curl {url}/v1/chat/completions" in await page.text("#chat-curl")
        await ask(page, "zanzibar quokka")
        await page.until(".answer .badge", "Miss")
        assert "zanzibar quokka" in await page.text(".answer")
        badge = await page.text(".answer .badge")
        assert "0 prompt tokens reused, 2 read · 2 written · first token" in badge
        await page.until_shown("#chat-empty", shown=False)
        await page.click("#again")
        await page.until(".answer .badge", "from the response cache: no token read or written")
        assert "Hit" in await page.text(".answer .badge")
        assert "Answered: from the response cache" in await page.script(
            "document.querySelector('#chat-status').textContent"
        )
        assert await page.complaints() == []


async def test_a_follow_up_sends_the_whole_conversation(page: Page, tmp_path: Path) -> None:
    configured = settings(tmp_path)
    executor = ScriptedExecutor()
    async with running(create_app(configured, executor=executor), configured) as url:
        await page.open(url + "/dashboard")
        for number, question in enumerate(("first", "second"), 1):
            await ask(page, question)
            await page.until(f".turn:nth-child({2 * number}) .badge", "Miss")
        said = [(message.role, message.content) for message in executor.submitted[-1].messages]
        assert said == [("user", "first"), ("assistant", "first"), ("user", "second")]
        await page.click("#fresh")
        await page.until_shown("#chat-empty")
        await ask(page, "third")
        await page.until(".answer .badge", "Miss")
        assert len(executor.submitted[-1].messages) == 1


async def test_markdown_becomes_elements_and_html_stays_text(page: Page, tmp_path: Path) -> None:
    configured = settings(tmp_path)
    async with running(create_app(configured, executor=ScriptedExecutor(markdown)), configured) as url:
        await page.open(url + "/dashboard")
        await ask(page, "show me")
        await page.until(".answer .badge", "Miss")
        assert await page.text(".answer .heading") == "Title"
        assert await page.text(".answer em") == "soft"
        assert await page.text(".answer strong") == "loud"
        assert await page.text(".answer ul") == "one\ntwo"
        assert await page.text(".answer pre") == 'print("**not loud**")'
        assert "<img src=x onerror=alert(1)> [link](javascript:alert(2))" in await page.text(".answer")
        assert await page.script("document.querySelectorAll('.answer :is(img, a, script)').length") == 0
        assert "I think" not in await page.text(".answer")
        await page.click(".answer summary")
        await page.until(".answer .reasoning", "I think, therefore.")
        assert await page.complaints() == []


async def test_tool_calls_are_shown(page: Page, tmp_path: Path) -> None:
    configured = settings(tmp_path)
    async with running(create_app(configured, executor=ScriptedExecutor(calls)), configured) as url:
        await page.open(url + "/dashboard")
        await ask(page, "what is a quokka?")
        await page.until(".answer .call", "Calls look_up")
        assert '{"word": "quokka"}' in await page.text(".answer .call")


async def test_stop_ends_the_generation(page: Page, tmp_path: Path) -> None:
    configured = settings(tmp_path)
    ended = asyncio.Event()

    async def endless(_: GenerationRequest) -> AsyncIterator[str | Event]:
        try:
            yield "on and on and "
            await asyncio.Event().wait()  # more text would move the button while the browser clicks
        finally:
            ended.set()

    async with running(create_app(configured, executor=ScriptedExecutor(endless)), configured) as url:
        await page.open(url + "/dashboard")
        await ask(page, "go on")
        await page.until(".answer", "on and on and")
        await page.click("#stop")
        await page.until(".answer", "Stopped.")
        await asyncio.wait_for(ended.wait(), PATIENCE_SECONDS)
        await page.until_shown("#send")
        assert await page.script("document.activeElement.id") == "question"


async def test_an_error_is_shown_and_the_question_can_be_replaced(page: Page, tmp_path: Path) -> None:
    configured = settings(tmp_path)
    async with running(create_app(configured, executor=ScriptedExecutor(broken)), configured) as url:
        await page.open(url + "/dashboard")
        await ask(page, "hello")
        await page.until(".answer .error", "The engine fell over.")
        assert "Half an" in await page.text(".answer")


async def test_a_refused_question_leaves_no_trace_in_the_next(page: Page, tmp_path: Path) -> None:
    configured = settings(tmp_path)
    small = ScriptedExecutor(profile=type(PROFILE)(id="small", fingerprint="small-1", context_length=4))
    async with running(create_app(configured, executor=small), configured) as url:
        await page.open(url + "/dashboard")
        await ask(page, "one two three four five")
        await page.until(".answer .error", "4")
        await ask(page, "short")
        await page.until(".answer .badge", "Miss")
        assert await page.script("document.querySelectorAll('.turn').length") == 2
        assert [message.content for message in small.submitted[-1].messages] == ["short"]


async def test_the_chat_uses_the_key_of_the_page(page: Page, tmp_path: Path) -> None:
    configured = settings(tmp_path, require_api_key=True, api_key="open-sesame")
    async with running(create_app(configured), configured) as url:
        await page.open(url + "/dashboard")
        await page.type("#key", "open-sesame" + Keys.ENTER)
        await page.until_shown("#question")
        await ask(page, "hello")
        await page.until(".answer .badge", "Miss")
        await page.until_shown("#chat-empty", shown=False)
        assert "open-sesame" not in await page.script("document.documentElement.outerHTML")


@pytest.mark.parametrize("width", [320, 390, 768, 1200])
async def test_no_width_needs_sideways_scrolling(page: Page, tmp_path: Path, width: int) -> None:
    configured = settings(tmp_path)
    async with running(create_app(configured, executor=ScriptedExecutor(markdown)), configured) as url:
        await page.emulate(width=width, phone=width < 500)
        await page.open(url + "/dashboard")
        await page.until_shown("#chat-empty")
        assert await page.script("document.documentElement.scrollWidth <= innerWidth")
        await ask(page, "x" * 300)
        await page.until(".answer .badge", "Miss")
        assert await page.script("document.documentElement.scrollWidth <= innerWidth")

"""The executor with drafters, around real models: the same texts as without."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from service.errors import NotReady
from service.executor.base import collect
from service.executor.mlx_executor import MlxExecutor
from service.generation import Completion, GenerationRequest, SamplingParams
from tests.executor.demo_executor import demo_executor
from tests.executor.engines import question, until

pytestmark = pytest.mark.model

CODE = """def area(width, height):
    return width * height


def volume(width, height, depth):
    return area(width, height) * depth
"""
EDIT = f"Repeat this code. Change nothing but the name depth, which becomes length:\n```python\n{CODE}```"
REQUESTS = {
    "an edit": question(EDIT, max_tokens=45),
    "an edit, cut": question(EDIT, max_tokens=23),
    "an edit, stopped": question(EDIT, max_tokens=60, stop=("* height",)),
}


async def answer(executor: MlxExecutor, request: GenerationRequest) -> Completion:
    return await collect((await executor.submit(request)).events())


async def answers(executor: MlxExecutor) -> dict[str, Any]:
    return {name: (await answer(executor, request)).choices for name, request in REQUESTS.items()}


async def test_the_same_texts_by_lookup(demo_model: Path, tmp_path: Path) -> None:
    async with demo_executor(demo_model, tmp_path, prefix_disk_bytes=0, prompt_lookup=False) as executor:
        plain = await answers(executor)
        assert executor.status().drafts.drafted == 0
    async with demo_executor(demo_model, tmp_path, prefix_disk_bytes=0, prompt_lookup=True) as executor:
        assert await answers(executor) == plain
        assert executor.status().drafts.accepted > 20


async def test_a_model_drafts_for_itself(tiny_model: Path, tmp_path: Path) -> None:
    request = question("one two three four", max_tokens=60)
    async with demo_executor(tiny_model, tmp_path, prefix_disk_bytes=0, prompt_lookup=False) as executor:
        plain = (await answer(executor, request)).choices
    own = {"draft_model": str(tiny_model), "prompt_lookup": False, "prefix_disk_bytes": 0}
    async with demo_executor(tiny_model, tmp_path, **own) as executor:
        assert (await answer(executor, request)).choices == plain
        drafts = executor.status().drafts
        assert drafts.accepted > 0.9 * drafts.drafted > 10


async def test_a_second_request_and_one_that_leaves_change_nothing(tiny_model: Path, tmp_path: Path) -> None:
    long = question("one two three four", max_tokens=120)
    short = question("five six seven", max_tokens=30)
    async with demo_executor(tiny_model, tmp_path, prefix_disk_bytes=0, prompt_lookup=False) as executor:
        expected = [(await answer(executor, request)).choices for request in (long, short)]
    own = {"draft_model": str(tiny_model), "prompt_lookup": True}
    async with demo_executor(tiny_model, tmp_path, prefix_disk_bytes=0, **own) as executor:
        for _ in range(3):
            first = (await executor.submit(long)).events()
            events = [await anext(first)]
            second = asyncio.ensure_future(answer(executor, short))
            leaving = await executor.submit(long)
            await leaving.aclose()
            events += [event async for event in first]
            assert "".join(getattr(event, "text", "") for event in events) == expected[0][0].text
            assert (await second).choices == expected[1]
        await until(lambda: executor.status().running == executor.status().waiting == 0)
        assert executor.status().drafts.accepted > 0


def write_with_two_words_exchanged(model: Path, folder: Path) -> None:
    for file in model.iterdir():
        (folder / file.name).symlink_to(file)
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    words["Paris"], words["Rome"] = words["Rome"], words["Paris"]
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


async def test_a_draft_model_of_another_vocabulary_is_refused_with_the_difference(
    tiny_model: Path, tmp_path: Path
) -> None:
    write_with_two_words_exchanged(tiny_model, tmp_path)
    async with demo_executor(tiny_model, tmp_path, draft_model=str(tmp_path)) as executor:
        with pytest.raises(
            NotReady, match=r"token \d+ is '\w+' for the model and '\w+' for the draft model.*draftModel"
        ):
            await executor.submit(question("hello"))


async def test_what_is_drawn_is_drawn_as_before(tiny_model: Path, tmp_path: Path) -> None:
    drawn = question("one two", max_tokens=30, sampling=SamplingParams(temperature=1.0, seed=3))
    async with demo_executor(tiny_model, tmp_path, prefix_disk_bytes=0, prompt_lookup=False) as executor:
        expected = (await answer(executor, drawn)).choices
    async with demo_executor(tiny_model, tmp_path, prefix_disk_bytes=0, prompt_lookup=True) as executor:
        assert (await answer(executor, drawn)).choices == expected
        assert executor.status().drafts.drafted == 0

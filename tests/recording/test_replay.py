"""Record what a server answers, then answer from the file alone, through the whole service."""

import json
import re
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from service.app import create_app
from service.executor.scripted import ScriptedExecutor
from service.recording.archive import AnswerEntry, ArchiveError, ArchiveWriter, new_header, read_entries
from service.recording.player import RecordedAnswers, ReplayExecutor, read_recording
from tests.response_cache.answers import text
from tests.serving import client_of, running, settings

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"


def body(content: str, **more: Any) -> dict[str, Any]:
    return {"model": "claude-x", "max_tokens": 50, "messages": [{"role": "user", "content": content}], **more}


def recording_app(tmp_path: Path) -> Starlette:
    return create_app(settings(tmp_path, record=str(tmp_path / "file")), executor=ScriptedExecutor())


def replaying_app(tmp_path: Path) -> Starlette:
    recording = read_recording(tmp_path / "file")
    return create_app(settings(tmp_path), executor=ReplayExecutor(recording), cache=RecordedAnswers(recording))


async def record(tmp_path: Path, *asked: tuple[str, dict[str, Any]]) -> list[httpx.Response]:
    async with running(recording_app(tmp_path), settings(tmp_path)) as url, client_of() as client:
        return [await client.post(url + path, json=content) for path, content in asked]


async def test_what_was_recorded_is_answered_without_a_model_in_every_form(tmp_path: Path) -> None:
    await record(
        tmp_path,
        (CHAT, body("plain")),
        (MESSAGES, body("streamed", stream=True)),
        (CHAT, body("n", n=2, logprobs=True)),
    )
    async with running(replaying_app(tmp_path), settings(tmp_path)) as url, client_of() as client:
        for path, content in [
            (CHAT, body("plain")),
            (CHAT, body("plain", stream=True)),
            (MESSAGES, body("plain")),
            (MESSAGES, body("streamed")),
            (CHAT, body("n", n=2, logprobs=True)),
        ]:
            response = await client.post(url + path, json=content)
            assert response.status_code == 200, response.text
            assert response.headers["cache-status"] == "anyclaude; hit"
            assert content["messages"][0]["content"] in response.text
        fresh = await client.post(url + CHAT, json=body("plain"), headers={"cache-control": "no-cache"})
        assert fresh.json()["choices"][0]["message"]["content"] == "plain"
        health = (await client.get(url + "/health")).json()
    assert (health["status"], health["model"], health["cache"]["hit_rate"]) == ("healthy", "scripted", "100.0%")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "kind"), [(CHAT, "invalid_request_error"), (MESSAGES, "invalid_request_error")])
async def test_a_miss_is_an_error_that_names_the_key(tmp_path: Path, path: str, kind: str, stream: bool) -> None:
    await record(tmp_path, (CHAT, body("this")))
    async with running(replaying_app(tmp_path), settings(tmp_path)) as url, client_of() as client:
        response = await client.post(url + path, json=body("that", stream=stream))
    assert response.status_code == 400
    assert response.json()["error"]["type"] == kind
    assert "has no answer to this request (key " in response.json()["error"]["message"]


async def test_counts_of_tokens_are_recorded_too(tmp_path: Path) -> None:
    counted = body("one two three")
    del counted["max_tokens"]
    path = f"{MESSAGES}/count_tokens"
    (response,) = await record(tmp_path, (path, counted))
    async with running(replaying_app(tmp_path), settings(tmp_path)) as url, client_of() as client:
        assert (await client.post(url + path, json=counted)).json() == response.json()
        missing = await client.post(url + path, json=counted | {"system": "else"})
    assert "has no count of this request's tokens" in missing.json()["error"]["message"]


async def test_nothing_is_recorded_of_a_request_that_must_not_be_stored(tmp_path: Path) -> None:
    said = {"messages": [{"role": "user", "content": "hi"}]}
    async with running(recording_app(tmp_path), settings(tmp_path)) as url, client_of() as client:
        for path, content in (
            (CHAT, said),
            (f"{MESSAGES}/count_tokens", said),
            ("/v1/responses/input_tokens", {"input": "hi"}),
            ("/tokenize", said),
        ):
            response = await client.post(url + path, json=content, headers={"cache-control": "no-store"})
            assert response.status_code == 200
    assert list(read_entries(tmp_path / "file")) == []


async def test_hits_are_recorded_and_nothing_twice(tmp_path: Path) -> None:
    await record(tmp_path, (CHAT, body("a")), (CHAT, body("a")), (MESSAGES, body("a", stream=True)), (CHAT, body("b")))
    assert len(list(read_entries(tmp_path / "file"))) == 2


async def test_what_failed_is_not_recorded(tmp_path: Path) -> None:
    (response,) = await record(tmp_path, (CHAT, body("long " * 300_000)))
    assert response.status_code == 400
    assert list(read_entries(tmp_path / "file")) == []


async def test_a_recording_can_be_read_and_edited(tmp_path: Path) -> None:
    await record(tmp_path, (CHAT, body("before")))
    file = tmp_path / "file"
    edited = file.read_text().replace("before", "after")
    file.write_text(edited)
    with pytest.raises(ArchiveError, match=r"line 2: .* If you have edited it, remove 'crc' from it"):
        read_recording(file)
    file.write_text(re.sub(r',"crc":\d+', "", edited))
    async with running(replaying_app(tmp_path), settings(tmp_path)) as url, client_of() as client:
        response = await client.post(url + CHAT, json=body("before"))
    assert response.json()["choices"][0]["message"]["content"] == "after"
    assert [json.loads(line) for line in file.read_text().splitlines()]


def test_a_recorded_answer_from_the_future_is_not_fresh_for_ever(tmp_path: Path) -> None:
    profile = ScriptedExecutor().profile
    with ArchiveWriter(tmp_path / "file", new_header(profile)) as writer:
        writer.add(AnswerEntry(key="0" * 64, stored_at=time.time() + 1e6, completion=text()))
    (record,) = read_recording(tmp_path / "file").answers.values()
    assert record.stored_at <= time.time()


def test_an_export_is_no_recording(tmp_path: Path) -> None:
    ArchiveWriter(tmp_path / "file", new_header(None)).close()
    with pytest.raises(ArchiveError, match="does not say which model"):
        read_recording(tmp_path / "file")

"""`/v1/responses` over HTTP: it shares the response cache, and keeps responses for later requests."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.dialects.json_body import MAX_DEPTH
from service.events import ChoiceFinished, Event, ReasoningDelta, TextDelta
from service.executor.scripted import PROFILE, ScriptedExecutor
from service.generation import GenerationRequest
from tests.http.test_generation import gated_app
from tests.patience import PATIENCE_SECONDS, POLL_SECONDS
from tests.serving import RawRequest, client_of, running, settings

RESPONSES = "/v1/responses"
JSON = {"content-type": "application/json"}
MISS, HIT = "anyclaude; fwd=uri-miss; stored", "anyclaude; hit"


async def say_all(request: GenerationRequest) -> AsyncIterator[str | Event]:
    """Repeats the whole conversation."""
    yield " | ".join(message.content for message in request.messages)


@asynccontextmanager
async def served(
    tmp_path: Path, executor: ScriptedExecutor | None = None, *, cache: str = "memory://"
) -> AsyncIterator[httpx.AsyncClient]:
    configured = settings(tmp_path, cache=(cache,))
    app = create_app(configured, executor=executor or ScriptedExecutor(say_all))
    async with running(app, configured) as url, client_of(url) as client:
        yield client


def said(response: httpx.Response) -> str:
    return str(response.json()["output"][0]["content"][0]["text"])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_all_dialects_share_one_answer(tmp_path: Path, stream: bool) -> None:
    async with served(tmp_path) as client:
        body: dict[str, Any] = {"input": "hi", "instructions": "s", "max_output_tokens": 50, "stream": stream}
        chat = {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}], "max_tokens": 50}
        statuses = [
            (await client.post(path, json=sent)).headers["cache-status"]
            for path, sent in ((RESPONSES, body), ("/v1/chat/completions", chat), (RESPONSES, body))
        ]
    assert statuses == [MISS, HIT, HIT]


async def test_a_conversation_goes_on_by_the_id_of_its_last_response(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        first = (await client.post(RESPONSES, json={"input": "one", "instructions": "rules"})).json()
        second = await client.post(RESPONSES, json={"input": "two", "previous_response_id": first["id"]})
        streamed = await client.post(
            RESPONSES, json={"input": "two", "previous_response_id": first["id"], "stream": True}
        )
        third = await client.post(RESPONSES, json={"input": "three", "previous_response_id": second.json()["id"]})
        last = json.loads(streamed.text.split("data: ")[-1])["response"]
        fourth = await client.post(RESPONSES, json={"input": "three", "previous_response_id": last["id"]})
    assert said(second) == "one | rules | one | two"
    assert said(third) == "one | rules | one | two | one | rules | one | two | three"
    assert (said(fourth), fourth.headers["cache-status"]) == (said(third), HIT)


async def test_stored_responses_can_be_read_and_deleted(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        first = (await client.post(RESPONSES, json={"input": "one"})).json()
        second = (await client.post(RESPONSES, json={"input": "two", "previous_response_id": first["id"]})).json()
        path = f"{RESPONSES}/{second['id']}"
        assert (await client.get(path)).json() == second
        items = (await client.get(f"{path}/input_items", params={"order": "asc"})).json()
        assert [item["role"] for item in items["data"]] == ["user", "assistant", "user"]
        page = (await client.get(f"{path}/input_items", params={"limit": 1, "after": items["last_id"]})).json()
        assert (page["data"], page["has_more"]) == ([items["data"][1]], True)
        for limit in ("0", "0001999", "0001" + "9" * 4_400):
            refused = await client.get(f"{path}/input_items", params={"limit": limit})
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "limit")
        assert (await client.get(path, params={"stream": "true"})).status_code == 400
        assert (await client.post(f"{path}/cancel")).status_code == 400
        assert (await client.delete(path)).json() == {"id": second["id"], "object": "response", "deleted": True}
        for method, gone in (
            ("GET", path),
            ("DELETE", path),
            ("GET", f"{path}/input_items"),
            ("POST", f"{path}/cancel"),
        ):
            refused = await client.request(method, gone)
            assert (refused.status_code, refused.json()["error"]["code"]) == (404, "response_not_found")
        refused = await client.post(RESPONSES, json={"input": "x", "previous_response_id": second["id"]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "previous_response_not_found")


@pytest.mark.parametrize(
    ("written", "fields", "status", "code"),
    [
        ([TextDelta(0, "All of it. ")], {"max_output_tokens": 0}, 400, "invalid_value"),
        ([TextDelta(0, "All of it. ")] * 3, {"max_output_tokens": 1}, 400, "invalid_value"),
        ([TextDelta(0, "Half"), ChoiceFinished(0, "length")], {}, 500, "summary_failed"),
        ([], {}, 500, "summary_failed"),
        ([ReasoningDelta(0, "Hm."), TextDelta(0, "\n")], {}, 500, "summary_failed"),
    ],
    ids=["no-tokens", "one-token", "cut", "nothing", "thought"],
)
async def test_a_compaction_without_a_whole_summary_fails(
    tmp_path: Path, written: list[Event], fields: dict[str, int], status: int, code: str
) -> None:
    async def summarize(request: GenerationRequest) -> AsyncIterator[str | Event]:
        for event in written:
            yield event

    async with served(tmp_path, ScriptedExecutor(summarize)) as client:
        for _ in range(2):
            refused = await client.post(f"{RESPONSES}/compact", json={"input": "one", **fields})
            assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
            assert refused.headers.get("x-should-retry") == ("false" if status == 500 else None)


async def test_a_compaction_keeps_fields_that_nothing_read(tmp_path: Path) -> None:
    part = '{"type":"input_text","text":"one","annotations":1e999}'
    items = [
        f'{{"role":"user","content":[{part}]}}',
        '{"type":"additional_tools","role":5,"tools":[]}',
        '{"type":"web_search_call","role":[],"content":{}}',
    ]
    async with served(tmp_path) as client:
        compacted = await client.post(f"{RESPONSES}/compact", content=f'{{"input":[{",".join(items)}]}}', headers=JSON)
    assert compacted.status_code == 200
    assert f'"content":[{part}]' in compacted.text
    assert [item["type"] for item in compacted.json()["output"]] == ["message", "compaction"]


@pytest.mark.parametrize("field", ["metadata", "user"])
async def test_what_a_response_repeats_is_read_at_any_depth_of_the_stack(tmp_path: Path, field: str) -> None:
    # Readers further down the stack failed at the depths just below the interpreter's limit.
    async with served(tmp_path) as client:
        for depth in (MAX_DEPTH, MAX_DEPTH + 2, *range(960, 980)):
            value = '{"a":' * depth + "1" + "}" * depth
            sent = await client.post(RESPONSES, content=f'{{"input":"one","{field}":{value}}}', headers=JSON)
            if depth > MAX_DEPTH:
                assert sent.status_code == 400
                continue
            further = {"input": "two", "previous_response_id": sent.json()["id"]}
            for path in (RESPONSES, f"{RESPONSES}/compact"):
                assert (await client.post(path, json=further)).status_code == 200


async def test_items_are_listed_with_fields_that_nothing_read(tmp_path: Path) -> None:
    fields = '"status":1e999,"phase":' + "1" * 5_000 + ',"caller":' + "[" * 100 + "]" * 100
    items = [f'{{"role":"user","content":"x",{fields},"id":{item_id}}}' for item_id in ("1e999", "null", '"mine"')]
    async with served(tmp_path) as client:
        body = f'{{"input":[{",".join(items)}]}}'
        response_id = (await client.post(RESPONSES, content=body, headers=JSON)).json()["id"]
        path = f"{RESPONSES}/{response_id}/input_items?order=asc"
        listed = await client.get(path)
        second = (await client.get(f"{path}&limit=1")).text.partition('"last_id":"')[2].partition('"')[0]
        following = await client.get(f"{path}&after={second}&limit=1")
    assert listed.text.count(fields) == 3
    names = [f"{response_id.replace('resp', 'item')}{i:03d}" for i in range(2)]
    assert re.findall('"id":"([^"]*)"', listed.text) == [*names, "mine"]
    assert re.findall('"id":"([^"]*)"', following.text) == [names[1]]


async def test_a_conversation_goes_on_after_a_restart(tmp_path: Path) -> None:
    disk = f"disk://{tmp_path}/answers"
    async with served(tmp_path, cache=disk) as client:
        first = (await client.post(RESPONSES, json={"input": "one"})).json()
        second = (await client.post(RESPONSES, json={"input": "two"})).json()
        assert (await client.delete(f"{RESPONSES}/{second['id']}")).status_code == 200
    async with served(tmp_path, cache=disk) as client:
        further = await client.post(RESPONSES, json={"input": "two", "previous_response_id": first["id"]})
        referred = [{"id": first["output"][0]["id"]}, {"role": "user", "content": "two"}]
        assert said(further) == "one | one | two"
        assert said(await client.post(RESPONSES, json={"input": referred})) == "one | two"
        assert (await client.get(f"{RESPONSES}/{first['id']}")).json() == first
        assert (await client.get(f"{RESPONSES}/{second['id']}")).status_code == 404
        assert len((await client.get("/cache")).json()["answers"]) == 4
        await client.delete("/cache")
    async with served(tmp_path, cache=disk) as client:
        gone = await client.post(RESPONSES, json={"input": "two", "previous_response_id": first["id"]})
        assert (gone.status_code, gone.json()["error"]["code"]) == (400, "previous_response_not_found")


@pytest.mark.parametrize("item_id", [5, None, ["x"], {}, 10**30, "1e999"], ids=str)
async def test_an_item_whose_id_is_no_text_does_not_hide_the_conversation(tmp_path: Path, item_id: object) -> None:
    disk = f"disk://{tmp_path}/answers"
    async with served(tmp_path, cache=disk) as client:
        first = (await client.post(RESPONSES, json={"input": "one"})).json()
    async with served(tmp_path, cache=disk) as client:
        odd = {"type": "message", "role": "user", "content": "two", "id": item_id}
        sent = json.dumps({"input": [odd], "previous_response_id": first["id"]}).replace('"1e999"', "1e999")
        assert said(await client.post(RESPONSES, content=sent, headers=JSON)) == "one | one | two"


async def test_a_response_is_deleted_for_each_server_that_has_not_read_it(tmp_path: Path) -> None:
    disk = f"disk://{tmp_path}/answers"
    async with (
        served(tmp_path / "a", cache=disk) as one,
        served(tmp_path / "b", cache=disk) as other,
        served(tmp_path / "c", cache=disk) as reader,
    ):
        path = f"{RESPONSES}/{(await one.post(RESPONSES, json={'input': 'one'})).json()['id']}"
        async with asyncio.timeout(PATIENCE_SECONDS):  # it is written after its client has it
            while (await reader.get(path)).status_code == 404:  # noqa: ASYNC110 -- nothing announces it
                await asyncio.sleep(POLL_SECONDS)
        assert (await one.delete(path)).status_code == 200
        assert [(await client.get(path)).status_code for client in (one, other, reader)] == [404, 404, 200]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("fields", "headers"), [({"store": False}, {}), ({}, {"cache-control": "no-store"})], ids=["field", "header"]
)
async def test_what_shall_not_be_stored_is_not(
    tmp_path: Path, fields: dict[str, Any], headers: dict[str, str], stream: bool
) -> None:
    async with served(tmp_path, cache=f"disk://{tmp_path}/answers") as client:
        body = {"input": "a secret", "stream": stream, **fields}
        answer = await client.post(RESPONSES, json=body, headers=headers)
        response = json.loads(answer.text.split("data: ")[-1])["response"] if stream else answer.json()
        assert response["store"] is False
        assert (await client.get(f"{RESPONSES}/{response['id']}")).status_code == 404
        further = {"input": "two", "previous_response_id": response["id"]}
        refused = (await client.post(RESPONSES, json=further)).json()["error"]
        assert (refused["code"], refused["param"]) == ("previous_response_not_found", "previous_response_id")


async def test_nothing_is_on_disk_of_a_request_that_must_not_be_stored(tmp_path: Path) -> None:
    async with served(tmp_path, cache=f"disk://{tmp_path}/answers") as client:
        for path in (RESPONSES, f"{RESPONSES}/compact"):
            answer = await client.post(path, json={"input": "a secret"}, headers={"cache-control": "no-store"})
            assert answer.status_code == 200
    assert files_with(b"", tmp_path)
    assert files_with(b"a secret", tmp_path) == []


def files_with(content: bytes, folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and content in path.read_bytes()]


async def test_a_conversation_that_does_not_fit_loses_its_oldest_turns(tmp_path: Path) -> None:
    small = ScriptedExecutor(say_all, profile=PROFILE.__class__(id="s", fingerprint="s", context_length=10))
    turns = [{"role": "user", "content": f"turn {i} has five words"} for i in range(6)]
    body = {"input": turns, "instructions": "rules"}
    async with served(tmp_path, small) as client:
        assert (await client.post(RESPONSES, json=body)).json()["error"]["code"] == "context_length_exceeded"
        shortened = await client.post(RESPONSES, json={**body, "truncation": "auto"})
        assert said(shortened) == "rules | turn 5 has five words"
        hopeless = await client.post(RESPONSES, json={"input": "many words " * 9, "truncation": "auto"})
        assert hopeless.json()["error"]["code"] == "context_length_exceeded"


async def test_a_compacted_conversation_goes_on(tmp_path: Path) -> None:
    items = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "b"},
    ]
    async with served(tmp_path) as client:
        compacted = (await client.post(f"{RESPONSES}/compact", json={"model": "default", "input": items})).json()
        assert compacted["object"] == "response.compaction"
        assert [item["type"] for item in compacted["output"][2:]] == ["compaction"]
        further = [*compacted["output"], {"role": "user", "content": "further"}]
        answer = said(await client.post(RESPONSES, json={"input": further}))
        refused = await client.post(f"{RESPONSES}/compact", json={"input": "x", "stream": True})
    assert answer.startswith("one | b | The conversation before this was summarized:\none | a | b | Summarize")
    assert answer.endswith("| further")
    assert refused.status_code == 400


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_nothing_is_kept_of_a_response_whose_client_leaves(tmp_path: Path, stream: bool) -> None:
    app, executor, script = gated_app(tmp_path)
    request = RawRequest(RESPONSES, json.dumps({"input": "hi", "stream": stream}).encode())

    async def leave() -> None:
        await script.started.wait()
        if stream:
            await request.until(b"response.output_text.delta")
        request.disconnect()

    await asyncio.gather(request.run(app), leave())
    assert executor.aborted == 1
    assert b"response.completed" not in request.body
    listing = RawRequest(f"{RESPONSES}/resp_x", method="GET")
    await listing.run(app)
    assert listing.status == 404

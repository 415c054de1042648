"""`GET /dashboard/connect`: settings of clients, without the key."""

import json
from pathlib import Path

import pytest

from service.agents.table import AGENTS
from service.app import create_app
from tests.serving import RawRequest, settings


async def read(tmp_path: Path, query: str, key: str = "", **changes: object) -> RawRequest:
    request = RawRequest("/dashboard/connect", method="GET", headers={"x-api-key": key} if key else {})
    request.scope["query_string"] = query.encode()
    await request.run(create_app(settings(tmp_path, **changes)))
    return request


async def test_every_agent_gets_the_address_that_its_user_sees(tmp_path: Path) -> None:
    request = await read(tmp_path, "root=https://models.example/a")
    clients = {client["name"]: client for client in json.loads(request.body)["clients"]}
    assert clients.keys() >= AGENTS.keys()
    assert all("https://models.example/a" in client["script"] for client in clients.values())
    assert all(str(tmp_path) not in client["script"] for client in clients.values())


async def test_the_key_is_never_sent(tmp_path: Path) -> None:
    changes = {"require_api_key": True, "api_key": "open-sesame"}
    assert (await read(tmp_path, "root=http://localhost:1", **changes)).status == 401
    request = await read(tmp_path, "root=http://localhost:1", "open-sesame", **changes)
    assert b"open-sesame" not in request.body
    assert json.loads(request.body)["key"].encode() in request.body


@pytest.mark.parametrize("query", ["", "root=", "root=ftp://x", "root=http://u:p@x", "root=http://x:99999"])
async def test_a_root_that_is_no_url_is_refused(tmp_path: Path, query: str) -> None:
    request = await read(tmp_path, query)
    assert (request.status, json.loads(request.body)["error"]["param"]) == (400, "root")

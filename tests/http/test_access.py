"""Every route needs a key where keys are required, unless it is declared open."""

import json
from pathlib import Path

import pytest
from starlette.routing import Route

from service.app import Service, create_app
from service.http.gate import OpenRoute
from tests.serving import RawRequest, settings

OPEN = {"/", "/health", "/dashboard", "/dashboard/{name}"}
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "NONSENSE")
KEY = {"authorization": "Bearer key"}


def service(tmp_path: Path) -> Service:
    return create_app(settings(tmp_path, require_api_key=True, api_key="key"))


async def status(app: Service, method: str, path: str, headers: dict[str, str]) -> int:
    """0 if nothing was answered: the client leaves when its request has been read."""
    request = RawRequest(path, b"{}", method=method, headers=headers)
    request.disconnect()
    await request.run(app)
    if request.sent and request.status == 401 and method != "HEAD":
        assert "error" in json.loads(request.body)
    return request.status if request.sent else 0


async def test_every_route_is_closed_unless_it_is_declared_open(tmp_path: Path) -> None:
    app = service(tmp_path)
    routes = [route for route in app.routes if isinstance(route, Route)]
    assert len(routes) == len(app.routes)
    assert {route.path for route in routes if isinstance(route, OpenRoute)} == OPEN
    for route in routes:
        path = route.path.replace("{name}", "style.css").replace("{id:path}", "default")
        for method in METHODS:
            expected = isinstance(route, OpenRoute)
            assert (await status(app, method, path, {}) != 401) is expected, (method, path)
            assert (await status(app, method, path, {"x-api-key": "wrong"}) != 401) is expected, (method, path)
            assert await status(app, method, path, KEY) != 401, (method, path)


@pytest.mark.parametrize("action", ["load", "unload"])
async def test_loading_and_unloading_by_hand_need_the_key(tmp_path: Path, action: str) -> None:
    app = service(tmp_path)
    path = f"/v1/models/default/{action}"
    assert await status(app, "POST", path, {}) == 401
    assert await status(app, "POST", path, {"x-api-key": "wrong"}) == 401
    assert await status(app, "POST", path, KEY) == 400  # this model has no process


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"origin": "http://evil.example", "content-type": "text/plain"}, 415),
        ({"origin": "null", "content-type": ""}, 415),
        ({"origin": "http://localhost.evil.example", "content-type": ""}, 415),
        ({"origin": "http://localhost", "content-type": ""}, 400),
        ({"origin": "http://app.example", "content-type": "application/json"}, 400),
        ({"content-type": ""}, 400),
    ],
    ids=["another site", "a sandbox", "a similar name", "the dashboard", "after a preflight", "no browser"],
)
async def test_a_page_of_another_site_loads_no_model(tmp_path: Path, headers: dict[str, str], expected: int) -> None:
    app = create_app(settings(tmp_path))
    assert await status(app, "POST", "/v1/models/default/unload", headers) == expected  # 400: it has no process


@pytest.mark.parametrize(
    "path", ["/nowhere", "/v1/messages/nothing", "/dashboard/a/b", "//health", "/health/", "/dashboard/events/"]
)
async def test_a_path_that_does_not_exist_is_closed(tmp_path: Path, path: str) -> None:
    app = service(tmp_path)
    assert await status(app, "GET", path, {}) == 401
    assert await status(app, "GET", path, KEY) == 404


async def test_a_wrong_method_is_refused_as_its_path_is(tmp_path: Path) -> None:
    app = service(tmp_path)
    assert await status(app, "POST", "/health", {}) == 405
    assert await status(app, "GET", "/v1/messages", {}) == 401
    assert await status(app, "GET", "/v1/messages", KEY) == 405


async def test_no_key_is_needed_where_none_is_required(tmp_path: Path) -> None:
    app = create_app(settings(tmp_path))
    assert await status(app, "GET", "/stats", {}) == 200
    assert await status(app, "GET", "/nowhere", {}) == 404


async def test_a_websocket_is_closed(tmp_path: Path) -> None:
    request = RawRequest("/v1/messages")
    request.scope["type"] = "websocket"
    await request.run(create_app(settings(tmp_path)))
    assert [message["type"] for message in request.sent] == ["websocket.close"]

import re
from collections.abc import Iterable
from random import Random
from urllib.parse import unquote

from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from service.config.address import is_loopback
from service.errors import HostRefused, InvalidApiKey, ServiceError
from service.http.request_headers import RequestHeaders, identify_caller, read_headers, shown
from service.http.responses import error_response
from service.settings import Settings
from service.telemetry.request_log import REQUEST_ID_PREFIX

_ABSOLUTE_FORM = re.compile(rb"https?://([^/]*)(/.*)?", re.IGNORECASE | re.DOTALL)
UNPREFIXED = frozenset({"chat", "completions", "embeddings", "messages", "models", "responses"})
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


class OpenRoute(Route):
    """A route that needs no key."""


class Gate:
    """Sets `request_id`, `headers` and `caller` in the scope's `state`. A path needs a key unless all routes that fit
    it are open."""

    def __init__(self, app: ASGIApp, settings: Settings, routes: Iterable[Route]) -> None:
        self._app = app
        self._settings = settings
        self._routes = routes
        # Ids need not be secret, and asking the system for random bytes releases the interpreter's lock. A request
        # would then wait for a computing thread to give it back.
        self._ids = Random()  # noqa: S311
        # A web page can point its own name at 127.0.0.1 (DNS rebinding) and use the model through the user's browser. A
        # server on another interface requires keys, which such a page lacks, so it accepts every host.
        self._allowed: frozenset[bytes] | None = None
        if is_loopback(settings.host) or settings.allowed_hosts:
            names = (*LOOPBACK_NAMES, settings.host, *settings.allowed_hosts)
            self._allowed = frozenset(name.lower().encode() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await WebSocketClose()(scope, receive, send)
            return
        if scope["type"] == "http":
            state = scope.setdefault("state", {})
            state["request_id"] = f"{REQUEST_ID_PREFIX}{self._ids.getrandbits(96):024x}"
            if not scope["path"].startswith("/"):
                _take_absolute_form(scope)
            scope["path"] = settled_path(scope["path"])
            headers = state["headers"] = read_headers(scope)
            try:
                self._check_host(headers)
                state["caller"] = self._identify(scope, headers)
            except ServiceError as error:
                await error_response(scope, error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check_host(self, headers: RequestHeaders) -> None:
        host = headers.get(b"host", b"")
        if self._allowed is not None and _without_port(host) not in self._allowed:
            raise HostRefused(
                "This server answers requests for its own host only, found the header "
                f"'Host: {shown(host)}'. To serve under that name, add it to allowedHosts."
            )

    def _identify(self, scope: Scope, headers: RequestHeaders) -> str:
        try:
            return identify_caller(headers, self._settings)
        except InvalidApiKey:
            fitting = [route for route in self._routes if route.matches(scope)[0] is not Match.NONE]
            if fitting and all(isinstance(route, OpenRoute) for route in fitting):
                return ""
            raise


def _take_absolute_form(scope: Scope) -> None:
    """The host of `GET http://host/path` overrides the header (RFC 9112 section 3.2.2)."""
    target = _ABSOLUTE_FORM.fullmatch(scope["raw_path"])
    if target is not None:
        host, path = target[1], target[2] or b"/"
        scope["raw_path"], scope["path"] = path, unquote(path.decode("latin-1"))
        scope["headers"] = [(b"host", host), *(header for header in scope["headers"] if header[0] != b"host")]


def settled_path(path: str) -> str:
    """Accepts an API path with a final slash or without `/v1`."""
    root = path[1:].partition("/")[0]
    if root == "v1":
        return path.rstrip("/")
    return f"/v1{path.rstrip('/')}" if path.startswith("/") and root in UNPREFIXED else path


def _without_port(host: bytes) -> bytes:
    """Takes `host[:port]`. An IPv6 address keeps its brackets."""
    name, colon, port = host.rpartition(b":")
    return (name if colon and port.isdigit() else host).lower()

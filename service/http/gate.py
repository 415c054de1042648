"""What stands before every route, as pure ASGI: it costs a hit one header look-up."""

import re
from random import Random
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

from service.config.address import is_loopback
from service.errors import SHOWN_CHARS, HostRefused
from service.http.error_responses import error_response
from service.settings import Settings
from service.telemetry.request_log import REQUEST_ID_PREFIX

_ABSOLUTE_FORM = re.compile(rb"https?://([^/]*)(/.*)?", re.IGNORECASE | re.DOTALL)
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


class Gate:
    """Gives each request its id, and refuses those whose `Host` is not ours.

    A web page can point its own name at 127.0.0.1 (DNS rebinding), and would then talk to the model with the user's
    browser. A server on another interface requires keys, which such a page does not have, so there every host passes
    unless `allowed_hosts` names them.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        # Ids need not be secret. To ask the system for random bytes lets go of the interpreter's lock, and beside an
        # engine that computes each request would wait for it once more.
        self._ids = Random()  # noqa: S311
        self._allowed: frozenset[bytes] | None = None
        if is_loopback(settings.host) or settings.allowed_hosts:
            names = (*LOOPBACK_NAMES, settings.host, *settings.allowed_hosts)
            self._allowed = frozenset(name.lower().encode() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})["request_id"] = f"{REQUEST_ID_PREFIX}{self._ids.getrandbits(96):024x}"
        if not scope["path"].startswith("/"):
            _take_absolute_form(scope)
        if self._allowed is not None:
            host = _host(scope)
            if _without_port(host) not in self._allowed:
                refused = HostRefused(
                    "This server answers requests for its own host only, found the header "
                    f"'Host: {host.decode('latin-1')[:SHOWN_CHARS]}'. To serve under that name, add it to allowedHosts."
                )
                await error_response(scope, refused)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _take_absolute_form(scope: Scope) -> None:
    """`GET http://host/path`, as clients ask that take this server for a proxy. Its host is the request's, whatever the
    header says (RFC 9112 section 3.2.2)."""
    target = _ABSOLUTE_FORM.fullmatch(scope["raw_path"])
    if target is not None:
        host, path = target[1], target[2] or b"/"
        scope["raw_path"], scope["path"] = path, unquote(path.decode("latin-1"))
        scope["headers"] = [(b"host", host), *(header for header in scope["headers"] if header[0] != b"host")]


def _host(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"host":
            host: bytes = value
            return host
    return b""


def _without_port(host: bytes) -> bytes:
    """`host[:port]` without the port; an IPv6 address keeps its brackets (RFC 9110 section 7.2)."""
    name, colon, port = host.rpartition(b":")
    return (name if colon and port.isdigit() else host).lower()

"""HTTP requests of commands with the standard library, which imports fast. Requests to this machine bypass proxies."""

import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

from service.config.address import Address, is_loopback
from service.telemetry.stats import Stats

TIMEOUT_SECONDS = 3.0
T = TypeVar("T")


class NotThere(Exception):
    pass


class NoAnswer(Exception):
    """No whole answer came in time."""


class HungUp(NoAnswer):
    """The server ended the connection before it answered."""


class NotOurs(Exception):
    """The message describes the answer of another program."""


class Refused(Exception):
    pass


class ModelHealth(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    status: str
    model_loaded: bool
    memory_bytes: int | None = None


class Health(msgspec.Struct, frozen=True, kw_only=True):
    status: str
    model: str
    model_loaded: bool
    cache: dict[str, Any]
    running: int = 0
    waiting: int = 0
    max_concurrency: int | None = None
    detail: str = ""
    models: tuple[ModelHealth, ...] = ()


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """`context_length` is in tokens."""

    id: str
    context_length: int


class _Models(msgspec.Struct, frozen=True):
    data: list[Model]


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    delta: _Delta = _Delta()


class _PromptTokens(msgspec.Struct, frozen=True):
    cached_tokens: int = 0


class _ChatUsage(msgspec.Struct, frozen=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _PromptTokens = _PromptTokens()


class ChatChunk(msgspec.Struct, frozen=True):
    choices: list[_Choice] = []
    usage: _ChatUsage | None = None
    error: dict[str, Any] | None = None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would send the key to another place."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class ServerClient:
    def __init__(self, address: Address, api_key: str) -> None:
        self._root = address.root
        self._api_key = api_key
        proxies = urllib.request.ProxyHandler({} if is_loopback(address.host) else None)
        self._opener = urllib.request.build_opener(proxies, _NoRedirect)
        self.last_outcome = ""

    def health(self) -> Health:
        """An unhealthy server answers too. Raises NotThere, NoAnswer, NotOurs or Refused."""
        return self._decode("/health", self._get("/health", {}), Health)

    def stats(self) -> Stats:
        """Raises like `health`."""
        return self._decode("/stats", self._get("/stats", self._authorization()), Stats)

    def model(self) -> Model:
        body = self._get("/v1/models", self._authorization())
        models = self._decode("/v1/models", body, _Models).data
        if not models:
            raise NotOurs("it lists no model")
        return models[0]

    def model_named(self, name: str) -> Model:
        """Returns the model for requests with this name. Raises like `health`, and NotOurs if there is none."""
        path = f"/v1/models/{name}"
        return self._decode(path, self._get(path, self._authorization()), Model)

    def post(self, path: str, body: bytes, timeout_seconds: float) -> bytes:
        """`body` and the answer are JSON. Raises like `health`."""
        headers = {**self._authorization(), "Content-Type": "application/json"}
        request = urllib.request.Request(self._root + path, body, headers)  # noqa: S310 - http(s), by parse_base_url
        try:
            return self._send(request, timeout_seconds)
        except urllib.error.HTTPError as exc:
            raise Refused(_error_message(exc.read())) from None

    def ask(self, path: str, kind: type[T], *, method: str = "GET", timeout_seconds: float = TIMEOUT_SECONDS) -> T:
        """Raises like `post`."""
        request = urllib.request.Request(  # noqa: S310 - http(s), by parse_base_url
            self._root + path, headers=self._authorization(), method=method
        )
        try:
            return self._decode(path, self._send(request, timeout_seconds), kind)
        except urllib.error.HTTPError as exc:
            raise Refused(_error_message(exc.read())) from None

    def chat(self, messages: list[dict[str, str]], **fields: float) -> Iterator[ChatChunk]:
        """`fields` are the request's. `last_outcome` is the response cache's outcome afterwards. Raises like `post`."""
        body = {"messages": messages, "stream": True, "stream_options": {"include_usage": True}, **fields}
        headers = {**self._authorization(), "Content-Type": "application/json"}
        request = urllib.request.Request(  # noqa: S310 - http(s), by parse_base_url
            f"{self._root}/v1/chat/completions", msgspec.json.encode(body), headers
        )
        try:
            with self._opener.open(request) as response:
                status = response.headers.get("Cache-Status") or ""
                self.last_outcome = next((word for word in ("hit", "collapsed") if word in status), "miss")
                for line in response:
                    if line.startswith(b"data: {"):
                        chunk = self._decode("/v1/chat/completions", line[6:], ChatChunk)
                        if chunk.error is not None:
                            raise Refused(str(chunk.error.get("message")))
                        yield chunk
        except urllib.error.HTTPError as exc:
            raise Refused(_error_message(exc.read())) from None
        except urllib.error.URLError as exc:
            raise NotThere(str(exc.reason)) from None
        except (http.client.HTTPException, OSError) as exc:
            raise NoAnswer(f"the connection broke ({type(exc).__name__})") from None

    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._api_key}"}

    def _get(self, path: str, headers: dict[str, str]) -> bytes:
        request = urllib.request.Request(self._root + path, headers=headers)  # noqa: S310 - http(s), by parse_base_url
        try:
            return self._send(request, TIMEOUT_SECONDS)
        except urllib.error.HTTPError as exc:
            if exc.code in (401, 403):
                raise Refused(_error_message(exc.read())) from None
            return exc.read()

    def _send(self, request: urllib.request.Request, timeout_seconds: float) -> bytes:
        """Raises NotThere, NoAnswer or NotOurs, and HTTPError for an error status."""
        try:
            with self._opener.open(request, timeout=timeout_seconds) as response:
                return bytes(response.read())
        except urllib.error.HTTPError:
            raise
        except urllib.error.URLError as exc:
            if isinstance(exc.reason, TimeoutError):
                raise NoAnswer("no answer in time") from None
            if isinstance(exc.reason, ssl.SSLError):
                raise NotOurs(f"HTTPS fails with it ({exc.reason.reason}); it may speak HTTP") from None
            raise NotThere(str(exc.reason)) from None
        except TimeoutError:
            raise NoAnswer("no answer in time") from None
        except ConnectionResetError:
            raise HungUp("it hung up before it answered") from None
        except (http.client.HTTPException, OSError) as exc:
            raise NotOurs(f"it does not speak HTTP ({type(exc).__name__})") from None

    def _decode(self, path: str, body: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(body, type=kind)
        except (ValueError, RecursionError):
            raise NotOurs(f"its {path} answers something else") from None


def _error_message(body: bytes) -> str:
    try:
        return str(msgspec.json.decode(body)["error"]["message"])
    except (ValueError, RecursionError, KeyError, TypeError):
        return "it refused the request"

"""HTTP requests of commands with the standard library, which imports fast. Requests to this machine bypass proxies."""

import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import msgspec

from service.cli.exits import Exit, Failure
from service.config import server_address
from service.config.address import Address, is_loopback
from service.settings import Settings
from service.telemetry.stats import Stats

TIMEOUT_SECONDS = 3.0
T = TypeVar("T")


class Unusable(Exception):
    """The server gave no answer that can be used. The message is a part of a sentence."""


class NotThere(Unusable): ...


class NoAnswer(Unusable):
    """No whole answer came in time."""


class HungUp(NoAnswer):
    """The server ended the connection before it answered."""


class NotOurs(Unusable):
    """The message describes the answer of another program."""


class Refused(Unusable): ...


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
        self.address = address
        self._api_key = api_key
        proxies = urllib.request.ProxyHandler({} if is_loopback(address.host) else None)
        self._opener = urllib.request.build_opener(proxies, _NoRedirect)
        self.last_outcome = ""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(server_address(settings), settings.api_key)

    def health(self) -> Health:
        """An unhealthy server answers too. Every method raises `Unusable`."""
        return self._get("/health", Health, with_key=False)

    def stats(self) -> Stats:
        return self._get("/stats", Stats)

    def model(self) -> Model:
        models = self._get("/v1/models", _Models).data
        if not models:
            raise NotOurs("it lists no model")
        return models[0]

    def model_named(self, name: str) -> Model:
        """Returns the model for requests with this name. Raises NotOurs if there is none."""
        return self._get(f"/v1/models/{name}", Model)

    def post(self, path: str, body: bytes, timeout_seconds: float) -> bytes:
        """`body` and the answer are JSON."""
        return self._send(self._request(path, body), timeout_seconds)

    def ask(self, path: str, kind: type[T], *, method: str = "GET", timeout_seconds: float = TIMEOUT_SECONDS) -> T:
        return self._decode(path, self._send(self._request(path, method=method), timeout_seconds), kind)

    def chat(self, messages: list[dict[str, str]], **fields: float) -> Iterator[ChatChunk]:
        """`fields` are the request's. `last_outcome` is the response cache's outcome afterwards."""
        body = {"messages": messages, "stream": True, "stream_options": {"include_usage": True}, **fields}
        try:
            with self._opener.open(self._request("/v1/chat/completions", msgspec.json.encode(body))) as response:
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

    def _request(
        self, path: str, body: bytes | None = None, *, method: str | None = None, with_key: bool = True
    ) -> urllib.request.Request:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if with_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        url = self.address.root + path
        return urllib.request.Request(url, body, headers, method=method)  # noqa: S310 - http(s), by parse_base_url

    def _get(self, path: str, kind: type[T], *, with_key: bool = True) -> T:
        """Decodes an answer with an error status too."""
        request = self._request(path, with_key=with_key)
        return self._decode(path, self._send(request, TIMEOUT_SECONDS, refusals=(401, 403)), kind)

    def _send(
        self, request: urllib.request.Request, timeout_seconds: float, *, refusals: Container[int] = range(300, 600)
    ) -> bytes:
        """`refusals` are the statuses that raise `Refused`."""
        try:
            with self._opener.open(request, timeout=timeout_seconds) as response:
                return bytes(response.read())
        except urllib.error.HTTPError as exc:
            if exc.code in refusals:
                raise Refused(_error_message(exc.read())) from None
            return exc.read()
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
        except ValueError:  # its text may show the key
            raise Refused("apiKey or baseUrl has characters that HTTP cannot send") from None

    def _decode(self, path: str, body: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(body, type=kind)
        except (ValueError, RecursionError):
            raise NotOurs(f"its {path} answers something else") from None


@contextmanager
def server_required(client: ServerClient) -> Iterator[None]:
    """Ends the command if the server cannot be used."""
    root = client.address.root
    try:
        yield
    except NotThere:
        advice = "Start one with 'anyclaude serve', or say where it is with --url or VLLM_MLX_URL."
        raise Failure(Exit.UNAVAILABLE, f"No server answers at {root}. {advice}") from None
    except NoAnswer as exc:
        raise Failure(Exit.UNAVAILABLE, f"The server at {root} does not answer: {exc}.") from None
    except Refused as exc:
        raise Failure(Exit.UNAVAILABLE, f"The server at {root} refuses to answer: {exc}") from None
    except NotOurs as exc:
        raise Failure(Exit.PORT_IN_USE, f"What answers at {root} is not anyclaude: {exc}.") from None


def _error_message(body: bytes) -> str:
    try:
        return str(msgspec.json.decode(body)["error"]["message"])
    except (ValueError, RecursionError, KeyError, TypeError):
        return "it refused the request"

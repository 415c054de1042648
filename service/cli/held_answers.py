from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import click
import msgspec

from service.cli.client import NoAnswer, NotOurs, NotThere, Refused, ServerClient, server_required
from service.cli.exits import Exit, Failure
from service.cli.stores import ask_stores
from service.config import server_address
from service.config.redaction import shown_url
from service.settings import Settings

if TYPE_CHECKING:
    from cache_backends.base import BackendStats, CacheBackend
    from service.response_cache.upkeep import ListedAnswer

T = TypeVar("T")

# Longer than the server's own limit, so that its explanation arrives.
SECONDS = 60.0

# Of a key in full. The dashboard shows its beginning.
KEY_CHARS = 64


class ServerAnswers:
    """A running server's answers. Only it can read its memory. Every method raises `Failure`."""

    def __init__(self, client: ServerClient) -> None:
        self._client = client
        self.name = f"the server at {client.address.root}"

    def stats(self) -> "BackendStats":
        from service.response_cache.upkeep import ListedAnswers

        return self._ask("/cache?limit=1", ListedAnswers).store

    def list(self) -> "list[ListedAnswer]":
        from service.response_cache.upkeep import MOST_LISTED, ListedAnswers

        found = self._ask(f"/cache?limit={MOST_LISTED}", ListedAnswers)
        if not found.complete:
            click.echo(f"Only {MOST_LISTED:,} answers are listed; there are more.", err=True)
        return found.answers

    def get(self, key: str) -> dict[str, Any]:
        return self._ask(_path(key), dict[str, Any])

    def remove(self, key: str) -> None:
        self._ask(_path(key), dict[str, Any], method="DELETE")

    def clear(self) -> int:
        return int(self._ask("/cache", dict[str, Any], method="DELETE")["removed"])

    def _ask(self, path: str, kind: type[T], method: str = "GET") -> T:
        with server_required(self._client):
            try:
                return self._client.ask(path, kind, method=method, timeout_seconds=SECONDS)
            except Refused as exc:
                raise Failure(Exit.FAILED, str(exc)) from None


class StoreAnswers:
    """Every method raises `Failure`."""

    def __init__(self, urls: tuple[str, ...]) -> None:
        self._urls = urls
        self.name = ", ".join(map(shown_url, urls))

    def stats(self) -> "BackendStats":
        return on_stores(self._urls, lambda store: store.stats())

    def list(self) -> "list[ListedAnswer]":
        return on_stores(self._urls, _list)

    def get(self, key: str) -> dict[str, Any]:
        from service.response_cache.record import decode_record

        found = on_stores(self._urls, lambda store: store.get(key))
        record = None if found is None else decode_record(found.value, key)
        if record is None:
            why = "nothing is stored" if found is None else "what is stored is no whole answer of this version"
            raise Failure(Exit.FAILED, f"{key}: {why}.")
        return {"stored_at": record.stored_at, "completion": msgspec.to_builtins(record.completion)}

    def remove(self, key: str) -> None:
        if not on_stores(self._urls, lambda store: store.delete(key)):
            raise Failure(Exit.FAILED, f"{key}: nothing is stored.")

    def clear(self) -> int:
        return on_stores(self._urls, lambda store: store.clear())


HeldAnswers = ServerAnswers | StoreAnswers


def whole_key(held: HeldAnswers, start: str) -> str:
    """Returns the only key that begins with `start`, or `start` if there is none. Raises `Failure`."""
    if len(start) >= KEY_CHARS:
        return start
    found = [answer.key for answer in held.list() if answer.key.startswith(start)]
    if start not in found and len(found) > 1:
        raise Failure(Exit.FAILED, f"{len(found)} keys begin with {start}. Type more of the one that you mean.")
    return start if start in found or not found else found[0]


def find_answers(settings: Settings) -> HeldAnswers:
    """Raises `Failure`."""
    client = ServerClient.of(settings)
    root = client.address.root
    try:
        client.health()
    except (NotThere, NotOurs):
        return StoreAnswers(shared_stores(settings))
    except NoAnswer:
        raise Failure(
            Exit.UNAVAILABLE,
            f"The server at {root} does not answer, and only it reaches the answers in its memory. Try again "
            "later, or name a store with --cache.",
        ) from None
    except Refused as exc:
        raise Failure(Exit.CONFIG, f"The server at {root} refuses: {exc}") from None
    return ServerAnswers(client)


def shared_stores(settings: Settings) -> tuple[str, ...]:
    """Leaves memory stores out, because opening one here would create an empty one. Raises `Failure`."""
    shared = tuple(url for url in settings.cache if not url.startswith("memory:"))
    if not shared:
        raise Failure(
            Exit.FAILED,
            "The response cache is in the server's memory, and no server runs at "
            f"{server_address(settings).root}. To keep answers, add a store like disk:///path to 'cache' in "
            ".anyclauderc.json.",
        )
    return shared


def on_stores(urls: tuple[str, ...], ask: "Callable[[CacheBackend], Coroutine[Any, Any, T]]") -> T:
    """Raises `Failure`."""
    from cache_backends import CacheUnavailable
    from service.recording.archive import ArchiveError
    from service.response_cache.stored import CannotList

    try:
        return ask_stores(urls, ask)
    except CacheUnavailable as exc:
        raise Failure(Exit.UNAVAILABLE, str(exc)) from None
    except (ArchiveError, CannotList) as exc:
        raise Failure(Exit.FAILED, str(exc)) from None
    except OSError as exc:
        raise Failure(Exit.FAILED, f"{exc.filename}: {exc.strerror}.") from None


async def _list(store: "CacheBackend") -> "list[ListedAnswer]":
    from service.response_cache.stored import stored_answers
    from service.response_cache.upkeep import listed

    return [listed(stored) async for stored in stored_answers(store)]


def _path(key: str) -> str:
    return f"/cache/{quote(key, safe='')}"

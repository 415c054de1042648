"""Opens stores from URLs. Other packages add schemes with the entry-point group `anyclaude.cache_backends`: the name is
the scheme, the object a `BackendFactory`."""

import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, cast
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from cache_backends.base import CacheBackend, InvalidBackendUrl
from cache_backends.sizes import read_size
from cache_backends.tiered import TieredBackend

ENTRY_POINT_GROUP = "anyclaude.cache_backends"

# These need no entry points, so a source checkout works without installation.
BUILT_IN: Mapping[str, str] = {
    "memory": "cache_backends.memory:MemoryBackend",
    "disk": "cache_backends.disk:DiskBackend",
    "redis": "cache_backends.redis:RedisBackend",
    "rediss": "cache_backends.redis:RedisBackend",
}

ParameterParser = Callable[[str], Any]


class BackendFactory(Protocol):
    def from_url(self, url: "BackendUrl") -> CacheBackend:
        """Creates the store without connecting to it. Raises `InvalidBackendUrl`."""
        ...


def open_backend(urls: str | Sequence[str]) -> CacheBackend:
    """A URL looks like `memory://?max_items=32`. Several URLs make tiers, fastest first.

    The first call connects, so the service starts even if a store is down. Raises `InvalidBackendUrl`.
    """
    urls = [urls] if isinstance(urls, str) else list(urls)
    if not urls:
        raise InvalidBackendUrl("expected at least one cache URL such as memory://, found none")
    tiers = [_open_one(BackendUrl(url)) for url in urls]
    if len(tiers) == 1:
        return tiers[0]
    return TieredBackend(tiers)


class BackendUrl:
    """The parts of a store's URL. Its `str` has no password."""

    def __init__(self, text: str) -> None:
        try:
            self._parts: SplitResult = urlsplit(text)
            port = self._parts.port
        except ValueError as exc:
            raise InvalidBackendUrl(
                f"expected a cache URL such as memory://, found one with a mistake: {exc}"
            ) from None
        if "\0" in unquote(text):
            raise InvalidBackendUrl("expected a cache URL without the character NUL, found %00 in it")
        self.scheme = self._parts.scheme
        self.host = self._parts.hostname or ""
        self.port = port
        self.path = unquote(self._parts.path)

    def __str__(self) -> str:
        place = self._parts.netloc.rpartition("@")[2]
        return f"{self.scheme}://{place}{self._parts.path}"

    def fail(self, expected: str, found: str) -> InvalidBackendUrl:
        return InvalidBackendUrl(f"{self}: expected {expected}, found {found}")

    def without_parameters(self) -> str:
        return self._parts._replace(query="", fragment="").geturl()

    def parameters(self, known: Mapping[str, ParameterParser]) -> dict[str, Any]:
        """Returns the given parameters, parsed. A parser's ValueError describes what was expected. Raises
        `InvalidBackendUrl`."""
        found: dict[str, Any] = {}
        if self._parts.fragment:
            raise self.fail("no fragment", f"#{self._parts.fragment}")
        for name, value in parse_qsl(self._parts.query, keep_blank_values=True):
            parser = known.get(name)
            if parser is None:
                raise self.fail(f"no parameters but {', '.join(known)}", repr(name))
            if name in found:
                raise self.fail(f"{name} once", "it twice")
            try:
                found[name] = parser(value)
            except ValueError as exc:
                raise self.fail(f"{name} to be {exc}", repr(value)) from None
        return found


def positive_integer(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", text) or int(text) < 1:
        raise ValueError("a whole number of at least 1")
    return int(text)


def positive_seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", text) or float(text) <= 0:
        raise ValueError("a number of seconds above 0")
    return float(text)


def positive_size(text: str) -> int:
    if (size := read_size(text)) < 1:
        raise ValueError("a size of at least 1 byte")
    return size


def _open_one(url: BackendUrl) -> CacheBackend:
    return _factory(url).from_url(url)


def _factory(url: BackendUrl) -> BackendFactory:
    built_in = BUILT_IN.get(url.scheme)
    if built_in is not None:
        module, _, name = built_in.partition(":")
        return cast(BackendFactory, getattr(import_module(module), name))
    others = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if url.scheme not in others:
        known = ", ".join(f"{scheme}://" for scheme in sorted({*BUILT_IN, *others}))
        raise InvalidBackendUrl(f"expected a cache URL that begins with one of {known}, found {url.scheme or 'none'!r}")
    return _load(url, others[url.scheme])


def _load(url: BackendUrl, point: EntryPoint) -> BackendFactory:
    expected = f"the entry point {point.value} to be a class with a class method from_url"
    try:
        loaded = point.load()
    except (ImportError, AttributeError) as exc:
        raise url.fail(expected, str(exc)) from exc
    if not callable(getattr(loaded, "from_url", None)):
        raise url.fail(expected, repr(loaded))
    return cast(BackendFactory, loaded)

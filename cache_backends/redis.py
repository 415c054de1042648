"""`redis://`: a store on Redis or Valkey, shared by several servers (extra `redis`)."""

import asyncio
import math
import re
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from logging import getLogger
from typing import TYPE_CHECKING, TypeVar

from cache_backends.base import BackendStats, CacheUnavailable, Found
from cache_backends.redis_leases import RedisLeases
from cache_backends.urls import BackendUrl, positive_integer, positive_seconds

if TYPE_CHECKING:
    from redis.asyncio import Redis

DEFAULT_PREFIX = "anyclaude:"
# The price of an outage for its first request. Later ones find the circuit breaker open.
DEFAULT_TIMEOUT_SECONDS = 0.25
DEFAULT_MAX_CONNECTIONS = 32
FIRST_PROBE_SECONDS = 0.1
LAST_PROBE_SECONDS = 1.0
CLEAR_SECONDS = 60.0
COUNT_SECONDS = 2.0
SCAN_BATCH = 1000
# Other programs may have millions of keys in the same database.
MAX_COUNTED_BATCHES = 20

# Unix seconds before each value. Asking for PTTL would make a get 50 % more expensive.
EXPIRES_AT = struct.Struct(">d")
LEAST_TTL_SECONDS = 0.001

log = getLogger(__name__)

T = TypeVar("T")


class RedisBackend:
    """Values under `prefix` in one database. `ttl` is the default of `set` in seconds.

    If the server does not answer within `timeout` seconds, every call raises at once until a probe succeeds.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = DEFAULT_PREFIX,
        ttl: float | None = None,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        max_connections: int = DEFAULT_MAX_CONNECTIONS,
    ) -> None:
        """Raises ImportError if the client library is missing."""
        self._name = str(BackendUrl(url))
        self._client = _connect_lazily(url, timeout, max_connections)
        self._prefix = prefix
        self._ttl = ttl
        self._timeout = timeout
        self._errors = 0
        # The server is away while this task runs.
        self._probing: asyncio.Task[None] | None = None
        self.leases = RedisLeases(prefix, self._call)

    @classmethod
    def from_url(cls, url: BackendUrl) -> "RedisBackend":
        if not re.fullmatch(r"(/[0-9]{0,4})?", url.path):
            raise url.fail("the number of a database after the host, such as /0", repr(url.path))
        parameters = url.parameters(
            {
                "prefix": _prefix,
                "ttl": positive_seconds,
                "timeout": positive_seconds,
                "max_connections": positive_integer,
            }
        )
        try:
            return cls(url.without_parameters(), **parameters)
        except ImportError:
            raise url.fail("the package redis: pip install 'anyclaude[redis]'", "it not installed") from None

    def __repr__(self) -> str:
        return f"<RedisBackend {self._name}>"

    @property
    def durable(self) -> "RedisBackend":
        return self

    async def get(self, key: str) -> Found | None:
        return await self._call(lambda client: _get(client, self._prefix + key))

    async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        ttl = self._ttl if ttl is None else ttl
        if ttl is not None and ttl <= 0:
            await self.delete(key)
            return
        milliseconds = None if ttl is None else max(1, round(ttl * 1000))
        stored = EXPIRES_AT.pack(math.inf if ttl is None else time.time() + ttl) + value
        await self._call(lambda client: client.set(self._prefix + key, stored, px=milliseconds))

    async def delete(self, key: str) -> bool:
        return await self._call(lambda client: client.unlink(self._prefix + key)) > 0

    async def clear(self) -> int:
        return await self._call(lambda client: _clear(client, self._prefix), seconds=CLEAR_SECONDS)

    async def list_keys(self) -> AsyncIterator[str]:
        seen: set[str] = set()  # the server may return a key twice
        cursor, ended = 0, False
        while not ended:
            cursor, names = await self._call(_scanner(self._prefix, cursor), seconds=COUNT_SECONDS)
            for name in names:
                key = (name.decode(errors="replace") if isinstance(name, bytes) else name).removeprefix(self._prefix)
                if key not in seen:
                    seen.add(key)
                    yield key
            ended = cursor == 0

    async def stats(self) -> BackendStats:
        items = await self._call(lambda client: _count(client, self._prefix), seconds=COUNT_SECONDS)
        return BackendStats(backend="redis", items=items, errors=self._errors)

    async def aclose(self) -> None:
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait({self._probing})
            self._probing = None
        await self._client.aclose()

    async def _call(self, work: Callable[["Redis"], Awaitable[T]], *, seconds: float | None = None) -> T:
        from redis.exceptions import DataError, RedisError, ResponseError

        if self._probing is not None:
            raise CacheUnavailable(f"{self._name} is away")
        try:
            async with asyncio.timeout(seconds or self._timeout):
                return await work(self._client)
        except (ResponseError, DataError) as exc:
            # The server answers, but is out of memory, read-only, or denies access.
            self._errors += 1
            raise CacheUnavailable(f"{self._name}: {exc}") from exc
        except (RedisError, OSError) as exc:  # TimeoutError is an OSError
            self._errors += 1
            self._open_breaker(exc)
            raise CacheUnavailable(f"{self._name} does not answer: {_describe(exc)}") from exc

    def _open_breaker(self, why: Exception) -> None:
        if self._probing is None:
            log.warning("%s does not answer (%s): going on without it until it does", self._name, _describe(why))
            self._probing = asyncio.get_running_loop().create_task(self._probe())

    async def _probe(self) -> None:
        pause = FIRST_PROBE_SECONDS
        while True:
            await asyncio.sleep(pause)
            pause = min(pause * 2, LAST_PROBE_SECONDS)
            try:
                async with asyncio.timeout(self._timeout):
                    # A late answer must not be read as the answer to a later command.
                    await self._client.connection_pool.disconnect()
                    await self._client.ping()
            except Exception as exc:
                log.debug("%s is still away: %s", self._name, _describe(exc))
            else:
                log.info("%s is back", self._name)
                self._probing = None
                return


def _connect_lazily(url: str, timeout: float, max_connections: int) -> "Redis":
    from redis.asyncio import BlockingConnectionPool, Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=timeout,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        socket_keepalive=True,
        # One retry, for a pooled connection that the server has closed.
        retry=Retry(NoBackoff(), 1),
    )
    return Redis.from_pool(pool)


async def _get(client: "Redis", name: str) -> Found | None:
    from redis.exceptions import ResponseError

    try:
        stored = await client.get(name)
    except ResponseError as exc:
        if _is_wrong_type(exc):
            return None
        raise
    if not isinstance(stored, bytes) or len(stored) < EXPIRES_AT.size:
        return None
    (expires_at,) = EXPIRES_AT.unpack_from(stored)
    value = stored[EXPIRES_AT.size :]
    if expires_at == math.inf:
        return Found(value)
    # The server decides what has expired, because its clock may differ.
    return Found(value, max(LEAST_TTL_SECONDS, expires_at - time.time()))


def _scanner(prefix: str, cursor: int) -> "Callable[[Redis], Awaitable[tuple[int, list[bytes | str]]]]":
    return lambda client: client.scan(cursor, match=_escape(prefix) + "*", count=SCAN_BATCH)


async def _clear(client: "Redis", prefix: str) -> int:
    # FLUSHDB would remove the keys of other programs.
    count, cursor = 0, 0
    while True:
        cursor, names = await client.scan(cursor, match=_escape(prefix) + "*", count=SCAN_BATCH)
        if names:
            count += await client.unlink(*names)
        if cursor == 0:
            return count


async def _count(client: "Redis", prefix: str) -> int | None:
    found: set[bytes | str] = set()
    cursor = 0
    for _ in range(MAX_COUNTED_BATCHES):
        cursor, names = await client.scan(cursor, match=_escape(prefix) + "*", count=SCAN_BATCH)
        # The server may repeat keys while it rehashes.
        found.update(names)
        if cursor == 0:
            return len(found)
    return None


def _prefix(text: str) -> str:
    # With an empty prefix, `clear` would remove the keys of other programs.
    if not text:
        raise ValueError("at least one character")
    return text


def _escape(prefix: str) -> str:
    return re.sub(r"([*?\[\]\\])", r"\\\1", prefix)


def _is_wrong_type(error: Exception) -> bool:
    # The key holds a list or a hash: this is a miss, and `set` replaces it.
    return "WRONGTYPE" in str(error)


def _describe(error: Exception) -> str:
    return str(error) or type(error).__name__

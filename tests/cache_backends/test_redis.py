"""A Redis server that goes away, hangs, comes back, is full, or holds what is not ours."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from cache_backends import BackendStats, CacheUnavailable, open_backend
from cache_backends.base import Found
from cache_backends.redis import RedisBackend
from tests.cache_backends.conftest import until, value_of
from tests.cache_backends.redis_server import RedisServer
from tests.patience import PATIENCE_SECONDS

# A client left to its own timeouts and retries would take for ever. The rest is for a busy machine.
TIMEOUT_SECONDS = 1.0
SOON_SECONDS = TIMEOUT_SECONDS + 30.0


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[RedisBackend]:
    backend = open_backend(f"{redis_server.url}?timeout={TIMEOUT_SECONDS}")
    assert isinstance(backend, RedisBackend)
    yield backend
    await backend.aclose()


@pytest.fixture
async def patient(redis_server: RedisServer) -> AsyncIterator[RedisBackend]:
    """For what is not about time: the machine may be busy."""
    backend = RedisBackend(redis_server.url, timeout=PATIENCE_SECONDS)
    yield backend
    await backend.aclose()


async def fails_within(call: Coroutine[Any, Any, Any], seconds: float) -> None:
    begun = time.monotonic()
    with pytest.raises(CacheUnavailable):
        await call
    assert time.monotonic() - begun < seconds


def fails_at_once(call: Coroutine[Any, Any, Any]) -> None:
    """In the same turn of the event loop: it costs nothing."""
    with pytest.raises(CacheUnavailable, match="is away"):
        call.send(None)


async def is_back(backend: RedisBackend) -> None:
    async def answers() -> bool:
        try:
            await value_of(backend, "k")
        except CacheUnavailable:
            return False
        return True

    await until(answers, "the cache to be back")


async def test_a_server_that_died_costs_the_first_request_little_and_the_others_nothing(
    redis: RedisBackend, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    await redis.set("k", b"v")
    redis_server.stop()
    await fails_within(value_of(redis, "k"), SOON_SECONDS)
    for call in (value_of(redis, "k"), redis.set("k", b"v"), redis.delete("k"), redis.clear(), redis.stats()):
        fails_at_once(call)
    redis_server.start()
    await is_back(redis)
    await redis.set("k", b"new")
    assert await value_of(redis, "k") == b"new"
    assert (await redis.stats()).errors == 1
    assert [record.message.split("(")[0] for record in caplog.records if record.levelname == "WARNING"] == [
        f"redis://127.0.0.1:{redis_server.port}/0 does not answer "
    ]


async def test_a_server_that_hangs_costs_the_first_request_its_timeout_and_the_others_nothing(
    redis: RedisBackend, redis_server: RedisServer
) -> None:
    await redis.set("k", b"v")
    redis_server.pause()
    await fails_within(value_of(redis, "k"), SOON_SECONDS)
    fails_at_once(value_of(redis, "k"))
    redis_server.resume()
    await is_back(redis)
    assert await value_of(redis, "k") == b"v"


async def test_all_that_wait_when_it_hangs_wait_no_longer_than_one(
    redis: RedisBackend, redis_server: RedisServer
) -> None:
    redis_server.pause()
    calls = (value_of(redis, f"k{index}") for index in range(50))
    await asyncio.gather(*(fails_within(call, SOON_SECONDS) for call in calls))
    redis_server.resume()
    await is_back(redis)
    assert (await redis.stats()).errors > 1


async def test_a_server_that_is_not_there_at_the_start(redis_server: RedisServer) -> None:
    redis_server.stop()
    backend = RedisBackend(redis_server.url)
    await fails_within(value_of(backend, "k"), SOON_SECONDS)
    redis_server.start()
    await is_back(backend)
    await backend.aclose()


@pytest.mark.waits
async def test_a_late_answer_is_not_taken_for_another(
    redis: RedisBackend, patient: RedisBackend, redis_server: RedisServer
) -> None:
    await asyncio.gather(*(patient.set(f"k{index}", f"v{index}".encode()) for index in range(8)))
    for _ in range(3):
        redis_server.pause()
        await asyncio.gather(*(value_of(redis, f"k{index}") for index in range(8)), return_exceptions=True)
        redis_server.resume()
        await is_back(redis)
        found = await asyncio.gather(*(value_of(redis, f"k{index}") for index in range(8)))
        assert found == [f"v{index}".encode() for index in range(8)]


async def test_a_cancelled_lookup_does_not_leave_its_answer_to_the_next(patient: RedisBackend) -> None:
    await asyncio.gather(*(patient.set(f"k{index}", f"v{index}".encode()) for index in range(30)))
    for turns in range(1, 30):
        cancelled = asyncio.create_task(value_of(patient, "k0"))
        for _ in range(turns % 6):
            await asyncio.sleep(0)
        cancelled.cancel()
        assert await value_of(patient, f"k{turns}") == f"v{turns}".encode()


async def test_a_restart_between_requests_is_not_noticed(patient: RedisBackend, redis_server: RedisServer) -> None:
    await patient.set("k", b"v")
    redis_server.stop()
    redis_server.start()
    assert await value_of(patient, "k") is None
    assert (await patient.stats()).errors == 0


async def test_closing_during_an_outage(redis_server: RedisServer) -> None:
    backend = RedisBackend(redis_server.url)
    redis_server.stop()
    await fails_within(value_of(backend, "k"), SOON_SECONDS)
    await backend.aclose()
    await backend.aclose()


async def test_only_what_is_ours_is_counted_and_cleared(patient: RedisBackend, redis_server: RedisServer) -> None:
    others = ["other:k", "anyclaude", "xanyclaude:k"]
    for key in others:
        redis_server.command("SET", key, "theirs")
    await patient.set("k", b"v")
    assert (await patient.stats()).items == 1
    assert [key async for key in patient.list_keys()] == ["k"]
    assert await patient.clear() == 1
    for key in others:
        assert redis_server.command("GET", key) == b"$6\r\ntheirs\r\n"


@pytest.mark.parametrize("prefix", ["a*", "a?", "[ab]", "a\\", "\u00e4:"])
async def test_a_prefix_is_no_pattern(redis_server: RedisServer, prefix: str) -> None:
    backend = RedisBackend(redis_server.url, prefix=prefix, timeout=PATIENCE_SECONDS)
    redis_server.command("SET", "ab:k", "theirs")
    redis_server.command("SET", "a:k", "theirs")
    await backend.set("k", b"v")
    assert (await backend.stats()).items == 1
    assert await backend.clear() == 1
    assert redis_server.command("EXISTS", "ab:k", "a:k") == b":2\r\n"
    await backend.aclose()


async def test_two_prefixes_do_not_meet(redis_server: RedisServer) -> None:
    first = open_backend(f"{redis_server.url}?prefix=one:&timeout=10")
    second = open_backend(f"{redis_server.url}?prefix=two:&timeout=10")
    await first.set("k", b"1")
    assert await value_of(second, "k") is None
    await first.aclose()
    await second.aclose()


async def test_more_keys_than_are_quickly_counted(patient: RedisBackend, redis_server: RedisServer) -> None:
    redis_server.command("EVAL", "for i = 1, 60000 do redis.call('SET', 'theirs' .. i, '') end", "0")
    await patient.set("k", b"v")
    assert (await patient.stats()).items is None
    assert await patient.clear() == 1


async def test_keys_are_cleared_counted_and_listed_in_batches(patient: RedisBackend, redis_server: RedisServer) -> None:
    fill = "for i = 1, 2500 do redis.call('SET', 'anyclaude:' .. i, '') end"
    redis_server.command("EVAL", fill, "0")
    assert (await patient.stats()).items == 2500
    assert sorted([int(key) async for key in patient.list_keys()]) == list(range(1, 2501))
    assert await patient.clear() == 2500
    assert (await patient.stats()) == BackendStats(backend="redis", items=0, errors=0)


@pytest.mark.waits
async def test_counting_listing_and_clearing_may_take_longer_than_a_lookup(redis_server: RedisServer) -> None:
    backend = RedisBackend(redis_server.url, timeout=1.0)
    await backend.set("k", b"v")

    async def keys() -> list[str]:
        return [key async for key in backend.list_keys()]

    redis_server.command("CLIENT", "PAUSE", "1300", "ALL")
    await asyncio.gather(backend.stats(), keys(), backend.clear())
    assert (await backend.stats()).errors == 0
    await backend.aclose()


async def test_a_connection_has_the_limits_of_the_url(redis_server: RedisServer) -> None:
    backend = open_backend(f"{redis_server.url}?timeout=7&max_connections=5")
    assert isinstance(backend, RedisBackend)
    pool = backend._client.connection_pool
    limits = ("socket_timeout", "socket_connect_timeout", "socket_keepalive")
    assert [pool.connection_kwargs[name] for name in limits] == [7, 7, True]
    assert (pool.timeout, pool.max_connections) == (7, 5)
    assert pool.connection_kwargs["retry"].get_retries() == 1
    await backend.aclose()


async def test_the_time_limit_of_the_url_holds_where_a_call_gives_none(redis_server: RedisServer) -> None:
    backend = open_backend(f"{redis_server.url}?ttl=100&timeout=10")
    assert isinstance(backend, RedisBackend)
    await backend.set("k", b"v")
    await backend.set("own", b"v", ttl=5000)
    for key, limit in (("k", 100), ("own", 5000)):
        found = await backend.get(key)
        assert found is not None
        assert limit - 60 < (found.ttl or 0) <= limit
    await backend.aclose()


async def test_a_value_expires_on_the_server(patient: RedisBackend, redis_server: RedisServer) -> None:
    for ttl, least in ((1000, 900_000), (100, 1), (0.0001, -2)):  # the server answers -2 for a key that is gone
        await patient.set("k", b"v", ttl=ttl)
        milliseconds = int(redis_server.command("PTTL", "anyclaude:k").strip(b":\r\n"))
        assert least <= milliseconds <= max(1, ttl * 1000)


async def test_a_key_of_another_program_that_is_no_text_is_listed(
    patient: RedisBackend, redis_server: RedisServer
) -> None:
    redis_server.command("EVAL", "redis.call('SET', 'anyclaude:\\255', '')", "0")
    assert [key async for key in patient.list_keys()] == ["\ufffd"]


async def test_a_value_of_another_program_that_is_too_short_is_a_miss(
    patient: RedisBackend, redis_server: RedisServer
) -> None:
    redis_server.command("SET", "anyclaude:k", "short")
    assert await patient.get("k") is None


async def test_what_is_no_string_is_a_miss_and_is_replaced(patient: RedisBackend, redis_server: RedisServer) -> None:
    redis_server.command("RPUSH", "anyclaude:k", "a list")
    assert await value_of(patient, "k") is None
    assert await patient.get("k") is None
    await patient.set("k", b"v")
    assert await patient.get("k") == Found(b"v", None)


async def test_a_full_server_refuses_writes_and_goes_on_reading(
    patient: RedisBackend, redis_server: RedisServer
) -> None:
    """It answers, so the breaker stays closed."""
    await patient.set("k", b"v")
    redis_server.command("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(CacheUnavailable, match="maxmemory"):
        await patient.set("other", b"v")
    with pytest.raises(CacheUnavailable, match="maxmemory"):
        await patient.set("k", b"new")
    assert await value_of(patient, "k") == b"v"
    assert (await patient.stats()).errors == 2
    redis_server.command("CONFIG", "SET", "maxmemory", "0")
    await patient.set("other", b"v")


async def test_a_wrong_password_is_an_outage_and_is_not_shown(redis_server: RedisServer) -> None:
    redis_server.command("CONFIG", "SET", "requirepass", "right")
    backend = RedisBackend(f"redis://:hidden@127.0.0.1:{redis_server.port}/0")
    with pytest.raises(CacheUnavailable) as refused:
        await value_of(backend, "k")
    assert "hidden" not in str(refused.value)
    assert "hidden" not in repr(backend)
    await backend.aclose()
    right = RedisBackend(f"redis://:right@127.0.0.1:{redis_server.port}/0", timeout=PATIENCE_SECONDS)
    assert await value_of(right, "k") is None
    await right.aclose()
